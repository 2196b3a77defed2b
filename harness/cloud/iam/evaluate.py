"""From policies and context to a decision (``iam.md`` section 7)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.cloud.iam.arns import resource_key
from harness.cloud.iam.context import CallContext
from harness.cloud.iam.model import Check, ContextValue, Decision, EvaluationRequest, Grade, Layer, PolicyKind
from harness.cloud.iam.policy import CompiledPolicy, PolicyFault, Statement, compile_policy
from harness.cloud.iam.principals import Caller
from harness.cloud.ports import NamedPolicy

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
_ACCOUNT = re.compile(r"(?:[^:]*:){4}([0-9]{12}):")
_ROOTS_BUCKET_POLICY = {"s3:deletebucketpolicy", "s3:getbucketpolicy", "s3:putbucketpolicy"}
_AWS_OWN: Sequence[tuple[re.Pattern[str], re.Pattern[str]]] = (
    (
        re.compile(r"iam:(create|delete|setdefault|tag|untag)policy(version)?"),
        re.compile(r"arn:[^:]*:iam::aws:policy/.*", re.DOTALL),
    ),
    (
        re.compile(r"iam:(?!get|list|generate|simulate).*role.*"),
        re.compile(r"arn:[^:]*:iam::\d*:role/aws-reserved/.*", re.DOTALL),
    ),
    (re.compile(r"kms:(create|delete|update)alias"), re.compile(r"arn:[^:]*:kms:[^:]*:\d*:alias/aws/.*", re.DOTALL)),
)
"""Actions, lower-cased, and resources that AWS keeps for itself: no policy grants them to anybody else."""
_WITH_IDENTITY = {"root", "user", "role-session", "federated-user"}
"""Principals of an account, which its policies limit; all others depend on the resource's side alone."""
_BEST_LAST: Sequence[Grade] = ("none", "account", "role", "federated", "service", "direct")
_DIRECT: frozenset[Grade] = frozenset({"direct", "service", "federated"})
"""Grades that need nothing from the caller's side within one account."""


def authorize(request: EvaluationRequest) -> Decision:
    """Decide one check; pure, and never raises on what policies or context hold (IAM-EVAL-13).

    Args:
        request: The check, the caller, all policies that may have a say, and the keys of the call.

    Returns:
        The decision; a denial with ``fault`` where the engine cannot decide, such as over an unreadable stored policy.
    """
    if request.check.action.lower() == _ALWAYS:
        return _decision(request, "always", allowed=True)
    try:
        return _Evaluation(request).decide()
    except PolicyFault as fault:
        return _decision(request, _layer_of(fault.kind), fault=str(fault))
    except Exception as error:  # noqa: BLE001 - IAM-EVAL-13: a fault of the engine is a denial, and the gate logs it
        return _decision(request, "identity", fault=f"the engine failed: {error!r}")


class _Policy(NamedTuple):
    """A policy with those of its statements that can be about the question."""

    name: str
    compiled: CompiledPolicy
    denies: tuple[Statement, ...]
    allows: tuple[Statement, ...]


_Level = list[_Policy]


class _Match(NamedTuple):
    """A statement that applies, or root's permission, which needs none."""

    layer: Layer
    policy: str = ""
    statement: Statement | None = None
    grade: Grade = "none"


