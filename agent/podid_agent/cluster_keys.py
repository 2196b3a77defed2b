"""The cluster's keys for service account tokens, from its API server (AGT-912 to AGT-917)."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from podid_agent.clock import Clock
from podid_agent.http1_client import CallError, HTTPClient
from podid_agent.journal import Journal

__all__ = ["ClusterKey", "ClusterKeys", "read_keys"]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LEAST_MINOR = 34
_FETCH_TIMEOUT = 5.0
_LONGEST_WAIT = 0.5
_LEAST_PAUSE = 10.0

_HASHES: Mapping[str, HashAlgorithm] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}
_CURVES: Mapping[str, tuple[ec.EllipticCurve, str]] = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
    "P-521": (ec.SECP521R1(), "ES512"),
}


class _TooOldError(Exception):
    """The API server's keys must not be used, nor those it had before."""


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """A public key, and the one algorithm it is for."""

    algorithm: str
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Tell whether the key made a signature; a token does not choose the algorithm."""
        if algorithm != self.algorithm:
            return False
        digest = _HASHES[algorithm[2:]]
        try:
            if isinstance(self.key, ec.EllipticCurvePublicKey):
                size = (self.key.curve.key_size + 7) // 8
                if len(signature) != 2 * size:
                    return False
                r, s = (int.from_bytes(half) for half in (signature[:size], signature[size:]))
                self.key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(digest))
            elif algorithm.startswith("PS"):
                salted = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
                self.key.verify(signature, signed, salted, digest)
            else:
                self.key.verify(signature, signed, padding.PKCS1v15(), digest)
        except InvalidSignature:
            return False
        return True


def read_keys(text: str) -> dict[str, ClusterKey]:
    """Return the usable keys of a JWKS by their IDs; others are left out.

    Raises:
        ValueError: The text is no JWKS, or has no usable key.
    """
    document: object = json.loads(text)
    entries = cast("dict[str, object]", document).get("keys") if isinstance(document, dict) else None
    keys: dict[str, ClusterKey] = {}
    for entry in cast("list[object]", entries) if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            jwk = cast("dict[str, object]", entry)
            key_id = jwk.get("kid")
            key = _read_key(jwk)
            if isinstance(key_id, str) and key is not None:
                keys[key_id] = key
    if not keys:
        raise ValueError("no usable key")
    return keys


def _read_key(jwk: Mapping[str, object]) -> ClusterKey | None:
    """Return a key with its own algorithm, or with the one its type implies (AGT-913)."""
    algorithm = jwk.get("alg")
    try:
        if jwk.get("kty") == "RSA":
            key = rsa.RSAPublicNumbers(_number(jwk, "e"), _number(jwk, "n")).public_key()
            chosen = "RS256" if algorithm is None else algorithm
            fits = isinstance(chosen, str) and re.fullmatch("[RP]S(256|384|512)", chosen)
            return ClusterKey(str(chosen), key) if fits else None
        curve = _CURVES.get(str(jwk.get("crv"))) if jwk.get("kty") == "EC" else None
        if curve is None or algorithm not in {None, curve[1]}:
            return None
        numbers = ec.EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), curve[0])
        return ClusterKey(curve[1], numbers.public_key())
    except ValueError:
        return None


def _number(jwk: Mapping[str, object], name: str) -> int:
    text = jwk.get(name)
    if not isinstance(text, str):
        raise ValueError(f"{name} is no text")  # noqa: TRY004 - one kind of error for every bad key
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


class ClusterKeys:
    """Fetches the keys at the start and when an unknown one is asked for, and keeps a copy on disk."""

    def __init__(
        self, environment: Mapping[str, str], cache_file: str, clock: Clock, journal: Journal, account: Path = _ACCOUNT
    ) -> None:
        """Take the API server from the variables that every pod has."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
        self._url = f"https://{f'[{host}]' if ':' in host else host}:{port}" if host else ""
        self._account = account
        self._file = Path(cache_file) if cache_file else None
        self._clock = clock
        self._journal = journal
        self._keys: dict[str, ClusterKey] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._not_before = -math.inf
        """When an unknown key may cause the next fetch, on the monotonic clock."""

    @property
    def are_available(self) -> bool:
        """Whether there is a cluster to ask, or keys from an earlier life."""
        return bool(self._url or self._keys)

    def start(self) -> None:
        """Fetch in the background."""
        self._fetching = asyncio.create_task(self._refresh())

    async def close(self) -> None:
        """Give up a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    async def find(self, key_id: str) -> ClusterKey | None:
        """Return a key; an unknown one makes a fetch, one at a time and not more often than every 10 s (AGT-916)."""
        if key_id in self._keys:
            return self._keys[key_id]
        if self._fetching is None or self._fetching.done():
            if self._clock.monotonic() < self._not_before:
                return None
            self._not_before = self._clock.monotonic() + _LEAST_PAUSE
            self.start()
        if self._fetching is not None:
            await asyncio.wait({self._fetching}, timeout=_LONGEST_WAIT)
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        try:
            text = await self._fetch()
            self._keys = read_keys(text)
        except _TooOldError as error:
            self._keys = {}
            self._journal.warning(f"Tokens cannot be verified here: {error}")
        except (CallError, OSError, ValueError) as error:  # TimeoutError is an OSError
            self._journal.warning("Cannot fetch the cluster's keys", {"error": f"{type(error).__name__}: {error}"})
            self._keys = self._keys or self._load()
        else:
            self._save(text)

    async def _fetch(self) -> str:
        if not self._url:
            raise ValueError("KUBERNETES_SERVICE_HOST is not set")
        context = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
        # API servers' CAs may lack what Python 3.13 and later want of a certificate.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        token = (self._account / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with HTTPClient(tls=context, timeout=_FETCH_TIMEOUT) as client:
            _check_version(await self._get(client, "/version", headers))
            return await self._get(client, "/openid/v1/jwks", headers)

    async def _get(self, client: HTTPClient, path: str, headers: Mapping[str, str]) -> str:
        answer = await client.call("GET", f"{self._url}{path}", headers)
        if answer.status != 200:
            raise ValueError(f"{path}: status {answer.status}")
        return answer.body.decode()

    def _load(self) -> dict[str, ClusterKey]:
        """Read the copy of an earlier life (AGT-917)."""
        if self._file is None:
            return {}
        try:
            return read_keys(self._file.read_text())
        except (OSError, ValueError):
            return {}

    def _save(self, text: str) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp makes it 0600.
            descriptor, name = tempfile.mkstemp(dir=self._file.parent)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(name).replace(self._file)
        except OSError as error:
            self._journal.warning("Cannot keep the cluster's keys", {"error": str(error)})


def _check_version(text: str) -> None:
    """Let in only API servers that put what we need into tokens.

    Raises:
        ValueError: The text is no version.
        _TooOldError: The server is older than 1.34.
    """
    version: object = json.loads(text)
    members = cast("dict[str, object]", version) if isinstance(version, dict) else {}
    major, minor = (re.match(r"\d+", str(members.get(name, ""))) for name in ("major", "minor"))
    if not major or not minor:
        raise ValueError("the API server tells no version")
    if (int(major[0]), int(minor[0])) < (1, _LEAST_MINOR):
        raise _TooOldError(f"the API server is of version {major[0]}.{minor[0]}, and 1.{_LEAST_MINOR} is needed")
