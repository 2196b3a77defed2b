"""What IAM looks at when a policy is written: versions, principals, operators, sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.cloud.iam.resource_policies import check_bucket_policy
from harness.cloud.iam.validation import WrittenKind, check_document
from harness.cloud.ports import Refusal
from harness.conformance.marks import requirement

IDENTITY: dict[str, Any] = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::notes/*"}
TRUST: dict[str, Any] = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
BUCKET = {**IDENTITY, "Principal": "*"}
SYNTAX = "Syntax errors in policy."


def document(statement: dict[str, Any], version: str | None = "2012-10-17") -> str:
    return json.dumps(({"Version": version} if version else {}) | {"Statement": [statement]})


def fault(text: str, kind: WrittenKind = "identity") -> str:
    try:
        check_document(text, kind)
    except Refusal as refusal:
        return refusal.message
    return ""


@requirement("IAM-DOC-03")
@pytest.mark.parametrize(("version", "is_stored"), [("2012-10-17", True), ("2008-10-17", False), (None, False)])
def test_identity_policies_are_of_the_new_version(version: str | None, is_stored: bool) -> None:
    """The older version, and none, are refused with AWS's words."""
    expected = "" if is_stored else "Policy document must be version 2012-10-17 or greater."

    assert fault(document(IDENTITY, version)) == expected


@requirement("IAM-DOC-04")
@pytest.mark.parametrize("version", ["2012-10-17", "2008-10-17", None])
def test_other_policies_may_be_of_any_version(version: str | None) -> None:
    """Trust and bucket policies are taken with the older version and with none."""
    assert fault(document(TRUST, version), "trust") == ""
    check_bucket_policy(document(BUCKET, version), "notes")


@requirement("IAM-STMT-11")
def test_a_principal_belongs_to_resources_only() -> None:
    """An identity policy with a principal is refused."""
    assert fault(document({**IDENTITY, "Principal": "*"})) == "Policy document should not specify a principal."


@requirement("IAM-COND-08")
@pytest.mark.parametrize("operator", ["StringIs", "StringEqualsIfExistsIfExists", "ForSomeValues:StringEquals"])
def test_unknown_operators_are_refused(operator: str) -> None:
    """They are syntax errors, in every kind of policy."""
    condition = {"Condition": {operator: {"aws:username": "a"}}}

    assert (fault(document(IDENTITY | condition)), fault(document(TRUST | condition), "trust")) == (SYNTAX, SYNTAX)
