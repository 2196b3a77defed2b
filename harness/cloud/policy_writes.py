"""Calls that store a policy document: which member holds it, what it may be, and how long (``iam.md`` 2.1 to 2.3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.cloud.iam.resource_policies import check_bucket_policy, check_resource_policy
from harness.cloud.iam.validation import WrittenKind, check_document, check_size, policy_size
from harness.cloud.ports import Refusal

__all__ = ["StoredPolicies", "check_policy_write"]

_LONGEST = 131_072
_CHARACTERS = re.compile(r"[\t\n\r\x20-\xff]+")


class StoredPolicies(Protocol):
    """What is stored beside the document that is being written."""

    def has_principal(self, arn: str) -> bool:
        """Tell whether a role or user with exactly this ARN is there."""
        ...

    def inline_policies(self, account: str, kind: str, name: str) -> Mapping[str, str]:
        """Return the inline policies of a ``role``, ``user`` or ``group`` by name; empty when it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class _Write:
    member: str
    kind: WrittenKind
    check_size: Callable[[str, Mapping[str, Any], str, StoredPolicies], None]


def _managed(document: str, _: Mapping[str, Any], __: str, ___: StoredPolicies) -> None:
    check_size(policy_size(document), 6144, "Cannot exceed quota for PolicySize: 6144")


def _trust(document: str, _: Mapping[str, Any], __: str, ___: StoredPolicies) -> None:
    check_size(policy_size(document), 2048, "Cannot exceed quota for ACLSizePerRole: 2048")


def _inline(entity: str, limit: int) -> Callable[[str, Mapping[str, Any], str, StoredPolicies], None]:
    """Return the check of an entity's inline policies, whose sizes add up."""

    def check(document: str, parameters: Mapping[str, Any], account: str, stored: StoredPolicies) -> None:
        name = str(parameters.get(f"{entity.title()}Name") or "")
        others = dict(stored.inline_policies(account, entity, name))
        others.pop(str(parameters.get("PolicyName") or ""), None)
        size = policy_size(document) + sum(map(policy_size, others.values()))
        check_size(size, limit, f"Maximum policy size of {limit} bytes exceeded for {entity} {name}")

    return check


_IAM: Mapping[str, _Write] = {
    "CreatePolicy": _Write("PolicyDocument", "identity", _managed),
    "CreatePolicyVersion": _Write("PolicyDocument", "identity", _managed),
    "CreateRole": _Write("AssumeRolePolicyDocument", "trust", _trust),
    "PutGroupPolicy": _Write("PolicyDocument", "identity", _inline("group", 5120)),
    "PutRolePolicy": _Write("PolicyDocument", "identity", _inline("role", 10240)),
    "PutUserPolicy": _Write("PolicyDocument", "identity", _inline("user", 2048)),
    "UpdateAssumeRolePolicy": _Write("PolicyDocument", "trust", _trust),
}
_OF_RESOURCES: Mapping[tuple[str, str], tuple[str, int]] = {
    ("kms", "CreateKey"): ("Policy", 32_768),
    ("kms", "PutKeyPolicy"): ("Policy", 32_768),
    ("secretsmanager", "PutResourcePolicy"): ("ResourcePolicy", 20_480),
}
"""Member that holds the policy, and the characters that it may have."""


def check_policy_write(
    service: str, operation: str, parameters: Mapping[str, Any], account: str, stored: StoredPolicies
) -> None:
    """Check the document that a call is about to store; calls that store none pass.

    Args:
        service: As SDKs name it.
        operation: The operation.
        parameters: Its parameters.
        account: Account of the caller.
        stored: What is there already.

    Raises:
        Refusal: What the service answers: ``ValidationError``, ``MalformedPolicyDocument``, ``LimitExceeded`` of IAM,
            ``MalformedPolicy``, ``PolicyTooLarge`` of S3, ``MalformedPolicyDocumentException`` of Secrets Manager, KMS.
    """
    if (service, operation) == ("s3", "PutBucketPolicy"):
        bucket, document = (str(parameters.get(member) or "") for member in ("Bucket", "Policy"))
        check_bucket_policy(document, bucket, stored.has_principal)
    member, longest = _OF_RESOURCES.get((service, operation), ("", 0))
    if text := parameters.get(member):
        check_resource_policy(str(text), longest, stored.has_principal)
    write = _IAM.get(operation) if service == "iam" else None
    if write is None:
        return
    document = str(parameters.get(write.member) or "")
    _check_parameter(write.member, document)
    check_document(document, write.kind, stored.has_principal)
    write.check_size(document, parameters, account, stored)


def _check_parameter(member: str, document: str) -> None:
    path = member[0].lower() + member[1:]
    constraint = ""
    if not document:
        constraint = "have length greater than or equal to 1"
    elif len(document) > _LONGEST:
        constraint = f"have length less than or equal to {_LONGEST}"
    elif not _CHARACTERS.fullmatch(document):
        constraint = r"satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u00FF]+"
    if constraint:
        text = f"1 validation error detected: Value at '{path}' failed to satisfy constraint: Member must {constraint}"
        raise Refusal("ValidationError", text, 400)
