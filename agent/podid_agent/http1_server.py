"""An HTTP/1 server for small answers on asyncio transports (section 2.1)."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Container, Coroutine
from typing import Any, cast

from podid_agent.http1_body import BodySkipper
from podid_agent.http1_request import BadRequestError, Request, parse_head
from podid_agent.http1_response import Response, encode_response, text_error
from podid_agent.journal import Journal
from podid_agent.listeners import format_address

__all__ = ["HTTPServer", "Handler", "Peer"]

_MAX_HEAD_BYTES = (1 << 20) + 4096
_MAX_WAITING_BYTES = 64 * 1024
_TIMEOUT = 30.0
# For who has connected and not asked yet when the server is told to stop; Go's is as long.
_LAST_REQUEST_TIMEOUT = 5.0
_MAX_REMEMBERED_BYTES = 8 * 1024
# Closing over unread bytes resets the connection, and the client may never see the answer.
_LINGER = 0.5
_HEAD_END = re.compile(rb"\n\r?\n")

_INTERNAL_ERROR = text_error(500, "Internal Server Error")

Peer = tuple[str, int]
"""Address and port of a client."""

Handler = Callable[[Request, str], Response | Coroutine[Any, Any, Response]]
"""Answers a request of the client ``ip:port``: at once, or later if it must wait."""


class HTTPServer:
    """Serves one listening socket with one handler."""

    def __init__(
        self,
        handler: Handler,
        journal: Journal,
        max_connections: int = 4096,
        always_admitted: Container[Peer] = frozenset[Peer](),
    ) -> None:
        """Take the handler; connections over ``max_connections`` are refused, but for some peers (AGT-216)."""
        self.handler = handler
        self.journal = journal
        self.draining = False
        self._connections: set[_Connection] = set()
        self._max_connections = max_connections
        self._always_admitted = always_admitted
        self._server: asyncio.Server | None = None
        self._emptied = asyncio.Event()

    async def start(self, sock: socket.socket) -> None:
        """Serve a socket that is bound and listening; it belongs to the server from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), sock=sock, backlog=1024)

    def stop_accepting(self) -> None:
        """Close the listener and idle connections; requests in flight go on (AGT-152).

        Who has connected is not idle before it was answered once: it would see a server that hangs up on it (AGT-818).
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.drain()

    async def wait_until_drained(self) -> None:
        """Return when the last connection has ended."""
        while self._connections:
            self._emptied.clear()
            await self._emptied.wait()

    def abort(self) -> int:
        """Cut all connections and return how many there were."""
        cut = list(self._connections)
        for connection in cut:
            connection.abort()
        return len(cut)

    def admit(self, connection: _Connection, peer: Peer) -> bool:
        """Take note of a new connection, unless there are too many."""
        is_full = len(self._connections) >= self._max_connections
        if is_full and peer not in self._always_admitted:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: _Connection) -> None:
        """Take note that a connection has ended."""
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()


class _Connection(asyncio.Protocol):
    """One client; its requests are answered one after the other, pipelined ones in order (AGT-208)."""

    _transport: asyncio.Transport

    def __init__(self, server: HTTPServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._client = ""
        self._data = bytearray()
        self._searched = 0
        self._request: Request | None = None
        self._last_bytes = b""
        self._last_request: Request | None = None
        self._body: BodySkipper | None = None
        self._answering: asyncio.Task[None] | None = None
        self._writable = True
        self._answered = False
        self._half_closed = False
        self._ended = False
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer: Peer = (transport.get_extra_info("peername") or ("", 0))[:2]
        if not self._server.admit(self, peer):
            self.abort()
            return
        self._client = format_address(peer[0], peer[1])
        # Accepted just before the listener was closed.
        self._expect_within(_LAST_REQUEST_TIMEOUT if self._server.draining else _TIMEOUT)
        self._check_deadline()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if not self._data and self._request is None:
            # Clients that keep a connection say the same again: then there is nothing to parse.
            if self._last_request is not None and data == self._last_bytes and self._writable:
                self._request = self._last_request
                self._respond(self._last_request)
                return
            self._expect_within(_TIMEOUT)
        self._data += data
        self._advance()

    def eof_received(self) -> bool:
        """Keep a half-closed connection until its last answer is written."""
        self._half_closed = True
        if self._answering is None:
            self._ended = True
        return self._answering is not None

    def pause_writing(self) -> None:
        self._writable = False
        self._expect_within(_TIMEOUT)

    def resume_writing(self) -> None:
        self._writable = True
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._server.forget(self)

    def drain(self) -> None:
        """Close if idle; of anything else the next answer is the last."""
        if self._ended or self._request is not None or self._data:
            return
        if self._answered:
            self._ended = True
            self._transport.close()
        else:
            self._expect_within(_LAST_REQUEST_TIMEOUT)
            if self._timer is not None:
                self._timer.cancel()
            self._check_deadline()

    def abort(self) -> None:
        """Close at once."""
        self._ended = True
        self._transport.abort()

    def _expect_within(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds

    def _check_deadline(self) -> None:
        """Look at the deadline now and then: moving a timer with every request would cost more (AGT-215)."""
        now = self._loop.time()
        if self._deadline is not None and now >= self._deadline:
            self.abort()
            return
        self._timer = self._loop.call_at(self._deadline or now + _TIMEOUT, self._check_deadline)

    def _advance(self) -> None:
        """Take as many steps as the data allows."""
        try:
            while not self._ended and self._answering is None and self._writable:
                if not (self._read_head() if self._request is None else self._read_body(self._request)):
                    break
        except BadRequestError as error:
            self._refuse(error)
            return
        if not self._ended:
            self._apply_backpressure()

    def _apply_backpressure(self) -> None:
        busy = self._answering is not None or not self._writable
        if busy and len(self._data) > _MAX_WAITING_BYTES:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _read_head(self) -> bool:
        if not self._data:
            return False
        if self._data[0] in b"\r\n":
            raise BadRequestError("malformed request line")
        end = _HEAD_END.search(self._data, max(0, self._searched - 3))
        if (end.start() if end else len(self._data)) > _MAX_HEAD_BYTES:
            raise BadRequestError("request header fields too large", 431)
        if end is None:
            self._searched = len(self._data)
            return False
        head = bytes(self._data[: end.start()])
        whole = bytes(self._data) if end.end() == len(self._data) <= _MAX_REMEMBERED_BYTES else b""
        del self._data[: end.end()]
        self._searched = 0
        self._request = parse_head(head)
        self._last_bytes = whole
        self._last_request = self._request if whole and self._request.body == 0 else None
        self._body = BodySkipper(self._request.body)
        return True

    def _read_body(self, request: Request) -> bool:
        # A client that asks first is answered instead of being told to send what nobody reads.
        if not request.expects_continue and self._body is not None and not self._body.skip(self._data):
            return False
        self._respond(request)
        return True

    def _respond(self, request: Request) -> None:
        self._deadline = None
        try:
            answer = self._server.handler(request, self._client)
        except Exception as error:  # noqa: BLE001 - the last resort of AGT-156
            self._write(self._internal_error(error), request)
            return
        if isinstance(answer, Response):
            self._write(answer, request)
        else:
            self._answering = self._loop.create_task(self._answer_later(answer, request))

    async def _answer_later(self, answer: Coroutine[Any, Any, Response], request: Request) -> None:
        try:
            response = await answer
        except Exception as error:  # noqa: BLE001 - the last resort of AGT-156
            response = self._internal_error(error)
        self._answering = None
        if not self._ended:
            self._write(response, request)
            self._advance()

    def _internal_error(self, error: Exception) -> Response:
        self._server.journal.error("Request failed", {"client-addr": self._client, "error": repr(error)})
        return _INTERNAL_ERROR

    def _write(self, response: Response, request: Request) -> None:
        unread_body = request.expects_continue and request.body != 0
        last = not request.keep_alive or self._server.draining or unread_body
        # A client that has closed its half may still have sent whole requests before.
        last = last or (self._half_closed and not self._data)
        self._request = self._body = None
        self._answered = True
        self._expect_within(_TIMEOUT)
        self._transport.write(encode_response(response, request, close=last))
        if last:
            self._end(linger=unread_body)

    def _refuse(self, error: BadRequestError) -> None:
        phrase = "" if error.status != 400 else f": {error}"
        response = text_error(error.status, f"{error.status}{phrase}")
        self._transport.write(encode_response(response, None, close=True))
        self._end(linger=True)

    def _end(self, *, linger: bool) -> None:
        self._ended = True
        self._data.clear()
        if linger and self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
            self._loop.call_later(_LINGER, self._transport.close)
        else:
            self._transport.close()
