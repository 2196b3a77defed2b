"""``/healthz``, ``/readyz`` and ``/metrics`` (sections 6.1 and 6.2)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from podid_agent.http1_request import Request
from podid_agent.http1_response import NOT_FOUND, Response
from podid_agent.http1_server import Peer
from podid_agent.metrics import Metrics

if TYPE_CHECKING:
    from podid_agent.exposition import Exposition

__all__ = ["Probes"]

_CHECK_TIMEOUT = 10.0
_ALIVE = Response(200)
_READY = Response(200)
_NOT_READY = Response(500, b"Internal Server Error occurred", "text/plain; charset=utf-8")
_TOO_SLOW = Response(408)

_QUESTION = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_EXPECTED = b"HTTP/1.1 404 "


class Probes:
    """Says whether the process is alive, and whether its listeners answer."""

    def __init__(
        self, listeners: Callable[[], Sequence[Peer]], checks: set[Peer], metrics: Metrics | None = None
    ) -> None:
        """Take what probes need.

        Args:
            listeners: Returns the addresses that are bound.
            checks: Gets the addresses of the connections that ask them, so that full listeners admit these (AGT-216).
            metrics: Served too, if given.
        """
        self._listeners = listeners
        self._checks = checks
        self._metrics = metrics
        self._exposition: Exposition | None = None

    def handle(self, request: Request, client: str) -> Response | Coroutine[Any, Any, Response]:  # noqa: ARG002 - a Handler
        """Answer a probe or a scrape; neither is rate limited (AGT-601)."""
        match request.path:
            case "/healthz":
                # That this line runs is what liveness asks (AGT-608).
                return _ALIVE
            case "/readyz":
                return self._check_listeners()
            case "/metrics" if self._metrics is not None:
                return self._scrape(self._metrics)
            case _:
                return NOT_FOUND

    async def _scrape(self, metrics: Metrics) -> Response:
        exposition = self._exposition
        if exposition is None:
            # In a thread, since no pod is to wait for it, and only for those who scrape (AGT-628, AGT-1105).
            exposition = self._exposition = (await asyncio.to_thread(_load_exposition))(metrics)
        return Response(200, exposition.text(), "text/plain; version=0.0.4; charset=utf-8")

    async def _check_listeners(self) -> Response:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT):
                answers = await asyncio.gather(*(self._answers(listener) for listener in self._listeners()))
        except TimeoutError:
            return _TOO_SLOW
        return _READY if answers and all(answers) else _NOT_READY

    async def _answers(self, listener: Peer) -> bool:
        """Whether a listener answers ``GET /`` with 404, asked directly: no proxy is in the way (AGT-602, AGT-610)."""
        loop = asyncio.get_running_loop()
        host = listener[0]
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as sock:
            try:
                sock.setblocking(False)
                sock.bind((host, 0))
                own: Peer = sock.getsockname()[:2]
            except OSError:
                return False
            self._checks.add(own)
            try:
                await loop.sock_connect(sock, listener)
                await loop.sock_sendall(sock, _QUESTION)
                return (await loop.sock_recv(sock, len(_EXPECTED))) == _EXPECTED
            except OSError:
                return False
            finally:
                self._checks.discard(own)


def _load_exposition() -> type[Exposition]:
    from podid_agent.exposition import Exposition  # noqa: PLC0415 - as said where it is called

    return Exposition
