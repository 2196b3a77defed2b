"""All policies of a question, compiled, and found by action and resource instead of by asking each (IAM-PERF-02)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from harness.cloud.iam.arns import Tree, path
from harness.cloud.iam.model import Layer, PolicyKind, PolicySet
from harness.cloud.iam.policy import CompiledPolicy, PolicyFault, Statement, compile_policy
from harness.cloud.ports import NamedPolicy

__all__ = ["Candidate", "Plan", "PolicyIndex", "Side", "index_of", "present_layers"]

Side = Literal["identity", "root", "root of the bucket", "other"]
"""Whose policies have a say: an account's principal, its root, root about its own bucket's policy, anybody else."""

_RESOURCE_SIDE: tuple[Layer, ...] = ("rcp", "endpoint", "resource", "trust")
_SAY: Mapping[Side, tuple[Layer, ...]] = {
    "identity": ("scp", *_RESOURCE_SIDE, "identity", "boundary", "session"),
    "root": ("scp", *_RESOURCE_SIDE),
    # No bucket policy can shut out the owner's root (IAM-S3-12).
    "root of the bucket": ("scp", "rcp", "endpoint", "trust"),
    "other": _RESOURCE_SIDE,
}
"""Layers that have a say, in the order in which a Deny is looked for (section 7.3)."""
_FILTERS: frozenset[Layer] = frozenset({"scp", "endpoint"})
_LIMITS: frozenset[Layer] = frozenset({"boundary", "session"})
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
_REMEMBERED_PLANS = 1024
"""Bound of each index's memory of actions and resources (IAM-PERF-05)."""


class Candidate(NamedTuple):
    """A statement that may be about a question."""

    layer: Layer
    policy: str
    statement: Statement


class Level(NamedTuple):
    """A level of a layer that must not be silent."""

    layer: Layer
    allows: tuple[Candidate, ...]


class Plan(NamedTuple):
    """What must be asked about an action on the resources of a node of the tree."""

    denies: tuple[Candidate, ...]
    allows: Mapping[Layer, tuple[Candidate, ...]]
    """For every layer that is present and has a say; of all its levels."""
    filters: tuple[Level, ...]
    """Levels of the layers that must allow before anything else is asked, unless they do in any case."""
    limits: tuple[Level, ...]
    """The same of those that limit what the caller's own policies allow."""
    fault: PolicyFault | None
    """The first policy that cannot be read; denies, unless another policy denies explicitly."""
    aws_own: tuple[re.Pattern[str], ...]
    """Resources on which nobody but AWS does this."""
    keys: tuple[str, ...]
    """Context keys that statements about the action look at, whatever the resource."""


_Policies = tuple[tuple[str, CompiledPolicy], ...]


