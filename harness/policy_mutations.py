"""Policies and trust policies of the scenarios with one thing taken away; pure.

A scenario that stays green without a statement, a condition or a variable of its policy shows nothing about it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["PolicyMutation", "mutate"]

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_PATTERNS = {"StringEquals": "StringLike", "ArnEquals": "ArnLike"}
"""Operators that take a wildcard literally, and what takes it as one."""


@dataclass(frozen=True, slots=True)
class PolicyMutation:
    """One policy document, changed in one place."""

    file: str
    """Path below ``fixtures/``, such as ``abac/abac-policy.json``."""
    change: str
    """What is missing."""
    text: str
    """The changed document."""

    @property
    def name(self) -> str:
        """Name in the matrix, such as ``abac/abac-policy: ReadObjects without s3:prefix``."""
        return f"{self.file.removesuffix('.json')}: {self.change}"


def mutate(file: str, text: str) -> Iterator[PolicyMutation]:
    """Yield the document without each statement, action of a trust policy, condition key and policy variable.

    A statement that is the only one denies instead of allows, or the reverse: a policy needs one.

    Args:
        file: Path below ``fixtures/``.
        text: The document.
    """
    document = json.loads(text)
    for change, changed in _changes(document):
        yield PolicyMutation(file, change, json.dumps(changed, indent=2))


def _changes(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    statements: list[dict[str, Any]] = document["Statement"]

    def put(index: int, statement: dict[str, Any] | None) -> dict[str, Any]:
        kept = [*statements[:index], *([statement] if statement else []), *statements[index + 1 :]]
        return document | {"Statement": kept}

    for index, statement in enumerate(statements):
        name = statement.get("Sid") or (f"statement {index + 1}" if len(statements) > 1 else "the statement")
        if len(statements) > 1:
            yield f"no {name}", put(index, None)
        else:
            effect = "Deny" if statement["Effect"] == "Allow" else "Allow"
            yield f"{name} turned into {effect}", put(index, statement | {"Effect": effect})
        if "Principal" in statement:
            yield from ((f"{name} {what}", put(index, changed)) for what, changed in _without_actions(statement))
        yield from ((f"{name} {what}", put(index, changed)) for what, changed in _without_conditions(statement))
        yield from ((f"{name} {what}", put(index, changed)) for what, changed in _without_variables(statement))


def _without_actions(statement: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    actions: list[str] | str = statement["Action"]
    if not isinstance(actions, str):
        for action in actions:
            yield f"without {action}", statement | {"Action": [other for other in actions if other != action]}


def _without_conditions(statement: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for operator, keys in statement.get("Condition", {}).items():
        for key in keys:
            changed = copy.deepcopy(statement)
            del changed["Condition"][operator][key]
            changed["Condition"] = {name: left for name, left in changed["Condition"].items() if left}
            if not changed["Condition"]:
                del changed["Condition"]
            # An issuer's key has the issuer's whole name before the colon.
            short = key.rpartition(":")[2] if key.startswith("oidc.") else key
            yield f"without {operator} {short}", changed


def _without_variables(statement: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the statement with every value for each variable of its resources and conditions."""
    for variable in sorted(set(_VARIABLE.findall(json.dumps(statement)))):
        written = f"${{{variable}}}"
        changed = json.loads(json.dumps(statement).replace(written, "*"))
        for operator, keys in statement.get("Condition", {}).items():
            base = operator.rpartition(":")[2]
            if base in _PATTERNS and written in json.dumps(keys):
                taken = changed["Condition"].pop(operator)
                changed["Condition"][operator.replace(base, _PATTERNS[base])] = taken
        yield f"with any {variable.removeprefix('aws:PrincipalTag/')}", changed
