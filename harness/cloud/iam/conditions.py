"""Condition operators (``iam.md`` section 5), each compiled to a function of the context."""

from __future__ import annotations

import operator as op
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from harness.cloud.iam import values as typed
from harness.cloud.iam.arns import ArnPattern, arn_condition_pattern
from harness.cloud.iam.values import ContextValue
from harness.cloud.iam.variables import literal_tokens, template_tokens
from harness.cloud.iam.wildcard import Pattern, Token, Variable

__all__ = ["Condition", "Operator", "compile_condition", "parse_operator"]

Context = Mapping[str, ContextValue]
ContextTest = Callable[[Context], bool]
ValueTest = Callable[[str, Context], bool]
SetPrefix = Literal["", "forallvalues", "foranyvalue"]


@dataclass(frozen=True, slots=True)
class Operator:
    """A condition operator taken apart."""

    name: str
    """Lower-cased name of the positive operator, such as ``stringlike``."""
    is_negated: bool
    prefix: SetPrefix
    if_exists: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key."""

    key: str
    """Lower-cased."""
    test: ContextTest
    variables: tuple[Variable, ...]


@dataclass(frozen=True, slots=True)
class _Values:
    """What an operator makes of its list of policy values: the positive test of one request value."""

    matches: ValueTest
    variables: tuple[Variable, ...] = ()
    known: Mapping[ContextValue | None, bool] | None = None
    """Request values whose answer is known beforehand."""
    is_complete: bool = False
    """Whether all that match are among ``known``."""


def parse_operator(text: str) -> Operator | None:
    """Take an operator name apart; None for a name that does not exist (IAM-COND-08)."""
    name = text.lower()
    prefix: SetPrefix = ""
    for candidate in _PREFIXES:
        if name.startswith(f"{candidate}:"):
            prefix = candidate
            name = name[len(candidate) + 1 :]
    if name == "null":
        return Operator("null", is_negated=False, prefix=prefix, if_exists=False)
    base = name.removesuffix("ifexists")
    is_negated = base in _NEGATED
    positive = _NEGATED.get(base, base)
    if positive not in _OPERATORS:
        return None
    return Operator(positive, is_negated=is_negated, prefix=prefix, if_exists=base != name)


def compile_condition(
    operator: Operator | None, key: str, policy_values: Sequence[str], *, has_variables: bool
) -> Condition:
    """Compile one operator on one key; an unknown operator (None) never matches.

    Args:
        operator: The operator.
        key: Context key as written.
        policy_values: Its values, as text.
        has_variables: Whether the document's version gives ``${…}`` a meaning (IAM-VAR-01).
    """
    key = key.lower()
    if operator is None:
        return Condition(key, lambda _: False, ())
    if operator.name == "null":
        return Condition(key, _null_test(key, policy_values), ())
    compiled = _OPERATORS[operator.name](policy_values, has_variables)
    return Condition(key, _key_test(operator, key, compiled), compiled.variables)


def _key_test(operator: Operator, key: str, values: _Values) -> ContextTest:
    negated, matches, known = operator.is_negated, values.matches, values.known
    if operator.prefix == "forallvalues":
        return lambda context: all(matches(value, context) != negated for value in _all_values(context, key))
    if operator.prefix == "foranyvalue":
        return lambda context: any(matches(value, context) != negated for value in _all_values(context, key))
    # Absent keys: false for positive operators, true for negated ones and with IfExists.
    absent = negated or operator.if_exists
    if known is not None and values.is_complete and not absent:
        # The most common condition: neither an absent key nor one with several values is among the known.
        return lambda context: context.get(key) in known

    def test(context: Context) -> bool:
        value = context.get(key)
        if isinstance(value, str):
            return matches(value, context) != negated
        # A multivalued key without a set prefix matches nothing, positive or negated (IAM-COND-06).
        return absent if not value else False

    if known is None:
        return test

    def test_known(context: Context) -> bool:
        answer = known.get(context.get(key))
        return test(context) if answer is None else answer != negated

    return test_known


def _all_values(context: Context, key: str) -> Sequence[str]:
    value = context.get(key, ())
    return (value,) if isinstance(value, str) else value


def _null_test(key: str, policy_values: Sequence[str]) -> ContextTest:
    wanted = {typed.parse_bool(value) for value in policy_values}
    # An empty multivalued key counts as absent, the empty text is a value.
    return lambda context: (context.get(key, ()) == ()) in wanted


def _tokens(value: str, *, has_variables: bool, has_wildcards: bool) -> list[Token]:
    split = template_tokens if has_variables else literal_tokens
    return split(value, has_wildcards=has_wildcards)


def _patterns(
    values: Sequence[str], *, has_variables: bool, has_wildcards: bool
) -> tuple[list[Pattern], tuple[Variable, ...]]:
    patterns = [Pattern(_tokens(value, has_variables=has_variables, has_wildcards=has_wildcards)) for value in values]
    return patterns, tuple(variable for pattern in patterns for variable in pattern.variables)


def _any_of(patterns: Sequence[Pattern | ArnPattern]) -> ValueTest:
    if len(patterns) == 1:
        return patterns[0].matches
    return lambda value, context: any(pattern.matches(value, context) for pattern in patterns)


def _string_equals(values: Sequence[str], has_variables: bool) -> _Values:
    patterns, variables = _patterns(values, has_variables=has_variables, has_wildcards=False)
    if not variables:
        texts = frozenset(
            "".join(map(str, _tokens(v, has_variables=has_variables, has_wildcards=False))) for v in values
        )
        return _Values(lambda value, _: value in texts, known=dict.fromkeys(texts, True), is_complete=True)
    return _Values(_any_of(patterns), variables)


def _string_equals_ignore_case(values: Sequence[str], has_variables: bool) -> _Values:
    templates = [_tokens(value, has_variables=has_variables, has_wildcards=False) for value in values]
    variables = tuple(token for tokens in templates for token in tokens if isinstance(token, Variable))

    def matches(value: str, context: Context) -> bool:
        return any(_filled(tokens, context) == value.lower() for tokens in templates)

    return _Values(matches, variables)


def _filled(tokens: Sequence[Token], context: Context) -> str | None:
    """Return a template's text in lower case, or None if a variable has no value."""
    texts = [token.value(context) if isinstance(token, Variable) else str(token) for token in tokens]
    known = [text for text in texts if text is not None]
    return "".join(known).lower() if len(known) == len(texts) else None


