"""What IAM and S3 refuse to store, in their words and in their order (``iam.md`` 2.1 to 2.3).

Evaluation needs none of this: :mod:`harness.cloud.iam.policy` reads strictly by itself. Here the question is which of
AWS's texts a document gets that nobody stores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, cast

from harness.cloud.iam.conditions import parse_operator
from harness.cloud.iam.policy import strict_json
from harness.cloud.iam.variables import literal_tokens
from harness.cloud.iam.wildcard import Pattern
from harness.cloud.ports import Refusal

__all__ = ["WrittenKind", "check_bucket_policy", "check_document", "check_size", "policy_size"]

WrittenKind = Literal["identity", "session", "trust"]
Statement = Mapping[str, Any]

_SYNTAX = "Syntax errors in policy."
_VERSIONS = {"2012-10-17", "2008-10-17"}
_TOP = {"Version", "Id", "Statement"}
_ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
_PRINCIPALS = {"Principal", "NotPrincipal"}
_PRINCIPAL_KINDS = {"AWS", "CanonicalUser", "Federated", "Service"}
_DEEPEST = 32
_VENDOR = re.compile(r"[a-zA-Z0-9.-]+")
_PARTITION = re.compile(r"aws(-[a-z]+)*|\*")
_DATE = re.compile(
    r"(?P<number>[+-]?\d{1,400})(-(0?[1-9]|1[0-2])(-(0?[1-9]|[12]\d|3[01]))?)?"
    r"([Tt](\d{1,2}(:\d{1,2}){0,2}([.,]\d{1,9})?)?([Zz]|[+-]\d{2}(:?\d{2})?)?)?",
    re.ASCII,
)
_ROLE_OR_USER = re.compile(r"arn:[^:]*:iam::[^:]*:(role|user)/")
_IAM_PATHS = (
    "user/", "federated-user/", "role/", "group/", "instance-profile/", "mfa/", "server-certificate/", "policy/",
    "sms-mfa/", "saml-provider/", "oidc-provider/", "report/", "access-report/",
)  # fmt: skip
_IAM_PATH_TEXT = f'IAM resource path must either be "*" or start with {", ".join(_IAM_PATHS)}.'
_TRUST_ACTIONS = {
    "*", "sts:*", "sts:assumerole", "sts:assumerolewithsaml", "sts:assumerolewithwebidentity", "sts:setcontext",
    "sts:setsourceidentity", "sts:tagsession",
}  # fmt: skip


class _Malformed(Exception):  # noqa: N818 - the word of AWS's error code
    """A document that is refused, with the text for it."""


# --- IAM and STS ----------------------------------------------------------------------------------------------------


def check_document(document: str, kind: WrittenKind, is_principal: Callable[[str], bool] = bool) -> None:
    """Check a policy document that is about to be stored by IAM, or passed to STS.

    Args:
        document: The text as sent.
        kind: What it is going to be. Identity policies need version 2012-10-17 (IAM-DOC-03, IAM-DOC-04).
        is_principal: Whether an ARN of a role or user is one of somebody who is there (IAM-DOC-05).

    Raises:
        Refusal: ``MalformedPolicyDocument`` with the text of the first step that fails (section 2.2).
    """
    try:
        _check(document, kind, is_principal)
    except _Malformed as fault:
        raise Refusal("MalformedPolicyDocument", str(fault), 400) from None


def _check(document: str, kind: WrittenKind, is_principal: Callable[[str], bool]) -> None:
    body = _parsed(document, has_principals=kind == "trust")
    statements = [cast("Statement", item) for item in _listed(body["Statement"])]
    if kind == "identity" and body.get("Version") != "2012-10-17":
        raise _Malformed("Policy document must be version 2012-10-17 or greater.")
    steps: list[Callable[[Sequence[Statement]], None]] = [_check_legacy, _check_sids, _check_that_actions_exist]
    steps += [_check_resources, _check_actions]
    if kind == "trust":
        steps.append(_check_trust)
    else:
        steps += [_check_that_resources_exist, _check_that_nobody_is_named]
    for step in steps:
        step(statements)
    if absent := _absent_principal(statements, is_principal):
        raise _Malformed(f'Invalid principal in policy: "AWS":"{absent}"')


def _check_legacy(statements: Sequence[Statement]) -> None:
    for statement in statements:
        is_readable = statement["Effect"] in {"Allow", "Deny"} and all(_is_date(value) for value in _dates(statement))
        if not is_readable or any(_is_short_arn(resource) for resource in _resources(statement)):
            raise _Malformed("The policy failed legacy parsing")


def _dates(statement: Statement) -> Iterator[str]:
    for name, tests in _mapping(statement.get("Condition")).items():
        operator = parse_operator(name)
        if operator and operator.name.startswith("date"):
            for values in _mapping(tests).values():
                yield from (str(value) for value in _listed(values))


def _is_date(text: str) -> bool:
    """Tell whether IAM stores a text as a date; it stores more than it can compare."""
    found = _DATE.fullmatch(text)
    return found is not None and int(found["number"]) < 2**63


def _is_short_arn(resource: str) -> bool:
    """Tell whether a resource has the colons of an ARN but not all of them, or no service."""
    partition, _, rest = resource.partition(":")[2].partition(":")
    is_aws = _PARTITION.fullmatch(partition) is not None
    return is_aws and "::" in resource and (resource.count(":") < 5 or rest.startswith(":"))


def _check_sids(statements: Sequence[Statement]) -> None:
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if len(set(sids)) < len(sids):
        raise _Malformed("Statement IDs (SID) in a single policy must be unique.")


def _check_that_actions_exist(statements: Sequence[Statement]) -> None:
    if not all(_actions(statement) for statement in statements):
        raise _Malformed("Policy statement must contain actions.")


def _check_that_resources_exist(statements: Sequence[Statement]) -> None:
    if not all(_resources(statement) for statement in statements):
        raise _Malformed("Policy statement must contain resources.")


def _check_that_nobody_is_named(statements: Sequence[Statement]) -> None:
    if any(_PRINCIPALS & statement.keys() for statement in statements):
        raise _Malformed("Policy document should not specify a principal.")


def _check_resources(statements: Sequence[Statement]) -> None:
    for statement in statements:
        # Of several, the first in the alphabet is named, as recorded.
        for resource in sorted(_resources(statement)):
            if fault := _resource_fault(resource):
                raise _Malformed(fault)


def _resource_fault(resource: str) -> str:
    """Return AWS's text about the format of a resource, empty for a good one."""
    if resource and not resource.strip("*"):
        return ""
    parts = resource.split(":", 5)
    if len(parts) == 1:
        return f'Resource {resource} must be in ARN format or "*".'
    if not _PARTITION.fullmatch(parts[1]):
        shown = [] if parts[2:] == [""] else parts[2:]
        return f'Partition "{parts[1]}" is not valid for resource "arn:{":".join([parts[1], *_padded(shown)])}".'
    if len(parts) == 2 or not parts[2]:
        return "Resource vendor must be fully qualified and cannot contain regexes."
    return _service_fault(resource, parts[2], "".join(parts[3:4]), "".join(parts[5:]))


