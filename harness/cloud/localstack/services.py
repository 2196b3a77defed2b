"""The services that the plugin serves itself; registered as entry points in ``pyproject.toml``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.cloud.actions.dynamodb import DYNAMODB_OPERATIONS
from harness.cloud.cloudtrail import Failure
from harness.cloud.eks import Scope
from harness.cloud.eks.validation import POD_IDENTITY_SERVICE
from harness.cloud.eks_auth import TargetRefused
from harness.cloud.localstack import internals
from harness.cloud.localstack.call import Call
from harness.cloud.localstack.composition import emulator
from harness.cloud.localstack.gate import caller_context
from harness.cloud.ports import Credential
from harness.cloud.sts import AssumedRole, AssumeRoleRequest, assume_role, caller_identity
from harness.cloud.sts_request import FederationRequest
from harness.cloud.sts_sessions import access_key_account, federation_token, session_token
from harness.cloud.web_identity import assume_role_with_web_identity

__all__ = ["cloudtrail", "dynamodb", "eks", "eks_auth", "sts"]

Request = Mapping[str, Any]
Result = Mapping[str, Any]


def _scope(context: Any) -> Scope:
    call: Call = context.get(internals.CALL)
    return Scope(call.principal.account, call.region)


def _caller(context: Any) -> Credential:
    call: Call = context.get(internals.CALL)
    if call.credential is None:
        raise RuntimeError("an anonymous call passed the gate")
    return call.credential


# --- EKS ------------------------------------------------------------------------------------------------------------


def _scoped(operation: Callable[[Scope, Request], Result]) -> internals.Operation:
    return lambda context, request: operation(_scope(context), request)


def _eks_operations() -> Mapping[str, internals.Operation]:
    service = emulator().eks
    return {
        "CreateAddon": _scoped(service.addons.create),
        "CreatePodIdentityAssociation": _scoped(service.associations.create),
        "DeleteAddon": _scoped(service.addons.delete),
        "DeletePodIdentityAssociation": _scoped(service.associations.delete),
        "DescribeAddon": _scoped(service.addons.describe),
        "DescribeAddonVersions": lambda _, request: service.addons.versions(request),
        "DescribeCluster": _scoped(service.clusters.describe),
        "DescribePodIdentityAssociation": _scoped(service.associations.describe),
        "ListAddons": _scoped(service.addons.list),
        "ListClusters": _scoped(service.clusters.list),
        "UpdateAddon": _scoped(service.addons.update),
        "ListPodIdentityAssociations": _scoped(service.associations.list),
        "ListTagsForResource": _scoped(service.list_tags),
        "TagResource": _scoped(service.tag),
        "UntagResource": _scoped(service.untag),
        "UpdatePodIdentityAssociation": _scoped(service.associations.update),
    }


eks = internals.provider("eks", "default", _eks_operations)


# --- EKS Auth -------------------------------------------------------------------------------------------------------


def _assume_role_for_pod_identity(context: Any, request: Request) -> Result:
    lab = emulator()
    lab.see_token(request.get("token"))
    scope = _scope(context)
    try:
        assumed = lab.eks_auth.assume_role_for_pod_identity(scope, request)
    except TargetRefused as refused:
        caller = refused.first.credential
        lab.cloudtrail.record_service_assume_role(refused.first, POD_IDENTITY_SERVICE, scope.region)
        failure = Failure(refused.cause.code, refused.cause.message)
        lab.cloudtrail.record_refused_target(refused.request, caller, failure, POD_IDENTITY_SERVICE, scope.region)
        raise
    first, *chained = assumed.sessions
    lab.cloudtrail.record_service_assume_role(first, POD_IDENTITY_SERVICE, scope.region)
    for session in chained:
        lab.cloudtrail.record_chained_assume_role(session, first.credential, POD_IDENTITY_SERVICE, scope.region)
    return assumed.response


eks_auth = internals.provider(
    "eks-auth", "default", lambda: {"AssumeRoleForPodIdentity": _assume_role_for_pod_identity}
)


# --- CloudTrail -----------------------------------------------------------------------------------------------------


def _lookup_events(context: Any, request: Request) -> Result:
    scope = _scope(context)
    return emulator().cloudtrail.lookup(scope.account, scope.region, request)


cloudtrail = internals.provider("cloudtrail", "default", lambda: {"LookupEvents": _lookup_events})


# --- DynamoDB -------------------------------------------------------------------------------------------------------

dynamodb = internals.provider("dynamodb", "podid", lambda: dict.fromkeys(DYNAMODB_OPERATIONS, internals.call_moto))


# --- STS ------------------------------------------------------------------------------------------------------------


def _get_caller_identity(context: Any, _request: Request) -> Result:
    return caller_identity(_caller(context))


def _assume_role(context: Any, request: Request) -> Result:
    lab = emulator()
    call: Call = context.get(internals.CALL)
    assumed = assume_role(
        _assume_role_request(request),
        _caller(context),
        lab.iam,
        lab.ids,
        lab.clock,
        context=caller_context(call),
        managed_policy=lab.iam.managed_policy,
        packing=lab.settings.packed_policy_profile,
    )
    lab.registry.add(assumed.credential)
    return _assume_role_result(assumed)


def _assume_role_with_web_identity(context: Any, request: Request) -> Result:
    lab = emulator()
    lab.see_token(request.get("WebIdentityToken"))
    call: Call = context.get(internals.CALL)
    with_identity = assume_role_with_web_identity(
        _assume_role_request(request),
        str(request.get("WebIdentityToken") or ""),
        iam=lab.iam,
        providers=lab.providers,
        ids=lab.ids,
        clock=lab.clock,
        context=caller_context(call),
        managed_policy=lab.iam.managed_policy,
    )
    lab.registry.add(with_identity.assumed.credential)
    return {
        **_assume_role_result(with_identity.assumed),
        "SubjectFromWebIdentityToken": with_identity.subject,
        "Audience": with_identity.audience,
        "Provider": with_identity.provider,
    }


def _get_session_token(context: Any, request: Request) -> Result:
    lab = emulator()
    credential = session_token(_caller(context), request.get("DurationSeconds"), lab.ids, lab.clock)
    lab.registry.add(credential)
    return {"Credentials": _credentials(credential)}


def _get_federation_token(context: Any, request: Request) -> Result:
    lab = emulator()
    credential, size = federation_token(
        FederationRequest(
            name=str(request.get("Name") or ""),
            duration_seconds=request.get("DurationSeconds"),
            tags=_tags(request),
            policy=request.get("Policy"),
            policy_arns=_policy_arns(request),
        ),
        _caller(context),
        lab.ids,
        lab.clock,
        managed_policy=lab.iam.managed_policy,
        packing=lab.settings.packed_policy_profile,
    )
    lab.registry.add(credential)
    user = {"FederatedUserId": credential.principal.user_id, "Arn": credential.principal.arn}
    packed = {} if size is None else {"PackedPolicySize": size}
    return {"Credentials": _credentials(credential), "FederatedUser": user, **packed}


def _decode_authorization_message(context: Any, request: Request) -> Result:
    account = _caller(context).principal.account
    return {"DecodedMessage": emulator().messages.decode(str(request.get("EncodedMessage") or ""), account)}


def _get_access_key_info(_: Any, request: Request) -> Result:
    return {"Account": access_key_account(str(request.get("AccessKeyId") or ""))}


def _assume_role_request(request: Request) -> AssumeRoleRequest:
    return AssumeRoleRequest(
        role_arn=str(request.get("RoleArn") or ""),
        role_session_name=request.get("RoleSessionName"),
        duration_seconds=request.get("DurationSeconds"),
        tags=_tags(request),
        transitive_tag_keys=tuple(request.get("TransitiveTagKeys") or ()),
        external_id=request.get("ExternalId"),
        source_identity=request.get("SourceIdentity"),
        policy=request.get("Policy"),
        policy_arns=_policy_arns(request),
    )


def _tags(request: Request) -> tuple[tuple[str, str], ...]:
    return tuple((str(tag.get("Key", "")), str(tag.get("Value", ""))) for tag in request.get("Tags") or ())


def _policy_arns(request: Request) -> tuple[str, ...]:
    return tuple(str(entry.get("arn", "")) for entry in request.get("PolicyArns") or ())


def _assume_role_result(assumed: AssumedRole) -> Result:
    credential = assumed.credential
    result: dict[str, Any] = {
        "Credentials": _credentials(credential),
        "AssumedRoleUser": {"AssumedRoleId": credential.principal.user_id, "Arn": credential.principal.arn},
    }
    if assumed.packed_policy_size is not None:
        result["PackedPolicySize"] = assumed.packed_policy_size
    if credential.source_identity:
        result["SourceIdentity"] = credential.source_identity
    return result


def _credentials(credential: Credential) -> dict[str, Any]:
    return {
        "AccessKeyId": credential.access_key_id,
        "SecretAccessKey": credential.secret_access_key,
        "SessionToken": credential.session_token,
        "Expiration": credential.expires_at,
    }


def _sts_operations() -> Mapping[str, internals.Operation]:
    return {
        "AssumeRole": _assume_role,
        "AssumeRoleWithWebIdentity": _assume_role_with_web_identity,
        "DecodeAuthorizationMessage": _decode_authorization_message,
        "GetAccessKeyInfo": _get_access_key_info,
        "GetCallerIdentity": _get_caller_identity,
        "GetFederationToken": _get_federation_token,
        "GetSessionToken": _get_session_token,
    }


sts = internals.provider("sts", "podid", _sts_operations)
