"""From policies and context to a decision (``iam.md`` section 7)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.cloud.iam.context import CallContext
from harness.cloud.iam.index import Candidate, Level, Plan, Side, index_of
from harness.cloud.iam.model import (
    Check,
    ContextValue,
    Decision,
    EvaluationRequest,
    Grade,
    Layer,
    PolicyKind,
    PolicySet,
)
from harness.cloud.iam.policy import PolicyFault, Statement
from harness.cloud.iam.principals import Caller, PrincipalElement
from harness.cloud.iam.values import GRADES
from harness.cloud.ports import Principal, PrincipalKind

__all__ = ["authorize", "keys_asked"]

_ALWAYS = "sts:getcalleridentity"
_NEED_CONSENT = {
    "sts:assumerole",
    "sts:assumerolewithsaml",
    "sts:assumerolewithwebidentity",
    "sts:setcontext",
    "sts:setsourceidentity",
    "sts:tagsession",
}
"""Actions on a role that nobody may do without its trust policy's consent (IAM-EVAL-05)."""
_FEDERATED = ":federated-user/"
"""A federated user is tagged when it is made, without anybody else's consent."""
_ACCOUNT = re.compile(r"[0-9]{12}")
_ROOTS_BUCKET_POLICY = {"s3:deletebucketpolicy", "s3:getbucketpolicy", "s3:putbucketpolicy"}
_SIDES: Mapping[PrincipalKind, Side] = {
    "root": "root",
    "user": "identity",
    "role-session": "identity",
    "federated-user": "identity",
}
"""Principals of an account, which its policies limit; all others depend on the resource's side alone."""
_DIRECT: frozenset[Grade] = frozenset({"direct", "service", "federated"})
"""Grades that need nothing from the caller's side within one account."""


def authorize(request: EvaluationRequest) -> Decision:
    """Decide one check; pure, and never raises on what policies or context hold (IAM-EVAL-13).

    Args:
        request: The check, the caller, all policies that may have a say, and the keys of the call.

    Returns:
        The decision; a denial with ``fault`` where the engine cannot decide, such as over an unreadable stored policy.
    """
    action = request.check.action.lower()
    if action == _ALWAYS:
        return _decision(request, "always", allowed=True)
    try:
        return _Evaluation(request, action).decide()
    except PolicyFault as fault:
        return _decision(request, _layer_of(fault.kind), fault=str(fault))
    except Exception as error:  # noqa: BLE001 - IAM-EVAL-13: a fault of the engine is a denial, and the gate logs it
        return _decision(request, "identity", fault=f"the engine failed: {error!r}")


def keys_asked(policies: PolicySet, principal: Principal, check: Check) -> tuple[str, ...]:
    """Return the lower-cased keys that some statement about the action may look at, in its conditions or variables.

    Keys that cost something to find out are worth it only if they are among these (IAM-CTX-03).
    """
    return index_of(policies).plan(_SIDES.get(principal.kind, "other"), check.action.lower(), check.resource).keys


