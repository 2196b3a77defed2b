"""One command at a time may change a lab."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Generator
from pathlib import Path

from harness.errors import MissingPrerequisite, UsageError

__all__ = ["exclusive"]


@contextlib.contextmanager
def exclusive(path: Path, lab: str) -> Generator[None]:
    """Hold the lab's lock; the kernel releases it with the process, so it is never stale.

    Args:
        path: The lock file; stays behind, empty of meaning, when nobody holds it.
        lab: Name of the lab, for the error.

    Raises:
        UsageError: Another command holds it; the text names it.
        MissingPrerequisite: The place of labs belongs to another user.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+")
    except PermissionError as error:
        raise MissingPrerequisite(
            f"lab {lab!r} cannot be locked: {error}",
            hint=f"a native lab of root's was here: sudo chown -R $(id -un) {path.parent}, or set PODID_STATE_DIR",
        ) from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"lab {lab!r} is being changed by another command: {file.read().strip() or 'unknown'}",
                hint="wait for it to end, or use another lab: set PODID_LAB",
            ) from None
        file.truncate(0)
        file.write(f"PID {os.getpid()}: {' '.join(sys.argv)}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
