"""A secret that is planted in every run, and the search that proves that no artifact has it.

The redactor does not know the canary: it must vanish because of where it stands, as every real secret must. It is
planted inside credentials of every kind that the run writes down (see :func:`specimen`), and in the process's
environment for whoever dumps that.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import secrets
import string
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import HarnessFault

__all__ = ["VARIABLE", "encodings", "find", "new", "prove_search", "scan", "specimen"]

VARIABLE = "PODID_CANARY"
"""Environment variable of the harness that holds the canary while a run lasts."""
_DEEPEST = 3
"""Archives in archives that are looked into."""
_LARGEST = 64 << 20
"""Bytes of a member that are looked at."""
_HEXADECIMAL = {"hex": "{:02x}", "percent": "%{:02x}", "JSON": "\\u{:04x}", "HTML": "&#{};", "HTML hex": "&#x{:x};"}
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
    """Return the forms that the canary would have in an artifact, by name; those with hex digits in small letters.

    Letters and digits stand for themselves in URLs and JSON and give neither + nor / in base64, so base64url is the
    same; the escapes are those of a program that escapes everything.
    """
    raw = canary.encode()
    forms = {"plain": raw}
    for offset in range(3):
        # Of the middle of a longer base64 text: the first and last characters depend on the neighbours.
        encoded = base64.b64encode(b"\0" * offset + raw + b"\0" * ((-offset - len(raw)) % 3))
        forms[f"base64 at {offset}"] = encoded[4 if offset else 0 : -4].rstrip(b"=")
    return forms | {name: "".join(map(form.format, raw)).encode() for name, form in _HEXADECIMAL.items()}


def find(content: bytes, canary: str) -> str | None:
    """Return the name of the encoding in which bytes contain the canary, or None; looks into archives."""
    for part in _unpacked(content, _DEEPEST):
        # Line breaks in base64 and e-mail do not hide it.
        joined = part.replace(b"\r", b"").replace(b"\n", b"")
        small = joined.lower()
        for name, form in encodings(canary).items():
            if form in (small if name in _HEXADECIMAL else joined):
                return name
    return None


def _unpacked(content: bytes, deep: int) -> Iterator[bytes]:
    """Yield bytes, and what is in them if they are an archive; of tar, members stand in it as they are."""
    yield content
    if deep == 0:
        return
    with contextlib.suppress(OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError):
        if content[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
                yield from _unpacked(stream.read(_LARGEST), deep - 1)
        elif content[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for member in archive.namelist():
                    with archive.open(member) as stream:
                        yield from _unpacked(stream.read(_LARGEST), deep - 1)
        elif content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    if (stream := archive.extractfile(member)) is not None:
                        yield from _unpacked(stream.read(_LARGEST), deep - 1)


def scan(directory: Path, canary: str) -> Iterator[tuple[Path, str]]:
    """Yield (file, encoding) for every file below a directory that contains the canary."""
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        if encoding := find(file.read_bytes(), canary):
            yield file, encoding


def prove_search() -> list[str]:
    """Plant another canary in files that are thrown away, one for each encoding and archive, and return their names.

    Raises:
        HarnessFault: The search does not find one of them, so its silence means nothing.
    """
    canary = new()
    planted = {name: b"x" + form + b"y" for name, form in encodings(canary).items()}
    planted["line breaks"] = b"\n".join(canary[at : at + 16].encode() for at in range(0, len(canary), 16))
    planted["gzip"] = gzip.compress(canary.encode())
    for name, write in (("tar.gz", _tar), ("zip", _zip)):
        planted[name] = write(canary.encode())
    with tempfile.TemporaryDirectory(prefix="podid-canary-") as told:
        directory = Path(told)
        for name, content in planted.items():
            (directory / name.replace(" ", "-")).write_bytes(content)
        found = {file.name for file, _ in scan(directory, canary)}
    if missing := [name for name in planted if name.replace(" ", "-") not in found]:
        raise HarnessFault(f"the search for the canary is blind for {', '.join(missing)}")
    return list(planted)


def _tar(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo("secret")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("secret", content)
    return stream.getvalue()
