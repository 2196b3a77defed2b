"""What IAM and STS refuse to store or to take, in their words and in their order (``iam.md`` 2.1 to 2.3).

Evaluation needs none of this: :mod:`harness.cloud.iam.policy` reads strictly by itself. Here the question is which of
AWS's texts a document gets that nobody stores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from harness.cloud.iam.conditions import parse_operator
from harness.cloud.iam.written import (
    PRINCIPALS,
    Malformed,
    WrittenStatement,
    absent_principal,
    actions_of,
    listed,
    mapping,
    read_document,
    resources_of,
)
from harness.cloud.ports import Refusal

__all__ = ["WrittenKind", "check_document", "check_size", "policy_size"]

WrittenKind = Literal["identity", "session", "trust"]

_VENDOR = re.compile(r"[a-zA-Z0-9.-]+")
_PARTITION = re.compile(r"aws(-[a-z]+)*|\*")
_DATE = re.compile(
    r"(?P<number>[+-]?\d{1,400})(-(0?[1-9]|1[0-2])(-(0?[1-9]|[12]\d|3[01]))?)?"
    r"([Tt](\d{1,2}(:\d{1,2}){0,2}([.,]\d{1,9})?)?([Zz]|[+-]\d{2}(:?\d{2})?)?)?",
    re.ASCII,
)
_IAM_PATHS = (
    "user/", "federated-user/", "role/", "group/", "instance-profile/", "mfa/", "server-certificate/", "policy/",
    "sms-mfa/", "saml-provider/", "oidc-provider/", "report/", "access-report/",
)  # fmt: skip
_IAM_PATH_TEXT = f'IAM resource path must either be "*" or start with {", ".join(_IAM_PATHS)}.'
_TRUST_ACTIONS = {
    "*", "sts:*", "sts:assumerole", "sts:assumerolewithsaml", "sts:assumerolewithwebidentity", "sts:setcontext",
    "sts:setsourceidentity", "sts:tagsession",
}  # fmt: skip


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
    except Malformed as fault:
        raise Refusal("MalformedPolicyDocument", str(fault), 400) from None


def _check(document: str, kind: WrittenKind, is_principal: Callable[[str], bool]) -> None:
    body = read_document(document, has_principals=kind == "trust")
    statements: list[WrittenStatement] = listed(body["Statement"])
    if kind == "identity" and body.get("Version") != "2012-10-17":
        raise Malformed("Policy document must be version 2012-10-17 or greater.")
    steps: list[Callable[[Sequence[WrittenStatement]], None]] = [_check_legacy, _check_sids, _check_that_actions_exist]
    steps += [_check_resources, _check_actions]
    if kind == "trust":
        steps.append(_check_trust)
    else:
        steps += [_check_that_resources_exist, _check_that_nobody_is_named]
    for step in steps:
        step(statements)
    if absent := absent_principal(statements, is_principal):
        raise Malformed(f'Invalid principal in policy: "AWS":"{absent}"')


def _check_legacy(statements: Sequence[WrittenStatement]) -> None:
    for statement in statements:
        is_readable = statement["Effect"] in {"Allow", "Deny"} and all(_is_date(value) for value in _dates(statement))
        if not is_readable or any(_is_short_arn(resource) for resource in resources_of(statement)):
            raise Malformed("The policy failed legacy parsing")


def _dates(statement: WrittenStatement) -> Iterator[str]:
    for name, tests in mapping(statement.get("Condition")).items():
        operator = parse_operator(name)
        if operator and operator.name.startswith("date"):
            for values in mapping(tests).values():
                yield from (str(value) for value in listed(values))


def _is_date(text: str) -> bool:
    """Tell whether IAM stores a text as a date; it stores more than it can compare."""
    found = _DATE.fullmatch(text)
    return found is not None and int(found["number"]) < 2**63


def _is_short_arn(resource: str) -> bool:
    """Tell whether a resource has the colons of an ARN but not all of them, or no service."""
    partition, _, rest = resource.partition(":")[2].partition(":")
    is_aws = _PARTITION.fullmatch(partition) is not None
    return is_aws and "::" in resource and (resource.count(":") < 5 or rest.startswith(":"))


def _check_sids(statements: Sequence[WrittenStatement]) -> None:
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if len(set(sids)) < len(sids):
        raise Malformed("Statement IDs (SID) in a single policy must be unique.")


def _check_that_actions_exist(statements: Sequence[WrittenStatement]) -> None:
    if not all(actions_of(statement) for statement in statements):
        raise Malformed("Policy statement must contain actions.")


def _check_that_resources_exist(statements: Sequence[WrittenStatement]) -> None:
    if not all(resources_of(statement) for statement in statements):
        raise Malformed("Policy statement must contain resources.")


def _check_that_nobody_is_named(statements: Sequence[WrittenStatement]) -> None:
    if any(PRINCIPALS & statement.keys() for statement in statements):
        raise Malformed("Policy document should not specify a principal.")


def _check_resources(statements: Sequence[WrittenStatement]) -> None:
    for statement in statements:
        # Of several, the first in the alphabet is named, as recorded.
        for resource in sorted(resources_of(statement)):
            if fault := _resource_fault(resource):
                raise Malformed(fault)


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


def _check_actions(statements: Sequence[WrittenStatement]) -> None:
    for statement in statements:
        for action in actions_of(statement):
            if fault := _action_fault(action):
                raise Malformed(fault)


def _action_fault(action: str) -> str:
    vendor, *rest = action.split(":")
    if not rest and (vendor.strip("*") or not vendor):
        return "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
    if len(rest) > 1:
        return "Actions/Condition can contain only one colon."
    is_star = vendor == "*" or (not rest and vendor)
    return "" if is_star or _VENDOR.fullmatch(vendor) else f"Vendor {vendor} is not valid"


def _check_trust(statements: Sequence[WrittenStatement]) -> None:
    for statement in statements:
        if {"Resource", "NotResource"} & statement.keys():
            raise Malformed("Has prohibited field Resource.")
    for statement in statements:
        if any(action.lower() not in _TRUST_ACTIONS for action in actions_of(statement)):
            raise Malformed("AssumeRole policy may only specify STS AssumeRole actions.")
    if not all(PRINCIPALS & statement.keys() for statement in statements):
        raise Malformed("Missing required field Principal")


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
