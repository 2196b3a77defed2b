"""A stand-in for EKS Auth that counts calls and can hold an answer, cut it off or lie, token by token.

It is for faults that we must control. The lab's EKS Auth, which verifies tokens and assumes roles, is in
:mod:`harness.cloud.eks_auth`.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness import limits
from harness.errors import SubjectFault
from harness.limits import Limit
from harness.subject.http1 import Headers
from harness.subject.pod_token import CANARY

__all__ = [
    "FAR_FUTURE",
    "ROUTE",
    "Answer",
    "Call",
    "FakeEKSAuth",
    "changed",
    "grant",
    "grant_members",
    "held",
    "refusal",
]

CLUSTER_NAME = "test-cluster"
ROUTE = f"/clusters/{CLUSTER_NAME}/assume-role-for-pod-identity"
FAR_FUTURE = 1999999999.5
_VAIN_WAITS = 2
_LONGEST_HOLD = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call gets."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hold: threading.Event | None = None
    """The answer waits for it."""
    delay: float = 0.0
    """The answer waits for so many seconds."""
    cut: bool = False
    """The connection is closed, and there is no answer."""
    reset: bool = False
    """Likewise, but with a TCP reset."""
    trickle: float = 0.0
    """Seconds between one byte of the body and the next."""
    request_id: str = "R"
    """``x-amzn-requestid``; empty leaves the header out."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as it arrived."""

    headers: Headers
    path: str
    token: str
    body: bytes = field(repr=False)
    received_at: float
    """On the monotonic clock."""


def grant(name: str = "x", expiration: float = FAR_FUTURE, **answer: Any) -> Answer:
    """Return the smallest complete success; the keys hold ``name``."""
    return Answer(body=json.dumps(grant_members(name, expiration)).encode(), **answer)


def grant_members(name: str = "x", expiration: float = FAR_FUTURE) -> dict[str, Any]:
    """Return the members of that success."""
    return {
        "subject": {"namespace": "n", "serviceAccount": "s"},
        "audience": "pods.eks.amazonaws.com",
        "podIdentityAssociation": {"associationArn": "arn:x", "associationId": "a-1"},
        "assumedRoleUser": {"arn": "arn:aws:sts::123456789012:assumed-role/r/s", "assumeRoleId": "AROA:s"},
        "credentials": {
            "accessKeyId": f"AKID-{name}",
            "secretAccessKey": f"{CANARY}-SECRET-{name}",
            "sessionToken": f"{CANARY}-SESSION-{name}",
            "expiration": expiration,
        },
    }


_ABSENT = object()


def changed(path: str, value: object = _ABSENT) -> Answer:
    """Return a success in which one member differs.

    Args:
        path: The member, such as ``credentials.expiration``.
        value: Its value; without one, the member is left out.
    """
    *outer, last = path.split(".")
    members = grant_members()
    inner = members
    for name in outer:
        inner = inner[name]
    if value is _ABSENT:
        del inner[last]
    else:
        inner[last] = value
    return Answer(body=json.dumps(members).encode())


def refusal(status: int, code: str, message: str = "m", **answer: Any) -> Answer:
    """Return a refusal in the form of AWS's JSON protocols."""
    return Answer(status, json.dumps({"message": message}).encode(), {"X-Amzn-ErrorType": code}, **answer)


@contextmanager
def held(answer: Answer) -> Generator[tuple[Answer, threading.Event], None, None]:
    """Give an answer that waits for an event; at the end at the latest the event is set."""
    event = threading.Event()
    try:
        yield replace(answer, hold=event), event
    finally:
        event.set()


