"""Request bodies, which nobody here wants: they are read past and forgotten (AGT-203)."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Literal

from podid_agent.http1_request import BadRequestError

__all__ = ["BodySkipper"]

_MAX_LINE_BYTES = 8192
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)


class _Expecting(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    NOTHING = auto()


class BodySkipper:
    """Removes one body from the front of what arrives."""

    def __init__(self, framing: int | Literal["chunked"]) -> None:
        """Take the framing that the head announced."""
        self._chunked = framing == "chunked"
        self._remaining = framing if isinstance(framing, int) else 0
        self._expecting = _Expecting.SIZE if self._chunked else _Expecting.DATA

    def skip(self, data: bytearray) -> bool:
        """Remove what belongs to the body; True when the body is complete.

        Raises:
            BadRequestError: The chunks are malformed.
        """
        while self._expecting is not _Expecting.NOTHING:
            if self._expecting is _Expecting.DATA:
                if not self._skip_data(data):
                    return False
                continue
            line = _take_line(data)
            if line is None:
                return False
            self._expecting = self._after_line(line)
        return True

    def _skip_data(self, data: bytearray) -> bool:
        present = min(self._remaining, len(data))
        del data[:present]
        self._remaining -= present
        if self._remaining:
            return False
        self._expecting = _Expecting.DATA_END if self._chunked else _Expecting.NOTHING
        return True

    def _after_line(self, line: bytes) -> _Expecting:
        if self._expecting is _Expecting.TRAILER:
            return _Expecting.TRAILER if line else _Expecting.NOTHING
        if self._expecting is _Expecting.DATA_END:
            if line:
                raise BadRequestError("malformed chunked encoding")
            return _Expecting.SIZE
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise BadRequestError("malformed chunked encoding")
        self._remaining = int(size[1], 16)
        return _Expecting.DATA if self._remaining else _Expecting.TRAILER


def _take_line(data: bytearray) -> bytes | None:
    end = data.find(b"\n", 0, _MAX_LINE_BYTES)
    if end < 0:
        if len(data) >= _MAX_LINE_BYTES:
            raise BadRequestError("malformed chunked encoding")
        return None
    line = bytes(data[:end]).removesuffix(b"\r")
    del data[: end + 1]
    return line
