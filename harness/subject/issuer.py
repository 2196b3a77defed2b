"""A stand-in for the API server that an agent asks for a cluster's signing keys, and the tokens those keys sign."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from harness.errors import MissingPrerequisite

__all__ = ["FakeIssuer", "Key", "pod_claims", "self_signed"]

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--")
# The place is fixed in every pod; a tmpfs of the agent's own keeps this machine's /var/run out of it.
_PLACE_ACCOUNT = """
mount -t tmpfs tmpfs /var/run/
mkdir -p /var/run/secrets/kubernetes.io
ln -s "$0" /var/run/secrets/kubernetes.io/serviceaccount
exec "$@"
"""


class Key:
    """A signing key; ``published_algorithm`` is the member ``alg`` of its JWK, None leaves it out."""

    def __init__(self, key_id: str, algorithm: str = "RS256", published_algorithm: str | None = "same") -> None:
        """Name a key for an algorithm, whose name says its kind; it is made when it is first used."""
        self.key_id = key_id
        self.algorithm = algorithm
        self._published = algorithm if published_algorithm == "same" else published_algorithm

    @cached_property
    def _private(self) -> Any:
        curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
        if self.algorithm in curves:
            return ec.generate_private_key(curves[self.algorithm])
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half as JWKS has it."""
        kind = ECAlgorithm if self.algorithm.startswith("ES") else RSAAlgorithm
        members: dict[str, Any] = kind.to_jwk(self._private.public_key(), as_dict=True)
        alg = {"alg": self._published} if self._published else {}
        return {**members, "use": "sig", "kid": self.key_id, **alg}

    @property
    def public_pem(self) -> str:
        """The public half as text."""
        encoded: bytes = self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return encoded.decode()

    def sign(self, claims: Mapping[str, Any], **headers: Any) -> str:
        """Return a token; a header of None is left out."""
        given = {"kid": self.key_id, **headers}
        return jwt.encode(
            dict(claims), self._private, self.algorithm, {k: v for k, v in given.items() if v is not None}
        )


def pod_claims(uid: str = "", **changes: Any) -> dict[str, Any]:
    """Return the claims of a pod's token, each time another one (``jti``).

    Args:
        uid: The pod's; a pod of its own by default.
        changes: What replaces the usual claims; None takes one away.
    """
    claims: dict[str, Any] = {
        "aud": ["pods.eks.amazonaws.com"],
        "exp": int(time.time()) + 3600,
        "jti": str(uuid.uuid4()),
        "kubernetes.io": {
            "namespace": "ns-1",
            "serviceaccount": {"name": "sa-1", "uid": "6d6b1e6e-0000-4000-8000-000000000001"},
            "pod": {"name": "pod-1", "uid": uid or str(uuid.uuid4())},
        },
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def self_signed(directory: Path, name: x509.GeneralName) -> tuple[Path, ssl.SSLContext]:
    """Make a self-signed certificate; return its file and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "podid stand-in")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "ca.crt", directory / "key.pem"
    certificate_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key_file.write_bytes(encoded)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    return certificate_file, context


class FakeIssuer:
    """Serves ``/version`` and ``/openid/v1/jwks`` over TLS to whoever has the ServiceAccount's token."""

    def __init__(self, directory: Path, *keys: Key, version: tuple[str, str] = ("1", "34")) -> None:
        """Serve until :meth:`close`.

        Args:
            directory: For the ServiceAccount's files.
            keys: What the JWKS holds.
            version: Major and minor version.
        """
        self.keys: Sequence[Key] = keys
        self.version = version
        self.status = 200
        self.delay = 0.0
        self.requests: list[str] = []
        """Paths of the requests so far."""
        _, context = self_signed(directory, x509.IPAddress(ip_address("127.0.0.1")))
        (directory / "token").write_text("CANARY-ACCOUNT-TOKEN")
        self._directory = directory
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every pod has."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self._server.server_port)}

    def within(self) -> tuple[str, ...]:
        """Return a command that runs another one where the ServiceAccount's files are at their usual place.

        Raises:
            MissingPrerequisite: This machine does not let users have namespaces.
        """
        probe = [*_UNSHARE, "sh", "-c", "mount -t tmpfs tmpfs /var/run/"]
        if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
            raise MissingPrerequisite(
                "no mount namespace for the ServiceAccount's files",
                hint="install util-linux, and let users have namespaces (sysctl kernel.unprivileged_userns_clone)",
            )
        return (*_UNSHARE, "sh", "-ec", _PLACE_ACCOUNT, str(self._directory))

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: agents may hang up."""


def _handler_of(issuer: FakeIssuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            issuer.requests.append(self.path)
            time.sleep(issuer.delay)
            if self.headers["Authorization"] != "Bearer CANARY-ACCOUNT-TOKEN":
                self._answer(401, {})
            elif self.path == "/version":
                major, minor = issuer.version
                self._answer(issuer.status, {"major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.0"})
            elif self.path == "/openid/v1/jwks":
                self._answer(issuer.status, {"keys": [key.jwk for key in issuer.keys]})
            else:
                self._answer(404, {})

        def _answer(self, status: int, members: Mapping[str, Any]) -> None:
            body = json.dumps(members).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            """Stay silent."""

    return Handler
