"""Tokens as a pod has them. Agents check their form and times only, so nobody signs these."""

from __future__ import annotations

import base64
import json
import time
import uuid

__all__ = ["CANARY", "encode_segment", "make_token", "token_of"]

CANARY = "CANARY"
"""Stands in every secret that an agent under test is given: it must never say it."""


def make_token(header: object = None, **claims: object) -> str:
    """Return a token of a pod of its own, good for an hour.

    Args:
        header: The header, by default that of an RSA key.
        claims: What replaces or extends the usual claims.
    """
    uid = str(uuid.uuid4())
    usual = {
        "aud": ["pods.eks.amazonaws.com"],
        "exp": int(time.time()) + 3600,
        "kubernetes.io": {
            "namespace": "ns-1",
            "serviceaccount": {"name": "sa-1", "uid": "6d6b1e6e-0000-4000-8000-000000000001"},
            "pod": {"name": "pod-1", "uid": uid},
        },
    }
    return token_of(header or {"alg": "RS256", "kid": "k"}, {**usual, **claims}, f"{CANARY}{encode_segment(uid)}")


def token_of(header: object, claims: object, signature: str | None = None) -> str:
    """Return a token of these very parts; one that is ``bytes`` is encoded as it is.

    Args:
        header: The first segment.
        claims: The second.
        signature: The third, in its encoded form; by default one like no other.
    """
    third = f"{CANARY}{encode_segment(str(uuid.uuid4()))}" if signature is None else signature
    return f"{encode_segment(header)}.{encode_segment(claims)}.{third}"


def encode_segment(value: object) -> str:
    """Return JSON, or bytes as they are, in base64url without padding."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
