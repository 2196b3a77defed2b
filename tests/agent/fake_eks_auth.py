"""A stand-in for EKS Auth that counts calls and can hold an answer, cut it off or lie, token by token."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROUTE = "/clusters/test-cluster/assume-role-for-pod-identity"
FAR_FUTURE = 1999999999.5


@dataclass(frozen=True)
class Answer:
    """What one call gets."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    """The answer waits for it."""
    cut: bool = False


@dataclass(frozen=True)
class Call:
    headers: Mapping[str, str]
    path: str
    token: str
    received_at: float
    """On the monotonic clock."""


def grant(name: str = "x", expiration: float = FAR_FUTURE, **answer: Any) -> Answer:
    """The smallest complete success; the keys hold ``name``."""
    return Answer(body=json.dumps(grant_members(name, expiration)).encode(), **answer)


def grant_members(name: str = "x", expiration: float = FAR_FUTURE) -> dict[str, Any]:
    return {
        "subject": {"namespace": "n", "serviceAccount": "s"},
        "audience": "pods.eks.amazonaws.com",
        "podIdentityAssociation": {"associationArn": "arn:x", "associationId": "a-1"},
        "assumedRoleUser": {"arn": "arn:aws:sts::123456789012:assumed-role/r/s", "assumeRoleId": "AROA:s"},
        "credentials": {
            "accessKeyId": f"AKID-{name}",
            "secretAccessKey": f"CANARY-SECRET-{name}",
            "sessionToken": f"CANARY-SESSION-{name}",
            "expiration": expiration,
        },
    }


def refusal(status: int, code: str, message: str = "m", **answer: Any) -> Answer:
    return Answer(status, json.dumps({"message": message}).encode(), {"X-Amzn-ErrorType": code}, **answer)


class FakeEKSAuth:
    """Serves on loopback; answers are scripted per token, the last of a script repeats."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = "https" if tls else "http"
        self.calls: list[Call] = []
        self.rejected: list[str] = []
        """Requests that are no call of the one route; a test run must leave none."""
        self._scripts: dict[str, list[Answer]] = defaultdict(list)
        self._lock = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def script(self, token: str, *answers: Answer) -> None:
        with self._lock:
            self._scripts[token] = list(answers)

    def calls_with(self, token: str) -> list[Call]:
        with self._lock:
            return [call for call in self.calls if call.token == token]

    def wait_for_call(self, token: str) -> None:
        """Return when a call with the token is there."""
        with self._lock:
            assert self._lock.wait_for(lambda: any(call.token == token for call in self.calls), 60), "no call"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take_call(self, handler: BaseHTTPRequestHandler, body: bytes) -> Answer | None:
        """Record a call and return its answer, or None for a request that EKS Auth would not know."""
        fault = _fault(handler, body)
        with self._lock:
            if fault:
                self.rejected.append(fault)
                return None
            token = json.loads(body)["token"]
            self.calls.append(Call(dict(handler.headers.items()), handler.path, token, time.monotonic()))
            self._lock.notify_all()
            script = self._scripts.get(token)
            if not script:
                return grant(str(len(self.calls)))
            return script.pop(0) if len(script) > 1 else script[0]


def _fault(handler: BaseHTTPRequestHandler, body: bytes) -> str:
    if handler.command != "POST" or not handler.path.endswith(ROUTE):
        return f"{handler.command} {handler.path}"
    if handler.headers["Content-Type"] != "application/json":
        return f"Content-Type {handler.headers['Content-Type']}"
    if not re.match(
        r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/[a-z0-9-]*/eks-auth/aws4_request, ",
        handler.headers["Authorization"] or "",
    ):
        return f"Authorization {handler.headers['Authorization']}"
    if list(json.loads(body)) != ["token"]:
        return f"body {body!r}"
    return ""


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024

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
            if answer.hold:
                answer.hold.wait(60)
            if answer.cut:
                self.close_connection = True
                self.connection.close()
                return
            head = "".join(f"{k}: {v}\r\n" for k, v in {"x-amzn-requestid": "R", **answer.headers}.items())
            self.wfile.write(
                f"HTTP/1.1 {answer.status} X\r\n{head}Content-Length: {len(answer.body)}\r\n\r\n".encode() + answer.body
            )

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            """Stay silent."""

    return Handler
