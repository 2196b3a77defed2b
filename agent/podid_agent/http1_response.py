"""Answers, and their form on the wire."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from podid_agent.http1_request import Request

__all__ = ["NOT_FOUND", "Response", "encode_response", "text_error"]

_MAX_ERROR_BYTES = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """An answer that is complete in memory."""

    status: int
    body: bytes = b""
    content_type: str = ""
    """Empty leaves the header out."""

    nosniff: bool = False
    end: bytes = field(init=False, repr=False)
    """The headers that follow from the fields above, and the body: a cached answer is encoded once (AGT-1106)."""

    def __post_init__(self) -> None:
        lines = [f"Content-Type: {self.content_type}\r\n"] if self.content_type else []
        if self.nosniff:
            lines.append("X-Content-Type-Options: nosniff\r\n")
        head = f"{''.join(lines)}Content-Length: {len(self.body)}\r\n\r\n"
        object.__setattr__(self, "end", head.encode() + self.body)


def text_error(status: int, message: str) -> Response:
    """Return an error in the form of Go's ``http.Error``: the message and one newline (AGT-240).

    Longer messages are cut, since they quote what clients and upstream sent (AGT-249).
    """
    text = message.encode("utf-8", "replace")[: _MAX_ERROR_BYTES - 1].decode("utf-8", "ignore")
    return Response(status, text.encode() + b"\n", "text/plain; charset=utf-8", nosniff=True)


NOT_FOUND = text_error(404, "404 page not found")


def encode_response(response: Response, request: Request | None, *, close: bool) -> bytes:
    """Return the bytes of a response.

    Args:
        response: What to say.
        request: What was asked; None if that could not be understood.
        close: Whether the connection ends with this answer.
    """
    start = _start(response.status, int(time.time()))
    if close:
        start += b"Connection: close\r\n"
    elif request is not None and request.http10:
        start += b"Connection: keep-alive\r\n"
    if request is not None and request.method == b"HEAD":
        return start + response.end[: len(response.end) - len(response.body)]
    return start + response.end


@lru_cache(maxsize=16)
def _start(status: int, second: int) -> bytes:
    """Return the status line and the date."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = f"status code {status}"
    return f"HTTP/1.1 {status} {phrase}\r\nDate: {formatdate(second, usegmt=True)}\r\n".encode()