def _service_fault(resource: str, service: str, region: str, rest: str) -> str:
    if service == "iam" and region:
        return f"IAM resource {resource} cannot contain region information."
    if service == "iam" and not rest.startswith((*_IAM_PATHS, "*")):
        return _IAM_PATH_TEXT
    if service == "s3" and region and not rest.startswith("accesspoint/"):
        return f"Resource {resource} can not contain region information."
    return ""


def _padded(parts: list[str]) -> list[str]:
    return [*parts, *["*"] * (4 - len(parts))]


def _check_actions(statements: Sequence[Statement]) -> None:
    for statement in statements:
        for action in _actions(statement):
            if fault := _action_fault(action):
                raise _Malformed(fault)


def _action_fault(action: str) -> str:
    vendor, *rest = action.split(":")
    if not rest and (vendor.strip("*") or not vendor):
        return "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
    if len(rest) > 1:
        return "Actions/Condition can contain only one colon."
    is_star = vendor == "*" or (not rest and vendor)
    return "" if is_star or _VENDOR.fullmatch(vendor) else f"Vendor {vendor} is not valid"


def _check_trust(statements: Sequence[Statement]) -> None:
    for statement in statements:
        if {"Resource", "NotResource"} & statement.keys():
            raise _Malformed("Has prohibited field Resource.")
    for statement in statements:
        if any(action.lower() not in _TRUST_ACTIONS for action in _actions(statement)):
            raise _Malformed("AssumeRole policy may only specify STS AssumeRole actions.")
    if not all(_PRINCIPALS & statement.keys() for statement in statements):
        raise _Malformed("Missing required field Principal")


