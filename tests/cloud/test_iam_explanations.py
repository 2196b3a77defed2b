"""How a decision explains itself, and short forms of documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.cloud.iam import Decision
from harness.cloud.ports import NamedPolicy
from harness.subject.iam_requests import (
    ACCOUNT,
    ALLOW_ALL,
    ANONYMOUS,
    DENY_ALL,
    OBJECT,
    POD,
    ROOT,
    SESSION,
    USER,
    allows,
    ask,
    policy,
)


def answer(decision: Decision) -> str:
    return "Allow" if decision.allowed else "Deny-explicit" if decision.explicit else "Deny-implicit"


def condition(operator: str, key: str, *values: Any) -> dict[str, Any]:
    return {**ALLOW_ALL, "Condition": {operator: {key: list(values)}}}


def test_an_endpoint_policy_that_is_silent_denies() -> None:
    decision = ask(POD, identity=[policy(ALLOW_ALL)], endpoint=(policy(ALLOW_ALL | {"Action": "eks:*"}),))

    assert (answer(decision), decision.layer) == ("Deny-implicit", "endpoint")


def test_a_decision_names_its_statement() -> None:
    decision = ask(
        POD,
        identity=[policy(ALLOW_ALL, name="inline:first"), policy({**DENY_ALL, "Sid": "Never"}, name="inline:second")],
    )

    assert decision.as_data() == {
        "allowed": False,
        "explicit": True,
        "layer": "identity",
        "action": "s3:GetObject",
        "resource": OBJECT,
        "principal": SESSION,
        "cross_account": False,
        "policy": "inline:second",
        "statement": 0,
        "sid": "Never",
    }
    assert decision.sentence() == (
        f"{SESSION} may not do s3:GetObject on {OBJECT}: "
        'Deny of statement 0 "Never" in identity-based policy inline:second'
    )


def test_a_denial_lists_the_keys_that_matter_and_those_the_call_lacks() -> None:
    statement = {
        **ALLOW_ALL,
        "Resource": "arn:aws:s3:::notes/${aws:PrincipalTag/Team}/*",
        "Condition": {"StringEquals": {"s3:prefix": "${aws:username}", "aws:PrincipalAccount": ACCOUNT}},
    }
    other = {**ALLOW_ALL, "Action": "eks:*", "Condition": {"Bool": {"aws:SecureTransport": "true"}}}

    decision = ask(USER, identity=[policy(statement, other)])

    assert decision.keys == ("aws:principalaccount", "aws:principaltag/team", "aws:username", "s3:prefix")
    assert decision.missing == ("aws:principaltag/team", "s3:prefix")


@pytest.mark.parametrize(
    ("decision", "ending"),
    [
        (ask(ROOT), "root may do s3:GetObject on arn:aws:s3:::notes/a: the account root needs no policy"),
        (ask(POD, "sts:GetCallerIdentity", "*"), "job-1 may do sts:GetCallerIdentity on *: nothing can forbid it"),
        (
            ask(ANONYMOUS),
            "anonymous may not do s3:GetObject on arn:aws:s3:::notes/a: no resource-based policy allows it",
        ),
        (ask(USER, identity=[policy(ALLOW_ALL)]), "Allow of statement 0 in identity-based policy inline:test"),
        (
            ask(USER, identity=[policy({**ALLOW_ALL, "Condition": {"Bool": {"aws:SecureTransport": "true"}}})]),
            "no identity-based policy allows it; the call carries no aws:securetransport",
        ),
        (ask(USER, identity=[NamedPolicy("x", "[]")]), '(policy "x": the document is not an object)'),
    ],
)
def test_a_decision_explains_itself(decision: Decision, ending: str) -> None:
    assert decision.sentence().endswith(ending)


def test_single_values_stand_for_lists() -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": ALLOW_ALL})

    assert ask(USER, identity=[NamedPolicy("inline:one", document)]).allowed


@pytest.mark.parametrize(("written", "sent"), [(True, "true"), (10, "10"), (1.50, "1.5"), (1e3, "1000")])
def test_condition_values_may_be_json_booleans_and_numbers(written: object, sent: str) -> None:
    assert allows(USER, condition("StringEquals", "x:y", written), **{"x:y": sent})


@pytest.mark.parametrize(("operator", "wanted"), [("StringEquals", "a"), ("StringNotEquals", "b")])
def test_several_values_match_no_plain_operator(operator: str, wanted: str) -> None:
    """IAM-COND-06 but for its warning."""
    assert not allows(USER, condition(operator, "x:key", wanted), **{"x:key": ("a",)})
