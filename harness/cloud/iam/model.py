"""The values that go into a decision and the decision that comes out (``iam.md`` section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.cloud.iam.context import CallContext
from harness.cloud.iam.values import ContextValue, Grade
from harness.cloud.ports import NamedPolicy, Principal

if TYPE_CHECKING:
    from harness.cloud.iam.index import PolicyIndex

__all__ = ["Check", "ContextValue", "Decision", "EvaluationRequest", "Grade", "Layer", "PolicyKind", "PolicySet"]

PolicyKind = Literal[
    "identity-managed", "identity-inline", "boundary", "session", "resource", "trust", "scp", "rcp", "endpoint"
]
Layer = Literal["identity", "resource", "trust", "boundary", "session", "scp", "rcp", "endpoint", "root", "always"]


# Tuples, because a frozen dataclass takes longer to make than the decision to find.


class Check(NamedTuple):
    """One question a call raises: may this action be done on this resource?"""

    action: str
    """With its prefix, such as ``s3:GetObject``."""
    resource: str
    """ARN, or ``*`` for an action without a resource type."""
    resource_account: str = ""
    """Owner of the resource; empty for the caller's own account (IAM-EVAL-04)."""
    context: Mapping[str, ContextValue] = MappingProxyType({})
    """Keys of this check only; an absent key is not in the map."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that may have a say. An absent layer limits nothing, an empty one denies."""

    identity: tuple[NamedPolicy, ...] = ()
    boundaries: tuple[NamedPolicy, ...] = ()
    """Permissions boundary; AWS knows one per principal, several are read as one that holds all their statements."""
    session: tuple[NamedPolicy, ...] | None = None
    """Session policies form a union; None when the session was issued without any."""
    resource: NamedPolicy | None = None
    trust: NamedPolicy | None = None
    """Set for the STS actions on a role, which need its consent (IAM-EVAL-05)."""
    scp: tuple[tuple[NamedPolicy, ...], ...] = ()
    """Service control policies, one tuple per level from the root down; no level without an organization."""
    rcp: tuple[tuple[NamedPolicy, ...], ...] = ()
    endpoint: tuple[NamedPolicy, ...] = ()
    """Policy of the VPC endpoint; several are read as one."""
    index: PolicyIndex | None = field(default=None, init=False, repr=False, compare=False)
    """The same compiled, once somebody asked; kept here because finding it by content takes longer than a decision."""


class EvaluationRequest(NamedTuple):
    """All inputs of one decision."""

    check: Check
    principal: Principal
    policies: PolicySet
    context: Mapping[str, ContextValue] | CallContext = MappingProxyType({})
    """Keys of the call. The caller keys that follow from the principal are filled in by the engine and win. Who asks
    several questions about one call prepares a ``CallContext`` of the same principal."""


class Decision(NamedTuple):
    """The answer, with what is needed to explain it."""

    allowed: bool
    explicit: bool
    """For a denial: whether a Deny statement spoke, rather than nobody's Allow."""
    layer: Layer
    """The layer that allowed or denied."""
    action: str
    resource: str
    principal: str
    """How messages name the caller: its ARN, service name or ``anonymous``."""
    cross_account: bool
    policy: str = ""
    """Name of the deciding policy; empty when none spoke."""
    statement: int | None = None
    """Index of the deciding statement in its document."""
    sid: str = ""
    grade: Grade = "none"
    """Best grade in which the resource or trust policy allows the caller."""
    keys: tuple[str, ...] = ()
    """Denials only: context keys that statements about this action look at."""
    missing: tuple[str, ...] = ()
    """Those of ``keys`` that the call does not carry."""
    fault: str = ""
    """Why the engine refused to decide (unreadable stored policy); for the lab's journal, never for the caller."""

    def reason(self) -> str:
        """Return the end of AWS's sentence for a denial, such as ``because no identity-based policy allows …``.

        Empty for an allowed call. Wording: section 14.1.
        """
        if self.allowed:
            return ""
        if self.explicit:
            return f"with an explicit deny in {_ARTICLES.get(self.layer, 'a')} {_LAYER_NAMES[self.layer]}"
        return f"because no {_LAYER_NAMES[self.layer]} allows the {self.action} action"

    def sentence(self) -> str:
        """Return the decision in words for people who debug a lab; not what the caller is told."""
        verb = "may" if self.allowed else "may not"
        text = f"{self.principal} {verb} do {self.action} on {self.resource}: {self._cause()}"
        if self.missing:
            text += f"; the call carries no {', '.join(self.missing)}"
        return text

    def _cause(self) -> str:
        if self.fault:
            return f"the engine could not decide ({self.fault})"
        if self.layer == "always":
            return "nothing can forbid it"
        if self.layer == "root":
            return "the account root needs no policy"
        if not self.policy:
            return f"no {_LAYER_NAMES[self.layer]} allows it"
        sid = f' "{self.sid}"' if self.sid else ""
        effect = "Allow" if self.allowed else "Deny"
        return f"{effect} of statement {self.statement}{sid} in {_LAYER_NAMES[self.layer]} {self.policy}"

    def as_data(self) -> dict[str, object]:
        """Return the decision as JSON data for records and reports; empty members are left out."""
        data: dict[str, object] = {
            "allowed": self.allowed,
            "explicit": self.explicit,
            "layer": self.layer,
            "action": self.action,
            "resource": self.resource,
            "principal": self.principal,
            "cross_account": self.cross_account,
        }
        optional: dict[str, object] = {
            "policy": self.policy,
            "sid": self.sid,
            "grade": "" if self.grade == "none" else self.grade,
            "keys": list(self.keys),
            "missing": list(self.missing),
            "fault": self.fault,
        }
        if self.statement is not None:
            data["statement"] = self.statement
        return data | {name: value for name, value in optional.items() if value}


_LAYER_NAMES: Mapping[Layer, str] = {
    "identity": "identity-based policy",
    "resource": "resource-based policy",
    "trust": "role trust policy",
    "boundary": "permissions boundary",
    "session": "session policy",
    "scp": "service control policy",
    "rcp": "resource control policy",
    "endpoint": "VPC endpoint policy",
    # Both only ever allow.
    "root": "policy",
    "always": "policy",
}
_ARTICLES: Mapping[Layer, str] = {"identity": "an", "trust": "the"}
