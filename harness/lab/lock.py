"""One command at a time may change a lab; many may use it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import IO

from harness.errors import MissingPrerequisite, UsageError
from harness.lab.paths import LabPaths

__all__ = ["exclusive", "is_left_over", "shared"]


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
    with _open(path, lab) as file:
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


@contextlib.contextmanager
def shared(path: Path, lab: str) -> Generator[None]:
    """Hold a lock that others may hold too; the kernel releases it with the process.

    Args:
        path: The lock file; stays behind.
        lab: Name of the lab, for the error.

    Raises:
        MissingPrerequisite: The place of labs belongs to another user.
    """
    with _open(path, lab) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_left_over(paths: LabPaths) -> bool:
    """Whether a run left a lab that was killed: nobody wants it to stay, and no run uses it (HRN-CLN-08)."""
    return paths.directory.exists() and not paths.kept.exists() and not _is_shared(paths.use)


def _is_shared(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _open(path: Path, lab: str) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except PermissionError as error:
        raise MissingPrerequisite(
            f"lab {lab!r} cannot be locked: {error}",
            hint=f"a native lab of root's was here: sudo chown -R $(id -un) {path.parent}, or set PODID_STATE_DIR",
        ) from None
