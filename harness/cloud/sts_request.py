"""Parameters of AssumeRole, and STS's answers to those that cannot be (``iam.md`` 11.2)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.cloud.iam.validation import check_document
from harness.cloud.ports import Refusal

__all__ = ["AssumeRoleRequest", "FederationRequest", "check_federation", "check_request", "validation_error"]

_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/(?:[\x21-\x7e]*/)?[\w+=,.@-]+", re.ASCII)
_POLICY_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}|aws):policy/[\x21-\x7e]+", re.ASCII)
_MAX_TAGS = 50
_MAX_POLICY_ARNS = 10


@dataclass(frozen=True, slots=True)
class AssumeRoleRequest:
    """Parameters of AssumeRole, as the caller sent them."""

    role_arn: str
    role_session_name: str | None
    duration_seconds: int | None = None
    """None: 3,600 seconds."""
    tags: tuple[tuple[str, str], ...] = ()
    """Passed session tags, key and value, in the order of the request."""
    transitive_tag_keys: tuple[str, ...] = ()
    """Keys of ``tags`` that the sessions assumed with the new one inherit."""
    external_id: str | None = None
    source_identity: str | None = None
    policy: str | None = None
    """Inline session policy."""
    policy_arns: tuple[str, ...] = ()
    """Managed policies that act as session policies."""


@dataclass(frozen=True, slots=True)
class FederationRequest:
    """Parameters of GetFederationToken, as the caller sent them."""

    name: str
    duration_seconds: int | None = None
    """None: 43,200 seconds."""
    tags: tuple[tuple[str, str], ...] = ()
    policy: str | None = None
    policy_arns: tuple[str, ...] = ()


def check_request(request: AssumeRoleRequest) -> None:
    """Check what can be checked without knowing role or caller.

    Raises:
        Refusal: ``ValidationError`` with every violated constraint, or ``MalformedPolicyDocument``.
    """
    _refuse(_violations(request))
    role = _ROLE_ARN.fullmatch(request.role_arn)
    if not role:
        raise validation_error(f"{request.role_arn} is invalid")
    _check_session_policies(request.policy, request.policy_arns, role[1])


def check_federation(request: FederationRequest, account: str) -> None:
    """Check what can be checked of GetFederationToken without knowing who calls.

    Args:
        request: The parameters.
        account: The caller's.

    Raises:
        Refusal: As :func:`check_request`.
    """
    _refuse(_federation_violations(request))
    _check_session_policies(request.policy, request.policy_arns, account)


def _refuse(violations: Iterable[str]) -> None:
    if found := list(violations):
        raise validation_error(
            f"{len(found)} validation error{'s' * (len(found) > 1)} detected: {'; '.join(found)}",
        )


def _check_session_policies(policy: str | None, arns: Iterable[str], account: str) -> None:
    for arn in arns:
        found = _POLICY_ARN.fullmatch(arn)
        if not found or found[1] not in {account, "aws"}:
            raise validation_error(f"{arn} is invalid")
    if policy is not None:
        check_document(policy, "session")


def validation_error(message: str) -> Refusal:
    """Return STS's answer to a parameter that cannot be."""
    return Refusal("ValidationError", message, 400)


# --- constraints ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Text:
    """What a text member must be like."""

    shortest: int
    longest: int
    pattern: str = ""
    """As AWS prints it."""
    is_match: Callable[[str], object] = bool

    def violations(self, path: str, value: str) -> Iterator[str]:
        if self.pattern and not self.is_match(value):
            yield _violation(path, value, f"satisfy regular expression pattern: {self.pattern}")
        if len(value) > self.longest:
            yield _violation(path, value, f"have length less than or equal to {self.longest}")
        if len(value) < self.shortest:
            yield _violation(path, value, f"have length greater than or equal to {self.shortest}")


def _text(shortest: int, longest: int, pattern: str) -> _Text:
    return _Text(shortest, longest, pattern, re.compile(pattern, re.ASCII).fullmatch)


