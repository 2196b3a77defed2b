"""A stand-in for the node's instance metadata service, version 2 only."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket

from harness.subject.pod_token import CANARY

__all__ = ["FakeIMDS"]

ROLE_PATH = "/latest/meta-data/iam/security-credentials/"


class FakeIMDS:
    """Hands out ``AKIDIMDS1``, ``AKIDIMDS2``, … with ``life`` seconds each; ``delay`` makes it hang."""

    def __init__(self, life: float, delay: float = 0.0) -> None:
        """Serve on loopback until :meth:`close`."""
        self.granted = 0
        self.granted_at: dict[str, float] = {}
        """Access key IDs, and when they were handed out on the monotonic clock."""
        self.rejected: list[str] = []
        """Requests that IMDS would not know."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                time.sleep(delay)
                self._answer("SESSION" if self.path == "/latest/api/token" else None)

            def do_GET(self) -> None:
                if self.headers["X-aws-ec2-metadata-token"] != "SESSION":
                    self._answer(None)
                elif self.path == ROLE_PATH:
                    self._answer("node-role")
                elif self.path == f"{ROLE_PATH}node-role":
                    fake.granted += 1
                    fake.granted_at[f"AKIDIMDS{fake.granted}"] = time.monotonic()
                    self._answer(_credentials(fake.granted, life))
                else:
                    self._answer(None)

            def _answer(self, text: str | None) -> None:
                if text is None:
                    fake.rejected.append(f"{self.command} {self.path}")
                body = (text or "").encode()
                self.send_response(404 if text is None else 200)
                self.send_header("Content-Length", str(len(body)))
                # AWS's service gives the life of a session back, and SDKs read it.
                self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "21600")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                """Stay silent."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that leave an agent nothing but this service."""
        return {
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
            "AWS_EC2_METADATA_DISABLED": "",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
        }

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: tuple[str, int] | str) -> None:
        """Stay silent: agents may hang up."""


def _credentials(number: int, life: float) -> str:
    expires_at = datetime.now(UTC) + timedelta(seconds=life)
    return json.dumps(
        {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": f"AKIDIMDS{number}",
            "SecretAccessKey": f"{CANARY}-IMDS-SECRET",
            "Token": f"{CANARY}-IMDS-SESSION",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "Expiration": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
