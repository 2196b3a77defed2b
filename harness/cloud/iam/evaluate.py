"""From policies and context to a decision (``iam.md`` section 7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.cloud.iam.model import Check, ContextValue, Decision, EvaluationRequest, Grade, Layer, PolicyKind
from harness.cloud.iam.policy import CompiledPolicy, PolicyFault, Statement, compile_policy
from harness.cloud.iam.principals import Caller, caller_keys, is_caller_key
from harness.cloud.ports import NamedPolicy, Principal

__all__ = ["authorize"]

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
_ROOTS_BUCKET_POLICY = {"s3:deletebucketpolicy", "s3:getbucketpolicy", "s3:putbucketpolicy"}
_WITH_IDENTITY = {"root", "user", "role-session"}
"""Principals of an account, which its policies limit; all others depend on the resource's side alone."""
_BEST_LAST: Sequence[Grade] = ("none", "account", "role", "federated", "service", "direct")
_DIRECT: frozenset[Grade] = frozenset({"direct", "service", "federated"})
"""Grades that need nothing from the caller's side within one account."""


def authorize(request: EvaluationRequest) -> Decision:
    """Decide one check; pure, and never raises on what policies or context hold (IAM-EVAL-13).

    Args:
        request: The check, the caller, all policies that may have a say, and the keys of the call.

    Returns:
        The decision. Where the engine cannot decide, such as over an unreadable stored policy, it is a denial with ``fault``.
    """
    if request.check.action.lower() == _ALWAYS:
        return _decision(request, "always", allowed=True)
    try:
        return _Evaluation(request).decide()
    except PolicyFault as fault:
        return _decision(request, _layer_of(fault.kind), fault=str(fault))
    except Exception as error:  # noqa: BLE001 - IAM-EVAL-13: a fault of the engine is a denial, and the gate logs it
        return _decision(request, "identity", fault=f"the engine failed: {error!r}")


@dataclass(frozen=True, slots=True)
class _Policy:
    name: str
    compiled: CompiledPolicy


_Level = tuple[_Policy, ...]


@dataclass(frozen=True, slots=True)
class _Match:
    """A statement that applies."""

    layer: Layer
    policy: str
    statement: Statement
    grade: Grade


class _Evaluation:
    """One decision under way."""

    def __init__(self, request: EvaluationRequest) -> None:
        check, principal = request.check, request.principal
        self._request = request
        self._action = check.action.lower()
        self._resource = check.resource
        self._is_internal = principal.kind in _WITH_IDENTITY
        self._context = _context(request)
        provider = self._context.get("aws:federatedprovider")
        self._caller = Caller.of(
            principal,
            provider=provider if isinstance(provider, str) and _owner(check) in provider.split(":") else "",
            has_boundary=request.policies.boundary is not None,
        )
        self._consenting: Layer = "resource" if request.policies.trust is None else "trust"
        self._layers = self._loaded()

    def _loaded(self) -> Mapping[Layer, tuple[_Level, ...]]:
        """Return the layers that have a say, in the order in which a Deny is looked for (section 7.3)."""
        policies, layers = self._request.policies, dict[Layer, tuple[_Level, ...]]()
        if self._is_internal:
            layers["scp"] = tuple(_level(level, "scp") for level in policies.scp)
        layers["rcp"] = tuple(_level(level, "rcp") for level in policies.rcp)
        if policies.endpoint:
            layers["endpoint"] = (_level((policies.endpoint,), "endpoint"),)
        if policies.resource and not self._is_roots_bucket_policy():
            layers["resource"] = (_level((policies.resource,), "resource"),)
        if policies.trust:
            layers["trust"] = (_level((policies.trust,), "trust"),)
        if self._is_internal:
            layers["identity"] = (_level(policies.identity, "identity-inline"),)
            if policies.boundary:
                layers["boundary"] = (_level((policies.boundary,), "boundary"),)
            if policies.session is not None:
                layers["session"] = (_level(policies.session, "session"),)
        return layers

    def _is_roots_bucket_policy(self) -> bool:
        """Tell whether root wants its own bucket's policy back, which no bucket policy can deny (IAM-S3-12)."""
        is_own_root = self._request.principal.kind == "root" and not _is_cross_account(self._request)
        return is_own_root and self._action in _ROOTS_BUCKET_POLICY

    def decide(self) -> Decision:
        for layer, levels in self._layers.items():
            for level in levels:
                if denying := next(self._matches(layer, level, is_deny=True), None):
                    return self._deny(layer, denying)
        for level in self._layers.get("scp", ()):
            if not self._allowing("scp", level):
                return self._deny("scp")
        if "endpoint" in self._layers and not self._allow_of("endpoint"):
            return self._deny("endpoint")
        consent = self._consent()
        grade: Grade = consent.grade if consent else "none"
        if not self._is_internal:
            return self._allow(consent) if consent else self._deny(self._consenting)
        if _is_cross_account(self._request):
            return self._across_accounts(consent)
        if consent and grade in _DIRECT:
            return self._allow(consent)
        if consent and grade == "role":
            return self._limited(consent)
        if not consent and self._needs_consent():
            silent = self._consenting == "resource" and not self._identity()
            return self._deny("identity" if silent else "trust")
        return self._limited(self._identity()) if self._identity() else self._deny("identity", grade=grade)

    def _across_accounts(self, consent: _Match | None) -> Decision:
        """Both sides must allow, in whatever grade (IAM-EVAL-03)."""
        identity = self._identity()
        if not identity:
            return self._deny("identity", grade=consent.grade if consent else "none")
        return self._limited(identity) if consent else self._deny(self._consenting)

    def _limited(self, allowing: _Match | Layer) -> Decision:
        """Allow unless boundary or session policies are silent."""
