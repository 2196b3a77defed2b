"""From a call to the questions that IAM is asked (``iam.md`` sections 9 and 10).

An operation that no table here knows has no plan and is refused (EMU-GATE-CLOSED).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.cloud.actions.ec2 import plan_ec2
from harness.cloud.actions.eks import plan_eks, plan_eks_auth
from harness.cloud.actions.elbv2 import plan_elbv2, plan_shield, plan_web_acl
from harness.cloud.actions.iam import plan_iam
from harness.cloud.actions.model import Bucket, ParsedCall, Plan, PlannedCheck, Resources, planned
from harness.cloud.actions.s3 import plan_s3
from harness.cloud.actions.secretsmanager import plan_secretsmanager

__all__ = ["Bucket", "ParsedCall", "Plan", "PlannedCheck", "Resources", "plan"]


def _plan_sts(call: ParsedCall, _: Resources) -> Plan | None:
    """Ask nothing: GetCallerIdentity is everybody's, and roles are given by the STS domain, which asks both sides."""
    if call.operation == "AssumeRoleWithWebIdentity":
        return Plan()
    if call.caller.kind == "anonymous":
        return None
    if call.operation == "GetAccessKeyInfo":
        return Plan((planned(call, "*"),))
    return Plan() if call.operation in {"AssumeRole", "GetCallerIdentity", "GetSessionToken"} else None


def _plan_cloudtrail(call: ParsedCall, _: Resources) -> Plan | None:
    return Plan((planned(call, "*"),)) if call.operation == "LookupEvents" else None


_PLANS: Mapping[str, Callable[[ParsedCall, Resources], Plan | None]] = {
    "cloudtrail": _plan_cloudtrail,
    "ec2": plan_ec2,
    "eks": plan_eks,
    "eks-auth": plan_eks_auth,
    "elbv2": plan_elbv2,
    "iam": plan_iam,
    "s3": plan_s3,
    "secretsmanager": plan_secretsmanager,
    "shield": plan_shield,
    "sts": _plan_sts,
    "waf-regional": plan_web_acl,
    "wafv2": plan_web_acl,
}


def plan(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return what must be allowed before the call may be served, or None for an operation that is not mapped."""
    planner = _PLANS.get(call.service)
    return planner(call, resources) if planner else None
