"""Reading a document that is about to be stored: elements that are known, of the types that they must have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from harness.cloud.iam.conditions import parse_operator
from harness.cloud.iam.policy import strict_json

__all__ = [
    "PRINCIPALS",
    "Malformed",
    "WrittenStatement",
    "absent_principal",
    "actions_of",
    "listed",
    "mapping",
    "read_document",
    "resources_of",
]

WrittenStatement = Mapping[str, Any]
PRINCIPALS = {"Principal", "NotPrincipal"}

_SYNTAX = "Syntax errors in policy."
_VERSIONS = {"2012-10-17", "2008-10-17"}
_TOP = {"Version", "Id", "Statement"}
_ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
_PRINCIPAL_KINDS = {"AWS", "CanonicalUser", "Federated", "Service"}
_ROLE_OR_USER = re.compile(r"arn:[^:]*:iam::[^:]*:(role|user)/")


class Malformed(Exception):  # noqa: N818 - the word of AWS's error code
    """A document that is refused, with the text for it."""


def read_document(document: str, *, has_principals: bool) -> Mapping[str, Any]:
    """Return a document whose elements are known and have the types that they must have.

    Those types also bound how deeply it can be nested.

    Raises:
        Malformed: With IAM's text for every such fault.
    """
    try:
        value = strict_json(document)
    except ValueError:
        raise Malformed(_SYNTAX) from None
    _require(isinstance(value, dict))
    body = cast("dict[str, Any]", value)
    _require(not body.keys() - _TOP and "Statement" in body)
    _require(isinstance(body.get("Id", ""), str))
    version = body.get("Version", "2008-10-17")
    _require(isinstance(version, str) and version in _VERSIONS)
    statements = listed(body["Statement"])
    _require(bool(statements))
    for statement in statements:
        _check_statement(statement, has_principals=has_principals)
    return body


def _check_statement(value: Any, *, has_principals: bool) -> None:
    _require(isinstance(value, dict))
    statement = cast("dict[str, Any]", value)
    _require(not statement.keys() - _ELEMENTS - PRINCIPALS)
    for element in ("Action", "Resource", "Principal"):
        _require(not {element, f"Not{element}"} <= statement.keys())
    effect = statement.get("Effect")
    _require(isinstance(effect, str) and effect.lower() in {"allow", "deny"})
    _require(isinstance(statement.get("Sid", ""), str))
    for element in ("Action", "NotAction", "Resource", "NotResource"):
        _require(_are_texts(statement.get(element, "")))
    if has_principals:
        for element in PRINCIPALS & statement.keys():
            _check_principal(statement[element])
    _check_condition(statement.get("Condition", {}))


def _check_principal(value: Any) -> None:
    if value == "*":
        return
    _require(isinstance(value, dict))
    named = cast("dict[str, Any]", value)
    _require(
        bool(named)
        and not named.keys() - _PRINCIPAL_KINDS
        and all(names and _are_texts(names) for names in named.values())
    )


def _check_condition(value: Any) -> None:
    _require(isinstance(value, dict))
    for name, tests in cast("dict[str, Any]", value).items():
        _require(isinstance(tests, dict))
        keys = cast("dict[str, Any]", tests)
        # An operator that does not exist passes if it tests nothing, as recorded.
        _require(parse_operator(name) is not None or not keys)
        for values in keys.values():
            _require(all(isinstance(item, str | bool | Decimal) for item in listed(values)))


def _require(is_fine: bool) -> None:
    if not is_fine:
        raise Malformed(_SYNTAX)


def _are_texts(value: Any) -> bool:
    return all(isinstance(item, str) for item in listed(value))


def listed(value: Any) -> list[Any]:
    """Return a list as it is and a single value as a list of one."""
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object, an empty one for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def actions_of(statement: WrittenStatement) -> list[str]:
    """Return the texts of Action or NotAction, none without either."""
    return listed(statement.get("Action", statement.get("NotAction", [])))


def resources_of(statement: WrittenStatement) -> list[str]:
    """Return the texts of Resource or NotResource, none without either."""
    return listed(statement.get("Resource", statement.get("NotResource", [])))


def absent_principal(statements: Sequence[WrittenStatement], is_principal: Callable[[str], bool]) -> str:
    """Return the first role or user among the principals that is not there, empty without one (IAM-DOC-05)."""
    for statement in statements:
        named = mapping(statement.get("Principal", statement.get("NotPrincipal")))
        for name in listed(named.get("AWS", [])):
            if _ROLE_OR_USER.match(name) and not is_principal(name):
                return name
    return ""
