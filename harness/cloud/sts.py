"""AWS Security Token Service: who may become which role, and what the new session carries (``iam.md`` section 11).

AssumeRole is decided here on both sides, the caller's and the role's: the gate in front of the emulator asks nothing
about it. Nothing is registered here: the caller adds the credential it hands out, and only that one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from harness.cloud.credentials import new_access_key_id, new_secret, new_session_token
from harness.cloud.denials import access_denied
from harness.cloud.iam import authorize
from harness.cloud.iam.model import Check, ContextValue, EvaluationRequest, PolicySet
from harness.cloud.organizations import in_organizations
from harness.cloud.ports import Clock, Credential, IamStore, Ids, NamedPolicy, Principal, Refusal, Role
from harness.cloud.session_tags import (
    PackingProfile,
    check_session_tags,
    overlaid,
    packed_size,
    resource_tags,
    transitive_tags,
)
from harness.cloud.sts_request import AssumeRoleRequest, check_request, validation_error

__all__ = [
    "AssumeRoleRequest",
    "AssumedRole",
    "assume_role",
    "caller_identity",
    "caller_policies",
    "own_context",
    "questions",
    "role_policies",
    "session_policies",
]

LOG = logging.getLogger(__name__)

_DEFAULT_SECONDS = 3600
_CHAINED_SECONDS = 3600
_TRUSTS_NOBODY = (
    '{"Version":"2012-10-17","Statement":'
    '[{"Effect":"Allow","Principal":{"Service":"nobody.invalid"},"Action":"sts:AssumeRole"}]}'
)

_ROOTS_PERMISSIONS = NamedPolicy(
    "permissions of root",
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}',
)


@dataclass(frozen=True, slots=True)
class AssumedRole:
    """A new session, and what records of it tell."""

    credential: Credential
    role: Role
    request: AssumeRoleRequest
    caller: Principal
    duration_seconds: int
    packed_policy_size: int | None
    """Percent; None for a session without tags and session policies."""
    inherited_tags: Mapping[str, str]
    """Transitive tags of the calling session."""


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
    packing: PackingProfile = "roomy",
) -> AssumedRole:
    """Make a session of a role, if the role and the caller's own policies allow it.

    Args:
        request: What is asked for.
        caller: A credential, or the principal of an AWS service that acts for itself: its role's trust policy decides
            alone, and the role's maximum duration does not count (IAM-STS-17). Or a web identity, whose token was
            verified and whose keys are in ``context``.
        iam: Roles and users as they are now.
        ids: Source of keys.
        clock: The lab's time.
        source_arn: For services: resource on whose behalf they call (``aws:SourceArn``).
        source_account: For services: its account.
        inherited_as_request_tags: Show inherited tags to the policies as request tags too (IAM-STS-21).
        context: Keys of the call (``iam.md`` 8.1); None for a call that came over no wire.
        managed_policy: Document of a managed policy by ARN, for ``request.policy_arns``.
        packing: How much room session tags take.

    Raises:
        Refusal: ``ValidationError``, ``InvalidParameterValue``, ``MalformedPolicyDocument``, ``PackedPolicyTooLarge``
            (400), ``AccessDenied`` (403). A role that is not there is refused like one that trusts nobody
            (IAM-STS-13); what depends on the role beside its trust is therefore checked last.
    """
    check_request(request)
    attempt = _Attempt(request, caller)
    attempt.check_caller()
    check_session_tags(request.tags, request.transitive_tag_keys, attempt.inherited)
    size = packed_size(attempt.session_tags, (*filter(None, [request.policy]), *request.policy_arns), packing)
    role = iam.role(request.role_arn) or _absent(request.role_arn)
    keys = {
        **(own_context(attempt.credential, clock) if context is None else context),
        **attempt.context(role, inherited_as_request_tags=inherited_as_request_tags),
        **({"aws:SourceArn": source_arn} if source_arn else {}),
        **({"aws:SourceAccount": source_account} if source_account else {}),
    }
    _check_access(attempt, role, iam, keys)
    seconds = attempt.duration(role)
    return AssumedRole(
        credential=_new_credential(
            attempt,
            role,
            seconds,
            session_policies(request.policy, request.policy_arns, managed_policy),
            ids=ids,
            clock=clock,
        ),
        role=role,
        request=request,
        caller=attempt.principal,
        duration_seconds=seconds,
        packed_policy_size=size,
        inherited_tags=attempt.inherited,
    )


def caller_identity(credential: Credential) -> dict[str, str]:
    """Return GetCallerIdentity's answer: ``UserId``, ``Account``, ``Arn``; no policy is asked (IAM-STS-02)."""
    principal = credential.principal
    return {"UserId": principal.user_id, "Account": principal.account, "Arn": principal.arn}


