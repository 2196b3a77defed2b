"""Canonical request, string to sign and signing key (``iam.md`` 13.2)."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

from harness.cloud.sigv4.request import RawRequest

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

_WHITE_SPACE = re.compile(r"[ \t]+")


def wire_bytes(text: str) -> bytes:
    """Return the bytes of a text from the wire: one character per byte, or UTF-8 if a server decoded it as that."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def canonical_path(path: str, *, is_s3: bool) -> str:
    """Return the path as signed: S3 signs it as sent, others remove dot segments and encode it a second time."""
    if is_s3:
        return path or "/"
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    trailing = "/" if kept and path.endswith("/") else ""
    return quote(wire_bytes("/" + "/".join(kept) + trailing), safe="/-._~")


def canonical_query(items: Sequence[tuple[str, str]]) -> str:
    """Return query items as signed: sorted, with an equals sign each, never decoded (IAM-SIG-01)."""
    return "&".join(f"{name}={value}" for name, value in sorted(items))


def canonical_request(
    request: RawRequest,
    *,
    is_s3: bool,
    query: Sequence[tuple[str, str]],
    signed_headers: Sequence[str],
    payload_hash: str,
) -> str:
    """Return the text whose hash is signed."""
    headers = "".join([f"{name}:{_joined(request.header_values(name))}\n" for name in signed_headers])
    return "\n".join(
        (
            request.method,
            canonical_path(request.path, is_s3=is_s3),
            canonical_query(query),
            headers,
            ";".join(signed_headers),
            payload_hash,
        )
    )


def _joined(values: Sequence[str]) -> str:
    return _collapsed(values[0]) if len(values) == 1 else ",".join(map(_collapsed, values))


def _collapsed(value: str) -> str:
    value = value.strip(" \t")
    # Most have nothing to collapse, and looking is a tenth of replacing.
    return _WHITE_SPACE.sub(" ", value) if "  " in value or "\t" in value else value


def string_to_sign(canonical: str, *, time: str, scope: str) -> str:
    """Return what the signing key signs."""
    return f"{ALGORITHM}\n{time}\n{scope}\n{hashlib.sha256(wire_bytes(canonical)).hexdigest()}"


@lru_cache(maxsize=4096)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Derive the key of one secret, day, region and service; the bounded cache keeps the latest (IAM-SIG-11)."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def sign(key: bytes, text: str) -> str:
    """Return the hexadecimal signature of a text."""
    return hmac.digest(key, wire_bytes(text), "sha256").hex()
