"""JSON log lines on stdout (section 6.3)."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import TextIO

__all__ = [
    "LEVELS",
    "FailureSummary",
    "Journal",
    "encode_members",
    "encode_text",
    "format_go_log_line",
    "forward_library_logs",
]

LEVELS = {"panic": 0, "fatal": 1, "error": 2, "warning": 3, "warn": 3, "info": 4, "debug": 5, "trace": 6}

Fields = Mapping[str, object]

encode_text = encode_basestring_ascii
"""Returns a text as JSON, quotes included."""


def encode_members(fields: Fields) -> str:
    """Return fields as members of a JSON object, for :meth:`Journal.write`; empty for none."""
    return json.dumps(fields, default=str)[1:-1]


class Journal:
    """Writes one JSON object per line; text from outside is escaped by JSON and so cannot break a line (AGT-662)."""

    def __init__(self, level: str = "info", stream: TextIO | None = None) -> None:
        """Log messages of ``level`` (any case) and graver ones; ``stream`` is stdout unless given."""
        self._threshold = LEVELS[level.lower()]
        self._stream = stream or sys.stdout
        self._second = 0
        self._now = ""

    def is_enabled(self, level: str) -> bool:
        """Whether a message of this level would be written."""
        return LEVELS[level] <= self._threshold

    def log(self, level: str, message: str, fields: Fields = {}) -> None:  # noqa: B006 - a Mapping is never changed
        """Write one line, unless the level is below the threshold."""
        if LEVELS[level] <= self._threshold:
            self.write(level, message, encode_members(fields))

    def write(self, level: str, message: str, members: str) -> None:
        """Write one line whose fields are JSON already, whatever the threshold: one line a request must cost little."""
        second = int(time.time())
        if second != self._second:
            self._second, self._now = second, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
        comma = ", " if members else ""
        end = f'"level": "{level}", "msg": {encode_text(message)}, "time": "{self._now}"}}\n'
        self._stream.write(f"{{{members}{comma}{end}")
        self._stream.flush()

    def fatal(self, message: str, fields: Fields = {}) -> None:  # noqa: B006 - as in log
        """Say why the process is about to end."""
        self.log("fatal", message, fields)

    def error(self, message: str, fields: Fields = {}) -> None:  # noqa: B006 - as in log
        """Say that something failed for good."""
        self.log("error", message, fields)

    def warning(self, message: str, fields: Fields = {}) -> None:  # noqa: B006 - as in log
        """Say that something odd was survived."""
        self.log("warning", message, fields)

    def info(self, message: str, fields: Fields = {}) -> None:  # noqa: B006 - as in log
        """Tell an operator what is done."""
        self.log("info", message, fields)

    def debug(self, message: str, fields: Fields = {}) -> None:  # noqa: B006 - as in log
        """Tell a developer what is done."""
        self.log("debug", message, fields)

    def trace(self, message: str, fields: Fields = {}) -> None:  # noqa: B006 - as in log
        """Tell a developer everything."""
        self.log("trace", message, fields)


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


class _Forwarder(logging.Handler):
    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning" if record.levelno < logging.ERROR else "error"
        fields: dict[str, object] = {"library": record.name}
        if record.exc_info and record.exc_info[1]:
            fields["error"] = repr(record.exc_info[1])
        self._journal.log(level, record.getMessage(), fields)


def forward_library_logs(journal: Journal) -> None:
    """Turn what libraries and the interpreter would write to stderr into log lines (AGT-669).

    Only warnings and errors: below that, libraries log credentials.
    """
    root = logging.getLogger()
    root.handlers = [_Forwarder(journal)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)


def format_go_log_line(text: str) -> str:
    """Return a line as Go's standard logger writes it: local date, time, text (AGT-112)."""
    return f"{time.strftime('%Y/%m/%d %H:%M:%S')} {text}"