def role_policies(credential: Credential, iam: IamStore) -> PolicySet:
    """Return what limits a role session: policies and boundary of its role as they are now, and session policies.

    A session whose role is gone has no permissions left; a new role of the same name is another role (IAM-EVAL-12).

    Returns:
        Identity, boundary and session policies; for a role that is gone, a boundary that allows nothing.
    """
    session = _named_session_policies(credential)
    role = iam.role(credential.principal.role_arn)
    if role is None or role.role_id != credential.principal.user_id.partition(":")[0]:
        # Absent identity policies are not enough: a resource policy that names the role's ARN needs none.
        return PolicySet(boundaries=(NamedPolicy("", ""),), session=session)
    boundaries = (role.boundary,) if role.boundary else ()
    return PolicySet(identity=role.identity_policies, boundaries=boundaries, session=session)


def _named_session_policies(credential: Credential) -> tuple[NamedPolicy, ...] | None:
    """Return the session policies of a credential, None when it was issued without any."""
    documents = credential.session_policies
    if documents is None:
        return None
    return tuple(NamedPolicy(f"session:{number}", text) for number, text in enumerate(documents, 1))


def caller_policies(caller: Credential | None, iam: IamStore) -> PolicySet:
    """Return what the caller's own account says about it; nothing for services, strangers and root."""
    if caller is None or caller.principal.kind == "root":
        return PolicySet()
    if caller.principal.kind == "role-session":
        return role_policies(caller, iam)
    if caller.principal.kind == "federated-user":
        # Without session policies nothing but a resource's own policy lets it in.
        by_root = caller.issuer.endswith(":root")
        identity = (_ROOTS_PERMISSIONS,) if by_root else iam.user_policies(caller.issuer) or ()
        return PolicySet(identity=identity, session=_named_session_policies(caller) or ())
    return PolicySet(identity=iam.user_policies(caller.principal.arn) or ())


# --- an attempt -----------------------------------------------------------------------------------------------------


