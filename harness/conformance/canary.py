"""A secret that is planted in every run, and the search that proves that no artifact has it.

The redactor does not know the canary: it must vanish because of where it stands, as every real secret must. It is
planted inside credentials of every kind that the run writes down (see :func:`specimen`), and in the process's
environment for whoever dumps that.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import secrets
import string
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import HarnessFault

__all__ = ["VARIABLE", "encodings", "find", "new", "scan", "specimen"]

VARIABLE = "PODID_CANARY"
"""Environment variable of the harness that holds the canary while a run lasts."""
_LETTERS = string.ascii_letters + string.digits


def new() -> str:
    """Return a canary for one run."""
    return "PODIDCANARY" + "".join(secrets.choice(_LETTERS) for _ in range(40))


def specimen(canary: str) -> dict[str, Any]:
    """Return credentials of every kind with the canary inside, as they would come along in evidence.

    Their redacted form stands in every run's record: a reader sees what was done to each.
    """
    payload = base64.urlsafe_b64encode(b'{"aud":["pods.eks.amazonaws.com"],"sub":"system:serviceaccount:a:b"}')
    token = f"eyJhbGciOiJSUzI1NiJ9.{payload.decode().rstrip('=')}.{canary}"
    signature = canary.encode().hex()[:64]
    return {
        "http request": f"GET /v1/credentials HTTP/1.1\r\nAuthorization: {token}\r\n",
        "http response": f'{{"SecretAccessKey":"{canary}","Token":"IQoJ{canary}"}}',
        "environment": f"AWS_SECRET_ACCESS_KEY={canary}\nAWS_SESSION_TOKEN={canary}\n",
        "presigned": f"https://b.s3.amazonaws.com/k?X-Amz-Security-Token={canary}&X-Amz-Signature={signature}",
        "data": {"SecretAccessKey": canary, "SessionToken": canary, "SecretString": canary},
        "secret": {"kind": "Secret", "metadata": {"name": "canary"}, "stringData": {"key": canary}},
        "private key": f"-----BEGIN PRIVATE KEY-----\n{canary}\n-----END PRIVATE KEY-----",
        "bearer": f"Authorization: Bearer {canary}",
    }


def encodings(canary: str) -> dict[str, bytes]:
    """Return the forms that the canary would have in an artifact, by name."""
    raw = canary.encode()
    forms = {"plain": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    for offset in range(3):
        # Of the middle of a longer base64 text: the first and last characters depend on the neighbours.
        encoded = base64.b64encode(b"\0" * offset + raw + b"\0" * ((-offset - len(raw)) % 3))
        forms[f"base64 at {offset}"] = encoded[4 if offset else 0 : -4].rstrip(b"=")
    forms["percent"] = "".join(f"%{byte:02X}" for byte in raw).encode()
    assert forms["plain"] == urllib.parse.quote(canary).encode()  # noqa: S101 - letters and digits need no escape
    return forms


def find(content: bytes, canary: str) -> str | None:
    """Return the name of the encoding in which bytes contain the canary, or None."""
    if content[:2] == b"\x1f\x8b":
        with contextlib.suppress(OSError, EOFError, zlib.error):
            content += gzip.decompress(content)
    # Line breaks in base64 and e-mail do not hide it.
    joined = content.replace(b"\r", b"").replace(b"\n", b"")
    return next((name for name, form in encodings(canary).items() if form in joined), None)


def scan(directory: Path, canary: str) -> Iterator[tuple[Path, str]]:
    """Yield (file, encoding) for every file below a directory that contains the canary.

    Raises:
        HarnessFault: The search does not find a canary that is there, so its silence means nothing.
    """
    for name, form in encodings(canary).items():
        if find(b"x" + form + b"y", canary) is None:
            raise HarnessFault(f"the search for the canary is blind for {name}")
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        if encoding := find(file.read_bytes(), canary):
            yield file, encoding
