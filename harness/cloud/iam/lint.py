"""What AWS stores without a word although it is hardly meant: warnings about policies (``podid iam lint``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.cloud.documents import members, one_or_more
from harness.cloud.iam.conditions import parse_operator
from harness.cloud.iam.keys import is_multivalued
from harness.cloud.iam.policy import strict_json

__all__ = ["Warning", "lint"]

_LEAKY = re.compile(r"\$\{[^}]*(?:principal|request|resource)tag/[^}]*\}\*", re.IGNORECASE)
_TAG = re.compile(r"(aws|[a-z0-9-]+):(principal|request|resource|existingobject|requestobject)tag/.+", re.IGNORECASE)
_ROLE = re.compile(r"arn:[^:]*:iam::(?P<account>[0-9]{12}):role/.+")


@dataclass(frozen=True, slots=True)
class Warning:  # noqa: A001 - the word for it
    """One thing that is hardly meant."""

    statement: int
    """Index in the document."""
    text: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"statement {self.statement}: {self.text}"


def lint(document: str) -> list[Warning]:
    """Return warnings about a policy, in the order of its statements.

    Args:
        document: JSON text.

    Raises:
        ValueError: It is no JSON object.
    """
    body = strict_json(document)
    if not isinstance(body, dict):
        raise ValueError("the policy is not a JSON object")  # noqa: TRY004 - the text is at fault, not the caller
    statements = [members(item) for item in one_or_more(members(body).get("Statement"))]
    return [Warning(index, text) for index, statement in enumerate(statements) for text in _of(statement)]


def _of(statement: Mapping[str, Any]) -> Iterator[str]:
    yield from _not_principal(statement)
    tests = [
        (operator, key, [str(value) for value in one_or_more(values)])
        for operator, keys in members(statement.get("Condition")).items()
        for key, values in members(keys).items()
    ]
    texts = [str(text) for element in ("Resource", "NotResource") for text in one_or_more(statement.get(element))]
    for text in [*texts, *(value for _, _, values in tests for value in values)]:
        yield from _variables(text)
    guarded = {key.lower() for operator, key, _ in tests if operator.lower() == "null"}
    for operator, key, _ in tests:
        yield from _condition(operator, key, is_guarded=key.lower() in guarded)


def _not_principal(statement: Mapping[str, Any]) -> Iterator[str]:
    """Warn of NotPrincipal where it says more than it seems to (IAM-PRIN-11)."""
    if "NotPrincipal" not in statement:
        return
    if statement.get("Effect") == "Allow":
        yield "NotPrincipal with Allow lets everybody in who is not listed, anonymous callers aside"
    listed = [str(name) for name in one_or_more(members(statement["NotPrincipal"]).get("AWS"))]
    for role in filter(None, map(_ROLE.fullmatch, listed)):
        account, name = role["account"], role[0].rpartition("/")[2]
        has_account = account in listed or f"arn:aws:iam::{account}:root" in listed
        has_session = any(f":assumed-role/{name}/" in other for other in listed)
        if not (has_account and has_session):
            yield f"NotPrincipal lists the role {role[0]} without its account and its session, which may be denied"


def _variables(text: str) -> Iterator[str]:
    """Warn of variables that are none (IAM-VAR-09) or that leak into their neighbours (IAM-ABAC-10)."""
    if "${" in re.sub(r"\$\{[^}]*\}", "", text):
        yield f'"{text}" has a variable that is not closed and is plain text'
    if _LEAKY.search(text):
        yield f'"{text}" has a tag directly before a star, which also matches longer names: put a slash between them'


def _condition(operator: str, key: str, *, is_guarded: bool) -> Iterator[str]:
    """Warn of operators that are true without the key, and of keys that have several values (IAM-COND-06)."""
    parsed = parse_operator(operator)
    if parsed is None or parsed.name == "null":
        return
    if is_multivalued(key) and not parsed.prefix:
        yield f"{key} has several values: {operator} without ForAllValues or ForAnyValue matches nothing"
    if parsed.prefix == "forallvalues" and not is_guarded:
        yield f'{operator} on {key} is true without the key: add "Null": {{"{key}": "false"}}'
    if parsed.is_negated and not parsed.prefix and _TAG.fullmatch(key) and not is_guarded:
        yield f'{operator} on {key} is true without the tag: add "Null": {{"{key}": "false"}}'
