"""Heads of HTTP/1 requests, judged as Go's net/http judges them (section 2.1).

No parser library: llhttp, and with it httptools, refuses methods it does not know (AGT-201), and leaves two Host
headers, a missing Host and a bad one to be found by its user (AGT-211).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes

__all__ = ["BadRequestError", "Request", "parse_head"]

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_URL_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f]")
_BAD_ESCAPE = re.compile(rb"%(?![0-9a-fA-F]{2})")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:(?://(?P<authority>[^/?]*))?(?P<path>[^?]*)")
_HOST = re.compile(rb"[0-9A-Za-z!$%&()*+,\-.:;=\[\]'_~]*")


class BadRequestError(Exception):
    """A request that is answered with an error before any routing."""

    def __init__(self, reason: str, status: int = 400) -> None:
        """Answer with ``status``; ``reason`` follows its phrase in the body."""
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """The head of a request."""

    method: bytes
    path: str
    """Decoded, without the query."""

    host: str
    """From an absolute URI, else from the Host header; may be empty (AGT-210)."""

    authorization: bytes
    """The first Authorization header without surrounding blanks; empty if there is none (AGT-221)."""

    keep_alive: bool
    http10: bool
    expects_continue: bool
    body: int | Literal["chunked"]
    """Bytes of the body that follows, or how it is framed."""


def parse_head(head: bytes) -> Request:
    """Parse a request line and headers, without the blank line that ends them.

    Raises:
        BadRequestError: Go's server would refuse it.
    """
    lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    method, target, minor = _request_line(lines[0])
    headers = _headers(lines[1:])

    hosts = headers.get(b"host", [])
    if len(hosts) > 1:
        raise BadRequestError("too many Host headers")
    if not hosts and minor >= 1:
        raise BadRequestError("missing required Host header")
    host = hosts[0] if hosts else b""
    if not _HOST.fullmatch(host):
        raise BadRequestError("malformed Host header")
    authority, path = _target(method, target)

    connection = b",".join(headers.get(b"connection", [])).lower()
    options = {option.strip() for option in connection.split(b",")}
    return Request(
        method=method,
        path=unquote_to_bytes(path).decode("utf-8", "replace"),
        host=(authority or host).decode("latin-1"),
        authorization=headers.get(b"authorization", [b""])[0],
        keep_alive=b"close" not in options and (minor >= 1 or b"keep-alive" in options),
        http10=minor == 0,
        expects_continue=minor >= 1 and any(v.lower() == b"100-continue" for v in headers.get(b"expect", [])),
        body=_body_framing(headers),
    )


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    parts = line.split(b" ", 2)
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]):
        raise BadRequestError("malformed request line")
    method, target, protocol = parts
    version = _VERSION.fullmatch(protocol)
    if version is None:
        raise BadRequestError("malformed HTTP version")
    if version[1] != b"1":
        # The preface of HTTP/2 is a bad request rather than an unknown version (AGT-209).
        raise BadRequestError("unsupported protocol version", 400 if method == b"PRI" else 505)
    return method, target, int(version[2])


def _headers(lines: list[bytes]) -> dict[bytes, list[bytes]]:
    headers: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise BadRequestError("malformed header")
        headers.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return headers


def _target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Return the authority of the target, often empty, and its encoded path."""
    if not target or _URL_FORBIDDEN.search(target):
        raise BadRequestError("malformed request target")
    if target.startswith(b"/"):
        authority, path = b"", target.partition(b"?")[0]
    elif target == b"*":
        authority, path = b"", target
    elif method == b"CONNECT":
        authority, path = target, b""
    else:
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise BadRequestError("malformed request target")
        authority, path = (absolute["authority"] or b"").rpartition(b"@")[2], absolute["path"]
    if _BAD_ESCAPE.search(path) or not _HOST.fullmatch(authority):
        raise BadRequestError("malformed request target")
    return authority, path


def _body_framing(headers: dict[bytes, list[bytes]]) -> int | Literal["chunked"]:
    encodings = headers.get(b"transfer-encoding", [])
    if encodings:
        if len(encodings) > 1 or encodings[0].lower() != b"chunked":
            raise BadRequestError("unsupported transfer encoding", 501)
        return "chunked"
    lengths = set(headers.get(b"content-length", []))
    if not lengths:
        return 0
    length = lengths.pop()
    # No sane body has more digits, and int() of a megabyte of them takes minutes.
    if lengths or not length.isdigit() or len(length) > 18:
        raise BadRequestError("bad Content-Length")
    return int(length)
