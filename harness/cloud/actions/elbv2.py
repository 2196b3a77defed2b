"""Elastic Load Balancing v2, and the protections that its controllers ask about (``iam.md`` 9.3)."""

from __future__ import annotations

from collections.abc import Mapping

from harness.cloud.actions.model import ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.documents import entries, members
from harness.cloud.iam.model import ContextValue

_DESCRIBE = {
    "DescribeAccountLimits",
    "DescribeCapacityReservation",
    "DescribeListenerAttributes",
    "DescribeListenerCertificates",
    "DescribeListeners",
    "DescribeLoadBalancerAttributes",
    "DescribeLoadBalancers",
    "DescribeRules",
    "DescribeSSLPolicies",
    "DescribeTags",
    "DescribeTargetGroupAttributes",
    "DescribeTargetGroups",
    "DescribeTargetHealth",
    "DescribeTrustStores",
}
# Operation → member with the ARN of what it is about.
_ON_ARN = {
    "CreateListener": "LoadBalancerArn",
    "CreateRule": "ListenerArn",
    "DeleteListener": "ListenerArn",
    "DeleteLoadBalancer": "LoadBalancerArn",
    "DeleteRule": "RuleArn",
    "DeleteTargetGroup": "TargetGroupArn",
    "DeregisterTargets": "TargetGroupArn",
    "ModifyIpPools": "LoadBalancerArn",
    "ModifyListener": "ListenerArn",
    "ModifyListenerAttributes": "ListenerArn",
    "ModifyLoadBalancerAttributes": "LoadBalancerArn",
    "ModifyRule": "RuleArn",
    "ModifyTargetGroup": "TargetGroupArn",
    "ModifyTargetGroupAttributes": "TargetGroupArn",
    "RegisterTargets": "TargetGroupArn",
    "SetIpAddressType": "LoadBalancerArn",
    "SetSecurityGroups": "LoadBalancerArn",
    "SetSubnets": "LoadBalancerArn",
}
_TYPES = {"network": "net", "gateway": "gwy"}
_SERVICE = "elasticloadbalancing"


def plan_elbv2(call: ParsedCall, _: Resources) -> Plan | None:
    """Return the checks of a call of Elastic Load Balancing v2."""
    operation = call.operation
    if operation in _DESCRIBE:
        return Plan((_check(call, "*"),))
    tags = RequestTags.of(call.parameters.get("Tags")).context()
    if operation in {"AddTags", "RemoveTags"}:
        keys: dict[str, ContextValue] = tags
        if removed := call.parameters.get("TagKeys"):
            keys = {"aws:TagKeys": tuple(str(key) for key in entries(removed))}
        arns = [str(arn) for arn in entries(call.parameters.get("ResourceArns"))]
        return Plan(tuple(_check(call, arn, keys) for arn in arns)) if arns else None
    if operation == "SetRulePriorities":
        given = [str(members(one).get("RuleArn")) for one in entries(call.parameters.get("RulePriorities"))]
        return Plan(tuple(_check(call, arn) for arn in given)) if given else None
    if operation in {"CreateLoadBalancer", "CreateTargetGroup"}:
        new = _new(call)
        return Plan((_check(call, new, {**tags, **_network(call)}, is_new=True), *_tagging(call, new, tags)))
    if operation not in _ON_ARN:
        return None
    arn = call.text(_ON_ARN[operation])
    checks = [_check(call, arn, {**tags, **_network(call)})]
    if operation in {"CreateListener", "CreateRule"}:
        checks += _tagging(call, _child(operation, arn), tags)
    return Plan(tuple(checks))


def _check(
    call: ParsedCall,
    resource: str,
    context: Mapping[str, ContextValue] | None = None,
    *,
    action: str = "",
    is_new: bool = False,
) -> PlannedCheck:
    action = f"{_SERVICE}:{action or call.operation}"
    tags = None if is_new else (f"{_SERVICE}:ResourceTag/",)
    return planned(call, resource, action=action, context=context, tags=tags)


def _new(call: ParsedCall) -> str:
    name = call.text("Name")
    if call.operation == "CreateTargetGroup":
        return call.arn(_SERVICE, f"targetgroup/{name}/*")
    return call.arn(_SERVICE, f"loadbalancer/{_TYPES.get(call.text('Type'), 'app')}/{name}/*")


def _child(operation: str, arn: str) -> str:
    """Return the ARN of a listener or rule that does not exist yet."""
    if operation == "CreateListener":
        return arn.replace(":loadbalancer/", ":listener/", 1) + "/*"
    return arn.replace(":listener/", ":listener-rule/", 1) + "/*"


def _tagging(call: ParsedCall, resource: str, tags: Mapping[str, ContextValue]) -> list[PlannedCheck]:
    """Return the second check of a create with tags (IAM-ACT-02)."""
    if not tags:
        return []
    return [_check(call, resource, {**tags, f"{_SERVICE}:CreateAction": call.operation}, action="AddTags", is_new=True)]


def _network(call: ParsedCall) -> dict[str, ContextValue]:
    """Return the keys about where a load balancer stands."""
    keys: dict[str, ContextValue] = {}
    if groups := entries(call.parameters.get("SecurityGroups")):
        keys[f"{_SERVICE}:SecurityGroup"] = tuple(str(group) for group in groups)
    mapped = [members(one).get("SubnetId") for one in entries(call.parameters.get("SubnetMappings"))]
    if subnets := [*entries(call.parameters.get("Subnets")), *mapped]:
        keys[f"{_SERVICE}:Subnet"] = tuple(str(subnet) for subnet in subnets)
    if call.operation == "CreateLoadBalancer":
        keys[f"{_SERVICE}:Scheme"] = call.text("Scheme") or "internet-facing"
    return keys


def plan_shield(call: ParsedCall, _: Resources) -> Plan | None:
    """Return the check of the one call of Shield that the lab answers; AWS knows no resource for it."""
    return Plan((planned(call, "*"),)) if call.operation == "GetSubscriptionState" else None


def plan_web_acl(call: ParsedCall, _: Resources) -> Plan | None:
    """Return the check of the question which web ACL protects a resource, of WAF Regional and of WAFv2."""
    if call.operation != "GetWebACLForResource":
        return None
    return Plan((planned(call, call.text("ResourceArn")),))
