"""``podid iam evaluate``: questions and answers as JSON lines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cloud.iam.json_lines import evaluate_lines

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
ALICE = f"arn:aws:iam::{ACCOUNT}:user/ops/alice"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/reader"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/job-1"
EXAMPLE = re.compile(r"\$ podid iam evaluate <<'END'\n(?P<lines>.*?)END\n(?P<answers>.*?)```", re.DOTALL)


def document(**statement: Any) -> dict[str, Any]:
    body = {"Effect": "Allow", "Action": "*"} | statement
    return {"Version": "2012-10-17", "Statement": [body]}


EVERYTHING = document(Resource="*")
NOTHING = document(Resource="*", Action="none:None")


def answer(**members: Any) -> dict[str, Any]:
    question = {"principal": ALICE, "action": "s3:GetObject", "resource": "arn:aws:s3:::notes/a"} | members
    (found,) = evaluate_lines([json.dumps(question).encode()])
    return dict(found.data)


def decided(**members: Any) -> tuple[Any, Any]:
    found = answer(**members)
    return found["decision"], found["deniedBy"]


@pytest.mark.parametrize("example", list(EXAMPLE.finditer((ROOT / "docs" / "iam.md").read_text())))
def test_the_examples_of_the_guide_run(example: re.Match[str]) -> None:
    answers = [found.data for found in evaluate_lines(example["lines"].encode().splitlines())]

    assert answers == [json.loads(line) for line in example["answers"].splitlines()]


@pytest.mark.parametrize(
    ("limit", "denied_by"),
    [
        ({"identity": [NOTHING]}, "identity"),
        ({"boundaries": [NOTHING]}, "boundary"),
        ({"session": NOTHING}, "session"),
        ({"session": []}, "session"),
        ({"endpoint": [NOTHING]}, "endpoint"),
        ({"scps": [{"orgIdentifier": "r", "policies": [EVERYTHING]}, {"orgIdentifier": "o", "policies": []}]}, "scp"),
        ({"principal": SESSION, "resourceAccount": "987654321098"}, "resource"),
        ({"action": "sts:AssumeRole", "resource": ROLE}, "trust"),
        ({"action": "kms:Decrypt", "resource": f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1"}, "resource"),
        ({"action": "iam:DeletePolicy", "resource": "arn:aws:iam::aws:policy/ReadOnlyAccess"}, "resource"),
    ],
)
def test_a_denial_names_the_type_of_the_policy(limit: dict[str, Any], denied_by: str) -> None:
    assert decided(**({"identity": [EVERYTHING]} | limit)) == ("ImplicitlyDenied", denied_by)


def test_limits_that_are_absent_or_allow_do_not_deny() -> None:
    level = {"orgIdentifier": "r-1", "policies": [EVERYTHING]}

    assert decided(identity=[EVERYTHING]) == ("Allowed", None)
    assert decided(identity=[EVERYTHING], boundaries=[], scps=[], rcps=[], endpoint=[]) == ("Allowed", None)
    assert decided(identity=[EVERYTHING], boundaries=[NOTHING, EVERYTHING]) == ("Allowed", None)
    assert decided(identity=[EVERYTHING], scps=[level, level], endpoint=[EVERYTHING]) == ("Allowed", None)
    assert decided(identity=[EVERYTHING], rcps=[{"orgIdentifier": "r", "policies": []}]) == ("Allowed", None)


@pytest.mark.parametrize("layer", ["scps", "rcps"])
def test_a_deny_on_any_level_of_the_organization_is_explicit(layer: str) -> None:
    levels = [
        {"orgIdentifier": "r-1", "policies": [EVERYTHING]},
        {"orgIdentifier": "ou-1", "policies": [EVERYTHING, document(Sid="No", Effect="Deny", Resource="*")]},
    ]

    found = answer(identity=[EVERYTHING], **{layer: levels})

    assert (found["decision"], found["deniedBy"]) == ("ExplicitlyDenied", layer[:3])
    assert found["statement"] == {"policy": f"{layer}[1] ou-1[1]", "index": 0, "sid": "No"}


@pytest.mark.parametrize(
    ("principal", "named", "decision"),
    [
        (SESSION, ROLE, "Allowed"),
        (ROLE, ROLE, "Allowed"),
        (ROLE, SESSION, "ImplicitlyDenied"),
        (ALICE, ALICE, "Allowed"),
        (ALICE, ACCOUNT, "ImplicitlyDenied"),
        (f"arn:aws:sts::{ACCOUNT}:federated-user/bob", f"arn:aws:sts::{ACCOUNT}:federated-user/bob", "Allowed"),
        (f"arn:aws:iam::{ACCOUNT}:root", ROLE, "Allowed"),
        ({"type": "Anonymous"}, "*", "Allowed"),
        ({"type": "Anonymous"}, ACCOUNT, "ImplicitlyDenied"),
    ],
)
def test_every_kind_of_principal_is_found_in_resource_policies(principal: Any, named: str, decision: str) -> None:
    found = answer(principal=principal, resourcePolicy=document(Principal={"AWS": named}, Resource="*"))

    assert found["decision"] == decision


def test_a_role_of_unknown_session_stays_under_its_boundary() -> None:
    policy = document(Principal={"AWS": ROLE}, Resource="*")

    assert decided(principal=ROLE, resourcePolicy=policy, boundaries=[NOTHING]) == ("ImplicitlyDenied", "boundary")


def test_a_web_identity_needs_the_roles_trust() -> None:
    provider = f"arn:aws:iam::{ACCOUNT}:oidc-provider/oidc.example.com/id/1"
    trust = document(Principal={"Federated": provider}, Action="sts:AssumeRoleWithWebIdentity")
    call = {"principal": provider, "action": "sts:AssumeRoleWithWebIdentity", "resource": ROLE}

    assert decided(**call, resourcePolicy=trust) == ("Allowed", None)
    assert decided(**call) == ("ImplicitlyDenied", "trust")


def test_a_trust_policy_with_a_resource_is_only_narrowed_by_it() -> None:
    call = {"action": "sts:AssumeRole", "resource": ROLE}

    assert decided(**call, resourcePolicy=document(Principal={"AWS": ALICE}, Resource=ROLE)) == ("Allowed", None)
    assert decided(**call, resourcePolicy=document(Principal={"AWS": ALICE}, Resource=f"{ROLE}2"))[1] == "trust"


def test_the_context_gives_tags_and_lists_but_no_caller() -> None:
    tagged = document(Resource="*", Condition={"StringEquals": {"aws:PrincipalTag/Team": "a"}})
    every = document(Resource="*", Condition={"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}})
    bob = document(Resource="*", Condition={"StringEquals": {"aws:username": "bob"}})
    pathed = document(Resource="*", Condition={"ArnEquals": {"aws:PrincipalArn": ROLE}})

    assert decided(identity=[tagged], context={"AWS:principaltag/team": "a"}) == ("Allowed", None)
    assert decided(identity=[every], context={"aws:TagKeys": ["a"]}) == ("Allowed", None)
    assert decided(identity=[every], context={"aws:TagKeys": ["a", "c"]})[1] == "identity"
    assert decided(identity=[bob], context={"aws:username": "bob"})[1] == "identity"
    assert decided(principal=SESSION, identity=[pathed], context={"aws:PrincipalArn": ROLE}) == ("Allowed", None)
    assert decided(principal=SESSION, identity=[pathed])[1] == "identity"


def test_an_action_without_resource_type_is_asked_about_a_star() -> None:
    buckets = {"action": "s3:ListAllMyBuckets", "resource": "*", "wildcardOnlyAction": True}
    one = document(Resource="arn:aws:s3:::notes")

    assert decided(**buckets, identity=[EVERYTHING]) == ("Allowed", None)
    assert decided(**buckets, identity=[document(Resource="arn:aws:s3:::*")]) == ("Allowed", None)
    assert decided(**buckets, identity=[one])[1] == "identity"
    assert decided(**buckets, identity=[EVERYTHING, document(Effect="Deny", NotResource="arn:aws:s3:::notes")])[0] == (
        "ExplicitlyDenied"
    )
    assert decided(action="s3:ListBucket", resource="arn:aws:s3:::notes", identity=[one]) == ("Allowed", None)
    assert decided(action="s3:ListBucket", resource="arn:aws:s3:::notes", identity=[one], wildcardOnlyAction=True) == (
        "ImplicitlyDenied",
        "identity",
    )


def test_a_policy_may_be_text_and_have_a_name() -> None:
    found = answer(identity=[{"name": "ReadAll", "policy": json.dumps(EVERYTHING)}])

    assert found["statement"] == {"policy": "ReadAll", "index": 0}


def test_a_policy_that_aws_would_not_store_allows_nothing_and_hides_no_deny() -> None:
    broken = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*"}]}

    found = answer(identity=[broken, EVERYTHING])

    assert (found["decision"], found["deniedBy"]) == ("ImplicitlyDenied", "identity")
    assert 'the engine could not decide (policy "identity[0]": Resource is neither' in found["reason"]
    assert decided(identity=[broken], boundaries=[document(Effect="Deny", Resource="*")]) == (
        "ExplicitlyDenied",
        "boundary",
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"action": "s3:GetObject", "action": "s3:PutObject"}', "a member occurs twice in one object"),
        (b'{"resource": NaN}', "NaN is no JSON"),
    ],
)
def test_a_line_that_is_no_object_names_its_fault(line: bytes, fault: str) -> None:
    (found,) = evaluate_lines([line])

    assert found.is_error
    assert (found.data["line"], found.data.keys()) == (1, {"line", "error"})
    assert fault in str(found.data["error"])


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"boundary": []}, "unknown members: boundary"),
        ({"action": None}, "action is missing"),
        ({"action": "GetObject"}, "action 'GetObject' is not of the form service:Name"),
        ({"action": "s3:Get*"}, "action 's3:Get*' is not of the form service:Name"),
        ({"resource": ""}, "resource is not a text"),
        ({"resourceAccount": "1"}, "resourceAccount is not 12 digits"),
        ({"principal": None}, "principal is missing"),
        ({"principal": 7}, "principal is not a text"),
        ({"principal": "alice"}, "principal 'alice' is neither an ARN nor the name of a service"),
        ({"principal": "arn:aws:s3:::notes"}, "principal 'arn:aws:s3:::notes' is no ARN of a principal"),
        ({"principal": {"type": "AWS"}}, 'principal is an object other than {"type": "Anonymous"}'),
        ({"context": []}, "context is not an object"),
        ({"context": {"a:b": 1}}, "context key a:b is neither a text nor a list of texts of at most 8192"),
        ({"context": {"a:b": "x", "A:B": "y"}}, "context key A:B occurs twice; keys compare without case"),
        ({"identity": {}}, "identity is not a list"),
        ({"identity": [1]}, "identity[0] is not a policy"),
        ({"scps": [{"policies": []}]}, "scps[0] does not consist of orgIdentifier and policies"),
        ({"wildcardOnlyAction": "yes"}, "wildcardOnlyAction is neither true nor false"),
    ],
)
def test_a_question_that_is_none_names_its_fault(members: dict[str, Any], fault: str) -> None:
    assert answer(**members) == {"line": 1, "error": fault}


def test_the_command_answers_every_line_and_fails_at_the_end() -> None:
    good = json.dumps({"principal": ALICE, "action": "s3:GetObject", "resource": "*", "identity": [EVERYTHING]})
    lines = f"{good}\n\nnonsense\n{good}\n"

    run = subprocess.run(
        [sys.executable, "-c", "from harness.entry import main; main()", "iam", "evaluate"],
        input=lines, capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip

    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [found.get("decision") for found in answers] == ["Allowed", None, "Allowed"]
    assert answers[1]["line"] == 3
    assert run.returncode == 3
