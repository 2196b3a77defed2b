from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.cloud.iam.model import ContextValue, PolicySet
from harness.cloud.ports import Clock, Credential, IamStore, Ids, Principal, Role


@dataclass(frozen=True, slots=True)
class AssumeRoleRequest:
    """Parameters of AssumeRole."""

    role_arn: str
    role_session_name: str | None
    duration_seconds: int | None = None
    tags: tuple[tuple[str, str], ...] = ()
    transitive_tag_keys: tuple[str, ...] = ()
    external_id: str | None = None
    source_identity: str | None = None
    policy: str | None = None
    policy_arns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AssumedRole:
    credential: Credential
    role: Role
    request: AssumeRoleRequest
    caller: Principal
    duration_seconds: int
    packed_policy_size: int | None
    inherited_tags: Mapping[str, str]


def assume_role(
    request: AssumeRoleRequest,
    caller: Credential | Principal,
    iam: IamStore,
    ids: Ids,
    clock: Clock,
    *,
    source_arn: str = "",
    source_account: str = "",
    inherited_as_request_tags: bool = False,
    context: Mapping[str, ContextValue] | None = None,
    managed_policy: Callable[[str], str | None] | None = None,
) -> AssumedRole:
    raise NotImplementedError


def caller_identity(credential: Credential) -> dict[str, str]:
    raise NotImplementedError


def role_policies(credential: Credential, iam: IamStore) -> PolicySet:
    raise NotImplementedError
