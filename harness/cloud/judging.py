"""One question of a call, with everything that may have a say about it, decided."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from harness.cloud.actions import PlannedCheck, Resources, with_stored_tags
from harness.cloud.iam import CallContext, Decision, EvaluationRequest, PolicySet, authorize, keys_asked
from harness.cloud.organizations import in_organizations
from harness.cloud.ports import IamStore, Principal

__all__ = ["Judged", "judge"]


class Judged(NamedTuple):
    """A decision, and what it was made of."""

    request: EvaluationRequest
    decision: Decision


def judge(
    planned: PlannedCheck,
    principal: Principal,
    policies: PolicySet,
    context: CallContext,
    *,
    iam: IamStore,
    resources: Resources,
) -> Judged:
    """Decide a check of a plan.

    Args:
        planned: The check.
        principal: Who calls.
        policies: What the caller's account says about it.
        context: Keys of the call.
        iam: Asked for organizations.
        resources: Asked for stored tags, if a statement asks for them (IAM-CTX-03). What it raises goes to the caller:
            nothing is decided without a key that could not be found out (IAM-CTX-04).
    """
    if planned.resource_policy:
        policies = replace(policies, resource=planned.resource_policy)
    check = planned.check
    if planned.stored_tags:
        check = with_stored_tags(planned, keys_asked(policies, principal, check), resources)
    check, policies = in_organizations(check, principal, policies, iam)
    request = EvaluationRequest(check, principal, policies, context)
    return Judged(request, authorize(request))
