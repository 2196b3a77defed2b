"""Answers of EKS Auth: credentials, or the error that a pod is told (section 2.5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn, cast

from podid_agent.credentials import PodCredentials
from podid_agent.errors import InvalidAnswerError, RefusedError

__all__ = ["MAX_BODY_BYTES", "read_answer"]

MAX_BODY_BYTES = 1 << 20

_FAULTS = {
    "AccessDeniedException": "client",
    "ExpiredTokenException": "client",
    "InternalServerException": "server",
    "InvalidParameterException": "client",
    "InvalidRequestException": "client",
    "InvalidTokenException": "client",
    "ResourceNotFoundException": "client",
    "ServiceUnavailableException": "server",
    "ThrottlingException": "client",
}
_MODELLED = {code.lower(): code for code in _FAULTS}

_THROTTLING_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_RETRIED_CODES = _THROTTLING_CODES | {"RequestTimeout", "RequestTimeoutException"}
_RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})

_YEAR_10000 = 253_402_300_800.0


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> PodCredentials:
    """Read an answer of AssumeRoleForPodIdentity.

    Args:
        status: HTTP status.
        headers: A mapping that ignores the case of names.
        body: At most one byte more than :data:`MAX_BODY_BYTES`.

    Raises:
        RefusedError: EKS Auth refused.
        InvalidAnswerError: The answer is not one of the model.
    """
    if 200 <= status < 300:
        return _read_credentials(body)
    if status < 400:
        _invalid(f"unexpected status {status}")
    raise _read_refusal(status, headers, body)


def _read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> RefusedError:
    members: dict[str, object] = {}
    readable = True
    if body:
        try:
            members = _load_object(body)
        except ValueError:
            readable = False
    code, message = "", ""
    if readable:
        code = _code(headers.get("X-Amzn-ErrorType") or members.get("code") or members.get("__type"))
        message = _text(members.get("message")) or _text(members.get("Message"))
    if code not in _FAULTS:
        code, message = code or "UnknownError", message or "UnknownError"
    request_id = headers.get("x-amzn-requestid", "")
    return RefusedError(
        f"[{request_id}]: ({code}): {message}, fault: {_FAULTS.get(code, 'unknown')}",
        status=status if status < 600 else 500,
        code="Unknown" if code == "UnknownError" else code,
        retryable=status in _RETRIED_STATUSES or code in _RETRIED_CODES,
        throttled=status == 429 or code in _THROTTLING_CODES,
    )


def _code(value: object) -> str:
    """Cut what AWS protocols put around a code, and spell modelled ones as the model does (AGT-707)."""
    code = _text(value).partition(":")[0].rpartition("#")[2].strip()
    return _MODELLED.get(code.lower(), code)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read_credentials(body: bytes) -> PodCredentials:
    if len(body) > MAX_BODY_BYTES:
        _invalid("body is longer than 1 MiB")
    if not body or body.strip() == b"null":
        _invalid("body is empty")
    try:
        answer = _load_object(body)
    except ValueError:
        _invalid("body is no JSON object")
    credentials = _object(answer, "credentials")
    user = _object(answer, "assumedRoleUser")
    association = answer.get("podIdentityAssociation")
    arn = _account_arn(user)
    return PodCredentials(
        access_key_id=_string(credentials, "accessKeyId"),
        secret_access_key=_string(credentials, "secretAccessKey"),
        session_token=_string(credentials, "sessionToken"),
        account_id=arn.split(":")[4],
        expires_at=_expiration(credentials),
        role_arn=arn,
        role_id=_text(user.get("assumeRoleId")),
        association_id=_text(cast("dict[str, object]", association).get("associationId"))
        if isinstance(association, dict)
        else "",
    )


def _load_object(body: bytes) -> dict[str, object]:
    """Parse a JSON object.

    Raises:
        ValueError: It is none.
    """
    try:
        # Text, because json guesses other encodings from bytes; float, because int has a limit of digits.
        value: object = json.loads(body.decode("utf-8", "replace"), parse_int=float, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for all that is not an object
    return cast("dict[str, object]", value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(members: dict[str, object], name: str) -> dict[str, object]:
    value = members.get(name)
    if not isinstance(value, dict):
        _invalid(f"{name} is missing or no object")
    return cast("dict[str, object]", value)


def _string(members: dict[str, object], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        _invalid(f"{name} is missing, empty or no text")
    if any("\ud800" <= character <= "\udfff" for character in value):
        _invalid(f"{name} is not valid Unicode")
    return value


def _account_arn(user: dict[str, object]) -> str:
    """Return the role's ARN, checked in the order and the words of upstream's parser (AGT-279, AGT-283)."""
    arn = user.get("arn")
    if not isinstance(arn, str):
        _invalid("arn is missing or no text")
    if not arn.startswith("arn:"):
        raise InvalidAnswerError("unable to parse arn from assumed role: arn: invalid prefix")
    if arn.count(":") < 5:
        raise InvalidAnswerError("unable to parse arn from assumed role: arn: not enough sections")
    if any("\ud800" <= character <= "\udfff" for character in arn):
        _invalid("arn is not valid Unicode")
    return arn


def _expiration(credentials: dict[str, object]) -> float:
    value = credentials.get("expiration")
    # parse_int makes every number a float, so a boolean is none (AGT-282).
    if not isinstance(value, float):
        _invalid("expiration is missing or no number")
    if not 0 <= value < _YEAR_10000:
        _invalid("expiration is no number of seconds before the year 10000")
    return value


def _invalid(reason: str) -> NoReturn:
    raise InvalidAnswerError(f"invalid response from server: {reason}")
