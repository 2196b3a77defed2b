"""IAM's own calls (``iam.md`` 9.1)."""

from __future__ import annotations

from harness.cloud.actions.model import ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.iam.model import Check, ContextValue

# What an operation acts on, by the member that names it.
_ROLE = """CreateRole GetRole DeleteRole UpdateRole UpdateRoleDescription UpdateAssumeRolePolicy AttachRolePolicy
    DetachRolePolicy ListAttachedRolePolicies PutRolePolicy GetRolePolicy DeleteRolePolicy ListRolePolicies TagRole
    UntagRole ListRoleTags PutRolePermissionsBoundary DeleteRolePermissionsBoundary ListInstanceProfilesForRole"""
_USER = """CreateUser GetUser DeleteUser UpdateUser AttachUserPolicy DetachUserPolicy ListAttachedUserPolicies
    PutUserPolicy GetUserPolicy DeleteUserPolicy ListUserPolicies TagUser UntagUser ListUserTags ListGroupsForUser
    CreateAccessKey DeleteAccessKey ListAccessKeys UpdateAccessKey"""
_GROUP = """CreateGroup GetGroup DeleteGroup AttachGroupPolicy DetachGroupPolicy ListAttachedGroupPolicies
    PutGroupPolicy GetGroupPolicy DeleteGroupPolicy ListGroupPolicies AddUserToGroup RemoveUserFromGroup"""
_PROFILE = """CreateInstanceProfile GetInstanceProfile DeleteInstanceProfile AddRoleToInstanceProfile
    RemoveRoleFromInstanceProfile TagInstanceProfile UntagInstanceProfile ListInstanceProfileTags"""
_POLICY = """CreatePolicy GetPolicy DeletePolicy CreatePolicyVersion GetPolicyVersion ListPolicyVersions
    DeletePolicyVersion SetDefaultPolicyVersion TagPolicy UntagPolicy ListPolicyTags ListEntitiesForPolicy"""
_PROVIDER = """GetOpenIDConnectProvider DeleteOpenIDConnectProvider AddClientIDToOpenIDConnectProvider
    RemoveClientIDFromOpenIDConnectProvider UpdateOpenIDConnectProviderThumbprint TagOpenIDConnectProvider
    UntagOpenIDConnectProvider ListOpenIDConnectProviderTags"""
_ANYTHING = """ListRoles ListPolicies ListUsers ListGroups ListInstanceProfiles ListOpenIDConnectProviders
    GetAccountSummary ListAccountAliases"""

_NAMED = {
    operation: (kind, member)
    for operations, kind, member in (
        (_ROLE, "role", "RoleName"),
        (_USER, "user", "UserName"),
        (_GROUP, "group", "GroupName"),
        (_PROFILE, "instance-profile", "InstanceProfileName"),
    )
    for operation in operations.split()
}
_BY_ARN = dict.fromkeys(_POLICY.split(), "PolicyArn") | dict.fromkeys(_PROVIDER.split(), "OpenIDConnectProviderArn")
_ON_ANYTHING = frozenset(_ANYTHING.split())


def plan_iam(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return the checks of an IAM call."""
    if call.operation in _ON_ANYTHING:
        return Plan((planned(call, "*"),))
    resource = _resource(call, resources)
    if not resource:
        return None
    context: dict[str, ContextValue] = RequestTags.of(call.parameters.get("Tags")).context()
    if removed := call.parameters.get("TagKeys"):
        context["aws:TagKeys"] = tuple(str(key) for key in removed)
    if call.operation.startswith(("Attach", "Detach")):
        context["iam:PolicyARN"] = call.text("PolicyArn")
    if call.operation == "CreateServiceLinkedRole":
        context["iam:AWSServiceName"] = call.text("AWSServiceName")
    if boundary := call.text("PermissionsBoundary"):
        context["iam:PermissionsBoundary"] = boundary
    is_entity = ":role/" in resource or ":user/" in resource
    own = planned(call, resource, context=context, tags=("iam:ResourceTag/",) if is_entity else ())
    if call.operation != "AddRoleToInstanceProfile":
        return Plan((own,))
    return Plan((own, _passed_to_ec2(call, resources)))


def _resource(call: ParsedCall, resources: Resources) -> str:
    """Return the ARN of what the call is about, empty for an operation that is not mapped."""
    operation = call.operation
    match operation:
        case "CreatePolicy":
            new = f"policy{call.text('Path') or '/'}{call.text('PolicyName')}"
        case "CreateOpenIDConnectProvider":
            new = f"oidc-provider/{call.text('Url').removeprefix('https://').rstrip('/')}"
        case "CreateServiceLinkedRole":
            new = f"role/aws-service-role/{call.text('AWSServiceName')}/*"
        case _:
            new = ""
    if new:
        return call.iam_arn(new)
    if operation in _BY_ARN:
        return call.text(_BY_ARN[operation])
    if operation not in _NAMED:
        return ""
    kind, member = _NAMED[operation]
    name = call.text(member)
    if not name and kind == "user":
        # IAM takes the caller for a user call without a name.
        return call.caller.arn
    is_new = operation in {"CreateRole", "CreateUser", "CreateGroup", "CreateInstanceProfile"}
    path = call.text("Path") or "/" if is_new else resources.iam_path(call.account, kind, name)
    return call.iam_arn(f"{kind}{path}{name}")


def _passed_to_ec2(call: ParsedCall, resources: Resources) -> PlannedCheck:
    name = call.text("RoleName")
    arn = call.iam_arn(f"role{resources.iam_path(call.account, 'role', name)}{name}")
    return PlannedCheck(Check("iam:PassRole", arn, context={"iam:PassedToService": "ec2.amazonaws.com"}))
