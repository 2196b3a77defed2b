"""JSON log lines on stdout (section 6.3)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import TextIO

__all__ = ["LEVELS", "Journal", "encode_members", "encode_text", "format_go_log_line"]

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


def format_go_log_line(text: str) -> str:
    """Return a line as Go's standard logger writes it: local date, time, text (AGT-112)."""
    return f"{time.strftime('%Y/%m/%d %H:%M:%S')} {text}"
