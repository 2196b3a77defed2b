"""A client that asks faster than any webhook answers: one request, over and over, on kept TLS connections."""

from __future__ import annotations

import asyncio
import gc
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import uvloop

from harness.subject.webhook import SERVICE

__all__ = ["Load", "answers_per_second", "latencies_ms", "run"]

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of whom."""

    port: int
    """Of loopback."""
    tls: ssl.SSLContext
    request: bytes
    """Head and body."""
    connections: int


class _Connection(asyncio.Protocol):
    """One connection with at most one request on its way."""

    def __init__(self, load: Load, answered: Callable[[_Connection], None]) -> None:
        self._request = load.request
        self._answered = answered
        self._data = b""
        self._closed = False
        self._transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        """Send the request."""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = self._data.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._data, 0, head)
        whole = len(self._data) >= head + 4 + int(length[1]) if length else self._data.endswith(_LAST_CHUNK)
        if not whole:
            return
        if not self._data.startswith(b"HTTP/1.1 200 "):
            raise AssertionError(f"not answered: {self._data[:300]!r}")
        self._data = b""
        self._answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed and (self._data or exc is not None):
            raise AssertionError(f"the connection broke: {exc}")

    def close(self) -> None:
        """Close it, also in the middle of an answer."""
        self._closed = True
        self._transport.close()


async def _connect(load: Load, answered: Callable[[_Connection], None]) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    connections: list[_Connection] = []
    for _ in range(load.connections):
        _, connection = await loop.create_connection(
            lambda: _Connection(load, answered), "127.0.0.1", load.port, ssl=load.tls, server_hostname=SERVICE
        )
        connections.append(connection)
    return connections


async def answers_per_second(load: Load, seconds: float) -> float:
    """Ask on every connection as soon as it is answered, and return the answers a second."""
    count = 0

    def answered(connection: _Connection) -> None:
        nonlocal count
        count += 1
        connection.ask()

    connections = await _connect(load, answered)
    started = time.perf_counter()
    for connection in connections:
        connection.ask()
    await asyncio.sleep(seconds)
    rate = count / (time.perf_counter() - started)
    for connection in connections:
        connection.close()
    return rate


async def latencies_ms(load: Load, seconds: float, pace: int) -> list[float]:
    """Ask at a steady pace, whatever the answers do, and return the milliseconds from each due moment to its answer."""
    due: dict[_Connection, float] = {}
    idle: deque[_Connection] = deque()
    waiting: deque[float] = deque()
    times: list[float] = []
    count = int(seconds * pace)
    done = asyncio.Event()

    def ask(connection: _Connection, at: float) -> None:
        due[connection] = at
        connection.ask()

    def answered(connection: _Connection) -> None:
        times.append((time.perf_counter() - due[connection]) * 1e3)
        if waiting:
            ask(connection, waiting.popleft())
        else:
            idle.append(connection)
        if len(times) == count:
            done.set()

    connections = await _connect(load, answered)
    idle.extend(connections)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number in range(count):
        if (delay := started + number / pace - loop.time()) > 0:
            await asyncio.sleep(delay)
        now = time.perf_counter()
        if idle:
            ask(idle.popleft(), now)
        else:
            waiting.append(now)
    async with asyncio.timeout(10):
        await done.wait()
    for connection in connections:
        connection.close()
    return times


def run(load: Load, measure: Callable[..., Coroutine[Any, Any, _Result]], *arguments: float) -> _Result:
    """Run a measurement without the garbage collector getting in between.

    Raises:
        AssertionError: A connection broke, or an answer was none.
    """
    broken: list[dict[str, Any]] = []

    async def measured() -> _Result:
        # What a protocol raises goes to the loop, not to whoever waits.
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
        return await measure(load, *arguments)

    gc.collect()
    gc.disable()
    try:
        result = uvloop.run(measured())
    finally:
        gc.enable()
    if broken:
        raise AssertionError(f"{len(broken)} faults, first: {broken[0].get('exception') or broken[0]['message']}")
    return result
