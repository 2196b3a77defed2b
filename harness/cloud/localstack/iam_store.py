"""The IAM that LocalStack keeps, as the domain reads it: roles, policies, users and their keys."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.cloud.credentials import CredentialRegistry, account_of_access_key
from harness.cloud.documents import is_mapping, members
from harness.cloud.localstack import internals
from harness.cloud.localstack.bootstrap import ADMINISTRATOR
from harness.cloud.ports import Clock, Credential, NamedPolicy, Organization, Principal, Role
from harness.cloud.web_identity import OidcProvider

__all__ = ["AccessKeys", "StoredIam"]

_ARN = re.compile(r"arn:aws:iam::(?P<account>\d{12}):(?P<kind>role|user)/(?P<path>.*/)?(?P<name>[^/]+)")
_ADMINISTRATOR_POLICY = "arn:aws:iam::aws:policy/AdministratorAccess"


@dataclass(frozen=True, slots=True)
class _Former:
    """An account's roles, and users' policies, by ARN, before it changed."""

    until: datetime
    account: str
    roles: Mapping[str, Role]
    users: Mapping[str, tuple[NamedPolicy, ...]]


class StoredIam:
    """Reads moto's IAM at the moment of the decision."""

    def __init__(self, clock: Clock, *, delay: float = 0) -> None:
        """Begin without memory.

        Args:
            clock: The lab's time.
            delay: Seconds until a change counts for decisions (IAM-GATE-05).
        """
        self._clock = clock
        self._delay = timedelta(seconds=delay)
        self._lock = threading.Lock()
        self._role_ids: dict[str, str] = {}
        self._former: list[_Former] = []
        self.organizations: dict[str, Organization] = {}
        """By account; whoever runs the lab sets them."""

    def before_change(self, account: str) -> None:
        """Keep what an account has before it changes, as long as that still counts."""
        if not self._delay:
            return
        backend = internals.iam_backend(account)
        roles = {str(role.arn): _role(backend, role, account) for role in list(backend.roles.values())}
        users = {str(user.arn): _user_policies(backend, user) for user in list(backend.users.values())}
        now = self._clock.now()
        with self._lock:
            self._former = [former for former in self._former if former.until > now - self._delay]
            self._former.append(_Former(now, account, roles, users))

    def forget_changes(self) -> None:
        """Let everything count as it is."""
        with self._lock:
            self._former.clear()

    def _as_it_counts(self, account: str) -> _Former | None:
        """Return what an account had when the changes that do not count yet had not been made; None: none such."""
        if not self._delay:
            return None
        moment = self._clock.now() - self._delay
        with self._lock:
            return next((one for one in self._former if one.account == account and one.until > moment), None)

    def role(self, arn: str) -> Role | None:
        """Return the role with exactly this ARN, as it counts for decisions now."""
        found = _ARN.fullmatch(arn)
        former = self._as_it_counts(found["account"]) if found else None
        return former.roles.get(arn) if former else self._stored_role(arn)

    def _stored_role(self, arn: str) -> Role | None:
        found = _ARN.fullmatch(arn)
        if not found or found["kind"] != "role":
            return None
        backend = internals.iam_backend(found["account"])
        # moto files roles by id. Where one was seen is only a hint: what stands there now must have the ARN.
        role = backend.roles.get(self._role_ids.get(arn))
        if role is None or role.arn != arn:
            role = next((one for one in list(backend.roles.values()) if one.arn == arn), None)
            if role is None:
                self._role_ids.pop(arn, None)
                return None
            self._role_ids[arn] = str(role.id)
        return _role(backend, role, found["account"])

    def user_policies(self, arn: str) -> tuple[NamedPolicy, ...] | None:
        """Return identity policies of a user and its groups as they count now, or None without such a user."""
        found = _ARN.fullmatch(arn)
        if not found or found["kind"] != "user":
            return None
        if former := self._as_it_counts(found["account"]):
            return former.users.get(arn)
        backend = internals.iam_backend(found["account"])
        user = backend.users.get(found["name"])
        if user is None or user.arn != arn:
            return None
        return _user_policies(backend, user)

    def user(self, arn: str) -> Principal | None:
        """Return the user with exactly this ARN."""
        found = _ARN.fullmatch(arn)
        user = internals.iam_backend(found["account"]).users.get(found["name"]) if found else None
        if found is None or user is None or user.arn != arn:
            return None
        return _user(user, found["account"])

    def organization(self, account: str) -> Organization | None:
        """Return what an account's organization says about it; by default there is none."""
        return self.organizations.get(account)

    def has_principal(self, arn: str) -> bool:
        """Tell whether a role or user with exactly this ARN is there."""
        found = _ARN.fullmatch(arn)
        if not found:
            return False
        user = internals.iam_backend(found["account"]).users.get(found["name"])
        return self._stored_role(arn) is not None or (user is not None and user.arn == arn)

    def inline_policies(self, account: str, kind: str, name: str) -> Mapping[str, str]:
        """Return the inline policies of a role, user or group by name; empty when it is not there."""
        found = _entity(account, kind, name)
        return {str(key): _text(document) for key, document in dict(found.policies).items()} if found else {}

    def attached_policies(self, account: str, kind: str, name: str) -> Collection[str]:
        """Return the ARNs of the managed policies of a role, user or group; none when it is not there."""
        found = _entity(account, kind, name)
        return [str(policy.arn) for policy in list(found.managed_policies.values())] if found else []

    def tag_keys(self, account: str, kind: str, name: str) -> Collection[str]:
        """Return the keys of an entity's tags, of a policy by its ARN; none when it is not there."""
        policies = internals.iam_backend(account).managed_policies
        found = policies.get(name) if kind == "policy" else _entity(account, kind, name)
        return _tags(found.tags) if found else ()

    def managed_policy(self, arn: str) -> str | None:
        """Return the document of a managed policy, AWS's own or an account's."""
        account = arn.split(":")[4] if arn.count(":") >= 5 else ""
        backend = internals.iam_backend(account if account.isdigit() else "000000000000")
        policy = backend.managed_policies.get(arn)
        return _default_document(policy) if policy else None

    def provider(self, account: str, issuer: str) -> OidcProvider | None:
        """Return the account's OIDC provider for an issuer, given without ``https://``."""
        arn = f"arn:aws:iam::{account}:oidc-provider/{issuer}"
        client_ids = internals.oidc_client_ids(account, arn)
        return None if client_ids is None else OidcProvider(arn, client_ids)

    def path(self, account: str, kind: str, name: str) -> str:
        """Return the path of an entity, ``/`` when it is not there."""
        found = _entity(account, kind, name)
        return str(found.path) if found else "/"

    def create_administrator(self, account: str) -> None:
        """Make the account's administrator: a user with AdministratorAccess."""
        backend = internals.iam_backend(account)
        if ADMINISTRATOR not in backend.users:
            backend.create_user(region_name="us-east-1", user_name=ADMINISTRATOR)
            backend.attach_user_policy(_ADMINISTRATOR_POLICY, ADMINISTRATOR)


