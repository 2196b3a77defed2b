"""Condition operators one by one (``iam.md`` section 5)."""

from __future__ import annotations

import pytest
from iam_requests import ALLOW_ALL, OBJECT, USER, allows

OPERATORS = [
    ("StringEqualsIgnoreCase", "Team-A", "tEAM-a", True),
    ("StringEqualsIgnoreCase", "${aws:username}", "ALICE", True),
    ("StringNotEqualsIgnoreCase", "Team-A", "team-a", False),
    ("StringLike", "team-?/*/x*z", "team-a/b/c/x-y-z", True),
    ("StringLike", "*a?c*", "zzabczz", True),
    ("StringLike", "*a?c*", "zzacz", False),
    ("StringNotLike", "team-*", "team-a", False),
    ("stringlike", "team-*", "team-a", True),
    ("NumericEquals", "10", "10.0", True),
    ("NumericNotEquals", "10", "10.0", False),
    ("NumericGreaterThan", "9", "10", True),
    ("NumericLessThan", "9", "ten", False),
    ("NumericLessThan", "nine", "1", False),
    ("NumericNotEquals", "9", "ten", True),
    ("DateEquals", "2026-04-10T14:00:00Z", "1775829600", True),
    ("DateEquals", "2026-04-10T16:00:00+02:00", "2026-04-10T14:00:00.000Z", True),
    ("DateEquals", "2026-04-10", "2026-04-10T00:00Z", True),
    ("DateGreaterThanEquals", "2026-02-30", "2026-04-10", False),
    ("DateNotEquals", "2026-04-10", "2026-04-11", True),
    ("Bool", "TRUE", "true", True),
    ("Bool", "true", "yes", False),
    ("Bool", "${aws:PrincipalIsAWSService}", "false", True),
    ("BinaryEquals", "QmluYXJ5", "QmluYXJ5", True),
    ("BinaryEquals", "QmluYXJ5", "not base64", False),
    ("IpAddress", "203.0.113.7/24", "203.0.113.200", True),
    ("IpAddress", "2001:db8::/32", "2001:db8::7", True),
    ("IpAddress", "203.0.113.7", "203.0.113.8", False),
    ("IpAddress", "not a range", "203.0.113.8", False),
    ("NotIpAddress", "203.0.113.0/24", "203.0.113.7", False),
    ("NotIpAddress", "203.0.113.0/24", "not an address", True),
    ("ArnLike", "arn:aws:eks:*:123456789012:cluster/*", "arn:aws:eks:eu-west-1:123456789012:cluster/a", True),
    ("ArnLike", "arn:aws:eks:*:cluster/*", "arn:aws:eks:eu-west-1:123456789012:cluster/a", False),
    ("ArnEquals", "*", "arn:aws:s3:::notes", True),
    ("ArnNotLike", "arn:aws:s3:::*", "arn:aws:s3:::notes", False),
    ("Null", "false", "", True),
    ("Null", "true", "", False),
    ("ForAnyValue:StringLike", "b*", ("a", "bc"), True),
    ("ForAnyValue:StringLike", "b*", (), False),
    ("ForAllValues:StringLike", "b*", ("a", "bc"), False),
    ("ForAllValues:StringLike", "b*", (), True),
    ("ForAllValues:StringNotEquals", "a", ("b", "c"), True),
    ("ForAnyValue:StringEquals", "a", "a", True),
    ("StringEquals", "a", ("a",), False),
    ("StringNotEquals", "b", ("a",), False),
    ("Null", "true", (), True),
]


@pytest.mark.parametrize(("operator", "wanted", "sent", "expected"), OPERATORS)
def test_operator(operator: str, wanted: str, sent: str | tuple[str, ...], expected: bool) -> None:
    statement = {**ALLOW_ALL, "Condition": {operator: {"x:Key": wanted}}}

    assert allows(USER, statement, OBJECT, **{"X:key": sent}) is expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("StringEquals", False),
        ("StringNotEquals", True),
        ("NumericEquals", False),
        ("NumericNotEquals", True),
        ("DateNotEquals", True),
        ("NotIpAddress", True),
        ("ArnNotEquals", True),
        ("Bool", False),
        ("BoolIfExists", True),
        ("IpAddressIfExists", True),
        ("StringNotLikeIfExists", True),
        ("ForAnyValue:StringEquals", False),
        ("ForAnyValue:StringEqualsIfExists", False),
        ("ForAllValues:StringEquals", True),
        ("Null", True),
        ("NullIfExists", False),
        ("StringMatches", False),
    ],
)
def test_operator_on_an_absent_key(operator: str, expected: bool) -> None:
    assert allows(USER, {**ALLOW_ALL, "Condition": {operator: {"x:key": "true"}}}) is expected
