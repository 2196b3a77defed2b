"""Stored policy documents, compiled once per text (``iam.md`` sections 2.1 and 3, IAM-PERF-03).

Reading is strict: what AWS refuses when a policy is written is unreadable here, because a statement that is half
understood might lose its Deny or widen its Allow (IAM-DOC-07).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast

from harness.cloud.iam.arns import ArnPattern, resource_pattern
from harness.cloud.iam.conditions import Condition, compile_condition, parse_operator
from harness.cloud.iam.model import PolicyKind
from harness.cloud.iam.principals import PrincipalElement
from harness.cloud.iam.variables import literal_tokens
from harness.cloud.iam.wildcard import Pattern, TextTest

__all__ = ["CompiledPolicy", "PolicyFault", "Statement", "compile_policy", "condition_texts", "strict_json"]

_VARIABLES_VERSION = "2012-10-17"
_VERSIONS = {_VARIABLES_VERSION, "2008-10-17"}
_DOCUMENT_ELEMENTS = {"Version", "Id", "Statement"}
_STATEMENT_ELEMENTS = {
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
}  # fmt: skip
_PRINCIPAL_KINDS = {"AWS", "CanonicalUser", "Federated", "Service"}
_ACTION = re.compile(r"\*+|(?:\*|[^:*?]+):[^:]*")
"""Wildcards in the service prefix only as the lone star (IAM-STMT-01)."""
_LONGEST_NUMBER = 400


class PolicyFault(Exception):  # noqa: N818 - "fault" is the word of the decision
    """A stored policy that cannot be read. Never leaves the engine: the decision is a denial with this text."""

    def __init__(self, message: str, kind: PolicyKind) -> None:
        """Keep what is wrong, and the kind of the document for the decision's layer."""
        super().__init__(message)
        self.kind: PolicyKind = kind


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, ready to be asked."""

    index: int
    sid: str
    is_deny: bool
    principals: PrincipalElement | None
    """None where the kind of policy has none, and for endpoint policies and RCPs that are for everybody."""
    actions: tuple[Pattern, ...]
    """Lower-cased."""
    not_action: bool
    resources: tuple[ArnPattern, ...] | None
    """None in trust policies: the resource is the role that carries the policy (IAM-STMT-10). AWS stores none with a
    Resource; one that comes from elsewhere is tested, so that it can only narrow."""
    not_resource: bool
    conditions: tuple[Condition, ...]
    keys: frozenset[str]
    """Lower-cased context keys that it can read."""
    nodes: frozenset[str] | None = field(init=False)
    """Nodes of the only ARNs that it can match (:class:`~harness.cloud.iam.arns.Tree`); None: it may match any."""
    applies: TextTest = field(init=False)
    """Tells whether a resource and conditions match; action and principal are the caller's to test."""

    def __post_init__(self) -> None:
        """Derive what is asked for every decision."""
        nodes = None if self.not_resource or self.resources is None else {p.node for p in self.resources}
        known = None if nodes is None or None in nodes else frozenset(node for node in nodes if node is not None)
        object.__setattr__(self, "nodes", known)
        object.__setattr__(self, "applies", _applies(self))

    @property
    def is_unlimited(self) -> bool:
        """Whether it applies to everybody, whatever the resource and the call."""
        everything = self.resources is None or any(pattern.is_everything for pattern in self.resources)
        return everything and not self.not_resource and not self.conditions and self.principals is None

    def is_about(self, action: str) -> bool:
        """Tell whether a lower-cased action is among those the statement speaks of."""
        return any(pattern.matches(action, {}) for pattern in self.actions) != self.not_action


def _applies(statement: Statement) -> TextTest:
    """Return the leanest test of a statement: this runs for every candidate of every decision."""
    resource = _resource_test(statement)
    if not statement.conditions:
        return resource
    first, *others = [condition.test for condition in statement.conditions]
    if not others:
        return lambda arn, context: resource(arn, context) and first(context)
    if len(others) == 1:
        (second,) = others
        return lambda arn, context: resource(arn, context) and first(context) and second(context)
    return lambda arn, context: resource(arn, context) and first(context) and all(test(context) for test in others)


def _resource_test(statement: Statement) -> TextTest:
    if statement.resources is None:
        return lambda _arn, _context: True
    tests = [pattern.matches for pattern in statement.resources]
    if statement.not_resource:
        return lambda arn, context: not any(test(arn, context) for test in tests)
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda arn, context: first(arn, context) or second(arn, context)
    return lambda arn, context: any(test(arn, context) for test in tests)


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """An immutable document."""

    statements: tuple[Statement, ...]
    """In the order of the document."""


@lru_cache(maxsize=1024)
def compile_policy(document: str, kind: PolicyKind) -> CompiledPolicy:
    """Compile a stored document.

    Args:
        document: JSON text. Empty for a boundary whose policy is gone, which allows nothing (IAM-EVAL-12).
        kind: Where the document is attached; decides on principals, resources and short ARNs.

    Raises:
        PolicyFault: The document is not one that AWS would have stored.
    """
    if kind == "boundary" and not document:
        return CompiledPolicy(())
    return CompiledPolicy(tuple(_Reader(kind).statements(document)))


