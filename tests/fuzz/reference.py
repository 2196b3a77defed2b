"""A second opinion: an evaluator of a small policy language that is slow, short, and easy to believe.

It shares nothing with the engine. The language: one account, literal actions or ones that end in a star, resources and
condition values with ``*``, ``?`` and one kind of variable, seven operators, and all layers but RCPs and endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

Statement = Mapping[str, Any]
Context = Mapping[str, str | tuple[str, ...]]
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/app"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/app/pod"


@lru_cache(maxsize=100_000)
def is_like(pattern: tuple[tuple[str, bool], ...], text: str) -> bool:
    """Match characters, each with whether it may be a wildcard; tries everything."""

    @cache
    def rest(i: int, j: int) -> bool:
        if i == len(pattern):
            return j == len(text)
        character, is_wild = pattern[i]
        if is_wild and character == "*":
            return rest(i + 1, j) or (j < len(text) and rest(i, j + 1))
        return j < len(text) and ((is_wild and character == "?") or character == text[j]) and rest(i + 1, j + 1)

    return rest(0, 0)


def filled(text: str, context: Context, *, wild: bool) -> tuple[tuple[str, bool], ...] | None:
    """Replace ``${key}``; what comes from the context is never a wildcard. None: it holds nothing."""
    characters: list[tuple[str, bool]] = []
    while text:
        if text.startswith("${"):
            key, _, text = text[2:].partition("}")
            value = context.get(key.lower())
            if not isinstance(value, str):
                return None
            characters += [(character, False) for character in value]
        else:
            characters.append((text[0], wild))
            text = text[1:]
    return tuple(characters)


def is_resource(pattern: str, arn: str, context: Context) -> bool:
    if pattern and not pattern.strip("*"):
        return True
    wanted, given = pattern.split(":", 5), arn.split(":", 5)
    wanted += ["*"] * (6 - len(wanted))
    if len(given) < 6:
        return False
    last = filled(wanted[5], context, wild=True)
    parts = [
        is_like(tuple((character, True) for character in text), part)
        for text, part in zip(wanted[:5], given[:5], strict=True)
    ]
    return last is not None and all(parts) and is_like(last, given[5])


def is_true(operator: str, key: str, values: Sequence[str], context: Context) -> bool:
    sent = context.get(key.lower())
    if operator == "Null":
        return (sent in {None, ()}) == (values[0] == "true")

    def one(text: str) -> bool:
        patterns = [filled(value, context, wild=operator.endswith("Like")) for value in values]
        return any(pattern is not None and is_like(pattern, text) for pattern in patterns)

    if operator.startswith("ForAllValues:"):
        return all(map(one, sent or ()))
    if operator.startswith("ForAnyValue:"):
        return any(map(one, sent or ()))
    if "Not" in operator:
        return sent in {None, ()} or (isinstance(sent, str) and not one(sent))
    return isinstance(sent, str) and one(sent)


def applies(statement: Statement, action: str, arn: str, context: Context) -> bool:
    def is_action(pattern: str) -> bool:
        return is_like(tuple((character, True) for character in pattern.lower()), action.lower())

    actions = any(map(is_action, statement.get("Action", statement.get("NotAction"))))
    resources = any(
        is_resource(pattern, arn, context) for pattern in statement.get("Resource", statement.get("NotResource"))
    )
    return (
        actions == ("Action" in statement)
        and resources == ("Resource" in statement)
        and all(
            is_true(operator, key, values, context)
            for operator, tests in statement.get("Condition", {}).items()
            for key, values in tests.items()
        )
    )


def names(principal: Any) -> str:
    """Return how well a Principal names the session: ``direct``, ``role``, ``account`` or not at all."""
    listed = ["*"] if principal == "*" else principal["AWS"]
    if "*" in listed or SESSION in listed:
        return "direct"
    if ROLE in listed:
        return "role"
    return "account" if {ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"} & set(listed) else ""


def decide(layers: Mapping[str, Any], action: str, arn: str, context: Context) -> tuple[bool, bool]:
    """Return whether the session may, and if not, whether a Deny said so.

    ``layers``: statements of ``identity``, and where they are present ``boundary``, ``session``, ``resource``; ``scp``
    is a list of levels.
    """
    found = {
        name: [statement for statement in statements if applies(statement, action, arn, context)]
        for name, statements in layers.items()
        if name != "scp"
    }
    found["resource"] = [s for s in found.get("resource", []) if names(s["Principal"])]
    levels = [[s for s in level if applies(s, action, arn, context)] for level in layers.get("scp", [])]
    if any(s["Effect"] == "Deny" for statements in [*found.values(), *levels] for s in statements):
        return False, True
    if not all(levels):
        return False, False
    grades = {names(statement["Principal"]) for statement in found["resource"]}
    limits = all(found[name] for name in ("boundary", "session") if name in layers)
    if "direct" in grades:
        return True, False
    return ("role" in grades or bool(found["identity"])) and limits, False
