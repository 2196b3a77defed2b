"""Form and time checks of service account tokens (section 3).

Whether a token is genuine is for EKS Auth to say. What is checked here is what golang-jwt checks without a key, in its
order and in its words, because clients see them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from podid_agent.base64_text import Base64Error, decode_base64url
from podid_agent.json_text import JSONTextError, Value, scan

__all__ = ["MAX_TOKEN_BYTES", "InvalidTokenError", "TokenClaims", "check_times", "parse_token"]

MAX_TOKEN_BYTES = 65_536
"""Longer tokens are refused, so that a full cache stays bounded (AGT-157, AGT-214)."""

_ALGORITHMS = frozenset(
    {"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    | {"ES256", "ES384", "ES512", "EdDSA", "none"}
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class InvalidTokenError(Exception):
    """A token that is refused; the text is golang-jwt's."""


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a token says about its own time, unverified."""

    expires_at: int | None
    """Claim exp in whole seconds since the epoch, None if absent."""

    not_before: int | None
    """Claim nbf, likewise."""

    identity: Mapping[str, str]
    """Whose token it claims to be, as fields of a log line; empty if it does not say."""


class _DecodeAbortedError(Exception):
    """A claim whose own decoder failed: Go stops there, whatever came before."""


def parse_token(token: bytes) -> TokenClaims:
    """Check the form of a raw token (AGT-301 to AGT-324).

    Raises:
        InvalidTokenError: With the text that follows ``Service account token cannot be parsed: ``.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidTokenError(f"token is malformed: token is longer than {MAX_TOKEN_BYTES} bytes")
    segments = token.split(b".")
    if len(segments) != 3:
        raise InvalidTokenError("token is malformed: token contains an invalid number of segments")
    header = _scan_segment(segments[0], "header")
    _check_header_type(header)
    claims = _scan_segment(segments[1], "claim")
    times = _check_claims(claims)
    _check_algorithm(header)
    return TokenClaims(times.get("exp"), times.get("nbf"), _claimed_identity(claims))


def check_times(claims: TokenClaims, now: float) -> None:
    """Check exp and nbf against ``now``, seconds since the epoch, without leeway (AGT-313 to AGT-316).

    Raises:
        InvalidTokenError: With the text that follows ``Service account token failed basic claim validations: ``.
    """
    is_expired = claims.expires_at is not None and now >= claims.expires_at
    is_early = claims.not_before is not None and now < claims.not_before
    if is_expired or is_early:
        faults = ["token is expired"] * is_expired + ["token is not valid yet"] * is_early
        raise InvalidTokenError(", ".join(faults))


def _scan_segment(segment: bytes, what: str) -> Value:
    try:
        return scan(decode_base64url(segment))
    except Base64Error as error:
        raise InvalidTokenError(f"token is malformed: could not base64 decode {what}: {error}") from error
    except JSONTextError as error:
        _refuse_json(what, str(error))


def _refuse_json(what: str, text: str) -> NoReturn:
    raise InvalidTokenError(f"token is malformed: could not JSON decode {what}: {text}")


def _check_header_type(header: Value) -> None:
    go_type = "map[string]interface {}"
    if header.kind not in {"object", "null"}:
        _refuse_json("header", f"json: cannot unmarshal {header.kind} into Go value of type {go_type}")
    if header.huge_number is not None:
        number = header.huge_number.decode()
        _refuse_json("header", f"json: cannot unmarshal number {number} into Go value of type float64")


def _check_algorithm(header: Value) -> None:
    last = dict(header.members).get("alg")
    if last is None or last.kind != "string":
        raise InvalidTokenError("token is unverifiable: signing method (alg) is unspecified")
    if last.text() not in _ALGORITHMS:
        raise InvalidTokenError("token is unverifiable: signing method (alg) is unavailable")


def _check_claims(claims: Value) -> dict[str, int | None]:
    """Check the types of the registered claims and return the last exp and nbf.

    A wrong type is remembered while Go decodes on; a claim with a decoder of its own (times, aud) aborts at once, and
    its error is the one that is told.
    """
    if claims.kind not in {"object", "null"}:
        _refuse_json("claim", f"json: cannot unmarshal {claims.kind} into Go value of type jwt.RegisteredClaims")
    times: dict[str, int | None] = {}
    first_wrong_type: str | None = None
    try:
        for name, value in claims.members:
            if name in {"exp", "nbf", "iat"}:
                times[name] = None if value.kind == "null" else _numeric_date(value)
            elif name == "aud":
                _check_audience(value)
            elif name in {"iss", "sub", "jti"} and value.kind not in {"string", "null"}:
                field = f"RegisteredClaims.{name} of type string"
                first_wrong_type = first_wrong_type or (
                    f"json: cannot unmarshal {value.kind} into Go struct field {field}"
                )
    except _DecodeAbortedError as error:
        _refuse_json("claim", str(error))
    if first_wrong_type:
        _refuse_json("claim", first_wrong_type)
    return times


def _numeric_date(value: Value) -> int:
    """Return whole seconds, cut towards zero (AGT-316, AGT-318, AGT-321)."""
    prefix = "could not parse NumericData: json:"
    if value.kind not in {"number", "string"}:
        raise _DecodeAbortedError(f"{prefix} cannot unmarshal {value.kind} into Go value of type json.Number")
    text = value.text() if value.kind == "string" else value.raw.decode()
    if not _NUMBER.fullmatch(text):
        quoted = value.raw.decode("utf-8", "replace").replace("\\", "\\\\").replace('"', '\\"')
        raise _DecodeAbortedError(f'{prefix} invalid number literal, trying to unmarshal "{quoted}" into Number')
    seconds = float(text)
    if seconds in {float("inf"), float("-inf")}:
        failure = f'strconv.ParseFloat: parsing "{text}": value out of range'
        raise _DecodeAbortedError(f"could not convert json number value to float: {failure}")
    # Go converts what no int64 holds to the lowest one: a time long past.
    return int(seconds) if abs(seconds) < 1 << 63 else -(1 << 63)


def _check_audience(value: Value) -> None:
    if value.kind in {"string", "null"}:
        return
    if value.kind != "array" or any(element.kind != "string" for element in value.elements):
        raise _DecodeAbortedError("invalid type for claim")


def _claimed_identity(claims: Value) -> dict[str, str]:
    """Return the names in claim `kubernetes.io`; nothing has verified them, so the fields say so (AGT-666)."""
    raw = dict(claims.members).get("kubernetes.io")
    if raw is None or raw.kind != "object":
        return {}
    try:
        # Any ends below: only texts are taken.
        names: Any = json.loads(raw.raw.decode("utf-8", "replace"), parse_int=float)
    except RecursionError:
        return {}
    found = {
        "claimed-namespace": names.get("namespace"),
        "claimed-service-account": _member(names, "serviceaccount", "name"),
        "claimed-pod": _member(names, "pod", "name"),
        "claimed-pod-uid": _member(names, "pod", "uid"),
    }
    return {field: name[:253] for field, name in found.items() if isinstance(name, str)}


def _member(names: Any, outer: str, inner: str) -> object:
    value = names.get(outer)
    return cast("dict[str, object]", value).get(inner) if isinstance(value, dict) else None
