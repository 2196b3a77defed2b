"""An HTTP/1.1 server for small answers on asyncio transports, TLS or plain.

A review is read, answered and measured within one callback of the loop: that, and not a framework's tasks and streams,
is where most of the time of an answer would go (see ``tests/bench/bench_webhook.py``).
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from functools import cache
from http import HTTPStatus
from typing import Any, cast

import httptools
from msgspec import Struct

_MAX_HEAD_BYTES = 64 * 1024
_MAX_WAITING = 16
"""Requests that a client may have sent ahead before it is read no further."""
_READ_TIMEOUT = 30.0
"""Seconds in which a request that has begun must be complete."""
_KEEPALIVE_TIMEOUT = 180.0
"""Longer than the 90 s after which the API server drops an idle connection: a server that closes first can meet a
review on its way."""
_FAREWELL = 1.0
"""How long a server that is to end takes one request more over each connection that is open, and closes it with the
answer: to close one that seems idle can cut off a review that is on its way, whose pod would get nothing."""
_GOODBYE = 1.0
"""How long a closed TLS connection waits for the client's close."""
_LINGER = 2.0
"""How long the rest of a refused request is thrown away before the connection is closed: closing at once would reset
it, and the client might never read the answer."""


class Request(Struct, gc=False):
    """A whole request."""

    method: str = ""
    path: str = ""
    """Without the query."""
    content_type: str | None = None
    body: bytes = b""
    keep_alive: bool = True
    refusal: int = 0
    """Status with which to refuse it unread; 0 for a good one."""


class Response(Struct, frozen=True, gc=False):
    """An answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


Handler = Callable[[Request], Response | Coroutine[Any, Any, Response]]
"""Answers a request: at once, or later if it must wait. It does not raise."""


class HttpServer:
    """One handler on one listening socket."""

    def __init__(self, handler: Handler, max_body_bytes: int) -> None:
        """Prepare; `start` serves.

        Args:
            handler: Answers every request; one with a ``refusal`` has been read in part only.
            max_body_bytes: Larger bodies are refused with 413.
        """
        self.handler = handler
        self.max_body_bytes = max_body_bytes
        self.draining = False
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._empty = asyncio.Event()

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve a socket that listens; it belongs to the server from now on."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self),
            sock=sock,
            ssl=tls,
            # A client that is told of the end need not answer: an idle one would hold up the shutdown.
            ssl_shutdown_timeout=_GOODBYE if tls else None,
        )

    async def close(self, grace: float) -> None:
        """Accept no more, let what is open end with an answer, close what is idle then, and cut the rest.

        Args:
            grace: Seconds for all of it.
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        try:
            async with asyncio.timeout(grace):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FAREWELL):
                        await self._all_left()
                for connection in list(self._connections):
                    connection.close_if_idle()
                await self._all_left()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()

    async def _all_left(self) -> None:
        while self._connections:
            self._empty.clear()
            await self._empty.wait()

    def entered(self, connection: "_Connection") -> None:
        """Take note of a new connection."""
        self._connections.add(connection)

    def left(self, connection: "_Connection") -> None:
        """Take note of the end of a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()


class _Connection(asyncio.Protocol):
    """One client. Requests are answered one after the other, also those that were sent ahead."""

    _transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._requests: deque[Request] = deque()
        """Read, and not answered yet."""
        self._answering: asyncio.Task[None] | None = None
        self._writable = True
        """Whether the client takes its answers; else they are not made."""
        self._ended = False
        """Whether nothing that comes is looked at any more."""
        self._deadline = self._loop.time() + _READ_TIMEOUT
        self._timer: asyncio.TimerHandle | None = None
        self._begin_reading()

    def _begin_reading(self) -> None:
        self._request = Request()
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._in_head = True
        self._reading = False

    # --- The transport ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.entered(self)
        self._check_deadline()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400)
        except httptools.HttpParserError:
            # Also what the parser's callbacks raise comes as this: they raise to stop it after a refusal.
            self._refuse(400)
        if self._ended:
            return
        if self._in_head and self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(431)
            return
        self._answer_next()

    def pause_writing(self) -> None:
        self._writable = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable = True
        self._answer_next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._server.left(self)

    def _check_deadline(self) -> None:
        # Looked at now and then: to move a timer with every request would cost more.
        now = self._loop.time()
        if now >= self._deadline and self._answering is None:
            self.abort()
            return
        self._timer = self._loop.call_at(max(self._deadline, now + 1), self._check_deadline)

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered; then its answer is the last."""
        if not self._reading and not self._requests and self._answering is None:
            self._ended = True
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        self._ended = True
        if self._answering is not None:
            self._answering.cancel()
        self._transport.abort()

    # --- The parser -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._reading = True
        self._deadline = self._loop.time() + _READ_TIMEOUT

    def on_url(self, url: bytes) -> None:
        self._request.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self._request.content_type = value.decode("latin-1")
            case b"content-length" if len(value) > 15 or int(value) > self._server.max_body_bytes:
                self._request.refusal = 413
            case b"expect" if value.lower() == b"100-continue" and not self._request.refusal:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            case _:
                pass

    def on_headers_complete(self) -> None:
        self._in_head = False
        request = self._request
        request.method = self._parser.get_method().decode()
        request.path = request.path.partition("?")[0]
        request.keep_alive = self._parser.should_keep_alive()
        if request.refusal:
            self._refuse(request.refusal)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._server.max_body_bytes:
            self._refuse(413)
        elif not self._ended:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._ended:
            return
        self._request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._requests.append(self._request)
        if len(self._requests) > _MAX_WAITING:
            self._transport.pause_reading()
        self._begin_reading()

    # --- Answers ----------------------------------------------------------------------------------------------------

    def _answer_next(self) -> None:
        while self._requests and self._answering is None and self._writable and not self._transport.is_closing():
            request = self._requests.popleft()
            answer = self._server.handler(request)
            if isinstance(answer, Response):
                self._write(request, answer)
            else:
                self._answering = self._loop.create_task(self._answer_later(request, answer))
        takes_more = not self._requests and self._writable and not self._transport.is_closing()
        if takes_more and not self._transport.is_reading():
            self._transport.resume_reading()

    async def _answer_later(self, request: Request, answer: Coroutine[Any, Any, Response]) -> None:
        response = await answer
        self._answering = None
        if not self._transport.is_closing():
            self._write(request, response)
            self._answer_next()

    def _write(self, request: Request, response: Response) -> None:
        last = not request.keep_alive or (self._server.draining and not self._requests)
        self._deadline = self._loop.time() + _KEEPALIVE_TIMEOUT
        self._transport.write(_encode(request, response, last=last))
        if last:
            self._ended = True
            self._transport.close()

    def _refuse(self, status: int) -> None:
        """Answer a request that is not read to its end; what follows is thrown away."""
        if self._ended:
            return
        self._ended = True
        request = self._request
        request.refusal = status
        answer = self._server.handler(request)
        response = answer if isinstance(answer, Response) else Response(status)
        self._transport.write(_encode(request, response, last=True))
        self._deadline = self._loop.time() + _LINGER
        self._loop.call_later(_LINGER, self._transport.close)


_REASONS = {status.value: status.phrase for status in HTTPStatus}


def _encode(request: Request, response: Response, *, last: bool) -> bytes:
    head = _head(response.status, response.content_type)
    end = b"Connection: close\r\n\r\n" if last else b"\r\n"
    body = b"" if request.method == "HEAD" else response.body
    return b"%bContent-Length: %d\r\n%b%b" % (head, len(response.body), end, body)


@cache
def _head(status: int, content_type: str) -> bytes:
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n".encode()
