"""What libraries and the interpreter have to say, as log lines (AGT-669)."""

from __future__ import annotations

import logging

from podid_agent.journal import Journal

__all__ = ["forward_library_logs"]


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
