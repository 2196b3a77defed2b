"""The log: one line a record, written once for all that one turn of the loop has to say.

A write to the container's log is a system call, as expensive as half a review; under load eight reviews share one.
"""

import asyncio
import logging
import sys
import time
from typing import TextIO


def configure_logging(level: int) -> None:
    """Log to stderr."""
    handler = _TurnHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    # Nothing of it is printed; to find it out for every record takes time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class _Formatter(logging.Formatter):
    """UTC with milliseconds; the text of a second is made once."""

    _second = -1
    _text = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """Return the time of a record."""
        second = int(record.created)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
        return f"{self._text},{int(record.msecs):03d}"


class _TurnHandler(logging.Handler):
    """Writes at the end of the loop's turn, or at once where no loop runs."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler of logging
            self.handleError(record)
            return
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
        if lines:
            self._stream.write("\n".join([*lines, ""]))
            self._stream.flush()