class PolicyIndex:
    """The policies of a :class:`PolicySet`; immutable but for what it remembers."""

    __slots__ = ("_faults", "_layers", "_plans", "_tree")

    def __init__(self, policies: PolicySet) -> None:
        """Compile what can be read."""
        self._faults: dict[Layer, PolicyFault] = {}
        self._layers = {name: self._levels(name, kind, levels) for name, kind, levels in present_layers(policies)}
        self._tree = Tree(
            node
            for levels in self._layers.values()
            for level in levels
            for _, policy in level
            for statement in policy.statements
            for node in statement.nodes or ()
        )
        self._plans: dict[tuple[Side, str, str | None], Plan] = {}

    def plan(self, side: Side, action: str, resource: str) -> Plan:
        """Return what must be asked about a lower-cased action on a resource."""
        # Resources that no statement names are one entry: a stream of them does not grow memory.
        question = side, action, self._tree.node(resource)
        return self._plans.get(question) or self._remembered(question)

    def layers(self, side: Side) -> Mapping[Layer, tuple[_Policies, ...]]:
        """Return the layers present that have a say, with the compiled policies of each level."""
        return {name: self._layers[name] for name in _SAY[side] if name in self._layers}

    def _levels(self, layer: Layer, kind: PolicyKind, levels: Sequence[Sequence[NamedPolicy]]) -> tuple[_Policies, ...]:
        return tuple(tuple(self._readable(layer, kind, level)) for level in levels)

    def _readable(
        self, layer: Layer, kind: PolicyKind, policies: Sequence[NamedPolicy]
    ) -> list[tuple[str, CompiledPolicy]]:
        readable: list[tuple[str, CompiledPolicy]] = []
        for policy in policies:
            try:
                readable.append((policy.name, compile_policy(policy.document, kind)))
            except PolicyFault as fault:
                self._faults.setdefault(layer, PolicyFault(f'policy "{policy.name}": {fault}', kind))
        return readable

    def _remembered(self, question: tuple[Side, str, str | None]) -> Plan:
        side, action, node = question
        layers = self.layers(side)
        about: dict[Layer, list[list[tuple[str, Statement]]]] = {
            layer: [
                [(name, one) for name, policy in level for one in policy.statements if one.is_about(action)]
                for level in levels
            ]
            for layer, levels in layers.items()
        }
        above = frozenset(path(node)) if node else frozenset[str]()
        near: dict[Layer, list[list[Candidate]]] = {
            layer: [
                [Candidate(layer, *item) for item in level if item[1].nodes is None or item[1].nodes & above]
                for level in levels
            ]
            for layer, levels in about.items()
        }
        allows: dict[Layer, list[tuple[Candidate, ...]]] = {
            layer: [_with_effect(level, is_deny=False) for level in levels] for layer, levels in near.items()
        }
        asked = [
            Level(layer, level)
            for layer, levels in allows.items()
            for level in levels
            if not any(candidate.statement.is_unlimited for candidate in level)
        ]
        plan = Plan(
            denies=tuple(found for levels in near.values() for level in levels for found in _with_effect(level)),
            allows={layer: tuple(found for level in levels for found in level) for layer, levels in allows.items()},
            filters=tuple(level for level in asked if level.layer in _FILTERS),
            limits=tuple(level for level in asked if level.layer in _LIMITS),
            fault=next((self._faults[layer] for layer in layers if layer in self._faults), None),
            aws_own=tuple(owned for actions, owned in _AWS_OWN if actions.fullmatch(action)),
            keys=tuple(
                sorted({key for levels in about.values() for level in levels for _, s in level for key in s.keys})
            ),
        )
        if len(self._plans) >= _REMEMBERED_PLANS:
            self._plans.clear()
        self._plans[question] = plan
        return plan


def _with_effect(level: Sequence[Candidate], *, is_deny: bool = True) -> tuple[Candidate, ...]:
    return tuple(candidate for candidate in level if candidate.statement.is_deny is is_deny)


def present_layers(policies: PolicySet) -> list[tuple[Layer, PolicyKind, Sequence[Sequence[NamedPolicy]]]]:
    """Return the layers that are there, each with its levels: an absent layer limits nothing, an empty one denies."""
    layers: list[tuple[Layer, PolicyKind, Sequence[Sequence[NamedPolicy]]]] = [
        ("identity", "identity-inline", (policies.identity,))
    ]
    if policies.scp:
        layers.append(("scp", "scp", policies.scp))
    if policies.rcp:
        layers.append(("rcp", "rcp", policies.rcp))
    if policies.endpoint:
        layers.append(("endpoint", "endpoint", (policies.endpoint,)))
    if policies.resource:
        layers.append(("resource", "resource", ((policies.resource,),)))
    if policies.trust:
        layers.append(("trust", "trust", ((policies.trust,),)))
    if policies.boundaries:
        layers.append(("boundary", "boundary", (policies.boundaries,)))
    if policies.session is not None:
        layers.append(("session", "session", (policies.session,)))
    return layers


def index_of(policies: PolicySet) -> PolicyIndex:
    """Return the compiled form of some policies, made once per content."""
    index = policies.index
    if index is None:
        index = index_by_content(policies)
        object.__setattr__(policies, "index", index)
    return index


index_by_content = lru_cache(maxsize=1024)(PolicyIndex)
