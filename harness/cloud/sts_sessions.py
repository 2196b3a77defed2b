"""GetSessionToken and GetFederationToken, and what their sessions may call (``iam.md`` 11.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from harness.cloud.credentials import account_of_access_key, new_access_key_id, new_secret, new_session_token
from harness.cloud.ports import Clock, Credential, Ids, Principal, Refusal
from harness.cloud.session_tags import PackingProfile, check_session_tags, overlaid, packed_size
from harness.cloud.sts import session_policies
from harness.cloud.sts_request import FederationRequest, check_federation, validation_error

__all__ = ["access_key_account", "check_session_limits", "federation_token", "session_token"]

_ORIGIN = "session-token"
_FEDERATED = "federation-token"
_DEFAULT_SECONDS = 43_200
_ROOT_SECONDS = 3600
_LONGEST_SECONDS = 129_600
_STS_OF_SESSIONS = {
    _ORIGIN: {"AssumeRole", "GetCallerIdentity", "GetFederationToken", "GetSessionToken"},
    _FEDERATED: {"GetCallerIdentity", "GetFederationToken", "GetSessionToken"},
}
"""By origin. The two that make tokens refuse them with texts of their own."""


def session_token(caller: Credential, duration_seconds: int | None, ids: Ids, clock: Clock) -> Credential:
    """Return temporary keys of the same user or root; no policy can forbid it.

    Args:
        caller: A long-term key.
        duration_seconds: 900 to 129,600, for root at most 3,600; None: 43,200, for root 3,600.
        ids: Source of keys.
        clock: The lab's time.

    Raises:
        Refusal: ``AccessDenied`` for keys of a session, ``ValidationError`` for the duration.
    """
    if caller.session_token is not None:
        raise Refusal("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
    longest = _ROOT_SECONDS if caller.principal.kind == "root" else _LONGEST_SECONDS
    seconds = min(_DEFAULT_SECONDS, longest) if duration_seconds is None else duration_seconds
    for is_wrong, constraint in (
        (seconds > _LONGEST_SECONDS, f"less than or equal to {_LONGEST_SECONDS}"),
        (seconds < 900, "greater than or equal to 900"),
    ):
        if is_wrong:
            raise validation_error(
                f"1 validation error detected: Value '{seconds}' at 'durationSeconds' failed to satisfy constraint:"
                f" Member must have value {constraint}"
            )
    now = clock.now()
    return replace(
        caller,
        access_key_id=new_access_key_id(caller.principal.account, "ASIA", ids),
        secret_access_key=new_secret(ids),
        session_token=new_session_token(ids),
        issued_at=now,
        # Root gets no more than its hour, whatever it asks for.
        expires_at=(now + timedelta(seconds=min(seconds, longest))).replace(microsecond=0),
        origin=_ORIGIN,
    )


def federation_token(
    request: FederationRequest,
    caller: Credential,
    ids: Ids,
    clock: Clock,
    *,
    managed_policy: Callable[[str], str | None],
    packing: PackingProfile = "roomy",
) -> tuple[Credential, int | None]:
    """Make a federated user; that the caller may, was decided before.

    Args:
        request: What is asked for.
        caller: A long-term key of a user or of root.
        ids: Source of keys.
        clock: The lab's time.
        managed_policy: Document of a managed policy by ARN.
        packing: How much room session tags take.

    Returns:
        The credential, and how many percent of its space it takes.

    Raises:
        Refusal: ``AccessDenied`` for keys of a session, ``ValidationError``, ``MalformedPolicyDocument``,
            ``InvalidParameterValue``, ``PackedPolicyTooLarge`` for parameters.
    """
    if caller.session_token is not None:
        raise Refusal("AccessDenied", "Cannot call GetFederationToken with session credentials", 403)
    principal = caller.principal
    check_federation(request, principal.account)
    check_session_tags(request.tags, (), {})
    tags = dict(request.tags)
    size = packed_size(tags, (*filter(None, [request.policy]), *request.policy_arns), packing)
    longest = _ROOT_SECONDS if principal.kind == "root" else _LONGEST_SECONDS
    seconds = min(request.duration_seconds or _DEFAULT_SECONDS, longest)
    now, partition = clock.now(), principal.arn.split(":")[1]
    credential = Credential(
        access_key_id=new_access_key_id(principal.account, "ASIA", ids),
        secret_access_key=new_secret(ids),
        session_token=new_session_token(ids),
        principal=Principal(
            kind="federated-user",
            arn=f"arn:{partition}:sts::{principal.account}:federated-user/{request.name}",
            account=principal.account,
            user_id=f"{principal.account}:{request.name}",
            tags=overlaid(principal.tags, tags),
        ),
        issued_at=now,
        expires_at=(now + timedelta(seconds=seconds)).replace(microsecond=0),
        session_policies=session_policies(request.policy, request.policy_arns, managed_policy),
        session_name=request.name,
        origin=_FEDERATED,
        issuer=principal.arn,
    )
    return credential, size


def check_session_limits(credential: Credential, service: str, operation: str) -> None:
    """Refuse what keys of GetSessionToken (without MFA) and GetFederationToken cannot call, whatever policies say.

    Raises:
        Refusal: ``InvalidClientTokenId`` from IAM, ``AccessDenied`` from STS.
    """
    if credential.origin not in _STS_OF_SESSIONS:
        return
    if service == "iam":
        raise Refusal("InvalidClientTokenId", "The security token included in the request is invalid", 403)
    if service == "sts" and operation not in _STS_OF_SESSIONS[credential.origin]:
        raise Refusal("AccessDenied", f"Cannot call {operation} with session credentials", 403)


def access_key_account(access_key_id: str) -> str:
    """Return GetAccessKeyInfo's answer, which the key itself tells; the key need not exist.

    Raises:
        Refusal: ``ValidationError`` for what is no access key.
    """
    account = account_of_access_key(access_key_id)
    if account is None:
        raise validation_error(f"{access_key_id} is invalid")
    return account