class _Attempt:
    """A request together with what its caller brings along."""

    def __init__(self, request: AssumeRoleRequest, caller: Credential | Principal) -> None:
        self.request = request
        self.credential = caller if isinstance(caller, Credential) else None
        self.principal = caller if isinstance(caller, Principal) else caller.principal
        self.inherited = dict(self.credential.transitive_tags) if self.credential else {}
        self.is_chained = self.principal.kind == "role-session"
        self.former_identity = self.credential.source_identity if self.credential else ""
        self.source_identity = request.source_identity or self.former_identity

    @property
    def action(self) -> str:
        """What is done: a web identity has an action of its own."""
        return "sts:AssumeRoleWithWebIdentity" if self.principal.kind == "web-identity" else "sts:AssumeRole"

    @property
    def session_tags(self) -> dict[str, str]:
        """All tags that the new session gets beside its role's own."""
        return overlaid(dict(self.request.tags), self.inherited)

    @property
    def actions(self) -> Iterable[str]:
        """What must be allowed, in the order in which it is refused (IAM-STS-11, IAM-STS-12)."""
        yield self.action
        if self.session_tags:
            yield "sts:TagSession"
        if self.source_identity:
            yield "sts:SetSourceIdentity"

    def check_caller(self) -> None:
        """Refuse what this caller cannot ask for, whatever the role."""
        if self.principal.kind == "root":
            raise Refusal("AccessDenied", "Roles may not be assumed by root accounts.", 403)
        if self.is_chained and (self.request.duration_seconds or 0) > _CHAINED_SECONDS:
            raise validation_error(
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
            )

    def duration(self, role: Role) -> int:
        """Return seconds until the session ends."""
        seconds = self.request.duration_seconds or _DEFAULT_SECONDS
        # A chained session has its own limit, and what services get is agreed between them and STS.
        if not self.is_chained and self.principal.kind != "service" and seconds > role.max_session_seconds:
            raise validation_error("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
        return seconds

    def context(self, role: Role, *, inherited_as_request_tags: bool) -> dict[str, ContextValue]:
        """Return the keys of ``iam.md`` 9.1, the same for all checks (IAM-STS-20)."""
        request = self.request
        tags = self.session_tags if inherited_as_request_tags else dict(request.tags)
        keys: dict[str, ContextValue] = {"sts:RoleSessionName": request.role_session_name or ""}
        keys |= {f"aws:RequestTag/{key}": value for key, value in tags.items()}
        for key, value in resource_tags(role.tags, self.inherited).items():
            keys |= {f"aws:ResourceTag/{key}": value, f"iam:ResourceTag/{key}": value}
        if tags:
            keys["aws:TagKeys"] = tuple(tags)
        if request.transitive_tag_keys:
            keys["sts:TransitiveTagKeys"] = request.transitive_tag_keys
        if request.external_id is not None:
            keys["sts:ExternalId"] = request.external_id
        if self.source_identity:
            keys["sts:SourceIdentity"] = self.source_identity
        return keys


def _absent(arn: str) -> Role:
    """Return a stand-in for a role that is not there, which nobody can assume."""
    return Role(arn, arn.rpartition("/")[2], "", arn.split(":")[4], _TRUSTS_NOBODY, (), None, {})


def own_context(credential: Credential | None, clock: Clock) -> dict[str, ContextValue]:
    """Return the keys of a call that an AWS service makes inside AWS, for itself or with a session it holds."""
    now = clock.now()
    keys: dict[str, ContextValue] = {
        "aws:CurrentTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "aws:EpochTime": str(int(now.timestamp())),
        "aws:SecureTransport": "true",
    }
    if credential and credential.session_token is not None:
        keys["aws:TokenIssueTime"] = credential.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        keys["aws:MultiFactorAuthPresent"] = "false"
    if credential and credential.source_identity:
        keys["aws:SourceIdentity"] = credential.source_identity
    return keys


def questions(request: AssumeRoleRequest, caller: Credential, iam: IamStore, clock: Clock) -> list[EvaluationRequest]:
    """Return what both sides would be asked if this caller assumed a role, in the order in which it is refused."""
    attempt = _Attempt(request, caller)
    role = iam.role(request.role_arn) or _absent(request.role_arn)
    keys = {**own_context(caller, clock), **attempt.context(role, inherited_as_request_tags=False)}
    return list(_questions(attempt, role, iam, keys))


def _questions(
    attempt: _Attempt, role: Role, iam: IamStore, keys: Mapping[str, ContextValue]
) -> Iterator[EvaluationRequest]:
    own = replace(caller_policies(attempt.credential, iam), trust=NamedPolicy(role.arn, role.trust_policy))
    for action in attempt.actions:
        asked = Check(action, role.arn, resource_account=role.account)
        check, policies = in_organizations(asked, attempt.principal, own, iam)
        yield EvaluationRequest(check, attempt.principal, policies, keys)


def _check_access(attempt: _Attempt, role: Role, iam: IamStore, keys: Mapping[str, ContextValue]) -> None:
    """Ask both sides about every action; the first that is denied is named (IAM-STS-10 to IAM-STS-12)."""
    for question in _questions(attempt, role, iam, keys):
        decision = authorize(question)
        if decision.fault:
            LOG.error("undecidable, therefore denied: %s", decision.fault)
        if question.check.action == "sts:SetSourceIdentity" and attempt.former_identity not in {
            "",
            attempt.source_identity,
        }:
            # No policy can allow it: a source identity stays the same along the chain.
            decision = decision._replace(allowed=False, explicit=True, layer="trust")
        if not decision.allowed and attempt.principal.kind == "web-identity":
            raise Refusal("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity", 403)
        if not decision.allowed:
            raise access_denied("sts", attempt.principal, decision)


def session_policies(
    policy: str | None, policy_arns: Sequence[str], managed_policy: Callable[[str], str | None] | None
) -> tuple[str, ...] | None:
    """Return the documents that a new session is limited by, None for a session without.

    Raises:
        Refusal: ``ValidationError`` for a managed policy that is not there.
    """
    if policy is None and not policy_arns:
        return None
    documents = [] if policy is None else [policy]
    for arn in policy_arns:
        document = managed_policy(arn) if managed_policy else None
        if document is None:
            raise validation_error(f"{arn} is invalid")
        documents.append(document)
    return tuple(documents)


def _new_credential(
    attempt: _Attempt, role: Role, seconds: int, documents: tuple[str, ...] | None, *, ids: Ids, clock: Clock
) -> Credential:
    request = attempt.request
    name = request.role_session_name or ""
    partition = role.arn.split(":")[1]
    tags = dict(request.tags)
    now = clock.now()
    return Credential(
        access_key_id=new_access_key_id(role.account, "ASIA", ids),
        secret_access_key=new_secret(ids),
        session_token=new_session_token(ids),
        principal=Principal(
            kind="role-session",
            arn=f"arn:{partition}:sts::{role.account}:assumed-role/{role.name}/{name}",
            account=role.account,
            user_id=f"{role.role_id}:{name}",
            role_arn=role.arn,
            tags=overlaid(role.tags, tags, attempt.inherited),
        ),
        issued_at=now,
        # Clients are told whole seconds.
        expires_at=(now + timedelta(seconds=seconds)).replace(microsecond=0),
        transitive_tags=transitive_tags(tags, request.transitive_tag_keys, attempt.inherited),
        session_policies=documents,
        source_identity=attempt.source_identity,
        session_name=name,
        chained=attempt.is_chained,
    )
