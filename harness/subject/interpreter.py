"""The interpreter of a subject in Python, from outside: its clocks can be moved, its functions broken, its memory read.

For requirements that nothing else shows: hours that pass in seconds, what is *not* kept, and what becomes of a defect.
The other end is ``hook/sitecustomize.py``, which Python itself loads into the subject's process; nothing of the subject
is imported.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import SubjectFault

__all__ = ["Interpreter"]

_HOOK = Path(__file__).parent / "hook"
_TIMEOUT = 30.0


class Interpreter:
    """What is put into one subject: start it with :attr:`environment`."""

    def __init__(self, directory: Path, *, counts_calls: bool = False) -> None:
        """Meet in a directory that only this subject has.

        Args:
            directory: For a socket; its path must be short.
            counts_calls: Whether calls of functions are counted, which makes the subject slow.
        """
        self._socket = directory / "hook"
        self._counts_calls = counts_calls
        self._ahead = 0.0

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables for the subject."""
        counts = {"PODID_HOOK_COUNTS": "1"} if self._counts_calls else {}
        return {"PYTHONPATH": str(_HOOK), "PODID_HOOK": str(self._socket), **counts}

    @property
    def is_there(self) -> bool:
        """Whether a subject has loaded it; one that is not in Python never does."""
        return self._socket.exists()

    def now(self) -> float:
        """Return the time on the subject's wall clock, in seconds since the epoch."""
        return time.time() + self._ahead

    def pass_(self, seconds: float) -> None:
        """Let time pass on both clocks of the subject."""
        self._ahead += seconds
        self._ask("advance", seconds, seconds)

    def step_wall_clock(self, seconds: float) -> None:
        """Set the wall clock forth, or back."""
        self._ahead += seconds
        self._ask("advance", seconds, 0.0)

    def find(self, pattern: str) -> list[str]:
        """Return all texts of a form that anything in the process refers to."""
        return self._ask("find", pattern)

    def blocks(self) -> int:
        """Return how many pieces of memory are in use, after garbage was collected."""
        return self._ask("blocks")

    def calls(self, names: Sequence[str]) -> dict[str, int]:
        """Return how often functions were called, by module and qualified name."""
        return self._ask("called", list(names))

    @contextmanager
    def broken(self, module: str, name: str, text: str) -> Generator[None]:
        """Have a function raise meanwhile, as a defect in it would.

        Args:
            module: The module that calls it.
            name: What that module calls it.
            text: The error's.
        """
        self._ask("break", module, name, text)
        try:
            yield
        finally:
            self._ask("mend", module, name)

    def _ask(self, command: str, *arguments: object) -> Any:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT)
            try:
                sock.connect(str(self._socket))
                with sock.makefile("rw") as stream:
                    stream.write(json.dumps([command, arguments]) + "\n")
                    stream.flush()
                    return json.loads(stream.read())
            except (OSError, ValueError) as error:
                raise SubjectFault(f"the subject's interpreter does not answer: {error}") from error