class _Evaluation:
    """One decision under way."""

    def __init__(self, request: EvaluationRequest) -> None:
        policies = request.policies
        self._request = request
        self._action = request.check.action.lower()
        self._resource = request.check.resource
        self._resource_key = resource_key(self._resource)
        owner = _owner(request.check)
        self._call = _call_context(request)
        self._context = self._call.with_check(
            request.check.context, "" if self._resource == "*" else owner or request.principal.account
        )
        self._is_cross_account = (
            owner != request.principal.account and bool(owner) and request.principal.kind in _WITH_IDENTITY
        )
        self._consenting: Layer = "trust" if policies.trust or self._action in _NEED_CONSENT else "resource"
        self._fault: PolicyFault | None = None
        self._known_caller: Caller | None = None
        self._layers = self._loaded()

    def _caller(self) -> Caller:
        provider = _trusted_provider(self._request, self._context)
        names = Caller.of(self._request.principal, provider=provider).names if provider else self._call.caller.names
        return Caller(names, bool(self._request.policies.boundaries))

    def _loaded(self) -> Mapping[Layer, tuple[_Level, ...]]:
        """Return the layers that have a say, in the order in which a Deny is looked for (section 7.3)."""
        policies, kind = self._request.policies, self._request.principal.kind
        layers: dict[Layer, tuple[_Level, ...]] = {}
        if policies.scp and kind in _WITH_IDENTITY:
            layers["scp"] = tuple(self._level(level, "scp") for level in policies.scp)
        if policies.rcp:
            layers["rcp"] = tuple(self._level(level, "rcp") for level in policies.rcp)
        if policies.endpoint:
            layers["endpoint"] = (self._level(policies.endpoint, "endpoint"),)
        if policies.resource and not self._is_roots_bucket_policy():
            layers["resource"] = (self._level((policies.resource,), "resource"),)
        if policies.trust:
            layers["trust"] = (self._level((policies.trust,), "trust"),)
        if kind in _WITH_IDENTITY and kind != "root":
            layers["identity"] = (self._level(policies.identity, "identity-inline"),)
            if policies.boundaries:
                layers["boundary"] = (self._level(policies.boundaries, "boundary"),)
            if policies.session is not None:
                layers["session"] = (self._level(policies.session, "session"),)
        return layers

    def _level(self, policies: Sequence[NamedPolicy], kind: PolicyKind) -> _Level:
        """Compile what can be read; the first that cannot be denies, unless another policy denies explicitly."""
        readable: _Level = []
        for policy in policies:
            try:
                compiled = compile_policy(policy.document, kind)
            except PolicyFault as fault:
                self._fault = self._fault or PolicyFault(f'policy "{policy.name}": {fault}', kind)
            else:
                readable.append(_Policy(policy.name, compiled, *compiled.candidates(self._action, self._resource_key)))
        return readable

    def _is_roots_bucket_policy(self) -> bool:
        """Tell whether root asks for its own bucket's policy, which no bucket policy can deny it (IAM-S3-12)."""
        is_own_root = self._request.principal.kind == "root" and not self._is_cross_account
        return is_own_root and self._action in _ROOTS_BUCKET_POLICY

    def decide(self) -> Decision:
        for layer, levels in self._layers.items():
            for level in levels:
                if denying := self._denying(layer, level):
                    return self._denied(layer, denying)
        if self._fault:
            raise self._fault
        if self._is_aws_own():
            return self._denied("resource")
        if silent := self._silent("scp", "endpoint"):
            return self._denied(silent)
        consent = self._consent()
        if self._request.principal.kind not in _WITH_IDENTITY:
            return self._allowed(consent) if consent else self._denied(self._consenting)
        if self._is_cross_account:
            return self._across_accounts(consent)
        return self._within_account(consent)

    def _within_account(self, consent: _Match | None) -> Decision:
        """Let the table of section 7.1 decide (IAM-EVAL-02)."""
        if consent and consent.grade in _DIRECT:
            return self._allowed(consent)
        if consent and consent.grade == "role":
            return self._unless_limited(consent, consent)
        identity = self._identity()
        if not consent and self._needs_consent() and (identity or self._consenting in self._layers):
            return self._denied(self._consenting)
        return self._unless_limited(identity, consent) if identity else self._denied("identity", consent)

    def _across_accounts(self, consent: _Match | None) -> Decision:
        """Ask both sides; the grade of the consent lifts nothing (IAM-EVAL-03)."""
        identity = self._identity()
        if not identity:
            return self._denied("identity", consent)
        return self._unless_limited(identity, consent) if consent else self._denied(self._consenting)

    def _unless_limited(self, allowing: _Match, consent: _Match | None) -> Decision:
        silent = self._silent("boundary", "session")
        return self._denied(silent, consent) if silent else self._allowed(allowing, consent)

    def _needs_consent(self) -> bool:
        """Tell whether the resource has a policy of its own in any case, without which nobody gets in (IAM-EVAL-05)."""
        is_key = self._action.startswith("kms:") and ":key/" in self._request.check.resource
        return self._consenting == "trust" or is_key

    def _is_aws_own(self) -> bool:
        if not self._action.startswith(("iam:", "kms:")) or self._request.principal.kind == "service":
            return False
        return any(action.fullmatch(self._action) and owned.fullmatch(self._resource) for action, owned in _AWS_OWN)

    def _denying(self, layer: Layer, level: _Level) -> _Match | None:
        for policy in level:
            if policy.denies and (found := next(self._applying(layer, policy.name, policy.denies), None)):
                return found
        return None

    def _allowing(self, layer: Layer, level: _Level) -> Iterator[_Match]:
        for policy in level:
            if policy.allows:
                yield from self._applying(layer, policy.name, policy.allows)

    def _applying(self, layer: Layer, name: str, statements: Sequence[Statement]) -> Iterator[_Match]:
        for statement in statements:
            grade: Grade | None = "none" if statement.principals is None else self._grade(statement)
            if grade is not None and statement.applies(self._resource, self._context):
                yield _Match(layer, name, statement, grade)

    def _grade(self, statement: Statement) -> Grade | None:
        """Return how a statement names the caller; None if it does not."""
        if statement.principals is None:
            return "none"
        if self._known_caller is None:
            self._known_caller = self._caller()
        grade = statement.principals.grade(self._known_caller, is_deny=statement.is_deny)
        return None if grade == "none" else grade

    def _silent(self, *names: Layer) -> Layer | None:
        """Return the first of the layers present in which a level allows nothing."""
        for name in names:
            for level in self._layers.get(name, ()):
                if next(self._allowing(name, level), None) is None:
                    return name
        return None

    def _identity(self) -> _Match | None:
        if self._request.principal.kind == "root":
            return _Match("root")
        return next(self._allowing("identity", self._layers["identity"][0]), None)

    def _consent(self) -> _Match | None:
        """Return the Allow of the resource's side that names the caller best."""
        found = [
            match
            for level in self._layers.get(self._consenting, ())
            for match in self._allowing(self._consenting, level)
        ]
        if len(found) < 2:
            return found[0] if found else None
        return max(found, key=lambda match: _BEST_LAST.index(match.grade))

    def _allowed(self, match: _Match, consent: _Match | None = None) -> Decision:
        grade = (consent or match).grade
        return _decision(self._request, match.layer, match, allowed=True, grade=grade)

    def _denied(self, layer: Layer, match: _Match | None = None) -> Decision:
        """Return a denial: explicit if the match is a Deny, else the match tells the grade of the consent only."""
        about = [
            statement
            for levels in self._layers.values()
            for level in levels
            for policy in level
            for statement in policy.compiled.about(self._action)
        ]
        keys = tuple(sorted(frozenset[str]().union(*(statement.keys for statement in about))))
        is_explicit = match is not None and match.statement is not None and match.statement.is_deny
        return _decision(
            self._request,
            layer,
            match if is_explicit else None,
            grade=match.grade if match and not is_explicit else "none",
            keys=keys,
            missing=tuple(key for key in keys if key not in self._context),
        )


