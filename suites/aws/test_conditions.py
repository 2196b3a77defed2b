"""Condition operators one by one (``iam.md`` section 5)."""

from __future__ import annotations

import base64

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.iam_requests import ALLOW_ALL, OBJECT, USER, allows

OPERATORS = [
    pytest.param("StringEqualsIgnoreCase", "Team-A", "tEAM-a", True, marks=requirement("IAM-COND-01")),
    pytest.param("StringEqualsIgnoreCase", "${aws:username}", "ALICE", True, marks=requirement("IAM-COND-01")),
    pytest.param("StringNotEqualsIgnoreCase", "Team-A", "team-a", False, marks=requirement("IAM-COND-01")),
    pytest.param("StringLike", "team-?/*/x*z", "team-a/b/c/x-y-z", True, marks=requirement("IAM-COND-01")),
    pytest.param("StringLike", "*a?c*", "zzabczz", True, marks=requirement("IAM-COND-01")),
    pytest.param("StringLike", "*a?c*", "zzacz", False, marks=requirement("IAM-COND-01")),
    pytest.param("StringNotLike", "team-*", "team-a", False, marks=requirement("IAM-COND-01")),
    pytest.param("stringlike", "team-*", "team-a", True, marks=requirement("IAM-COND-01")),
    pytest.param("NumericEquals", "10", "10.0", True, marks=requirement("IAM-COND-01")),
    pytest.param("NumericNotEquals", "10", "10.0", False, marks=requirement("IAM-COND-01")),
    pytest.param("NumericGreaterThan", "9", "10", True, marks=requirement("IAM-COND-01")),
    pytest.param("NumericLessThan", "9", "ten", False, marks=requirement("IAM-COND-11")),
    pytest.param("NumericLessThan", "nine", "1", False, marks=requirement("IAM-COND-11")),
    pytest.param("NumericNotEquals", "9", "ten", True, marks=requirement("IAM-COND-11")),
    pytest.param("DateEquals", "2026-04-10T14:00:00Z", "1775829600", True, marks=requirement("IAM-COND-01")),
    pytest.param(
        "DateEquals", "2026-04-10T16:00:00+02:00", "2026-04-10T14:00:00.000Z", True, marks=requirement("IAM-COND-01")
    ),
    pytest.param("DateEquals", "2026-04-10", "2026-04-10T00:00Z", True, marks=requirement("IAM-COND-01")),
    pytest.param("DateGreaterThanEquals", "2026-02-30", "2026-04-10", False, marks=requirement("IAM-COND-11")),
    pytest.param("DateNotEquals", "2026-04-10", "2026-04-11", True, marks=requirement("IAM-COND-01")),
    pytest.param("Bool", "TRUE", "true", True, marks=requirement("IAM-COND-01")),
    pytest.param("Bool", "true", "yes", False, marks=requirement("IAM-COND-11")),
    pytest.param("Bool", "${aws:PrincipalIsAWSService}", "false", True, marks=requirement("IAM-COND-01")),
    pytest.param("BinaryEquals", "QmluYXJ5", "QmluYXJ5", True, marks=requirement("IAM-COND-01")),
    pytest.param("BinaryEquals", "QmluYXJ5", "not base64", False, marks=requirement("IAM-COND-11")),
    pytest.param("IpAddress", "203.0.113.7/24", "203.0.113.200", True, marks=requirement("IAM-COND-01")),
    pytest.param("IpAddress", "2001:db8::/32", "2001:db8::7", True, marks=requirement("IAM-COND-01")),
    pytest.param("IpAddress", "203.0.113.7", "203.0.113.8", False, marks=requirement("IAM-COND-01")),
    pytest.param("IpAddress", "not a range", "203.0.113.8", False, marks=requirement("IAM-COND-11")),
    pytest.param("NotIpAddress", "203.0.113.0/24", "203.0.113.7", False, marks=requirement("IAM-COND-01")),
    pytest.param("NotIpAddress", "203.0.113.0/24", "not an address", True, marks=requirement("IAM-COND-11")),
    pytest.param(
        "ArnLike",
        "arn:aws:eks:*:123456789012:cluster/*",
        "arn:aws:eks:eu-west-1:123456789012:cluster/a",
        True,
        marks=requirement("IAM-COND-01"),
    ),
    pytest.param(
        "ArnLike",
        "arn:aws:eks:*:cluster/*",
        "arn:aws:eks:eu-west-1:123456789012:cluster/a",
        False,
        marks=requirement("IAM-COND-01"),
    ),
    pytest.param("ArnEquals", "*", "arn:aws:s3:::notes", True, marks=requirement("IAM-COND-01")),
    pytest.param("ArnNotLike", "arn:aws:s3:::*", "arn:aws:s3:::notes", False, marks=requirement("IAM-COND-01")),
    pytest.param("Null", "false", "", True, marks=requirement("IAM-COND-01")),
    pytest.param("Null", "true", "", False, marks=requirement("IAM-COND-01")),
    pytest.param("ForAnyValue:StringLike", "b*", ("a", "bc"), True, marks=requirement("IAM-COND-04")),
    pytest.param("ForAnyValue:StringLike", "b*", (), False, marks=requirement("IAM-COND-04")),
    pytest.param("ForAllValues:StringLike", "b*", ("a", "bc"), False, marks=requirement("IAM-COND-03")),
    pytest.param("ForAllValues:StringLike", "b*", (), True, marks=requirement("IAM-COND-03")),
    pytest.param("ForAllValues:StringNotEquals", "a", ("b", "c"), True, marks=requirement("IAM-COND-03")),
    pytest.param("ForAnyValue:StringEquals", "a", "a", True, marks=requirement("IAM-COND-05")),
    pytest.param("Null", "true", (), True, marks=requirement("IAM-COND-01")),
]