class _Reader:
    """Reads one document."""

    def __init__(self, kind: PolicyKind) -> None:
        self._kind: PolicyKind = kind
        self._has_variables = False

    def statements(self, document: str) -> list[Statement]:
        body = self._object(self._parsed(document), "the document", _DOCUMENT_ELEMENTS)
        version = body.get("Version", "2008-10-17")
        if not isinstance(version, str) or version not in _VERSIONS:
            raise self._fault(f"unknown Version {version!r}")
        self._has_variables = version == _VARIABLES_VERSION
        if "Statement" not in body:
            raise self._fault("no Statement")
        return [self._statement(index, item) for index, item in enumerate(_listed(body["Statement"]))]

    def _fault(self, message: str) -> PolicyFault:
        return PolicyFault(message, self._kind)

    def _parsed(self, document: str) -> Any:
        try:
            return strict_json(document)
        except ValueError as error:
            raise self._fault(f"not JSON that IAM would take: {error}") from error

    def _object(self, value: Any, what: str, known: set[str] | None = None) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._fault(f"{what} is not an object")
        found = cast("dict[str, Any]", value)
        unknown = found.keys() - known if known is not None else set[str]()
        if unknown:
            raise self._fault(f"{what} has unknown elements: {', '.join(sorted(unknown))}")
        return found

    def _texts(self, value: Any, what: str) -> list[str]:
        texts = _listed(value)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise self._fault(f"{what} is neither a text nor a list of texts")
        return texts

    def _either(self, body: Mapping[str, Any], element: str) -> tuple[Any, bool]:
        """Return the value of an element or of its Not form, and whether it is the latter; None without either."""
        opposite = f"Not{element}"
        if element in body and opposite in body:
            raise self._fault(f"both {element} and {opposite}")
        return body.get(element, body.get(opposite)), opposite in body

    def _statement(self, index: int, value: Any) -> Statement:
        body = self._object(value, f"statement {index}", _STATEMENT_ELEMENTS)
        effect = body.get("Effect")
        if effect not in ("Allow", "Deny"):
            raise self._fault(f"statement {index} has no Effect that is Allow or Deny")
        sid = body.get("Sid", "")
        if not isinstance(sid, str):
            raise self._fault(f"statement {index} has a Sid that is no text")
        actions, not_action = self._either(body, "Action")
        resources, not_resource = self._resources(body)
        conditions = self._conditions(body.get("Condition", {}))
        keys = {condition.key for condition in conditions}
        for pattern in (*conditions, *(resources or ())):
            keys |= {variable.key for variable in pattern.variables}
        return Statement(
            index=index,
            sid=sid,
            is_deny=effect == "Deny",
            principals=self._principals(body),
            actions=tuple(map(self._action, self._texts(actions, "Action"))),
            not_action=not_action,
            resources=resources,
            not_resource=not_resource,
            conditions=conditions,
            keys=frozenset(keys),
        )

    def _action(self, text: str) -> Pattern:
        if not _ACTION.fullmatch(text):
            raise self._fault(f"{text!r} is no action")
        return Pattern(literal_tokens(text.lower(), has_wildcards=True))

    def _resources(self, body: Mapping[str, Any]) -> tuple[tuple[ArnPattern, ...] | None, bool]:
        value, inverted = self._either(body, "Resource")
        if value is None and self._kind == "trust":
            return None, False
        patterns = [
            resource_pattern(text, self._kind, has_variables=self._has_variables)
            for text in self._texts(value, "Resource")
        ]
        return tuple(patterns), inverted

    def _principals(self, body: Mapping[str, Any]) -> PrincipalElement | None:
        value, inverted = self._either(body, "Principal")
        if value is None:
            # A statement for nobody (IAM-STMT-11).
            return PrincipalElement.of({}) if self._kind in {"resource", "trust"} else None
        if self._kind not in {"resource", "trust", "rcp", "endpoint"}:
            raise self._fault(f"a policy of kind {self._kind} has no Principal")
        if isinstance(value, str):
            if value != "*":
                raise self._fault(f"Principal {value!r} is neither an object nor a star")
            value = {"AWS": "*"}
        named = self._object(value, "Principal", _PRINCIPAL_KINDS)
        texts = {kind: self._texts(names, f"Principal {kind}") for kind, names in named.items()}
        return PrincipalElement.of(texts, inverted=inverted)

    def _conditions(self, value: Any) -> tuple[Condition, ...]:
        conditions: list[Condition] = []
        for name, tests in self._object(value, "Condition").items():
            operator = parse_operator(name)
            for key, wanted in self._object(tests, f"Condition {name}").items():
                try:
                    texts = condition_texts(wanted)
                except TypeError as error:
                    raise self._fault(str(error)) from error
                conditions.append(compile_condition(operator, key, texts, has_variables=self._has_variables))
        return tuple(conditions)


def condition_texts(value: Any) -> list[str]:
    """Return the values of a condition as texts.

    Raises:
        TypeError: One is neither text nor number nor truth value.
    """
    return [_condition_text(item) for item in _listed(value)]


def _condition_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return _shortest(value)
    if not isinstance(value, str):
        raise TypeError(f"a condition has the value {type(value).__name__}")
    return value


def strict_json(document: str) -> Any:
    """Parse JSON without what parsers disagree about; numbers are ``Decimal``.

    Raises:
        ValueError: No JSON, a member twice in one object, a number that is none or too long, nested too deeply.
    """
    try:
        return json.loads(
            document,
            object_pairs_hook=_unique_members,
            parse_float=_number,
            parse_int=_number,
            parse_constant=_refuse_constant,
        )
    except (ArithmeticError, RecursionError) as error:
        raise ValueError(f"{error}") from error


def _listed(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice in one object")
    return members


def _number(text: str) -> Decimal:
    number = Decimal(text)
    if abs(number.adjusted()) > _LONGEST_NUMBER or len(text) > _LONGEST_NUMBER:
        raise ValueError("a number is too long")
    return number


def _shortest(number: Decimal) -> str:
    # Not normalize(), which rounds to the digits of the decimal context.
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")