def _is_tag_text(text: str) -> bool:
    r"""Match ``[\p{L}\p{Z}\p{N}_.:/=+\-@]*``, whose classes Python's ``re`` does not know."""
    return all(letter in "_.:/=+-@" or unicodedata.category(letter)[0] in "LZN" for letter in text)


_ARN = _Text(20, 2048)
_NAME = _text(2, 64, r"[\w+=,.@-]*")
_FEDERATED_NAME = _text(2, 32, r"[\w+=,.@-]*")
_EXTERNAL_ID = _text(2, 1224, r"[\w+=,.@:\/-]*")
_POLICY = _text(1, 2048, r"[\u0009\u000A\u000D\u0020-\u00FF]+")
_TAG_KEY = _Text(1, 128, r"[\p{L}\p{Z}\p{N}_.:/=+\-@]+", _is_tag_text)
_TAG_VALUE = _Text(0, 256, r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", _is_tag_text)


def _violations(request: AssumeRoleRequest) -> Iterator[str]:
    yield from _ARN.violations("roleArn", request.role_arn)
    if request.role_session_name is None:
        yield "Value null at 'roleSessionName' failed to satisfy constraint: Member must not be null"
    for path, rule, value in (
        ("roleSessionName", _NAME, request.role_session_name),
        ("policy", _POLICY, request.policy),
        ("externalId", _EXTERNAL_ID, request.external_id),
        ("sourceIdentity", _NAME, request.source_identity),
    ):
        if value is not None:
            yield from rule.violations(path, value)
    if request.duration_seconds is not None:
        yield from _duration_violations(request.duration_seconds, 43_200)
    yield from _policy_arn_violations(request.policy_arns)
    yield from _tag_violations(request.tags)
    yield from _list_violations("transitiveTagKeys", request.transitive_tag_keys, _MAX_TAGS)
    for number, key in enumerate(request.transitive_tag_keys[:_MAX_TAGS], 1):
        yield from _TAG_KEY.violations(f"transitiveTagKeys.{number}.member", key)


def _federation_violations(request: FederationRequest) -> Iterator[str]:
    yield from _FEDERATED_NAME.violations("name", request.name)
    if request.policy is not None:
        yield from _POLICY.violations("policy", request.policy)
    if request.duration_seconds is not None:
        yield from _duration_violations(request.duration_seconds, 129_600)
    yield from _policy_arn_violations(request.policy_arns)
    yield from _tag_violations(request.tags)


def _policy_arn_violations(arns: Sequence[str]) -> Iterator[str]:
    yield from _list_violations("policyArns", arns, _MAX_POLICY_ARNS)
    for number, arn in enumerate(arns[:_MAX_POLICY_ARNS], 1):
        yield from _ARN.violations(f"policyArns.{number}.member.arn", arn)


def _duration_violations(seconds: int, longest: int) -> Iterator[str]:
    if seconds > longest:
        yield _violation("durationSeconds", seconds, f"have value less than or equal to {longest}")
    if seconds < 900:
        yield _violation("durationSeconds", seconds, "have value greater than or equal to 900")


def _tag_violations(tags: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield from _list_violations("tags", [key for key, _ in tags], _MAX_TAGS)
    for number, (key, value) in enumerate(tags[:_MAX_TAGS], 1):
        path = f"tags.{number}.member"
        yield from _TAG_KEY.violations(f"{path}.key", key)
        if key.lower().startswith("aws:"):
            yield _violation(f"{path}.key", key, "not begin with aws:")
        yield from _TAG_VALUE.violations(f"{path}.value", value)


def _list_violations(path: str, values: Iterable[str], longest: int) -> Iterator[str]:
    shown = list(values)
    if len(shown) > longest:
        yield _violation(path, f"[{', '.join(shown)}]", f"have length less than or equal to {longest}")


def _violation(path: str, value: object, constraint: str) -> str:
    return f"Value '{value}' at '{path}' failed to satisfy constraint: Member must {constraint}"
