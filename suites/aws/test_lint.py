"""Warnings about policies that AWS stores although they are hardly meant (``podid iam lint``)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cloud.iam.lint import lint
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.iam_reference import IamReference
from harness.subject.iam_requests import ACCOUNT, ALLOW_ALL, DENY_ALL, USER, allows

ROLE = f"arn:aws:iam::{ACCOUNT}:role/app"
ALL_OF_IT = [ROLE, ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/app/pod"]
TAG = "aws:PrincipalTag/team"


def warned(statement: dict[str, Any]) -> list[str]:
    return [warning.text for warning in lint(json.dumps({"Version": "2012-10-17", "Statement": statement}))]


@requirement("IAM-PRIN-11")
@pytest.mark.parametrize(
    ("effect", "listed", "beginnings"),
    [
        ("Deny", ALL_OF_IT, []),
        ("Deny", [ROLE, f"arn:aws:iam::{ACCOUNT}:root", ALL_OF_IT[2]], []),
        ("Deny", [ROLE], ["NotPrincipal lists the role"]),
        ("Deny", [ROLE, ACCOUNT], ["NotPrincipal lists the role"]),
        ("Deny", ["*"], []),
        ("Allow", ALL_OF_IT, ["NotPrincipal with Allow"]),
    ],
)
def test_a_risky_not_principal_gives_a_warning(effect: str, listed: list[str], beginnings: list[str]) -> None:
    texts = warned({"Effect": effect, "NotPrincipal": {"AWS": listed}, "Action": "s3:*", "Resource": "*"})

    observed = [text[: len(beginning)] for text, beginning in zip(texts, beginnings, strict=False)]
    check("IAM-PRIN-11", expected=(beginnings, len(beginnings)), observed=(observed, len(texts)))


@requirement("IAM-COND-06")
@pytest.mark.parametrize("operator", ["StringEquals", "StringNotEquals", "StringLikeIfExists"])
def test_a_multivalued_key_under_a_plain_operator_gives_a_warning(operator: str) -> None:
    """It matches nothing, positive or negated, and is told; with a set prefix it is not."""
    statement = {**ALLOW_ALL, "Condition": {operator: {"aws:TagKeys": "team"}}}
    in_a_set = {**ALLOW_ALL, "Condition": {f"ForAnyValue:{operator}": {"aws:TagKeys": "team"}}}

    check("IAM-COND-06", what="warnings", expected=1, observed=len(warned(statement)))
    check("IAM-COND-06", what="with a set prefix", expected=0, observed=len(warned(in_a_set)))
    matched = allows(USER, statement, **{"aws:TagKeys": ("team",)}), allows(USER, statement, **{"aws:TagKeys": ("x",)})
    check("IAM-COND-06", what="matches", expected=(False, False), observed=matched)


@requirement("IAM-VAR-09")
def test_a_variable_that_is_not_closed_gives_a_warning() -> None:
    """And is plain text in a decision."""
    statement = {**ALLOW_ALL, "Resource": "arn:aws:s3:::notes/${aws:username/*"}
    closed = {**ALLOW_ALL, "Resource": "arn:aws:s3:::notes/${aws:username}/*"}

    check("IAM-VAR-09", what="warnings", expected=(1, 0), observed=(len(warned(statement)), len(warned(closed))))
    literal = allows(USER, statement, "arn:aws:s3:::notes/${aws:username/x")
    check("IAM-VAR-09", what="plain text matches itself", expected=True, observed=literal)
    check(
        "IAM-VAR-09",
        what="nobody's name",
        expected=False,
        observed=allows(USER, statement, "arn:aws:s3:::notes/alice/x"),
    )


@requirement("IAM-ABAC-10")
@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"Resource": f"arn:aws:s3:::notes/${{{TAG}}}*"}, 1),
        ({"Resource": f"arn:aws:s3:::notes/${{{TAG}}}/*"}, 0),
        ({"Condition": {"StringLike": {"s3:prefix": f"${{{TAG}}}*"}}}, 1),
        ({"Condition": {"StringLike": {"s3:prefix": f"${{{TAG}}}/*"}}}, 0),
        ({"Condition": {"ForAllValues:StringEquals": {"aws:TagKeys": "team"}}}, 1),
        ({"Condition": {"ForAllValues:StringEquals": {"aws:TagKeys": "team"}, "Null": {"aws:tagkeys": "false"}}}, 0),
        ({"Condition": {"StringNotEquals": {TAG: "a"}}}, 1),
        ({"Condition": {"StringNotEquals": {TAG: "a"}, "Null": {TAG: "false"}}}, 0),
        ({"Condition": {"StringNotEquals": {"aws:PrincipalAccount": ACCOUNT}}}, 0),
    ],
)
def test_a_policy_on_tags_that_leaks_gives_a_warning(changes: dict[str, Any], count: int) -> None:
    texts = warned({**DENY_ALL, **changes})

    check("IAM-ABAC-10", expected=count, observed=texts, holds=len(texts) == count)


@requirement("IAM-DATA-05")
@pytest.mark.parametrize(
    ("changes", "beginnings"),
    [
        ({}, []),
        ({"Action": "s3:GetObjekt"}, ["s3:GetObjekt is no action"]),
        ({"Action": ["S3:getobject", "s3:Get*"]}, []),
        ({"Action": "secretsmanager:ListSecrets"}, ["secretsmanager:ListSecrets is about no resource: only *"]),
        ({"Action": "secretsmanager:ListSecrets", "Resource": "*"}, []),
        ({"Resource": "arn:aws:s3:::notes"}, ["s3:GetObject is about arn:*:s3:"]),
        ({"Action": "s3:ListBucket"}, ["s3:ListBucket is about arn:*:s3:*:*:accesspoint"]),
        ({"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::notes*"}, []),
        ({"Resource": ["arn:aws:s3:::notes", "arn:aws:s3:::${aws:username}/*"]}, []),
        ({"Condition": {"StringEquals": {"s3:prefx": "a"}}}, ["s3:prefx is no condition key"]),
        ({"Condition": {"StringEquals": {"aws:PrincipalTag/team": "a", "S3:existingobjecttag/a": "b"}}}, []),
        ({"Condition": {"StringEquals": {"oidc.eks.eu-west-1.amazonaws.com/id/A:sub": "a"}}}, []),
        ({"Condition": {"StringEquals": {"dynamodb:LeadingKeys": "a"}}}, ["dynamodb:LeadingKeys has several values"]),
    ],
)
def test_names_that_aws_does_not_know_give_a_warning(changes: dict[str, Any], beginnings: list[str]) -> None:
    """Actions, keys, an object's action on a bucket's ARN, an ARN where only a star grants, a list without its set."""
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::notes/*", **changes}
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    texts = [warning.text for warning in lint(document, IamReference())]

    observed = [text[: len(beginning)] for text, beginning in zip(texts, beginnings, strict=False)]
    check("IAM-DATA-05", expected=(beginnings, len(beginnings)), observed=(observed, len(texts)))


@requirement("IAM-DATA-05")
def test_the_guide_s_policy_for_external_secrets_is_reported() -> None:
    """It grants ListSecrets on secrets, which AWS asks about a star."""
    file = Path(__file__).parents[2] / "fixtures" / "external-secrets" / "eso-policy.json"

    texts = [warning.text for warning in lint(file.read_text(), IamReference())]

    check("IAM-DATA-05", expected=["secretsmanager:ListSecrets is about no resource: only * grants it"], observed=texts)


@requirement("IAM-ABAC-10", "IAM-PRIN-11", "IAM-VAR-09")
def test_podid_prints_the_warnings(tmp_path: Path) -> None:
    """One line each, with file and statement; what is no policy ends with exit code 3."""
    file, broken = tmp_path / "policy.json", tmp_path / "broken.json"
    leaky = {**ALLOW_ALL, "Resource": f"arn:aws:s3:::notes/${{{TAG}}}*"}
    open_variable = {**ALLOW_ALL, "Resource": "arn:aws:s3:::notes/${x"}
    risky = {"Effect": "Deny", "NotPrincipal": {"AWS": ROLE}, "Action": "*", "Resource": "*"}
    file.write_text(json.dumps({"Statement": [leaky, open_variable, risky]}))
    broken.write_text("{")

    good, bad = (
        subprocess.run(
            [sys.executable, "-c", "from harness.entry import main; main()", "iam", "lint", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        for path in (file, broken)
    )

    lines = [line.partition(": ")[2][:13] for line in good.stdout.splitlines()]
    for index, identifier in enumerate(("IAM-ABAC-10", "IAM-VAR-09", "IAM-PRIN-11")):
        check(identifier, what="printed", expected=f"statement {index}: ", observed=lines[index])
    assert (good.returncode, bad.returncode, bad.stdout) == (0, 3, "")
