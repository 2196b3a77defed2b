"""Time as a subject had it: without what a busy machine kept it waiting for a processor."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["Stopwatch"]


class Stopwatch:
    """Measures from its making on, for limits that a subject must keep, not the machine.

    A process that runs, sleeps or waits for others spends its own time; one that could run and stands in the kernel's
    queue does not. On an idle machine nobody stands there, so that limits stay what they are.
    """

    def __init__(self, *pids: int) -> None:
        """Start for a subject with these processes; this process, which asks it, may have to wait as well."""
        self._pids = (*pids, os.getpid())
        self._started_at = time.monotonic()
        self._queued_before = self._queued()

    @property
    def elapsed(self) -> float:
        """Seconds on the wall."""
        return time.monotonic() - self._started_at

    @property
    def kept_waiting(self) -> float:
        """Seconds in which the machine had no processor for it; never more than most of what has passed."""
        waited = sum(max(0.0, now - before) for before, now in zip(self._queued_before, self._queued(), strict=True))
        return min(waited, 0.8 * self.elapsed)

    @property
    def seconds(self) -> float:
        """Seconds that are the subject's."""
        return self.elapsed - self.kept_waiting

    def _queued(self) -> list[float]:
        return [_seconds_in_queue(pid) for pid in self._pids]


def _seconds_in_queue(pid: int) -> float:
    """Return how long a process's threads have stood in the queue; zero where the kernel does not tell."""
    nanoseconds = 0
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            # Running, waiting for a processor, number of turns.
            with suppress(OSError, IndexError, ValueError):
                nanoseconds += int((task / "schedstat").read_text().split()[1])
    return nanoseconds / 1e9