@pytest.mark.parametrize(("operator", "wanted", "sent", "expected"), OPERATORS)
def test_operator(operator: str, wanted: str, sent: str | tuple[str, ...], expected: bool) -> None:
    statement = {**ALLOW_ALL, "Condition": {operator: {"x:Key": wanted}}}

    assert allows(USER, statement, OBJECT, **{"X:key": sent}) is expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        pytest.param("StringEquals", False, marks=requirement("IAM-COND-01")),
        pytest.param("StringNotEquals", True, marks=requirement("IAM-COND-01")),
        pytest.param("NumericEquals", False, marks=requirement("IAM-COND-01")),
        pytest.param("NumericNotEquals", True, marks=requirement("IAM-COND-01")),
        pytest.param("DateNotEquals", True, marks=requirement("IAM-COND-01")),
        pytest.param("NotIpAddress", True, marks=requirement("IAM-COND-01")),
        pytest.param("ArnNotEquals", True, marks=requirement("IAM-COND-01")),
        pytest.param("Bool", False, marks=requirement("IAM-COND-01")),
        pytest.param("BoolIfExists", True, marks=requirement("IAM-COND-02")),
        pytest.param("IpAddressIfExists", True, marks=requirement("IAM-COND-02")),
        pytest.param("StringNotLikeIfExists", True, marks=requirement("IAM-COND-02")),
        pytest.param("ForAnyValue:StringEquals", False, marks=requirement("IAM-COND-04")),
        pytest.param("ForAnyValue:StringEqualsIfExists", False, marks=requirement("IAM-COND-07")),
        pytest.param("ForAllValues:StringEquals", True, marks=requirement("IAM-COND-03")),
        pytest.param("ForAllValues:StringEqualsIfExists", True, marks=requirement("IAM-COND-07")),
        pytest.param("Null", True, marks=requirement("IAM-COND-01")),
        pytest.param("NullIfExists", False, marks=requirement("IAM-COND-02")),
        pytest.param("StringMatches", False, marks=requirement("IAM-COND-08")),
    ],
)
def test_operator_on_an_absent_key(operator: str, expected: bool) -> None:
    assert allows(USER, {**ALLOW_ALL, "Condition": {operator: {"x:key": "true"}}}) is expected


