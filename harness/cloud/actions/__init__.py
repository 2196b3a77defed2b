"""From a call to the questions that IAM is asked (``iam.md`` sections 9 and 10).

An operation that no table here knows has no plan and is refused (EMU-GATE-CLOSED).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.cloud.actions.dynamodb import plan_dynamodb
from harness.cloud.actions.ec2 import plan_ec2
from harness.cloud.actions.eks import plan_eks, plan_eks_auth
from harness.cloud.actions.elbv2 import plan_elbv2, plan_shield, plan_web_acl
from harness.cloud.actions.iam import plan_iam
from harness.cloud.actions.kms import plan_kms
from harness.cloud.actions.model import (
    Bucket,
    Key,
    ParsedCall,
    Plan,
    PlannedCheck,
    RequestTags,
    Resources,
    planned,
    with_stored_tags,
)
from harness.cloud.actions.s3 import plan_s3
from harness.cloud.actions.secretsmanager import plan_secretsmanager
from harness.cloud.actions.ssm import plan_ssm
from harness.cloud.iam.model import ContextValue

__all__ = ["SERVICES", "Bucket", "Key", "ParsedCall", "Plan", "PlannedCheck", "Resources", "plan", "with_stored_tags"]


def _plan_sts(call: ParsedCall, _: Resources) -> Plan | None:
    """Ask nothing: GetCallerIdentity is everybody's, and roles are given by the STS domain, which asks both sides."""
    if call.operation == "AssumeRoleWithWebIdentity":
        return Plan()
    if call.caller.kind == "anonymous":
        return None
    if call.operation in {"DecodeAuthorizationMessage", "GetAccessKeyInfo"}:
        return Plan((planned(call, "*"),))
    if call.operation == "GetFederationToken":
        tags = RequestTags.of(call.parameters.get("Tags")).context()
        federated = f"arn:{call.partition}:sts::{call.account}:federated-user/{call.text('Name')}"
        return Plan((planned(call, federated, context=tags), *_tagging(call, federated, tags)))
    return Plan() if call.operation in {"AssumeRole", "GetCallerIdentity", "GetSessionToken"} else None


def _tagging(call: ParsedCall, federated: str, tags: Mapping[str, ContextValue]) -> tuple[PlannedCheck, ...]:
    return (planned(call, federated, action="sts:TagSession", context=tags),) if tags else ()


def _plan_cloudtrail(call: ParsedCall, _: Resources) -> Plan | None:
    return Plan((planned(call, "*"),)) if call.operation == "LookupEvents" else None


_PLANS: Mapping[str, Callable[[ParsedCall, Resources], Plan | None]] = {
    "cloudtrail": _plan_cloudtrail,
    "dynamodb": plan_dynamodb,
    "ec2": plan_ec2,
    "eks": plan_eks,
    "eks-auth": plan_eks_auth,
    "elbv2": plan_elbv2,
    "iam": plan_iam,
    "kms": plan_kms,
    "s3": plan_s3,
    "secretsmanager": plan_secretsmanager,
    "shield": plan_shield,
    "ssm": plan_ssm,
    "sts": _plan_sts,
    "waf-regional": plan_web_acl,
    "wafv2": plan_web_acl,
}
SERVICES = tuple(_PLANS)
"""Services that are mapped, as SDKs name them."""


def plan(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return what must be allowed before the call may be served, or None for an operation that is not mapped."""
    planner = _PLANS.get(call.service)
    return planner(call, resources) if planner else None
