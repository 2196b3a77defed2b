"""The scenarios' policies with one thing taken away: what is taken, and which tests must notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conformance_runs import make_run

from harness.errors import UsageError
from harness.lab.paths import CHECKOUT
from harness.policy_mutants import EQUIVALENT, choose_policies, users, why_none_failed
from harness.policy_mutations import mutate

READ = {
    "Sid": "Read",
    "Effect": "Allow",
    "Action": "s3:GetObject",
    "Resource": "arn:aws:s3:::b/${aws:PrincipalTag/team}/*",
    "Condition": {"StringEquals": {"s3:a": "${aws:PrincipalTag/team}", "s3:b": "1"}, "Bool": {"s3:c": "true"}},
}
TRUST = {"Effect": "Allow", "Principal": {"Service": "s"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}


def changes(*statements: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return what is missing → the statements that are left."""
    text = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return {each.change: json.loads(each.text)["Statement"] for each in mutate("s3/p.json", text)}


def test_one_thing_goes_at_a_time() -> None:
    found = changes(READ)
    assert list(found) == [
        "Read turned into Deny",
        "Read without StringEquals s3:a",
        "Read without StringEquals s3:b",
        "Read without Bool s3:c",
        "Read with any team",
    ]
    assert found["Read turned into Deny"] == [READ | {"Effect": "Deny"}]
    assert found["Read without StringEquals s3:a"][0]["Condition"] == {
        "StringEquals": {"s3:b": "1"},
        "Bool": {"s3:c": "true"},
    }
    assert found["Read without Bool s3:c"][0]["Condition"] == {"StringEquals": READ["Condition"]["StringEquals"]}


def test_a_variable_gives_way_to_anything_where_an_operator_takes_wildcards_literally() -> None:
    (changed,) = changes(READ)["Read with any team"]
    assert changed["Resource"] == "arn:aws:s3:::b/*/*"
    assert changed["Condition"] == {"Bool": {"s3:c": "true"}, "StringLike": {"s3:a": "*", "s3:b": "1"}}


def test_the_last_condition_goes_whole() -> None:
    only = {**READ, "Condition": {"Bool": {"s3:c": "true"}}}
    (changed,) = changes(only)["Read without Bool s3:c"]
    assert "Condition" not in changed


def test_statements_and_actions_of_a_trust_policy_go_one_by_one() -> None:
    found = changes(TRUST, READ)
    assert found["no statement 1"] == [READ]
    assert found["no Read"] == [TRUST]
    assert found["statement 1 without sts:TagSession"] == [TRUST | {"Action": ["sts:AssumeRole"]}, READ]


def test_every_policy_has_a_scenario_that_reads_it() -> None:
    everything = choose_policies([])
    assert [each.name for each in everything if not users(each.file)] == []
    assert len({each.name for each in everything}) == len(everything)


def test_what_changes_nothing_is_a_change_all_the_same() -> None:
    files = [CHECKOUT / "fixtures" / f"{name.partition(':')[0]}.json" for name in EQUIVALENT]
    there = {each.name for file in files for each in mutate(f"{file.parent.name}/{file.name}", file.read_text())}
    assert there >= EQUIVALENT.keys()


def test_what_names_a_policy_runs_it(tmp_path: Path) -> None:
    suite = tmp_path / "suites"
    suite.mkdir()
    (suite / "test_big_s3.py").write_text('def test_a(): read("p.json")\ndef test_b(): read("q.json")\n')
    (suite / "test_big_s3_again.py").write_text('DOCUMENT = read("p.json")\ndef test_c(): pass\n')
    (suite / "test_other.py").write_text('def test_d(): read("p.json")\n')
    assert users("big-s3/p.json", suite) == ["suites/test_big_s3.py::test_a", "suites/test_big_s3_again.py"]
    assert users("big-s3/q.json", suite) == ["suites/test_big_s3.py::test_b"]


def test_patterns_choose_and_a_typing_error_is_told() -> None:
    assert {each.file for each in choose_policies(["portability"])} == {
        "portability/irsa-trust.json",
        "portability/not-on-this-cluster-policy.json",
    }
    with pytest.raises(UsageError, match="no policy 'portable'"):
        choose_policies(["portable"])


REFUSAL = "An error occurred (InvalidParameterException) when calling the CreatePodIdentityAssociation operation"


@pytest.mark.parametrize(
    ("outcome", "message", "told"),
    [
        ("failed", "assert 1 == 2", ""),
        ("passed", "", ""),
        (
            "error",
            f"InvalidParameterException: {REFUSAL}: Trust policy of role is invalid",
            f"AWS refuses it: {REFUSAL}",
        ),
        ("error", "KeyError: 'x'", "errors only, which kill nothing: AGT-1"),
    ],
)
def test_what_aws_refuses_is_told_from_a_fault_of_the_harness(outcome: str, message: str, told: str) -> None:
    assert why_none_failed(make_run({"AGT-1": outcome, "AGT-2": "passed"}, message=message)) == told
