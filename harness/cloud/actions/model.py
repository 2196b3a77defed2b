"""What a mapping from calls to checks takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.cloud.documents import entries, is_mapping, members
from harness.cloud.iam.model import Check, ContextValue
from harness.cloud.ports import NamedPolicy, Principal

__all__ = ["Bucket", "Key", "ParsedCall", "Plan", "PlannedCheck", "Resources", "StoredTags", "with_stored_tags"]


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A call whose signature is verified and whose parameters are parsed."""

    service: str
    """As SDKs name it: ``s3``, ``eks``, ``eks-auth``, ``elbv2``."""
    operation: str
    parameters: Mapping[str, Any]
    caller: Principal
    region: str
    partition: str = "aws"

    @property
    def account(self) -> str:
        """Account of the caller."""
        return self.caller.account

    def text(self, member: str) -> str:
        """Return a text parameter, empty when it is absent."""
        value = self.parameters.get(member)
        return value if isinstance(value, str) else ""

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a regional resource of the caller's account."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def iam_arn(self, resource: str) -> str:
        """Return the ARN of an IAM resource of the caller's account."""
        return f"arn:{self.partition}:iam::{self.account}:{resource}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """An S3 bucket as stored at decision time."""

    name: str
    account: str
    """Its owner."""
    policy: NamedPolicy | None


@dataclass(frozen=True, slots=True)
class Key:
    """A key of KMS."""

    arn: str
    policy: NamedPolicy


class Resources(Protocol):
    """Stored resources, read at decision time."""

    def bucket(self, name: str) -> Bucket | None:
        """Return a bucket of any account."""
        ...

    def iam_path(self, account: str, kind: str, name: str) -> str:
        """Return the path of a role, user, group or instance profile; ``/`` when it is not there."""
        ...

    def secret(self, account: str, region: str, secret_id: str) -> str | None:
        """Return the full ARN of the secret with this name or (partial) ARN."""
        ...

    def secret_policy(self, arn: str) -> NamedPolicy | None:
        """Return the resource policy of the secret with this full ARN."""
        ...

    def secret_key(self, arn: str) -> str:
        """Return the key that the secret with this full ARN names; empty for none."""
        ...

    def find_secrets(self, account: str, region: str, filters: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        """Return the names of the secrets that all filters of ListSecrets match."""
        ...

    def tags(self, arn: str, version: str = "") -> Mapping[str, str]:
        """Return the stored tags of a resource, or of a version of it; empty without such a resource."""
        ...

    def vpc_of(self, group_arn: str) -> str:
        """Return the id of the VPC of a security group; empty when it is not there."""
        ...

    def partition_key(self, arn: str) -> str:
        """Return the name of the partition key of a DynamoDB table or index; empty when it is not there."""
        ...

    def kms_key(self, account: str, region: str, named: str, ciphertext: bytes) -> Key | None:
        """Return the key with this id, ARN, alias or alias' ARN, or, if none is named, the key of a ciphertext."""
        ...

    def addon_arn(self, cluster_arn: str, name: str) -> str:
        """Return the ARN of an add-on, with ``*`` for its identifier when it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class StoredTags:
    """Tags that the check's resource has; looked up only if a statement that may decide names them (IAM-CTX-03)."""

    prefixes: tuple[str, ...]
    """Names under which policies see them, such as ``aws:ResourceTag/``."""
    version: str = ""
    """Version of an object, the current one without."""


@dataclass(frozen=True, slots=True)
class PlannedCheck:
    """A check with what only the mapping knows about it."""

    check: Check
    resource_policy: NamedPolicy | None = None
    shown: str | None = None
    """Name of the resource in a denial, where it is not the ARN (``iam.md`` 14.2)."""
    denial: str = ""
    """Text of a denial where a service has its own for what it asks another one in the caller's name."""
    stored_tags: StoredTags | None = None
    key: str | None = None
    """Object key of S3's DeleteObjects, name of a secret of BatchGetSecretValue: refused one by one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that must be allowed before a call may be served."""

    checks: tuple[PlannedCheck, ...] = ()
    """All must pass, in this order; none for a call that everybody may make or whose provider decides itself."""
    if_object_is_missing: PlannedCheck | None = None
    """S3: who may not list the bucket is not told that an object is not there (IAM-S3-04)."""


def planned(
    call: ParsedCall,
    resource: str,
    *,
    action: str = "",
    context: Mapping[str, ContextValue] | None = None,
    tags: Sequence[str] | None = None,
) -> PlannedCheck:
    """Return a check on a resource of the caller's account.

    Args:
        call: The call.
        resource: ARN or ``*``.
        action: Default: the operation's own name under the service's prefix.
        context: Keys of the check.
        tags: Names under which policies see the resource's stored tags, beside ``aws:ResourceTag/``; None: not at all.
    """
    check = Check(action or f"{call.service}:{call.operation}", resource, context=dict(context or {}))
    if tags is None or resource == "*":
        return PlannedCheck(check)
    return PlannedCheck(check, stored_tags=StoredTags(("aws:ResourceTag/", *tags)))


def with_stored_tags(planned: PlannedCheck, asked: Sequence[str], resources: Resources) -> Check:
    """Return a check with the stored tags that policies may look at.

    Args:
        planned: The check.
        asked: Lower-cased keys that statements about its action name.
        resources: Asked for tags only if one of the keys is a tag's.
    """
    stored = planned.stored_tags
    prefixes = [one for one in stored.prefixes if any(key.startswith(one.lower()) for key in asked)] if stored else ()
    if stored is None or not prefixes:
        return planned.check
    tags = resources.tags(planned.check.resource, stored.version)
    keys = {f"{prefix}{key}": value for prefix in prefixes for key, value in tags.items()}
    return planned.check._replace(context={**planned.check.context, **keys})


@dataclass(frozen=True, slots=True)
class RequestTags:
    """Tags in a request as context keys."""

    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, value: Any) -> RequestTags:
        """Read tags in either form: a map, or a list of ``Key`` and ``Value``."""
        if is_mapping(value):
            return cls({key: str(item) for key, item in members(value).items()})
        tags = map(members, entries(value))
        return cls({str(tag.get("Key", "")): str(tag.get("Value", "")) for tag in tags})

    def context(self) -> dict[str, ContextValue]:
        """Return ``aws:RequestTag/*`` and ``aws:TagKeys``; empty without tags."""
        if not self.tags:
            return {}
        keys: dict[str, ContextValue] = {f"aws:RequestTag/{key}": value for key, value in self.tags.items()}
        return keys | {"aws:TagKeys": tuple(self.tags)}
