"""What services say to requests that they cannot read, or that hold more than they take (IAM-SEC-08)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.cloud.documents import is_mapping, is_too_deep
from harness.cloud.iam.values import LONGEST_VALUE, ContextValue, is_too_long
from harness.cloud.ports import Refusal

__all__ = ["check_body", "check_values", "unknown_operation", "unreadable"]


class _Codes(NamedTuple):
    body: str
    parameter: str


_JSON = _Codes("SerializationException", "ValidationException")
_REST_JSON = _Codes("InvalidRequestException", "InvalidParameterException")
_QUERY = _Codes("ValidationError", "ValidationError")
_CODES: Mapping[str, _Codes] = {
    "ec2": _Codes("InvalidParameterValue", "InvalidParameterValue"),
    "eks": _REST_JSON,
    "eks-auth": _REST_JSON,
    "elbv2": _QUERY,
    "iam": _QUERY,
    "s3": _Codes("MalformedXML", "InvalidArgument"),
    "sts": _QUERY,
}
"""By service, as SDKs name it; those of all others are JSON's."""
_MALFORMED_XML = "The XML you provided was not well-formed or did not validate against our published schema"


def check_body(service: str, body: bytes) -> None:
    """Check a body that shall be JSON.

    Args:
        service: As SDKs name it.
        body: As sent, without the framing of chunks; an empty one passes.

    Raises:
        Refusal: It is no JSON object (API-426), or nested too deeply.
    """
    if not body:
        return
    code = _CODES.get(service, _JSON).body
    try:
        value: Any = json.loads(body.decode())
    except (ValueError, RecursionError):
        value = None
    if not is_mapping(value):
        raise Refusal(code, "The body of the request is not a JSON object.", 400)
    if is_too_deep(value):
        raise Refusal(code, "The body of the request is nested too deeply.", 400)


def check_values(service: str, keys: Mapping[str, ContextValue]) -> None:
    """Check the values that policies will be asked about.

    Args:
        service: As SDKs name it.
        keys: Context keys of a call, or of one of its checks.

    Raises:
        Refusal: One is too long.
    """
    for key, value in keys.items():
        if is_too_long(value):
            code = _CODES.get(service, _JSON).parameter
            raise Refusal(code, f"The value of {key} is longer than {LONGEST_VALUE} characters.", 400)


def unreadable(service: str, *, has_body: bool) -> Refusal:
    """Return the answer to a request whose members do not have their types.

    Args:
        service: As SDKs name it.
        has_body: Whether members were sent in a body.
    """
    codes = _CODES.get(service, _JSON)
    code = codes.body if has_body else codes.parameter
    return Refusal(code, _MALFORMED_XML if code == "MalformedXML" else "The request cannot be read.", 400)


def unknown_operation(service: str, operation: str) -> Refusal:
    """Return the answer to an operation that is none, or newer than the lab."""
    if service == "sts":
        return Refusal("InvalidAction", f"Could not find operation {operation} for version 2011-06-15", 400)
    return Refusal("NotImplemented", f"The lab does not emulate {service}:{operation}.", 501)
