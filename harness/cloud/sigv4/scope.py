"""Reading the signature out of a request: Authorization header or presigned query, and what each must hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import unquote

from harness.cloud.ports import Refusal
from harness.cloud.sigv4 import failures
from harness.cloud.sigv4.canonical import ALGORITHM
from harness.cloud.sigv4.failures import Family
from harness.cloud.sigv4.request import RawRequest, SignatureForm

MAX_EXPIRES = 604_800

_SINGLE_HEADERS = ("authorization", "host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token")
_PRESIGN_REQUIRED = ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature")
PRESIGN_PARAMETERS = frozenset((*_PRESIGN_REQUIRED, "X-Amz-Algorithm", "X-Amz-Security-Token"))
_PRESIGN_MARKS = frozenset({"x-amz-algorithm", "x-amz-credential", "x-amz-signature"})
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"[0-9]{8}")
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature as the client states it; nothing of it is believed yet."""

    form: SignatureForm
    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    time: str
    """``yyyymmddThhmmssZ``."""
    signed_at: datetime
    token: str | None
    expires_in: int | None
    query: tuple[tuple[str, str], ...]
    """Query items that are under the signature."""

    @property
    def scope(self) -> str:
        """Credential scope."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def form_of(request: RawRequest) -> SignatureForm | str | None:
    """Return the form of the signature, another word for one we refuse, or None for an anonymous request."""
    headers = request.header_values("authorization")
    names = {unquote(name) for name, _ in request.query_items()}
    # In any case: a misspelt presigned request is malformed, not anonymous.
    in_query = not {name.lower() for name in names}.isdisjoint(_PRESIGN_MARKS)
    if headers and (in_query or "Signature" in names):
        return "both"
    if headers:
        return "header" if len(headers) == 1 and headers[0].split(" ", 1)[0] == ALGORITHM else "unsupported"
    if in_query:
        algorithms = [unquote(value) for name, value in request.query_items() if unquote(name) == "X-Amz-Algorithm"]
        return "unsupported" if any(value != ALGORITHM for value in algorithms) else "presigned"
    if names & {"AWSAccessKeyId", "Signature"}:
        return "unsupported"
    content_type = "".join(request.header_values("content-type")).lower()
    if content_type.startswith("multipart/form-data") and b'name="x-amz-signature"' in request.body[:65536].lower():
        return "unsupported"
    return None


def read_signature(request: RawRequest, form: SignatureForm, family: Family) -> Signature:
    """Read the signature of a request.

    Raises:
        Refusal: Something is missing, doubled or unreadable.
    """
    for name in _SINGLE_HEADERS:
        if len(request.header_values(name)) > 1:
            raise _unreadable(family, form, f"the {name} header must be sent once.")
    signature = _read_header(request, family) if form == "header" else _read_presigned(request, family)
    if not _SIGNATURE.fullmatch(signature.signature):
        raise _unreadable(family, form, "the Signature must be 64 hexadecimal digits.")
    if not _are_header_names(signature.signed_headers):
        raise _unreadable(family, form, "SignedHeaders must be lower-case header names separated by semicolons.")
    if signature.date != signature.time[:8]:
        raise failures.wrong_scope_date(
            family, presigned=form == "presigned", got=signature.date, want=signature.time[:8]
        )
    return signature


@lru_cache(maxsize=1024)
def _are_header_names(names: tuple[str, ...]) -> bool:
    """Tell whether all can be names of headers; clients sign the same ones again and again."""
    return all(map(_HEADER_NAME.fullmatch, names))


def _unreadable(family: Family, form: SignatureForm, text: str) -> Refusal:
    if family == "s3":
        return failures.s3_malformed(presigned=form == "presigned", text=text)
    return failures.incomplete(family, text[0].upper() + text[1:])


def _read_header(request: RawRequest, family: Family) -> Signature:
    _, _, rest = request.header_values("authorization")[0].partition(" ")
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name in parts:
            raise failures.malformed_header(family, ["Credential", "SignedHeaders", "Signature"])
        parts[name] = value
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not parts.get(name)]
    if missing:
        raise failures.malformed_header(family, missing)
    time, signed_at = _header_time(request, family)
    key, date, region, service = _split_credential(parts["Credential"], family, presigned=False)
    tokens = request.header_values("x-amz-security-token")
    return Signature(
        form="header",
        access_key_id=key,
        date=date,
        region=region,
        service=service,
        signed_headers=tuple(parts["SignedHeaders"].split(";")),
        signature=parts["Signature"],
        time=time,
        signed_at=signed_at,
        token=tokens[0] if tokens else None,
        expires_in=None,
        query=request.query_items(),
    )


def _read_presigned(request: RawRequest, family: Family) -> Signature:
    parameters = _presign_parameters(request.query_items(), family)
    missing = [name for name in _PRESIGN_REQUIRED if not parameters.get(name)]
    if missing:
        raise failures.malformed_presign(family, missing)
    time = parameters["X-Amz-Date"]
    signed_at = _parse_time(time)
    if signed_at is None:
        if family == "s3":
            text = "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""
            raise failures.s3_query_error(text)
        raise failures.malformed_presign(family, ["X-Amz-Date"])
    key, date, region, service = _split_credential(parameters["X-Amz-Credential"], family, presigned=True)
    return Signature(
        form="presigned",
        access_key_id=key,
        date=date,
        region=region,
        service=service,
        signed_headers=tuple(parameters["X-Amz-SignedHeaders"].split(";")),
        signature=parameters["X-Amz-Signature"],
        time=time,
        signed_at=signed_at,
        token=parameters.get("X-Amz-Security-Token"),
        expires_in=_expires(parameters["X-Amz-Expires"], family),
        query=tuple(item for item in request.query_items() if unquote(item[0]) != "X-Amz-Signature"),
    )


def _presign_parameters(items: Sequence[tuple[str, str]], family: Family) -> Mapping[str, str]:
    parameters: dict[str, str] = {}
    for raw_name, value in items:
        name = unquote(raw_name)
        if name not in PRESIGN_PARAMETERS:
            continue
        if name in parameters:
            raise failures.malformed_presign(family, [name])
        parameters[name] = unquote(value)
    return parameters


def _expires(text: str, family: Family) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None
    if number is None:
        problem = "X-Amz-Expires should be a number"
    elif number > MAX_EXPIRES:
        problem = "X-Amz-Expires must be less than a week (in seconds) that is 604800"
    elif number == 0:
        problem = "X-Amz-Expires must be greater than zero"
    else:
        return number
    raise failures.s3_query_error(problem) if family == "s3" else failures.incomplete(family, problem)


def _split_credential(credential: str, family: Family, *, presigned: bool) -> tuple[str, str, str, str]:
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not all(parts) or parts[4] != "aws4_request" or not _DATE.fullmatch(parts[1]):
        raise failures.bad_scope(family, presigned=presigned, credential=credential)
    return parts[0], parts[1], parts[2], parts[3]


def _header_time(request: RawRequest, family: Family) -> tuple[str, datetime]:
    """Return the time of a header signature: ``X-Amz-Date`` counts, ``Date`` in any HTTP form only without it."""
    amz_dates = request.header_values("x-amz-date")
    dates = request.header_values("date")
    moment = None
    if amz_dates:
        text = amz_dates[0].strip()
        if moment := _parse_time(text):
            return text, moment
    elif len(dates) == 1:
        moment = _parse_time(dates[0].strip()) or _parse_http_date(dates[0])
    if moment is None:
        raise failures.missing_date(family)
    return failures.compact(moment), moment


def _parse_time(text: str) -> datetime | None:
    if not _TIME.fullmatch(text):
        return None
    try:
        # strptime takes a tenth of a whole verification.
        return datetime.fromisoformat(f"{text[:8]}T{text[9:15]}+00:00")
    except ValueError:
        return None


def _parse_http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