def _absent_principal(statements: Sequence[Statement], is_principal: Callable[[str], bool]) -> str:
    for statement in statements:
        named = _mapping(statement.get("Principal", statement.get("NotPrincipal")))
        for name in _listed(named.get("AWS", [])):
            if _ROLE_OR_USER.match(name) and not is_principal(name):
                return name
    return ""


# --- sizes ----------------------------------------------------------------------------------------------------------


def policy_size(document: str) -> int:
    """Return the characters of a document that count: white space outside texts does not."""
    return sum(
        len(piece) if quoted else len("".join(piece.split()))
        for quoted, piece in ((piece.startswith('"'), piece) for piece in _TEXT.findall(document))
    )


_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"?|[^"]+', re.DOTALL)


def check_size(size: int, limit: int, message: str) -> None:
    """Refuse what is longer than its quota.

    Args:
        size: Characters that count, see :func:`policy_size`.
        limit: The quota.
        message: AWS's text.

    Raises:
        Refusal: ``LimitExceeded``.
    """
    if size > limit:
        raise Refusal("LimitExceeded", message, 409)


# --- S3 -------------------------------------------------------------------------------------------------------------

_BUCKET_POLICY_BYTES = 20 * 1024
_ON_BUCKETS = re.compile(
    r"s3:(list(bucket.*|$)|(get|put|delete)(bucket|accelerate|analytics|encryption|inventory|lifecycle|metrics"
    r"|replication|intelligent).*|createbucket)"
)
"""Bucket actions, lower-cased; every other action of S3 is about objects."""


def check_bucket_policy(document: str, bucket: str, is_principal: Callable[[str], bool] = bool) -> None:
    """Check the policy of a bucket that is about to be stored.

    Args:
        document: The text as sent.
        bucket: Name of the bucket, outside of which the policy cannot speak.
        is_principal: Whether an ARN of a role or user is one of somebody who is there (IAM-DOC-05).

    Raises:
        Refusal: ``MalformedPolicy`` or ``PolicyTooLarge``.
    """
    if len(document.encode(errors="replace")) > _BUCKET_POLICY_BYTES:
        raise Refusal("PolicyTooLarge", "Policy exceeds the maximum allowed document size.", 400)
    try:
        _check_bucket_statements(_bucket_statements(document), bucket, is_principal)
    except _Malformed as fault:
        raise Refusal("MalformedPolicy", str(fault), 400) from None


def _bucket_statements(document: str) -> list[Statement]:
    try:
        json.loads(document)
    except (ValueError, RecursionError):
        raise _Malformed("Policies must be valid JSON and the first byte must be '{'") from None
    if not document.startswith("{"):
        raise _Malformed("Policies must be valid JSON and the first byte must be '{'")
    try:
        body = _parsed(document, has_principals=True)
    except _Malformed:
        raise _Malformed("Invalid policy syntax.") from None
    return _listed(body["Statement"])


def _check_bucket_statements(statements: Sequence[Statement], bucket: str, is_principal: Callable[[str], bool]) -> None:
    for statement in statements:
        _check_bucket_statement(statement, bucket)
    if _absent_principal(statements, is_principal):
        raise _Malformed("Invalid principal in policy")


def _check_bucket_statement(statement: Statement, bucket: str) -> None:
    if statement["Effect"] not in {"Allow", "Deny"}:
        raise _Malformed("Invalid policy syntax.")
    for field, is_there in (
        ("Principal", bool(_PRINCIPALS & statement.keys())),
        ("Action", bool(_actions(statement))),
        ("Resource", bool(_resources(statement))),
    ):
        if not is_there:
            raise _Malformed(f"Missing required field {field}")
    if not all(_is_s3_action(action) for action in _actions(statement)):
        raise _Malformed("Policy has invalid action")
    if not all(_is_in_bucket(resource, bucket) for resource in _resources(statement)):
        raise _Malformed("Policy has invalid resource")
    if "Action" in statement and "Resource" in statement and not _do_actions_fit(statement):
        raise _Malformed("Action does not apply to any resource(s) in statement")