class _Evaluation:
    """One decision under way."""

    __slots__ = (
        "_action", "_caller", "_consenting", "_context", "_has_boundary", "_is_cross_account", "_plan", "_request",
        "_side",
    )  # fmt: skip

    def __init__(self, request: EvaluationRequest, action: str) -> None:
        check, principal, policies, context = request
        if not isinstance(context, CallContext):
            context = CallContext(principal, context)
        elif context.principal is not principal and context.principal != principal:
            raise ValueError("the context was prepared for another principal")
        resource, owner = check.resource, check.resource_account or _account(check.resource)
        side = self._side = _SIDES.get(principal.kind, "other")
        self._request = request
        self._action = action
        self._is_cross_account = side != "other" and owner != principal.account and bool(owner)
        self._context = context.with_check(check.context, "" if resource == "*" else owner or principal.account)
        self._caller = context.caller
        self._has_boundary = bool(policies.boundaries)
        is_on_role = action in _NEED_CONSENT and _FEDERATED not in resource
        self._consenting: Layer = "trust" if policies.trust or is_on_role else "resource"
        if principal.kind == "web-identity":
            self._caller = Caller.of(principal, provider=_trusted_provider(owner, self._context))
        elif action in _ROOTS_BUCKET_POLICY and side == "root" and not self._is_cross_account:
            side = "root of the bucket"
        self._plan: Plan = (policies.index or index_of(policies)).plan(side, action, resource)

    def decide(self) -> Decision:
        plan = self._plan
        if denying := self._first(plan.denies):
            return self._denied(denying.layer, denying)
        if plan.fault:
            raise plan.fault
        if plan.aws_own and self._is_aws_own():
            return self._denied("resource")
        if plan.filters and (silent := self._silent(plan.filters)):
            return self._denied(silent)
        consent, grade = self._consent()
        if self._side == "other":
            return self._allowed(consent, grade) if consent else self._denied(self._consenting)
        if self._is_cross_account:
            return self._across_accounts(grade)
        return self._within_account(consent, grade)

    def _within_account(self, consent: Candidate | None, grade: Grade) -> Decision:
        """Let the table of section 7.1 decide (IAM-EVAL-02)."""
        if grade in _DIRECT:
            return self._allowed(consent, grade)
        if grade == "role":
            return self._unless_limited(consent, grade)
        identity = self._identity()
        may = identity is not None or self._side == "root"
        if grade == "none" and self._needs_consent() and (may or self._consenting in self._plan.allows):
            return self._denied(self._consenting)
        return self._unless_limited(identity, grade) if may else self._denied("identity", grade=grade)

    def _across_accounts(self, grade: Grade) -> Decision:
        """Ask both sides; the grade of the consent lifts nothing (IAM-EVAL-03)."""
        identity = self._identity()
        if identity is None and self._side != "root":
            return self._denied("identity", grade=grade)
        return self._unless_limited(identity, grade) if grade != "none" else self._denied(self._consenting)

    def _unless_limited(self, allowing: Candidate | None, grade: Grade) -> Decision:
        limits = self._plan.limits
        if limits and (silent := self._silent(limits)):
            return self._denied(silent, grade=grade)
        return self._allowed(allowing, grade)

    def _needs_consent(self) -> bool:
        """Tell whether the resource has a policy of its own in any case, without which nobody gets in (IAM-EVAL-05)."""
        is_key = self._action.startswith("kms:") and ":key/" in self._request.check.resource
        return is_key or self._consenting == "trust"

    def _is_aws_own(self) -> bool:
        resource, is_aws = self._request.check.resource, self._request.principal.kind == "service"
        return not is_aws and any(owned.fullmatch(resource) for owned in self._plan.aws_own)

    def _first(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return the first statement that applies."""
        resource, context = self._request.check.resource, self._context
        for candidate in candidates:
            statement = candidate[2]
            if statement.applies(resource, context) and (
                statement.principals is None or self._grade(statement, statement.principals) != "none"
            ):
                return candidate
        return None

    def _grade(self, statement: Statement, principals: PrincipalElement) -> Grade:
        return principals.grade(self._caller, is_deny=statement.is_deny, has_boundary=self._has_boundary)

    def _silent(self, levels: Sequence[Level]) -> Layer | None:
        """Return the layer of the first level that allows nothing."""
        for layer, allows in levels:
            if self._first(allows) is None:
                return layer
        return None

    def _identity(self) -> Candidate | None:
        return self._first(self._plan.allows.get("identity", ()))

    def _consent(self) -> tuple[Candidate | None, Grade]:
        """Return the Allow of the resource's side that names the caller best, and how."""
        best: Candidate | None = None
        best_grade: Grade = "none"
        resource, context = self._request.check.resource, self._context
        for candidate in self._plan.allows.get(self._consenting, ()):
            statement = candidate[2]
            if statement.principals is not None and statement.applies(resource, context):
                grade = self._grade(statement, statement.principals)
                if grade != "none" and (best is None or GRADES.index(grade) > GRADES.index(best_grade)):
                    best, best_grade = candidate, grade
        return best, best_grade

    def _allowed(self, by: Candidate | None, grade: Grade) -> Decision:
        """Return a permission: by a statement, or the one of root, which needs none."""
        return _decision(self._request, by[0] if by else "root", by, True, grade)

    def _denied(self, layer: Layer, by: Candidate | None = None, grade: Grade = "none") -> Decision:
        keys, context = self._plan.keys, self._context
        missing = tuple([key for key in keys if key not in context])
        return _decision(self._request, layer, by, False, grade, keys, missing)


def _decision(  # noqa: PLR0917 - names would cost one decision in ten
    request: EvaluationRequest,
    layer: Layer,
    by: Candidate | None = None,
    allowed: bool = False,
    grade: Grade = "none",
    keys: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    fault: str = "",
) -> Decision:
    check, principal, _, _ = request
    action, resource, owner, _ = check
    owner = owner or _account(resource)
    is_cross_account = owner != principal.account and bool(owner) and principal.kind in _SIDES
    caller = principal.arn or principal.service or principal.kind
    if by is None:
        return Decision(
            allowed, False, layer, action, resource, caller, is_cross_account, "", None, "", grade, keys, missing, fault
        )
    _, policy, statement = by
    return Decision(
        allowed, not allowed, layer, action, resource, caller, is_cross_account,
        policy, statement.index, statement.sid, grade, keys, missing, fault,
    )  # fmt: skip


def _layer_of(kind: PolicyKind) -> Layer:
    return "identity" if kind == "identity-managed" or kind == "identity-inline" else kind  # noqa: PLR1714 - pyright narrows


def _account(arn: str) -> str:
    """Return the account in an ARN, empty without one (IAM-EVAL-04)."""
    parts = arn.split(":", 5)
    return parts[4] if len(parts) == 6 and _ACCOUNT.fullmatch(parts[4]) else ""


def _trusted_provider(owner: str, context: Mapping[str, ContextValue]) -> str:
    """Return the OIDC provider of a web identity; one of another account than the role's is nobody (IAM-PRIN-06)."""
    provider = context.get("aws:federatedprovider")
    return provider if isinstance(provider, str) and provider.split(":")[4:5] == [owner] else ""
