"""What is collected at the moment a test fails, before its fixtures are torn down.

Fixtures register collectors for what they brought up, so whatever is alive at a failure is looked into::

    diagnostics.register(KubeCollector(kube))

A collector writes files through a :class:`Folder`, which removes secrets and keeps sizes within bounds. Collecting
never raises into the test and never hangs it: what breaks or overruns becomes a fault in the run's record.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from harness.conformance.redaction import Redactor

__all__ = ["Collector", "Depth", "Diagnostics", "EventCollector", "Folder"]

_FILE_BYTES = 1 << 20
_FAILURE_BYTES = 25 << 20
_RUN_BYTES = 200 << 20
_COLLECTOR_SECONDS = 20.0
_HEAD_BYTES = 64 << 10
_FAILURE_SECONDS = 60.0
_MOST_TELLING = 10
_LONGEST_LINE = 300


Depth = Literal["all", "events", "text"]


class Folder:
    """Where one failure's diagnostics go."""

    def __init__(self, directory: Path, redactor: Redactor, limit_bytes: int = _FAILURE_BYTES) -> None:
        """Make the directory.

        Args:
            directory: Its path.
            redactor: Takes secrets out of all that is written.
            limit_bytes: Most that may be written.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._redactor = redactor
        self._limit = limit_bytes
        self.written = 0
        self.telling: list[str] = []
        """Lines that a person should see at once, most telling first."""

    def tell(self, line: str) -> None:
        """Keep a line for the screen: the last error, the last refusal."""
        self.telling.append(self._redactor.text(" ".join(line.split()))[:_LONGEST_LINE])

    def text(self, name: str, text: str) -> None:
        """Write a text file.

        Args:
            name: Relative path, such as ``logs/kube-system/agent.log``.
            text: Its content; the middle is cut out when it is long, with a note.
        """
        content = _cut(self._redactor.text(text).encode(), _FILE_BYTES)
        if self.written + len(content) > self._limit:
            content = f"left out: the diagnostics of this failure have reached {self._limit} bytes\n".encode()
        file = self._directory / name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_bytes(content)
        self.written += len(content)

    def data(self, name: str, value: Any) -> None:
        """Write data as JSON."""
        self.text(name, json.dumps(self._redactor.data(value), indent=1, default=str, ensure_ascii=False) + "\n")


def _cut(content: bytes, limit: int) -> bytes:
    """Keep the beginning and the end of something long."""
    if len(content) <= limit:
        return content
    note = f"\n… {len(content) - limit} bytes left out …\n".encode()
    return content[:_HEAD_BYTES] + note + content[-(limit - _HEAD_BYTES) :]


class Collector(Protocol):
    """Looks into something that is alive."""

    name: str
    """A word or two, for faults."""

    def collect(self, folder: Folder, since: datetime) -> None:
        """Write what it sees.

        Args:
            folder: Where to.
            since: When the failing test started.
        """
        ...


@runtime_checkable
class EventCollector(Protocol):
    """A collector that can also tell what happened apart from everything else."""

    def collect_events(self, folder: Folder) -> None:
        """Write what happened lately."""
        ...


class Diagnostics:
    """The registered collectors, and what they did so far."""

    def __init__(self, redactor: Redactor, seconds: float = _COLLECTOR_SECONDS) -> None:
        """Begin without collectors.

        Args:
            redactor: Takes secrets out of all that is written.
            seconds: Most that one collector may take at one failure.
        """
        self._collectors: list[Collector] = []
        self._redactor = redactor
        self._seconds = seconds
        self._written = 0
        self.faults: list[str] = []
        self.telling: list[str] = []
        """What the last collection found most telling."""

    def register(self, collector: Collector) -> None:
        """Ask a collector at every failure from now on."""
        self._collectors.append(collector)

    def unregister(self, collector: Collector) -> None:
        """Ask a collector no more: what it looks into goes away."""
        self._collectors.remove(collector)

    def collect(self, directory: Path, since: datetime, what: str = "", depth: Depth = "all") -> bool:
        """Collect what is alive.

        Args:
            directory: Where to; made when there is something to write.
            since: When the failing test started.
            what: What failed, in words.
            depth: What is of interest: ``all``, only what happened (``events``), or only ``what`` (``text``).

        Returns:
            Whether anything was written.
        """
        self.telling = []
        if not self._collectors or self._written >= _RUN_BYTES:
            return False
        folder = Folder(directory, self._redactor, min(_FAILURE_BYTES, _RUN_BYTES - self._written))
        if what:
            folder.text("what.md", what)
        until = time.monotonic() + _FAILURE_SECONDS
        for collector in tuple(self._collectors) if depth != "text" else ():
            left = until - time.monotonic()
            if depth == "all":
                self._run(collector.name, partial(collector.collect, folder, since), left)
            elif isinstance(collector, EventCollector):
                self._run(collector.name, partial(collector.collect_events, folder), left)
        self.telling = folder.telling[:_MOST_TELLING]
        self._written += folder.written
        return folder.written > 0

    def _run(self, name: str, collect: Callable[[], None], left: float) -> None:
        errors: list[str] = []
        seconds = min(self._seconds, left)
        if seconds <= 0:
            self.faults.append(f"{name}: not asked, the {_FAILURE_SECONDS:.0f} s of this failure were over")
            return

        def work() -> None:
            try:
                collect()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not hide the test's own failure
                errors.append(f"{name}: {type(error).__name__}: {error}")

        # A daemon thread: one that hangs in a dead connection is left behind, and the run goes on.
        thread = threading.Thread(target=work, name=f"diagnostics-{name}", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            errors.append(f"{name}: cut off after {seconds:.0f} s")
        self.faults += [self._redactor.text(error) for error in errors]
