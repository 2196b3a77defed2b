"""What AWS stores without a word although it is hardly meant: warnings about policies (``podid iam lint``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.cloud.documents import members, one_or_more
from harness.cloud.iam.conditions import parse_operator
from harness.cloud.iam.keys import is_multivalued
from harness.cloud.iam.policy import strict_json

__all__ = ["KnownAction", "Reference", "Warning", "lint"]

_LEAKY = re.compile(r"\$\{[^}]*(?:principal|request|resource)tag/[^}]*\}\*", re.IGNORECASE)
_TAG = re.compile(r"(aws|[a-z0-9-]+):(principal|request|resource|existingobject|requestobject)tag/.+", re.IGNORECASE)
_ROLE = re.compile(r"arn:[^:]*:iam::(?P<account>[0-9]{12}):role/.+")
_BUCKET = "arn:*:s3:::*"
"""The one template in which a star is known to be no path: objects begin where buckets end."""
_SERVICE_KEY = re.compile(r"[a-zA-Z0-9-]+:.+")
"""Keys of AWS and its services, not those of identity providers, which begin with a host."""


class KnownAction(Protocol):
    """An action of AWS."""

    @property
    def templates(self) -> Sequence[str]:
        """ARNs of what it is about, with a star for each part that varies; none: it is asked about ``*``."""
        ...


class Reference(Protocol):
    """AWS's own tables."""

    def action(self, name: str) -> KnownAction | None:
        """Return an action by name, or None without such an action."""
        ...

    def key_type(self, key: str) -> str | None:
        """Return the type of a condition key, ``ArrayOf…`` for several values; None for an unknown key."""
        ...


@dataclass(frozen=True, slots=True)
class Warning:  # noqa: A001 - the word for it
    """One thing that is hardly meant."""

    statement: int
    """Index in the document."""
    text: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"statement {self.statement}: {self.text}"


def lint(document: str, reference: Reference | None = None) -> list[Warning]:
    """Return warnings about a policy, in the order of its statements.

    Args:
        document: JSON text.
        reference: AWS's tables; None: names are not looked up.

    Raises:
        ValueError: It is no JSON object.
    """
    body = strict_json(document)
    if not isinstance(body, dict):
        raise ValueError("the policy is not a JSON object")  # noqa: TRY004 - the text is at fault, not the caller
    statements = [members(item) for item in one_or_more(members(body).get("Statement"))]
    return [Warning(index, text) for index, statement in enumerate(statements) for text in _of(statement, reference)]


def _of(statement: Mapping[str, Any], reference: Reference | None) -> Iterator[str]:
    yield from _not_principal(statement)
    if reference:
        yield from _actions(statement, reference)
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
        kind = reference.key_type(key) if reference else None
        if reference and kind is None and _SERVICE_KEY.fullmatch(key):
            yield f"{key} is no condition key that AWS knows: no call carries it"
        is_list = is_multivalued(key) or (kind or "").startswith("ArrayOf")
        yield from _condition(operator, key, is_list=is_list, is_guarded=key.lower() in guarded)


def _actions(statement: Mapping[str, Any], reference: Reference) -> Iterator[str]:
    """Warn of actions that AWS does not know, or that no resource of the statement can be about (IAM-DATA-05)."""
    resources = [str(text) for text in one_or_more(statement.get("Resource"))]
    for name in [str(text) for element in ("Action", "NotAction") for text in one_or_more(statement.get(element))]:
        if "*" in name or "?" in name:
            continue
        known = reference.action(name)
        if known is None:
            yield f"{name} is no action that AWS knows"
        elif not resources:
            continue
        elif not known.templates:
            if not any(set(text) == {"*"} for text in resources):
                yield f"{name} is about no resource: only * grants it"
        elif not any(_meet(text, template) for text in resources for template in known.templates):
            yield f"{name} is about {' or '.join(known.templates)}, which no resource of the statement is"


def _meet(pattern: str, template: str) -> bool:
    """Tell whether some ARN matches both a policy's pattern and a template; stars stay within the first five parts."""
    if template == _BUCKET and "/" in pattern:
        return False
    parts = pattern.split(":", 5)
    parts += ["*"] * (6 - len(parts))
    return all(map(_have_common_text, parts, template.split(":", 5)))


def _have_common_text(one: str, other: str) -> bool:
    # A variable may become anything.
    one = re.sub(r"\$\{[^}]*\}", "*", one)
    row = [not other[:length].strip("*") for length in range(len(other) + 1)]
    for letter in one:
        above, row = row, [row[0] and letter == "*"]
        for column, wanted in enumerate(other, 1):
            if "*" in {letter, wanted}:
                row.append(above[column] or row[column - 1])
            else:
                row.append(above[column - 1] and (letter == wanted or "?" in {letter, wanted}))
    return row[-1]


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


def _condition(operator: str, key: str, *, is_list: bool, is_guarded: bool) -> Iterator[str]:
    """Warn of operators that are true without the key, and of keys that have several values (IAM-COND-06)."""
    parsed = parse_operator(operator)
    if parsed is None or parsed.name == "null":
        return
    if is_list and not parsed.prefix:
        yield f"{key} has several values: {operator} without ForAllValues or ForAnyValue matches nothing"
    if parsed.prefix == "forallvalues" and not is_guarded:
        yield f'{operator} on {key} is true without the key: add "Null": {{"{key}": "false"}}'
    if parsed.is_negated and not parsed.prefix and _TAG.fullmatch(key) and not is_guarded:
        yield f'{operator} on {key} is true without the tag: add "Null": {{"{key}": "false"}}'
