"""How many policies and tags an entity of IAM may have (``iam.md`` 2.3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from harness.cloud.documents import entries, members
from harness.cloud.ports import Refusal

__all__ = ["StoredEntities", "check_quotas"]

_ATTACHED = 10
_TAGS = 50
_ATTACHING = {"AttachGroupPolicy": "group", "AttachRolePolicy": "role", "AttachUserPolicy": "user"}
_TAGGING = {"TagPolicy": ("policy", "PolicyArn"), "TagRole": ("role", "RoleName"), "TagUser": ("user", "UserName")}


class StoredEntities(Protocol):
    """What is stored of the entity that a call is about."""

    def attached_policies(self, account: str, kind: str, name: str) -> Collection[str]:
        """Return the ARNs of the managed policies of a ``role``, ``user`` or ``group``; none when it is not there."""
        ...

    def tag_keys(self, account: str, kind: str, name: str) -> Collection[str]:
        """Return the keys of an entity's tags, of a ``policy`` by its ARN; none when it is not there."""
        ...


def check_quotas(operation: str, parameters: Mapping[str, Any], account: str, stored: StoredEntities) -> None:
    """Check whether an entity has room for what a call of IAM gives it; other calls pass.

    Args:
        operation: The operation.
        parameters: Its parameters.
        account: Account of the caller.
        stored: What is there already.

    Raises:
        Refusal: ``LimitExceeded``.
    """
    if kind := _ATTACHING.get(operation):
        name = str(parameters.get(f"{kind.title()}Name"))
        attached = {*stored.attached_policies(account, kind, name), str(parameters.get("PolicyArn"))}
        if len(attached) > _ATTACHED:
            raise Refusal("LimitExceeded", f"Cannot exceed quota for PoliciesPer{kind.title()}: {_ATTACHED}", 409)
    if operation in _TAGGING:
        kind, member = _TAGGING[operation]
        added = [str(members(tag).get("Key")) for tag in entries(parameters.get("Tags"))]
        keys = {key.lower() for key in [*stored.tag_keys(account, kind, str(parameters.get(member))), *added]}
        if len(keys) > _TAGS and len(added) <= _TAGS:
            # More than that in one call is another error, of the parameter.
            raise Refusal("LimitExceeded", "The number of tags has reached the maximum limit.", 409)
