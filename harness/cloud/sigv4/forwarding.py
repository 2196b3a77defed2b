"""What of a verified request may go on: everything but its signature (IAM-SIG-09)."""

from __future__ import annotations

from urllib.parse import unquote

from harness.cloud.sigv4.request import RawRequest
from harness.cloud.sigv4.scope import PRESIGN_PARAMETERS

__all__ = ["unsigned_query"]

_SIGNING = frozenset(name.lower() for name in PRESIGN_PARAMETERS)
_CONDITIONAL = frozenset({"if-match", "if-none-match"})


def unsigned_query(request: RawRequest) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Take the signature out of a presigned request.

    Returns:
        The query that is left, as sent, and the headers that the client signed as part of the query: S3 reads those
        there too, except checksums, which nobody knows when a URL is made.
    """
    kept: list[str] = []
    headers: list[tuple[str, str]] = []
    for item in request.query.split("&"):
        name, _, value = item.partition("=")
        lower = unquote(name).lower()
        if lower in _SIGNING or not item:
            continue
        if lower not in _CONDITIONAL and not lower.startswith("x-amz-"):
            kept.append(item)
        elif not lower.startswith("x-amz-checksum-") and lower not in request.header_names():
            headers.append((lower, unquote(value)))
    return "&".join(kept), tuple(headers)
