"""Answers, and their form on the wire."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from podid_agent.http1_request import Request

__all__ = ["NOT_FOUND", "Response", "encode_response", "text_error"]

_MAX_ERROR_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that is complete in memory."""

    status: int
    body: bytes = b""
    content_type: str = ""
    """Empty leaves the header out."""

    nosniff: bool = False


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
    lines = [_status_line(response.status), "Date: " + _http_date(int(time.time()))]
    if response.content_type:
        lines.append("Content-Type: " + response.content_type)
    if response.nosniff:
        lines.append("X-Content-Type-Options: nosniff")
    lines.append(f"Content-Length: {len(response.body)}")
    if close:
        lines.append("Connection: close")
    elif request is not None and request.http10:
        lines.append("Connection: keep-alive")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head if request is not None and request.method == b"HEAD" else head + response.body


@lru_cache(maxsize=256)
def _status_line(status: int) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = f"status code {status}"
    return f"HTTP/1.1 {status} {phrase}"


@lru_cache(maxsize=1)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)
