"""Why statements apply to a question or do not, in words for people who mend policies (``podid iam simulate``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.cloud.documents import members, one_or_more
from harness.cloud.iam.conditions import compile_condition, parse_operator
from harness.cloud.iam.context import CallContext
from harness.cloud.iam.index import present_layers
from harness.cloud.iam.model import Check, EvaluationRequest, Layer, PolicySet
from harness.cloud.iam.policy import PolicyFault, Statement, compile_policy, condition_texts, strict_json
from harness.cloud.iam.values import ContextValue
from harness.cloud.ports import Principal

__all__ = ["StatementAbout", "explain"]

Context = Mapping[str, ContextValue]


@dataclass(frozen=True, slots=True)
class StatementAbout:
    """A statement that speaks of the action."""

    layer: Layer
    policy: str
    index: int
    sid: str
    effect: str
    applies: bool
    because: tuple[str, ...]
    """What keeps it from applying; for one that applies, the conditions that hold."""


def explain(request: EvaluationRequest) -> list[StatementAbout]:
    """Return every statement about the action of a question, layer by layer, in the order of the documents."""
    context = request.context
    if not isinstance(context, CallContext):
        context = CallContext(request.principal, context)
    check, owner = request.check, _owner(request.check, request.principal)
    keys = context.with_check(check.context, "" if check.resource == "*" else owner)
    return list(_about(request, context, keys))


def _owner(check: Check, principal: Principal) -> str:
    parts = check.resource.split(":", 5)
    return check.resource_account or (parts[4] if len(parts) == 6 else "") or principal.account


def _about(request: EvaluationRequest, context: CallContext, keys: Context) -> Iterator[StatementAbout]:
    action, policies = request.check.action.lower(), request.policies
    for layer, kind, levels in present_layers(policies):
        for policy in (one for level in levels for one in level):
            try:
                compiled = compile_policy(policy.document, kind)
            except PolicyFault:
                continue
            written: Mapping[str, Any] = members(strict_json(policy.document)) if policy.document else {}
            for statement, raw in zip(compiled.statements, one_or_more(written.get("Statement")), strict=True):
                if not statement.is_about(action):
                    continue
                has_variables = written.get("Version") == "2012-10-17"
                against = [
                    *_principal(statement, context, policies),
                    *_resource(statement, members(raw), request, keys),
                ]
                holding, failing = _conditions(members(raw), keys, has_variables=has_variables)
                against += failing
                yield StatementAbout(
                    layer,
                    policy.name,
                    statement.index,
                    statement.sid,
                    "Deny" if statement.is_deny else "Allow",
                    applies=not against,
                    because=tuple(against or holding),
                )


def _principal(statement: Statement, context: CallContext, policies: PolicySet) -> Iterator[str]:
    element = statement.principals
    if element is None:
        return
    grade = element.grade(context.caller, is_deny=statement.is_deny, has_boundary=bool(policies.boundaries))
    if grade == "none":
        yield "it is about other principals"


def _resource(statement: Statement, raw: Mapping[str, Any], request: EvaluationRequest, keys: Context) -> Iterator[str]:
    if statement.resources is None:
        return
    resource = request.check.resource
    matches = any(pattern.matches(resource, keys) for pattern in statement.resources)
    if matches == statement.not_resource:
        element = "NotResource" if statement.not_resource else "Resource"
        named = ", ".join(str(text) for text in one_or_more(raw.get(element)))
        yield f"its {element} {named} {'includes' if statement.not_resource else 'does not match'} {resource}"


def _conditions(raw: Mapping[str, Any], keys: Context, *, has_variables: bool) -> tuple[list[str], list[str]]:
    """Return what holds and what does not."""
    holding: list[str] = []
    failing: list[str] = []
    for operator, tests in members(raw.get("Condition")).items():
        for key, values in members(tests).items():
            texts = condition_texts(values)
            test = compile_condition(parse_operator(operator), key, texts, has_variables=has_variables).test
            carried = keys.get(key.lower())
            seen = "no such key" if carried is None else _shown(carried)
            told = f"{operator} {key} {_shown(tuple(texts))}"
            if test(keys):
                holding.append(f"{told} holds, the call carries {seen}")
            else:
                failing.append(f"{told} does not hold, the call carries {seen}")
    return holding, failing


def _shown(value: ContextValue) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return " or ".join(f'"{text}"' for text in value) or "an empty list"
