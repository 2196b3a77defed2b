"""Failures that repeat, told once with their number (AGT-668)."""

from __future__ import annotations

import asyncio

from podid_agent.journal import Journal

__all__ = ["FailureSummary"]


class FailureSummary:
    """Holds back failures that repeat: ten lines a second per message, then a count (AGT-668)."""

    _LINES_PER_SECOND = 10
    # Messages quote what clients send, so their number needs a bound of its own.
    _MAX_MESSAGES = 1000

    def __init__(self, journal: Journal) -> None:
        """Write summaries to ``journal``; needs a running event loop when used."""
        self._journal = journal
        self._counts: dict[str, int] = {}

    def allows(self, message: str) -> bool:
        """Whether a line for this failure may be written now; if not, it is counted."""
        if message not in self._counts and len(self._counts) >= self._MAX_MESSAGES:
            message = "other failures"
        if not self._counts:
            asyncio.get_running_loop().call_later(1, self._end_second)
        count = self._counts[message] = self._counts.get(message, 0) + 1
        return count <= self._LINES_PER_SECOND

    def _end_second(self) -> None:
        counts, self._counts = self._counts, {}
        for message, count in counts.items():
            if count > self._LINES_PER_SECOND:
                fields = {"count": count - self._LINES_PER_SECOND, "error": message}
                self._journal.info("Identical failures summarised", fields)
