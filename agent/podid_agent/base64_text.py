"""base64url without padding, refusing in the words of Go's encoding/base64 (AGT-303 to AGT-305)."""

from __future__ import annotations

import base64
import re

__all__ = ["Base64Error", "decode_base64url"]

_ALPHABET = re.compile(rb"[A-Za-z0-9_-]*")


class Base64Error(ValueError):
    """Not base64url; the text names the offset of the first bad byte."""


def decode_base64url(segment: bytes) -> bytes:
    """Decode a segment of a token; non-zero trailing bits are accepted.

    Raises:
        Base64Error: A byte outside the alphabet, or a single one left over.
    """
    good = _ALPHABET.match(segment)
    length = good.end() if good else 0
    if length < len(segment):
        raise Base64Error(f"illegal base64 data at input byte {length}")
    if length % 4 == 1:
        raise Base64Error(f"illegal base64 data at input byte {length - 1}")
    return base64.urlsafe_b64decode(segment + b"=" * (-length % 4))
