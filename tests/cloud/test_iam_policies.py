"""Stored documents, callers and the traps of patterns (``iam.md`` sections 2 to 6 and 8.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from iam_requests import (
    ACCOUNT,
    ALLOW_ALL,
    ANONYMOUS,
    DENY_ALL,
    EKS,
    OBJECT,
    OTHER_ACCOUNT,
    POD,
    ROLE,
    ROOT,
    SESSION,
    USER,
    allows,
    ask,
    policy,
)

from harness.cloud.iam import Grade
from harness.cloud.iam.policy import compile_policy
from harness.cloud.ports import NamedPolicy, Principal

HEAD = '{"Version": "2012-10-17", "Statement": '


def condition(operator: str, key: str, *values: Any) -> dict[str, Any]:
    return {**ALLOW_ALL, "Condition": {operator: {key: list(values)}}}


# --- documents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ("", "not JSON"),
        ("[]", "the document is not an object"),
        ('{"Version": "2012-10-17"}', "no Statement"),
        ('{"Version": "2099-01-01", "Statement": []}', "unknown Version '2099-01-01'"),
        ('{"Version": "2012-10-17", "Statement": [], "Comment": ""}', "unknown elements: Comment"),
        (HEAD + '[{"Effect": "Allow", "Effect": "Deny", "Action": "*", "Resource": "*"}]}', "occurs twice"),
        (HEAD + '[{"Effect": "allow", "Action": "*", "Resource": "*"}]}', "no Effect that is Allow or Deny"),
        (HEAD + '[{"Effect": ["Deny"], "Action": "*", "Resource": "*"}]}', "no Effect that is Allow or Deny"),
        (HEAD + '[{"Effect": "Allow", "Resource": "*"}]}', "Action is neither"),
        (HEAD + '[{"Effect": "Allow", "Action": [], "Resource": "*"}]}', "Action is neither"),
        (HEAD + '[{"Effect": "Allow", "Action": 7, "Resource": "*"}]}', "Action is neither"),
        (HEAD + '[{"Effect": "Allow", "Action": "GetObject", "Resource": "*"}]}', "'GetObject' is no action"),
        (HEAD + '[{"Effect": "Allow", "Action": "s*:Get", "Resource": "*"}]}', "'s*:Get' is no action"),
        (HEAD + '[{"Effect": "Allow", "Action": "*"}]}', "Resource is neither"),
        (
            HEAD + '[{"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}]}',
            "both Action and NotAction",
        ),
        (HEAD + '[{"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}]}', "has no Principal"),
        (HEAD + '[{"Effect": "Allow", "Action": "*", "Resource": "*", "Conditions": {}}]}', "elements: Conditions"),
        (
            HEAD + '[{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {"a:b": null}}}]}',
            "NoneType",
        ),
        (HEAD + '[{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {"a:b": NaN}}}]}', "NaN"),
        ("[" * 5000, "not JSON"),
        (HEAD + "9" * 5000 + "}", "too long"),
        (HEAD + "1e9999999999999999999}", "not JSON"),
    ],
)
def test_what_aws_would_not_have_stored_is_unreadable(document: str, fault: str) -> None:
    decision = ask(USER, identity=[policy(ALLOW_ALL), NamedPolicy("inline:broken", document)])

    assert not decision.allowed
    assert fault in decision.fault
    assert decision.reason() == "because no identity-based policy allows the s3:GetObject action"


def test_an_unreadable_bucket_policy_denies_too() -> None:
    with_star = policy({**ALLOW_ALL, "Principal": "arn:aws:iam::123456789012:root"})

    assert ask(USER, identity=[policy(ALLOW_ALL)], resource=with_star).layer == "resource"


def test_single_values_stand_for_lists() -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": ALLOW_ALL})

    assert ask(USER, identity=[NamedPolicy("inline:one", document)]).allowed


@pytest.mark.parametrize(("written", "sent"), [(True, "true"), (10, "10"), (1.50, "1.5"), (1e3, "1000")])
def test_condition_values_may_be_json_booleans_and_numbers(written: object, sent: str) -> None:
    assert allows(USER, condition("StringEquals", "x:y", written), **{"x:y": sent})


def test_a_document_is_compiled_once() -> None:
    document = policy(ALLOW_ALL).document

    assert compile_policy(document, "identity-inline") is compile_policy(document, "identity-inline")
    assert compile_policy(document, "identity-inline") is not compile_policy(document, "scp")


def test_an_empty_condition_is_true() -> None:
    assert allows(USER, {**ALLOW_ALL, "Condition": {}})
    assert allows(USER, {**ALLOW_ALL, "Condition": {"StringEquals": {}}})
    assert not allows(USER, condition("StringEquals", "aws:username"))
    assert allows(USER, condition("StringNotEquals", "aws:username"))


def test_white_space_in_an_action_never_matches() -> None:
    assert not allows(USER, {**ALLOW_ALL, "Action": "s3: GetObject"})
    assert allows(USER, {**ALLOW_ALL, "Action": "*:getobject"})


# --- principals -----------------------------------------------------------------------------------------------------

PATHLESS = Principal("role-session", SESSION, ACCOUNT, "AROAREADER:job-1")
NAMESAKE = ROLE.replace("/team/", "/other/")


@pytest.mark.parametrize(
    ("caller", "named", "grade"),
    [
        (USER, {"AWS": "*"}, "direct"),
        (USER, {"AWS": USER.arn}, "direct"),
        (USER, {"AWS": "AIDAALICE"}, "direct"),
        (USER, {"AWS": [f"arn:aws:iam::{ACCOUNT}:root", USER.arn]}, "direct"),
        (POD, {"AWS": SESSION}, "direct"),
        (POD, {"AWS": ROLE}, "role"),
        (POD, {"AWS": [ACCOUNT, ROLE]}, "role"),
        (POD, {"AWS": "AROAREADER"}, "role"),
        (PATHLESS, {"AWS": NAMESAKE}, "role"),
        (ANONYMOUS, "*", "direct"),
        (EKS, {"Service": ["ec2.amazonaws.com", "pods.eks.amazonaws.com"]}, "service"),
    ],
)
def test_a_caller_is_named_in_a_grade(caller: Principal, named: object, grade: Grade) -> None:
    decision = ask(caller, resource=policy({**ALLOW_ALL, "Principal": named}))

    assert (decision.allowed, decision.layer, decision.grade) == (True, "resource", grade)


@pytest.mark.parametrize(
    ("caller", "named"),
    [
        (POD, {"AWS": NAMESAKE}),
        (POD, {"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/*"}),
        (POD, {"AWS": ROLE.replace(ACCOUNT, OTHER_ACCOUNT)}),
        (PATHLESS, {"AWS": NAMESAKE.replace(ACCOUNT, OTHER_ACCOUNT)}),
        (USER, {"AWS": ACCOUNT}),
        (USER, {"AWS": OTHER_ACCOUNT}),
        (USER, {"Service": USER.arn}),
        (USER, {"CanonicalUser": "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"}),
        (EKS, {"Service": "*"}),
        (EKS, {"AWS": "pods.eks.amazonaws.com"}),
        (ANONYMOUS, {"AWS": ""}),
    ],
)
def test_a_caller_is_not_let_in_by_another_name(caller: Principal, named: object) -> None:
    assert not ask(caller, resource=policy({**ALLOW_ALL, "Principal": named})).allowed


def test_a_resource_policy_without_principal_is_about_nobody() -> None:
    decision = ask(USER, identity=[policy(ALLOW_ALL)], resource=policy(DENY_ALL))

    assert (decision.allowed, decision.layer, decision.fault) == (True, "identity", "")


def test_leaving_a_principal_out_does_not_let_anonymous_callers_in() -> None:
    everybody_else = policy({**ALLOW_ALL, "NotPrincipal": {"AWS": USER.arn}})

    assert ask(POD, resource=everybody_else).allowed
    assert not ask(USER, resource=everybody_else).allowed
    assert not ask(ANONYMOUS, resource=everybody_else).allowed


# --- caller keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "key", "value"),
    [
        (POD, "aws:PrincipalArn", ROLE),
        (PATHLESS, "aws:PrincipalArn", f"arn:aws:iam::{ACCOUNT}:role/reader"),
        (POD, "aws:PrincipalType", "AssumedRole"),
        (POD, "aws:userid", "AROAREADER:job-1"),
        (POD, "aws:username", None),
        (POD, "aws:PrincipalIsAWSService", "false"),
        (USER, "aws:PrincipalArn", USER.arn),
        (USER, "aws:PrincipalType", "User"),
        (USER, "aws:PrincipalAccount", ACCOUNT),
        (USER, "aws:username", "alice"),
        (ANONYMOUS, "aws:PrincipalAccount", "anonymous"),
        (ANONYMOUS, "aws:PrincipalType", "Anonymous"),
        (ANONYMOUS, "aws:PrincipalArn", None),
        (EKS, "aws:PrincipalIsAWSService", "true"),
        (EKS, "aws:PrincipalServiceName", "pods.eks.amazonaws.com"),
        (EKS, "aws:PrincipalAccount", None),
        (USER, "aws:ResourceAccount", ACCOUNT),
    ],
)
def test_the_engine_knows_the_caller_and_believes_nothing_else(caller: Principal, key: str, value: str | None) -> None:
    operator, wanted = ("Null", "true") if value is None else ("StringEquals", value)
    statement = {**condition(operator, key, wanted), "Principal": "*"}

    claimed = {"AWS:PrincipalArn": "x", "aws:userName": "x", "aws:PrincipalIsAWSService": "x"}
    assert ask(caller, resource=policy(statement), context=claimed).allowed


def test_root_has_keys_too() -> None:
    deny = {**DENY_ALL, "Condition": {"StringEquals": {"aws:PrincipalType": "Account", "aws:userid": ACCOUNT}}}

    assert ask(ROOT, scp=((policy(ALLOW_ALL, deny),),)).explicit


def test_a_call_cannot_bring_principal_tags() -> None:
    statement = condition("StringEquals", "aws:PrincipalTag/team", "a")
    tagged = Principal("user", USER.arn, ACCOUNT, "AIDAALICE", tags={"Team": "a"})

    assert allows(tagged, statement)
    assert not allows(USER, statement, **{"aws:principaltag/TEAM": "a"})


# --- traps of patterns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "arn", "expected"),
    [
        ("arn:aws:s3:::a*", "arn:aws:s3:::a/b/c:d", True),
        ("arn:aws:s3:::no?es/a", OBJECT, True),
        ("arn:aws:s3:::no??es/a", OBJECT, False),
        ("arn:aws:s3:::notes/*", "arn:aws:s3:::notes/line\nbreak", True),
        ("arn:aws:s3:::notes/a?b", "arn:aws:s3:::notes/a\nb", True),
        ("arn:aws:s3:::notes/a.b+", "arn:aws:s3:::notes/axbb", False),
        ("arn:aws:s3:::notes", "arn:aws:s3:::notes/a", False),
        ("arn:aws:s3:::otes/a", OBJECT, False),
        ("arn:*:a", "arn:aws:s3:::a", False),
        ("arn:aws:*:notes/a", OBJECT, False),
        ("arn:*:*:*:*:notes/a", OBJECT, True),
        ("arn:aws:s3:*", OBJECT, True),
        ("*", "*", True),
        ("**", OBJECT, True),
        ("arn:aws:s3:::*", "*", False),
        (f"arn:aws:ec2:*:{ACCOUNT}:security-group/*", f"arn:aws:ec2:eu-west-1:{ACCOUNT}:security-group/*", True),
        (f"arn:aws:ec2:*:{ACCOUNT}:security-group/sg-1", f"arn:aws:ec2:eu-west-1:{ACCOUNT}:security-group/*", False),
    ],
)
def test_resource_patterns(pattern: str, arn: str, expected: bool) -> None:
    assert allows(USER, {**ALLOW_ALL, "Resource": pattern}, arn) is expected


def test_a_pattern_of_many_stars_is_no_trap() -> None:
    # A backtracking matcher would not end within the lifetime of this test.
    assert not allows(USER, {**ALLOW_ALL, "Resource": "arn:aws:s3:::" + "a*" * 40 + "b"}, "arn:aws:s3:::" + "a" * 2048)


@pytest.mark.parametrize(
    ("pattern", "tag", "key", "expected"),
    [
        ("${aws:PrincipalTag/team}/*", "a", "a/x", True),
        ("${aws:PrincipalTag/team}/*", "?", "a/x", False),
        ("${aws:PrincipalTag/team}/*", "${aws:username}", "alice/x", False),
        ("${aws:PrincipalTag/team}/*", "${aws:username}", "${aws:username}/x", True),
        ("${aws:PrincipalTag/team}/*", "", "/x", True),
        ("${aws:PrincipalTag/other}/*", "a", "/x", False),
        ("${aws:PrincipalTag/other,'b'}/*", "a", "b/x", True),
        ("${aws:PrincipalTag/other , 'b'}/*", "a", "b/x", True),
        ("${$}{x}", "a", "${x}", True),
        ("${?}", "a", "?", True),
        ("${?}", "a", "b", False),
        ("${aws:PrincipalTag/team", "a", "${aws:PrincipalTag/team", True),
    ],
)
def test_variables_in_resources(pattern: str, tag: str, key: str, expected: bool) -> None:
    caller = Principal("user", USER.arn, ACCOUNT, "AIDAALICE", tags={"team": tag})

    assert allows(caller, {**ALLOW_ALL, "Resource": f"arn:aws:s3:::{pattern}"}, f"arn:aws:s3:::{key}") is expected


def test_variables_do_not_count_before_the_sixth_part() -> None:
    arn = f"arn:aws:dynamodb:eu-west-1:{ACCOUNT}:table/notes"

    assert not allows(USER, {**ALLOW_ALL, "Resource": "arn:aws:dynamodb:*:${aws:PrincipalAccount}:table/notes"}, arn)


def test_a_multivalued_key_is_no_variable() -> None:
    statement = {**ALLOW_ALL, "Resource": "arn:aws:s3:::${aws:TagKeys}"}

    assert not allows(USER, statement, "arn:aws:s3:::a", **{"aws:TagKeys": ("a",)})


def test_colons_of_a_variable_separate_no_parts() -> None:
    statement = condition("ArnLike", "x:arn", "arn:aws:s3:::${x:name}")

    assert allows(USER, statement, **{"x:arn": "arn:aws:s3:::a:b", "x:name": "a:b"})
    assert not allows(USER, condition("ArnLike", "x:arn", "${x:name}:b"), **{"x:arn": OBJECT, "x:name": "arn:aws:s3::"})