class FakeEKSAuth:
    """Serves on loopback; answers are scripted per token, the last of a script repeats."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, otherwise: Answer | None = None) -> None:
        """Serve until :meth:`close`.

        Args:
            tls: Serve over TLS with it.
            otherwise: What tokens without a script get; by default, each call gets credentials of its own.
        """
        self._scheme = "https" if tls else "http"
        self._otherwise = otherwise
        self._scripts: dict[str, list[Answer]] = {}
        self._changed = threading.Condition()
        self.calls: list[Call] = []
        self.rejected: list[str] = []
        """Requests that are no call of the one route."""
        self.connections = 0
        """TCP connections accepted so far."""
        self._vain_waits = 0
        self.open_calls = 0
        self.most_open_calls = 0
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._server.fake = self
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        """The endpoint, without a trailing slash."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def script(self, token: str, *answers: Answer) -> None:
        """Say what the calls with a token get, one after the other."""
        with self._changed:
            self._scripts[token] = list(answers)

    def calls_with(self, token: str) -> list[Call]:
        """Return the calls with a token so far."""
        with self._changed:
            return [call for call in self.calls if call.token == token]

    def call_with(self, token: str) -> Call:
        """Return the one call with a token.

        Raises:
            SubjectFault: There is none, or more than one.
        """
        calls = self.calls_with(token)
        if len(calls) != 1:
            raise SubjectFault(f"{len(calls)} calls of EKS Auth, expected one; rejected as none: {self.rejected[-3:]}")
        return calls[0]

    def wait_for_calls(self, token: str, count: int = 1, timeout: Limit = limits.EKS_AUTH_CALL) -> list[Call]:
        """Return the calls with a token as soon as there are so many.

        Raises:
            SubjectFault: The agent does not make them.
        """
        with self._changed:
            # Whoever never calls, and was waited for in vain, must not cost minutes.
            patient = self.calls or self._vain_waits < _VAIN_WAITS
            seconds = timeout.seconds if patient else min(timeout.seconds, 1.0)
            if not self._changed.wait_for(lambda: self._count(token) >= count, seconds):
                self._vain_waits += 1
                made = f"{self._count(token)} calls of EKS Auth within {seconds:g} s, expected {count}"
                raise SubjectFault(f"{made}; rejected as no calls: {self.rejected[-3:]}")
        return self.calls_with(token)

    def _count(self, token: str) -> int:
        return sum(call.token == token for call in self.calls)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take_call(self, handler: BaseHTTPRequestHandler, body: bytes) -> Answer | None:
        """Record a call and return its answer, or None for a request that EKS Auth would not know."""
        fault = _fault(handler, body)
        with self._changed:
            if fault:
                self.rejected.append(fault)
                return None
            token = json.loads(body)["token"]
            headers = Headers({name.lower(): value for name, value in handler.headers.items()})
            self.calls.append(Call(headers, handler.path, token, body, time.monotonic()))
            self.open_calls += 1
            self.most_open_calls = max(self.most_open_calls, self.open_calls)
            self._changed.notify_all()
            script = self._scripts.get(token)
            if not script:
                return self._otherwise or grant(str(len(self.calls)))
            return script.pop(0) if len(script) > 1 else script[0]

    def end_call(self) -> None:
        """Take note that a call has its answer."""
        with self._changed:
            self.open_calls -= 1


def _fault(handler: BaseHTTPRequestHandler, body: bytes) -> str:
    if handler.command != "POST" or not handler.path.endswith(ROUTE):
        return f"{handler.command} {handler.path}"
    if handler.headers["Content-Type"] != "application/json":
        return f"Content-Type {handler.headers['Content-Type']}"
    if not re.match(
        r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/[a-z0-9-]*/eks-auth/aws4_request, ",
        handler.headers["Authorization"] or "",
    ):
        return "no SigV4 signature for eks-auth"
    try:
        members: object = json.loads(body)
    except ValueError:
        return "body is no JSON"
    if not isinstance(members, dict) or list(members) != ["token"] or not isinstance(members["token"], str):  # pyright: ignore[reportUnknownArgumentType]
        return "body has other members than a token"
    return ""


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True
    fake: FakeEKSAuth

    def get_request(self) -> tuple[socket.socket, Any]:
        """Count connections."""
        self.fake.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: agents may hang up."""


def _handler_of(fake: FakeEKSAuth) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = fake.take_call(self, body)
            if answer is None:
                self.send_error(400)
                return
            try:
                self._send(answer)
            finally:
                fake.end_call()

        def _send(self, answer: Answer) -> None:
            if answer.hold:
                answer.hold.wait(_LONGEST_HOLD)
            time.sleep(answer.delay)
            if answer.cut or answer.reset:
                self.close_connection = True
                if answer.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            request_id = {"x-amzn-requestid": answer.request_id} if answer.request_id else {}
            head = "".join(f"{name}: {value}\r\n" for name, value in {**request_id, **answer.headers}.items())
            length = f"Content-Length: {len(answer.body)}\r\n"
            start = f"HTTP/1.1 {answer.status} X\r\n{head}{length}\r\n".encode()
            if not answer.trickle:
                self.wfile.write(start + answer.body)
                return
            self.wfile.write(start)
            for byte in answer.body:
                time.sleep(answer.trickle)
                self.wfile.write(bytes([byte]))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            """Stay silent."""

    return Handler