def _is_s3_action(action: str) -> bool:
    return action == "*" or re.fullmatch(r"s3:[a-zA-Z0-9*?]+", action, re.IGNORECASE) is not None


def _is_in_bucket(resource: str, bucket: str) -> bool:
    found = re.fullmatch(r"arn:(?:aws[a-z-]*|\*):s3:::(?P<bucket>[^/]*)(?:/.*)?", resource, re.DOTALL)
    return found is not None and Pattern(literal_tokens(found["bucket"], has_wildcards=True)).matches(bucket, {})


def _do_actions_fit(statement: Statement) -> bool:
    """Tell whether no action is about objects only where the bucket is named, or the reverse."""
    names = [resource.split(":", 5)[5] for resource in _resources(statement)]
    if any(name.endswith("*") and "/" not in name for name in names):
        # Such a pattern takes in bucket and objects.
        return True
    kinds = {"/" in name for name in names}
    plain = [action.lower() for action in _actions(statement) if not {"*", "?"} & set(action)]
    return all((_ON_BUCKETS.fullmatch(action) is None) in kinds for action in plain)


# --- reading --------------------------------------------------------------------------------------------------------


def _parsed(document: str, *, has_principals: bool) -> Mapping[str, Any]:
    """Return a document whose elements are known and have the types that they must have."""
    try:
        value = strict_json(document)
    except ValueError:
        raise _Malformed(_SYNTAX) from None
    _require(isinstance(value, dict))
    body = cast("dict[str, Any]", value)
    _require(_depth_is_fine(body))
    _require(not body.keys() - _TOP and "Statement" in body)
    _require(isinstance(body.get("Id", ""), str))
    version = body.get("Version", "2008-10-17")
    _require(isinstance(version, str) and version in _VERSIONS)
    statements = _listed(body["Statement"])
    _require(bool(statements))
    for statement in statements:
        _check_statement(statement, has_principals=has_principals)
    return body


def _check_statement(value: Any, *, has_principals: bool) -> None:
    _require(isinstance(value, dict))
    statement = cast("dict[str, Any]", value)
    _require(not statement.keys() - _ELEMENTS - _PRINCIPALS)
    for element in ("Action", "Resource", "Principal"):
        _require(not {element, f"Not{element}"} <= statement.keys())
    effect = statement.get("Effect")
    _require(isinstance(effect, str) and effect.lower() in {"allow", "deny"})
    _require(isinstance(statement.get("Sid", ""), str))
    for element in ("Action", "NotAction", "Resource", "NotResource"):
        _require(_are_texts(statement.get(element, "")))
    if has_principals:
        for element in _PRINCIPALS & statement.keys():
            _check_principal(statement[element])
    _check_condition(statement.get("Condition", {}))


def _check_principal(value: Any) -> None:
    if value == "*":
        return
    _require(isinstance(value, dict))
    named = cast("dict[str, Any]", value)
    _require(
        bool(named)
        and not named.keys() - _PRINCIPAL_KINDS
        and all(names and _are_texts(names) for names in named.values())
    )


def _check_condition(value: Any) -> None:
    _require(isinstance(value, dict))
    for name, tests in cast("dict[str, Any]", value).items():
        _require(isinstance(tests, dict))
        keys = cast("dict[str, Any]", tests)
        # An operator that does not exist passes if it tests nothing, as recorded.
        _require(parse_operator(name) is not None or not keys)
        for values in keys.values():
            _require(all(isinstance(item, str | bool | Decimal) for item in _listed(values)))


def _require(is_fine: bool) -> None:
    if not is_fine:
        raise _Malformed(_SYNTAX)


def _depth_is_fine(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [item for outer in level for item in _inner(outer)]
        if not level:
            return True
    return False


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []


def _are_texts(value: Any) -> bool:
    return all(isinstance(item, str) for item in _listed(value))


def _listed(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _actions(statement: Statement) -> list[str]:
    return _listed(statement.get("Action", statement.get("NotAction", [])))


def _resources(statement: Statement) -> list[str]:
    return _listed(statement.get("Resource", statement.get("NotResource", [])))