class AccessKeys:
    """All access keys: the registry's, and behind it those that IAM issued to users."""

    def __init__(self, registry: CredentialRegistry) -> None:
        """Keep the registry."""
        self._registry = registry

    def find(self, access_key_id: str) -> Credential | None:
        """Return the credential of a key, or None for an unknown, inactive or deleted one."""
        if credential := self._registry.find(access_key_id):
            return credential
        account = account_of_access_key(access_key_id)
        owner = internals.access_key_owner(access_key_id, account) if account else None
        if owner is None or account is None:
            return None
        user, key = owner
        principal = _user(user, account)
        return Credential(
            access_key_id=access_key_id,
            secret_access_key=str(key.secret_access_key),
            session_token=None,
            principal=principal,
            issued_at=key.create_date.replace(tzinfo=UTC),
            expires_at=None,
            origin="iam-user",
        )

    def add(self, credential: Credential) -> None:
        """Register a new credential."""
        self._registry.add(credential)


def _entity(account: str, kind: str, name: str) -> Any | None:
    """Return moto's entity of a kind and name, or None."""
    backend = internals.iam_backend(account)
    entities: Mapping[str, Iterable[Any]] = {
        "role": backend.roles.values(),
        "user": backend.users.values(),
        "group": backend.groups.values(),
        "instance-profile": backend.instance_profiles.values(),
    }
    return next((entity for entity in list(entities[kind]) if entity.name == name), None)


def _user(user: Any, account: str) -> Principal:
    return Principal(kind="user", arn=str(user.arn), account=account, user_id=str(user.id), tags=_tags(user.tags))


def _user_policies(backend: Any, user: Any) -> tuple[NamedPolicy, ...]:
    groups = [group for group in list(backend.groups.values()) if user in group.users]
    return tuple(policy for entity in (user, *groups) for policy in _identity_policies(entity))


def _role(backend: Any, role: Any, account: str) -> Role:
    boundary = None
    if role.permissions_boundary_arn:
        policy = backend.managed_policies.get(role.permissions_boundary_arn)
        boundary = NamedPolicy(role.permissions_boundary_arn, _default_document(policy) if policy else "")
    return Role(
        arn=str(role.arn),
        name=str(role.name),
        role_id=str(role.id),
        account=account,
        trust_policy=_text(role.assume_role_policy_document),
        identity_policies=tuple(_identity_policies(role)),
        boundary=boundary,
        tags=_tags(role.tags),
        max_session_seconds=int(role.max_session_duration or 3600),
    )


def _identity_policies(entity: Any) -> Iterable[NamedPolicy]:
    for policy in list(entity.managed_policies.values()):
        yield NamedPolicy(str(policy.arn), _default_document(policy))
    for name, document in dict(entity.policies).items():
        yield NamedPolicy(f"inline:{name}", _text(document))


def _default_document(policy: Any) -> str:
    """Return the default version; LocalStack's ``policy.document`` stays the first one for ever."""
    return next((_text(version.document) for version in list(policy.versions) if version.is_default), "")


def _text(document: Any) -> str:
    return document if isinstance(document, str) else json.dumps(document)


def _tags(tags: Any) -> dict[str, str]:
    """Read tags in any of moto's forms."""
    if is_mapping(tags):
        return {key: str(members(value).get("Value", value)) for key, value in members(tags).items()}
    return {str(tag["Key"]): str(tag["Value"]) for tag in tags or ()}
