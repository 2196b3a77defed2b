"""Requests to load balancers from the host, as ``curl --resolve`` makes them."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from harness import limits, wait

__all__ = ["Answer", "Load", "get", "send", "wait_for_status"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a load balancer answered."""

    status: int
    server: str
    body: str


def get(address: str, host: str, path: str = "/", *, timeout: float = 15) -> Answer:
    """Ask a load balancer from the host: ``curl --resolve HOST:80:ADDRESS http://HOST/``.

    Raises:
        OSError: No answer.
    """
    connection = http.client.HTTPConnection(address, 80, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": host, "Connection": "close"})
        response = connection.getresponse()
        return Answer(response.status, response.headers.get("Server", ""), response.read().decode(errors="replace"))
    except http.client.HTTPException as error:
        raise OSError(f"no answer of {host}: {error!r}") from error
    finally:
        connection.close()


def wait_for_status(address: str, host: str, status: int, path: str = "/") -> Answer:
    """Ask a load balancer until it answers with a status, and return the answer.

    Raises:
        harness.wait.Timeout: It does not.
    """
    return wait.until(
        lambda: get(address, host, path),
        lambda answer: answer.status == status,
        what=f"a {status} of http://{host}{path}",
        timeout=limits.TRAFFIC,
        transient=(OSError,),
    )


@dataclass(frozen=True, slots=True)
class Load:
    """Many requests: when each began, and with what it was answered; status 0 for nothing."""

    answers: Sequence[tuple[float, int]]

    def failures(self, since: float = 0) -> dict[int, int]:
        """Return status → number of answers but 200, to requests since a moment of ``time.monotonic``."""
        found: dict[int, int] = {}
        for at, status in self.answers:
            if status != 200 and at >= since:
                found[status] = found.get(status, 0) + 1
        return found


@contextlib.contextmanager
def send(address: str, host: str, requests: int, *, at_once: int = 8) -> Generator[Load]:
    """Send requests while the body runs, over connections that stay open, and wait until all are answered."""
    answers: list[tuple[float, int]] = []
    with ThreadPoolExecutor(at_once) as pool:
        workers = [pool.submit(_send, address, host, requests // at_once, answers) for _ in range(at_once)]
        yield Load(answers)
        for worker in workers:
            worker.result()


def _send(address: str, host: str, requests: int, answers: list[tuple[float, int]]) -> None:
    connection = http.client.HTTPConnection(address, 80, timeout=15)
    for _ in range(requests):
        begun = time.monotonic()
        status = _status(connection, host)
        if status == 0:
            # As every client does with a GET on a connection that was closed meanwhile: nginx closes idle ones when it
            # is told of other targets, which AWS's load balancers do not.
            status = _status(connection, host)
        answers.append((begun, status))
    connection.close()


def _status(connection: http.client.HTTPConnection, host: str) -> int:
    """Ask once; 0 for no answer, after which the connection is a new one."""
    try:
        connection.request("GET", "/", headers={"Host": host})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0
    return response.status
