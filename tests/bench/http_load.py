"""HTTP load from one thread, with as little work of its own as there can be: it must not be what is measured.

Requests are bytes made beforehand, answers are counted and not parsed: all answers to a request have one length, which
the first one tells. What the client used of its processor stands beside each result.
"""

from __future__ import annotations

import re
import select
import socket
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

__all__ = ["Load", "connect", "exchange", "request", "run_at_rate", "run_flat_out", "run_pods"]

_TIMEOUT = 30.0
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class Load:
    """What a client saw."""

    seconds: float
    latencies: list[float] = field(repr=False)
    """Seconds of each request that got a 200."""
    refused: int
    """Answers with another status."""
    client_processor_seconds: float

    @property
    def per_second(self) -> float:
        """Answers with status 200 a second."""
        return len(self.latencies) / self.seconds

    def quantile_us(self, percent: int) -> float:
        """Return a percentile of the latencies in microseconds."""
        return statistics.quantiles(self.latencies, n=100)[percent - 1] * 1e6


def request(token: str) -> bytes:
    """Return what an SDK sends, on a connection that stays."""
    return f"GET /v1/credentials HTTP/1.1\r\nHost: 169.254.170.23\r\nAuthorization: {token}\r\n\r\n".encode()


def connect(port: int) -> socket.socket:
    """Open a connection to the agent."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send a request, wait for its answer and return it."""
    sock.sendall(data)
    answer = b""
    while not _is_whole(answer):
        piece = sock.recv(65536)
        if not piece:
            raise AssertionError(f"the agent closed the connection after {answer[:200]!r}")
        answer += piece
    return answer


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(_HEAD_END)
    if not end:
        return False
    length = _LENGTH.search(head + b"\r\n")
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


class _Connection:
    """One connection, and when its request was sent."""

    __slots__ = ("left", "received", "sent_at", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent_at = 0.0
        self.received = b""
        self.left = 0

    def answer(self) -> bytes:
        """Read what is there; return the answer if that made it whole, else nothing."""
        data = self.sock.recv(65536)
        if not data:
            raise AssertionError("the agent closed a connection")
        if self.received:
            data = self.received + data
        whole = _is_whole(data)
        self.received = b"" if whole else data
        return data if whole else b""


@contextmanager
def _connections(port: int, count: int) -> Iterator[dict[int, _Connection]]:
    with ExitStack() as stack:
        found: dict[int, _Connection] = {}
        for _ in range(count):
            sock = stack.enter_context(connect(port))
            sock.setblocking(False)
            found[sock.fileno()] = _Connection(sock)
        yield found


def run_flat_out(port: int, data: bytes, connections: int, seconds: float) -> Load:
    """Ask on each connection again as soon as it has its answer."""
    latencies: list[float] = []
    refused = 0
    clock = time.perf_counter
    with _connections(port, connections) as there:
        poll = select.epoll()
        for number in there:
            poll.register(number, select.EPOLLIN)
        started, used = clock(), time.thread_time()
        end = started + seconds
        for connection in there.values():
            connection.sent_at = clock()
            connection.sock.send(data)
        waiting = connections
        while waiting:
            ready = poll.poll(_TIMEOUT)
            if not ready:
                raise AssertionError(f"{waiting} requests have no answer after {_TIMEOUT:g} s")
            for number, _ in ready:
                connection = there[number]
                answer = connection.answer()
                if not answer:
                    continue
                now = clock()
                if answer.startswith(b"HTTP/1.1 200 "):
                    latencies.append(now - connection.sent_at)
                else:
                    refused += 1
                if now < end:
                    connection.sent_at = now
                    connection.sock.send(data)
                else:
                    waiting -= 1
        poll.close()
        return Load(clock() - started, latencies, refused, time.thread_time() - used)


def run_at_rate(port: int, data: bytes, connections: int, rate: float, seconds: float) -> Load:
    """Ask at even intervals, whether or not earlier requests have their answers."""
    latencies: list[float] = []
    refused = 0
    clock = time.perf_counter
    with _connections(port, connections) as there:
        idle = deque(there.values())
        busy: dict[int, _Connection] = {}
        started, used = clock(), time.thread_time()
        asked, total = 0, round(rate * seconds)
        while asked < total or busy:
            next_at = started + asked / rate
            if asked < total and clock() >= next_at and idle:
                connection = idle.popleft()
                busy[connection.sock.fileno()] = connection
                connection.sent_at = clock()
                connection.sock.send(data)
                asked += 1
                continue
            # select and not epoll, whose timeouts are whole milliseconds.
            pause = max(0.0, next_at - clock()) if asked < total and idle else _TIMEOUT
            for number in select.select(list(busy), [], [], pause)[0]:
                connection = busy[number]
                answer = connection.answer()
                if not answer:
                    continue
                if answer.startswith(b"HTTP/1.1 200 "):
                    latencies.append(clock() - connection.sent_at)
                else:
                    refused += 1
                idle.append(busy.pop(number))
        return Load(clock() - started, latencies, refused, time.thread_time() - used)


def run_pods(port: int, requests: Sequence[bytes], connections: int, turns: int) -> tuple[list[float], int]:
    """Let pods start at once: each asks on so many connections for so many answers, again if it is refused.

    Returns:
        For each pod the seconds until it had all its answers, and how many refusals there were.
    """
    clock = time.perf_counter
    ends = [0.0] * len(requests)
    refused = 0
    with _connections(port, connections * len(requests)) as there:
        poll = select.epoll()
        pods: dict[int, int] = {}
        for turn, (number, connection) in enumerate(there.items()):
            pods[number] = turn % len(requests)
            connection.left = turns
            poll.register(number, select.EPOLLIN)
        started = clock()
        for number, connection in there.items():
            connection.sock.send(requests[pods[number]])
        waiting = len(there)
        while waiting:
            ready = poll.poll(_TIMEOUT)
            if not ready:
                raise AssertionError(f"{waiting} connections have no answer after {_TIMEOUT:g} s")
            for number, _ in ready:
                connection = there[number]
                answer = connection.answer()
                if not answer:
                    continue
                if answer.startswith(b"HTTP/1.1 200 "):
                    connection.left -= 1
                else:
                    refused += 1
                if connection.left:
                    connection.sock.send(requests[pods[number]])
                else:
                    waiting -= 1
                    ends[pods[number]] = clock() - started
        poll.close()
    return ends, refused
