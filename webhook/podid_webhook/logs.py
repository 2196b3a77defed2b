"""The log: one line a record, written once for all that one turn of the loop has to say.

A write to the container's log is a system call, as expensive as half a review; under load eight reviews share one.
"""

import asyncio
import contextlib
import logging
import sys
import time
from functools import lru_cache
from typing import TextIO


def configure_logging(level: int) -> None:
    """Log to stderr."""
    handler = _TurnHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def log_decision(logger: logging.Logger, text: str) -> None:
    """Log a review's line as ``logger.info`` does, without a record: that alone would be a fifth of an answer."""
    handler = logging.root.handlers[0] if logging.root.handlers else None
    if isinstance(handler, _TurnHandler) and logger.isEnabledFor(logging.INFO):
        handler.add(f"{_timestamp(time.time())} INFO {logger.name}: {text}")
    else:
        logger.info("%s", text)


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """Return the time of a record."""
        return _timestamp(record.created)


def _timestamp(at: float) -> str:
    """Return an instant in UTC, with milliseconds."""
    second = int(at)
    return f"{_second_text(second)},{int((at - second) * 1000):03d}"


@lru_cache(maxsize=1)
def _second_text(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))


class _TurnHandler(logging.Handler):
    """Writes at the end of the loop's turn, or at once where no loop runs."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler of logging
            self.handleError(record)
            return
        self.add(line)

    def add(self, line: str) -> None:
        """Take a whole line."""
        self._lines.append(line)
        if len(self._lines) > 1:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what has been logged; also called when the process ends."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        # Where nobody reads the log there is nobody to tell, and reviews go on.
        with contextlib.suppress(OSError):
            self._stream.write("\n".join([*lines, ""]))
            self._stream.flush()
