"""EC2, as far as load balancers and the metadata of nodes need it (``iam.md`` 9.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.cloud.actions.model import ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.documents import entries, members
from harness.cloud.iam.model import ContextValue

_KINDS = {
    "eipalloc": "elastic-ip",
    "eni": "network-interface",
    "i": "instance",
    "igw": "internet-gateway",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
}
_ON_GROUP = {
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "DeleteSecurityGroup",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
}
_ON_ANYTHING = {"GetCoipPoolUsage"}
_ON_ONE = {"GetSecurityGroupsForVpc": "VpcId", "ModifyInstanceMetadataOptions": "InstanceId"}
_OF_ONE = re.compile(
    r"Describe(?!Account).*Attribute|DescribeClientVpn(?!Endpoints).*|Describe(Spot)?Fleet.+(History|Instances)"
)
"""Operations that begin as those about everything, but are about one resource."""


def plan_ec2(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return the checks of an EC2 call."""
    operation = call.operation
    region: dict[str, ContextValue] = {"ec2:Region": call.region}
    if operation in _ON_ANYTHING or (operation.startswith("Describe") and not _OF_ONE.fullmatch(operation)):
        return Plan((planned(call, "*", context=region),))
    if parameter := _ON_ONE.get(operation):
        return Plan((_on(call, call.text(parameter), region),))
    if operation == "CreateSecurityGroup":
        return Plan(_create_group(call, region))
    if operation in {"CreateTags", "DeleteTags"}:
        keys = region | RequestTags.of(call.parameters.get("Tags")).context()
        named = [str(one) for one in entries(call.parameters.get("Resources"))]
        return Plan(tuple(_on(call, one, keys) for one in named)) if named else None
    if operation in _ON_GROUP:
        return Plan(_on_group(call, resources, region))
    return None


def _on(call: ParsedCall, name: str, context: Mapping[str, ContextValue], *, action: str = "") -> PlannedCheck:
    """Return a check on a resource that is called by its id."""
    kind = _KINDS.get(name.partition("-")[0], "*")
    return planned(call, call.arn("ec2", f"{kind}/{name}"), action=action, context=context, tags=("ec2:ResourceTag/",))


def _create_group(call: ParsedCall, region: Mapping[str, ContextValue]) -> tuple[PlannedCheck, ...]:
    """Return the create, on the new group and on its VPC, and the tagging if there are tags (IAM-ACT-02)."""
    vpc, new = call.text("VpcId"), call.arn("ec2", "security-group/*")
    tags = _inline_tags(call, "security-group").context()
    context = {**region, **tags}
    if vpc:
        context["ec2:Vpc"] = call.arn("ec2", f"vpc/{vpc}")
    checks = [planned(call, new, context=context)]
    if vpc:
        checks.append(_on(call, vpc, region))
    if tags:
        context["ec2:CreateAction"] = "CreateSecurityGroup"
        checks.append(planned(call, new, action="ec2:CreateTags", context=context))
    return tuple(checks)


def _on_group(call: ParsedCall, resources: Resources, region: Mapping[str, ContextValue]) -> tuple[PlannedCheck, ...]:
    # A group of a VPC may be called by its name only in the default one; policies see what AWS looked up.
    name = call.text("GroupId") or call.text("GroupName")
    keys: dict[str, ContextValue] = {**region}
    if vpc := resources.vpc_of(call.arn("ec2", f"security-group/{name}")):
        keys["ec2:Vpc"] = call.arn("ec2", f"vpc/{vpc}")
    checks = [_on(call, name, keys)]
    if tags := _inline_tags(call, "security-group-rule").context():
        context: dict[str, ContextValue] = {**region, **tags, "ec2:CreateAction": call.operation}
        rule = call.arn("ec2", "security-group-rule/*")
        checks.append(planned(call, rule, action="ec2:CreateTags", context=context))
    return tuple(checks)


def _inline_tags(call: ParsedCall, kind: str) -> RequestTags:
    found: list[Any] = []
    for specification in map(members, entries(call.parameters.get("TagSpecifications"))):
        if specification.get("ResourceType") == kind:
            found += entries(specification.get("Tags"))
    return RequestTags.of(found)
