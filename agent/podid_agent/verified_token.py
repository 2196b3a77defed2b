"""What a service account token says about its pod, and whether a key signed it (section 9.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple, cast

from podid_agent.base64_text import Base64Error, decode_base64url
from podid_agent.tokens import InvalidTokenError

__all__ = ["PodToken", "pod_uid", "read_token"]

_Members = Mapping[str, object]


class PodToken(NamedTuple):
    """The parts of a token that local validation looks at."""

    algorithm: str
    key_id: str
    audiences: tuple[str, ...]
    namespace: str
    service_account: str
    service_account_uid: str
    pod: str
    pod_uid: str
    signed: bytes
    """What the signature is over."""

    signature: bytes


def pod_uid(token: bytes) -> bytes:
    """Return the UID of the pod that a token claims to be of.

    Args:
        token: One whose form has been checked.

    Raises:
        InvalidTokenError: It names none (AGT-902, AGT-903).
    """
    kubernetes = _member(_segment(token, 1), "kubernetes.io")
    if kubernetes is None:
        raise InvalidTokenError("Service account token missing kubernetes.io claims")
    pod = _member(kubernetes, "pod")
    if pod is None:
        raise InvalidTokenError("Service account token missing pod claims")
    uid = _text(pod, "uid")
    if not uid:
        raise InvalidTokenError("Service account token missing pod uid")
    return uid.encode("utf-8", "surrogatepass")


def read_token(token: bytes) -> PodToken:
    """Return what local validation needs of a token whose form has been checked.

    Raises:
        InvalidTokenError: Something is missing or blank (AGT-909).
    """
    header, claims = _segment(token, 0), _segment(token, 1)
    kubernetes = _member(claims, "kubernetes.io") or {}
    pod, account = _member(kubernetes, "pod") or {}, _member(kubernetes, "serviceaccount") or {}
    signed, _, signature = token.rpartition(b".")
    found = PodToken(
        algorithm=_text(header, "alg"),
        key_id=_text(header, "kid"),
        audiences=_texts(claims.get("aud")),
        namespace=_text(kubernetes, "namespace"),
        service_account=_text(account, "name"),
        service_account_uid=_text(account, "uid"),
        pod=_text(pod, "name"),
        pod_uid=_text(pod, "uid"),
        signed=signed,
        signature=_signature(signature),
    )
    required = {
        "kid": found.key_id,
        "namespace": found.namespace,
        "service account": found.service_account,
        "service account's uid": found.service_account_uid,
        "pod": found.pod,
        "pod's uid": found.pod_uid,
    }
    if missing := [name for name, value in required.items() if not value]:
        raise InvalidTokenError(f"token lacks {', '.join(missing)}")
    return found


def _segment(token: bytes, number: int) -> _Members:
    # Text, because json guesses other encodings from bytes; float, because int has a limit of digits.
    text = decode_base64url(token.split(b".")[number]).decode("utf-8", "replace")
    try:
        value: object = json.loads(text, parse_int=float, strict=False)
    except (ValueError, RecursionError):
        return {}
    return cast("_Members", value) if isinstance(value, dict) else {}


def _signature(segment: bytes) -> bytes:
    try:
        return decode_base64url(segment)
    except Base64Error as error:
        raise InvalidTokenError("signature is no base64url") from error


def _member(members: _Members, name: str) -> _Members | None:
    value = members.get(name)
    return cast("_Members", value) if isinstance(value, dict) else None


def _text(members: _Members, name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) and value.strip() else ""


def _texts(value: object) -> tuple[str, ...]:
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return tuple(entry for entry in values if isinstance(entry, str))
