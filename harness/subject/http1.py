"""HTTP/1 as bytes on a socket: requests that no client library would send, answers down to their headers."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from harness.errors import SubjectFault

__all__ = ["Headers", "Reply", "has_closed", "next_reply", "read_replies"]


class Headers(dict[str, str]):
    """Headers by their names in lower case; of several with one name, the last. One that is not there is empty."""

    def __missing__(self, name: str) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


def read_replies(sock: socket.socket, *, head_only: bool = False) -> Iterator[Reply]:
    """Read answers until the peer closes; interim ones (1xx) are left out.

    Args:
        sock: A connection with a timeout.
        head_only: Whether the answers have no body, as those to HEAD.

    Raises:
        SubjectFault: What comes is no HTTP, or does not come in time.
    """
    try:
        with sock.makefile("rb") as stream:
            while line := stream.readline(65536):
                reply = _read_reply(line, stream, head_only=head_only)
                if reply.status >= 200:
                    yield reply
    except TimeoutError as error:
        raise SubjectFault(f"no complete answer within {sock.gettimeout():g} s") from error
    except ConnectionResetError:
        return


def next_reply(replies: Iterator[Reply]) -> Reply:
    """Return the next answer.

    Raises:
        SubjectFault: The peer closed instead.
    """
    for reply in replies:
        return reply
    raise SubjectFault("the connection was closed instead of an answer")


def has_closed(sock: socket.socket) -> bool:
    """Tell whether the peer closes, within the timeout of the connection, and says nothing more."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def _read_reply(line: bytes, stream: BinaryIO, *, head_only: bool) -> Reply:
    try:
        version, status = line.split(maxsplit=2)[:2]
        code = int(status)
    except ValueError as error:
        raise SubjectFault(f"no HTTP status line: {line[:200]!r}") from error
    if not version.startswith(b"HTTP/1."):
        raise SubjectFault(f"no HTTP/1 status line: {line[:200]!r}")
    headers = Headers()
    while (line := stream.readline(65536)) not in {b"\r\n", b"\n", b""}:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    bodiless = head_only or code < 200 or code in {204, 304}
    return Reply(code, headers, b"" if bodiless else _read_body(headers, stream))


def _read_body(headers: Mapping[str, str], stream: BinaryIO) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return b"".join(_chunks(stream))
    if "content-length" not in headers:
        return stream.read()
    try:
        length = int(headers["content-length"])
    except ValueError as error:
        raise SubjectFault(f"Content-Length {headers['content-length']!r}") from error
    body = stream.read(length)
    if len(body) < length:
        raise SubjectFault(f"Content-Length {length}, but {len(body)} bytes came")
    return body


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while True:
        line = stream.readline(65536)
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError as error:
            raise SubjectFault(f"no size of a chunk: {line[:200]!r}") from error
        yield stream.read(size)
        stream.readline(65536)
        if size == 0:
            return