BINARY = base64.b64encode(b"seven").decode()
ONE_OF_EACH = [
    # operator, value in the policy, a value that equals it, one that does not
    ("StringEquals", "a", "a", "b"),
    ("StringNotEquals", "a", "b", "a"),
    ("StringEqualsIgnoreCase", "a", "A", "b"),
    ("StringNotEqualsIgnoreCase", "a", "b", "A"),
    ("StringLike", "a*", "ab", "b"),
    ("StringNotLike", "a*", "b", "ab"),
    ("NumericEquals", "7", "7.0", "8"),
    ("NumericNotEquals", "7", "8", "7.0"),
    ("NumericLessThan", "7", "6.5", "7"),
    ("NumericLessThanEquals", "7", "7", "8"),
    ("NumericGreaterThan", "7", "10", "7"),
    ("NumericGreaterThanEquals", "7", "7", "6"),
    ("DateEquals", "2026-04-10T14:00:00Z", "1775829600", "1775829601"),
    ("DateNotEquals", "2026-04-10T14:00:00Z", "1775829601", "1775829600"),
    ("DateLessThan", "2026-04-10T14:00:00Z", "1775829599", "1775829600"),
    ("DateLessThanEquals", "2026-04-10T14:00:00Z", "1775829600", "1775829601"),
    ("DateGreaterThan", "2026-04-10T14:00:00Z", "1775829601", "1775829600"),
    ("DateGreaterThanEquals", "2026-04-10T14:00:00Z", "1775829600", "1775829599"),
    ("Bool", "true", "True", "false"),
    ("BinaryEquals", BINARY, BINARY, "YQ=="),
    ("IpAddress", "10.0.0.0/8", "10.1.2.3", "11.1.2.3"),
    ("NotIpAddress", "10.0.0.0/8", "11.1.2.3", "10.1.2.3"),
    ("ArnEquals", "arn:aws:s3:::a*", "arn:aws:s3:::ab", "arn:aws:s3:::b"),
    ("ArnLike", "arn:aws:s3:::a*", "arn:aws:s3:::ab", "arn:aws:s3:::b"),
    ("ArnNotEquals", "arn:aws:s3:::a*", "arn:aws:s3:::b", "arn:aws:s3:::ab"),
    ("ArnNotLike", "arn:aws:s3:::a*", "arn:aws:s3:::b", "arn:aws:s3:::ab"),
]
"""All operators but ``Null``, which compares nothing."""


@requirement("IAM-COND-01", "IAM-COND-02", "IAM-COND-03", "IAM-COND-04", "IAM-COND-05")
@pytest.mark.parametrize(("operator", "wanted", "good", "bad"), ONE_OF_EACH, ids=[entry[0] for entry in ONE_OF_EACH])
def test_every_operator_in_every_form(operator: str, wanted: str, good: str, bad: str) -> None:
    """Plain, with IfExists and with both set prefixes, on a value, a wrong one, several and none."""
    is_negated = "Not" in operator

    def holds(name: str, sent: str | tuple[str, ...] | None) -> bool:
        context = {} if sent is None else {"x:key": sent}
        return allows(USER, {**ALLOW_ALL, "Condition": {name: {"x:key": wanted}}}, OBJECT, **context)

    plain = [holds(operator, sent) for sent in (good, bad, None)]
    check("IAM-COND-01", what="plain", expected=[True, False, is_negated], observed=plain)
    if_exists = [holds(f"{operator}IfExists", sent) for sent in (good, bad, None)]
    check("IAM-COND-02", expected=[True, False, True], observed=if_exists)
    every = [holds(f"ForAllValues:{operator}", sent) for sent in ((good, good), (good, bad), (), None)]
    check("IAM-COND-03", expected=[True, False, True, True], observed=every)
    some = [holds(f"ForAnyValue:{operator}", sent) for sent in ((bad, good), (bad, bad), (), None)]
    check("IAM-COND-04", expected=[True, False, False, False], observed=some)
    single = [holds(f"{prefix}:{operator}", sent) for prefix in ("ForAllValues", "ForAnyValue") for sent in (good, bad)]
    check("IAM-COND-05", expected=[True, False, True, False], observed=single)
