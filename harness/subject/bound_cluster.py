"""A stand-in for a Kubernetes API server: the few paths that EKS's control plane uses, TLS, a bearer token."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from harness.pki import Authority

ISSUER = "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E"
DAEMON_SET = "/apis/apps/v1/namespaces/kube-system/daemonsets/eks-pod-identity-agent"
CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/pod-identity-associations"


@cache
def _first_key() -> rsa.RSAPrivateKey:
    """The key of every cluster before a rotation: making one takes longer than most tests."""
    return rsa.generate_private_key(65537, 2048)


@dataclass
class ApiServerDouble:
    """Objects by path, and a signing key whose public half is published."""

    directory: Path
    objects: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    key: rsa.RSAPrivateKey = field(default_factory=_first_key)
    kid: str = "key-1"
    refuses: str = ""
    """Text of a refusal for every write."""
    applied_by: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.authority = Authority("api-server-double")
        pair = self.authority.issue("api", addresses=["127.0.0.1"], serving=True)
        certificate, key = pair.write(self.directory, "api")
        self.token_file = self.directory / "eks.token"
        self.token_file.write_text("eks-control-plane")
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Else an answer's body waits 40 ms for the acknowledgement of its headers.
            disable_nagle_algorithm = True

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the name of the base class
                pass

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if self.headers.get("Authorization") == "Bearer eks-control-plane":
                    status, data = double.handle(self.command, self.path, body)
                else:
                    status, data = 401, {"message": "Unauthorized"}
                payload = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def __getattr__(self, name: str) -> object:
                """Serve every method alike."""
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def handle(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Return status and body for a request of the control plane."""
        path = urlsplit(target).path
        if path == "/openid/v1/jwks":
            return 200, self.jwks()
        if method == "GET":
            return (200, self.objects[path]) if path in self.objects else (404, {"message": "not found"})
        if self.refuses:
            return 403, {"message": self.refuses}
        if method == "PATCH":
            self.applied_by += parse_qs(urlsplit(target).query)["fieldManager"]
            applied = json.loads(body)
            generation = self.objects.get(path, {}).get("metadata", {}).get("generation", 0) + 1
            applied["metadata"]["generation"] = generation
            self.objects[path] = applied
            return 200, applied
        return (200, self.objects.pop(path)) if path in self.objects else (404, {"message": "not found"})

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as the API server publishes them."""
        numbers = self.key.public_key().public_numbers()
        return {
            "keys": [
                {
                    "use": "sig",
                    "kty": "RSA",
                    "kid": self.kid,
                    "alg": "RS256",
                    "n": _base64(numbers.n),
                    "e": _base64(numbers.e),
                }
            ]
        }

    def rotate_key(self, kid: str) -> None:
        """Sign with a new key from now on; the old one is no longer published."""
        self.key = rsa.generate_private_key(65537, 2048)
        self.kid = kid

    def roll_out(self, *, desired: int, ready: int) -> None:
        """Set the status that a DaemonSet controller would."""
        daemon_set = self.objects[DAEMON_SET]
        daemon_set["status"] = {
            "desiredNumberScheduled": desired,
            "numberReady": ready,
            "updatedNumberScheduled": desired,
            "observedGeneration": daemon_set["metadata"]["generation"],
        }

    def published(self) -> list[dict[str, str]]:
        """Return the associations that admission knows."""
        return json.loads(self.objects[CONFIG_MAP]["data"]["identities.json"])["identities"]

    def token(self, now: float, namespace: str = "demo", service_account: str = "s3-reader", **changes: Any) -> str:
        """Return a projected token of pod s3-test as the API server signs them, with some claims changed."""
        claims = {
            "aud": ["pods.eks.amazonaws.com"],
            "exp": int(now) + 86400,
            "iat": int(now),
            "nbf": int(now),
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{namespace}:{service_account}",
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": "s3-test", "uid": "5d3b6e1c-0c58-4a53-9d3d-3b8a2f6f9a11"},
                "serviceaccount": {"name": service_account, "uid": "0d8c1f2e-6b5e-4c53-8e42-7f6a4f9f2b77"},
            },
        }
        return jwt.encode(claims | changes, self.key, algorithm="RS256", headers={"kid": self.kid})


def _base64(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