def _string_like(values: Sequence[str], has_variables: bool) -> _Values:
    patterns, variables = _patterns(values, has_variables=has_variables, has_wildcards=True)
    return _Values(_any_of(patterns), variables)


def _arn_like(values: Sequence[str], has_variables: bool) -> _Values:
    patterns: list[ArnPattern] = [
        arn_condition_pattern(_tokens(value, has_variables=has_variables, has_wildcards=True)) for value in values
    ]
    variables = tuple(variable for pattern in patterns for variable in pattern.variables)
    return _Values(_any_of(patterns), variables)


def _bool(values: Sequence[str], has_variables: bool) -> _Values:
    templates = [_tokens(value, has_variables=has_variables, has_wildcards=False) for value in values]
    variables = tuple(token for tokens in templates for token in tokens if isinstance(token, Variable))

    if not variables:
        wanted = {typed.parse_bool(_filled(tokens, {}) or "") for tokens in templates} - {None}
        usual: dict[ContextValue | None, bool] = {"true": True in wanted, "false": False in wanted}
        return _Values(lambda value, _: typed.parse_bool(value) in wanted, known=usual)

    def matches(value: str, context: Context) -> bool:
        sent = typed.parse_bool(value)
        return sent is not None and any(
            typed.parse_bool(_filled(tokens, context) or "") is sent for tokens in templates
        )

    return _Values(matches, variables)


def _compared(
    parse: Callable[[str], Decimal | None], compare: Callable[[Decimal, Decimal], bool]
) -> Callable[[Sequence[str], bool], _Values]:
    def build(values: Sequence[str], has_variables: bool) -> _Values:
        del has_variables  # numbers and dates take no variables
        wanted = [number for number in map(parse, values) if number is not None]

        def matches(value: str, _: Context) -> bool:
            sent = parse(value)
            return sent is not None and any(compare(sent, number) for number in wanted)

        return _Values(matches)

    return build


def _ip_address(values: Sequence[str], has_variables: bool) -> _Values:
    del has_variables
    networks = [network for network in map(typed.parse_network, values) if network is not None]

    def matches(value: str, _: Context) -> bool:
        address = typed.parse_address(value)
        # "in" is false across IP versions.
        return address is not None and any(address in network for network in networks)

    return _Values(matches)


def _binary_equals(values: Sequence[str], has_variables: bool) -> _Values:
    del has_variables
    wanted = {data for data in map(typed.parse_binary, values) if data is not None}
    return _Values(lambda value, _: typed.parse_binary(value) in wanted)


_PREFIXES: tuple[SetPrefix, ...] = ("forallvalues", "foranyvalue")
_COMPARISONS: Mapping[str, Callable[[Decimal, Decimal], bool]] = {
    "equals": op.eq,
    "lessthan": op.lt,
    "lessthanequals": op.le,
    "greaterthan": op.gt,
    "greaterthanequals": op.ge,
}
_OPERATORS: Mapping[str, Callable[[Sequence[str], bool], _Values]] = {
    "stringequals": _string_equals,
    "stringequalsignorecase": _string_equals_ignore_case,
    "stringlike": _string_like,
    "arnequals": _arn_like,
    "arnlike": _arn_like,
    "bool": _bool,
    "binaryequals": _binary_equals,
    "ipaddress": _ip_address,
    **{f"numeric{name}": _compared(typed.parse_number, compare) for name, compare in _COMPARISONS.items()},
    **{f"date{name}": _compared(typed.parse_instant, compare) for name, compare in _COMPARISONS.items()},
}
_NEGATED: Mapping[str, str] = {
    "stringnotequals": "stringequals",
    "stringnotequalsignorecase": "stringequalsignorecase",
    "stringnotlike": "stringlike",
    "numericnotequals": "numericequals",
    "datenotequals": "dateequals",
    "notipaddress": "ipaddress",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
}
