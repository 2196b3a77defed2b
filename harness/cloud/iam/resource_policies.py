"""What S3, Secrets Manager and KMS refuse to store as the policy of a resource, in their words (``iam.md`` 2.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from harness.cloud.iam.variables import literal_tokens
from harness.cloud.iam.wildcard import Pattern
from harness.cloud.iam.written import (
    PRINCIPALS,
    Malformed,
    WrittenStatement,
    absent_principal,
    actions_of,
    listed,
    read_document,
    resources_of,
)
from harness.cloud.ports import Refusal

__all__ = ["check_bucket_policy", "check_resource_policy"]

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
    except Malformed as fault:
        raise Refusal("MalformedPolicy", str(fault), 400) from None


def _bucket_statements(document: str) -> list[WrittenStatement]:
    try:
        json.loads(document)
    except (ValueError, RecursionError):
        raise Malformed("Policies must be valid JSON and the first byte must be '{'") from None
    if not document.startswith("{"):
        raise Malformed("Policies must be valid JSON and the first byte must be '{'")
    try:
        body = read_document(document, has_principals=True)
    except Malformed:
        raise Malformed("Invalid policy syntax.") from None
    return listed(body["Statement"])


def _check_bucket_statements(
    statements: Sequence[WrittenStatement], bucket: str, is_principal: Callable[[str], bool]
) -> None:
    for statement in statements:
        _check_bucket_statement(statement, bucket)
    if absent_principal(statements, is_principal):
        raise Malformed("Invalid principal in policy")


def _check_bucket_statement(statement: WrittenStatement, bucket: str) -> None:
    if statement["Effect"] not in {"Allow", "Deny"}:
        raise Malformed("Invalid policy syntax.")
    for field, is_there in (
        ("Principal", bool(PRINCIPALS & statement.keys())),
        ("Action", bool(actions_of(statement))),
        ("Resource", bool(resources_of(statement))),
    ):
        if not is_there:
            raise Malformed(f"Missing required field {field}")
    if not all(_is_s3_action(action) for action in actions_of(statement)):
        raise Malformed("Policy has invalid action")
    if not all(_is_in_bucket(resource, bucket) for resource in resources_of(statement)):
        raise Malformed("Policy has invalid resource")
    if "Action" in statement and "Resource" in statement and not _do_actions_fit(statement):
        raise Malformed("Action does not apply to any resource(s) in statement")


def _is_s3_action(action: str) -> bool:
    return action == "*" or re.fullmatch(r"s3:[a-zA-Z0-9*?]+", action, re.IGNORECASE) is not None


def _is_in_bucket(resource: str, bucket: str) -> bool:
    found = re.fullmatch(r"arn:(?:aws[a-z-]*|\*):s3:::(?P<bucket>[^/]*)(?:/.*)?", resource, re.DOTALL)
    return found is not None and Pattern(literal_tokens(found["bucket"], has_wildcards=True)).matches(bucket, {})


def _do_actions_fit(statement: WrittenStatement) -> bool:
    """Tell whether no action is about objects only where the bucket is named, or the reverse."""
    names = [resource.split(":", 5)[5] for resource in resources_of(statement)]
    if any(name.endswith("*") and "/" not in name for name in names):
        # Such a pattern takes in bucket and objects.
        return True
    kinds = {"/" in name for name in names}
    plain = [action.lower() for action in actions_of(statement) if not {"*", "?"} & set(action)]
    return all((_ON_BUCKETS.fullmatch(action) is None) in kinds for action in plain)


# --- Secrets Manager and KMS ----------------------------------------------------------------------------------------


def check_resource_policy(document: str, longest: int, is_principal: Callable[[str], bool] = bool) -> None:
    """Check the policy of a secret or key that is about to be stored.

    Args:
        document: The text as sent.
        longest: Characters that it may have.
        is_principal: Whether an ARN of a role or user is one of somebody who is there (IAM-DOC-05).

    Raises:
        Refusal: ``MalformedPolicyDocumentException``.
    """
    try:
        _check_resource_statements(document, longest, is_principal)
    except Malformed as fault:
        raise Refusal("MalformedPolicyDocumentException", str(fault), 400) from None


def _check_resource_statements(document: str, longest: int, is_principal: Callable[[str], bool]) -> None:
    if len(document) > longest:
        raise Malformed(f"The policy is longer than {longest} characters.")
    statements: list[WrittenStatement] = listed(read_document(document, has_principals=True)["Statement"])
    for statement in statements:
        is_whole = PRINCIPALS & statement.keys() and actions_of(statement) and resources_of(statement)
        if statement["Effect"] not in {"Allow", "Deny"} or not is_whole:
            raise Malformed("Syntax errors in policy.")
    if absent := absent_principal(statements, is_principal):
        raise Malformed(f'Invalid principal in policy: "AWS":"{absent}"')