def _decision(
    request: EvaluationRequest,
    layer: Layer,
    match: _Match | None = None,
    *,
    allowed: bool = False,
    grade: Grade = "none",
    keys: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    fault: str = "",
) -> Decision:
    principal, statement = request.principal, match.statement if match else None
    return Decision(
        allowed=allowed,
        explicit=statement is not None and not allowed,
        layer=layer,
        action=request.check.action,
        resource=request.check.resource,
        principal=principal.arn or principal.service or principal.kind,
        cross_account=_is_cross_account(request),
        policy=match.policy if match else "",
        statement=statement.index if statement else None,
        sid=statement.sid if statement else "",
        grade=grade,
        keys=keys,
        missing=missing,
        fault=fault,
    )


def _layer_of(kind: PolicyKind) -> Layer:
    return "identity" if kind == "identity-managed" or kind == "identity-inline" else kind  # noqa: PLR1714 - pyright narrows


def _call_context(request: EvaluationRequest) -> CallContext:
    context = request.context
    if not isinstance(context, CallContext):
        return CallContext(request.principal, context)
    if context.principal != request.principal:
        raise ValueError("the context was prepared for another principal")
    return context


def _owner(check: Check) -> str:
    """Return the account that owns the resource; empty if neither the check nor the ARN says (IAM-EVAL-04)."""
    if check.resource_account:
        return check.resource_account
    found = _ACCOUNT.match(check.resource)
    return found[1] if found else ""


def _is_cross_account(request: EvaluationRequest) -> bool:
    owner = _owner(request.check)
    return request.principal.kind in _WITH_IDENTITY and bool(owner) and owner != request.principal.account


def _trusted_provider(request: EvaluationRequest, context: Mapping[str, ContextValue]) -> str:
    """Return the OIDC provider of a web identity; one of another account than the role's is nobody (IAM-PRIN-06)."""
    provider = context.get("aws:federatedprovider")
    is_own = isinstance(provider, str) and provider.split(":")[4:5] == [_owner(request.check)]
    return provider if isinstance(provider, str) and is_own else ""
