"""Policies that AWS would not store are refused in its words, and nothing is stored."""

from __future__ import annotations

import json
from typing import Any

from harness.conformance.marks import requirement
from harness.subject.aws import ACCOUNT, Aws, refused
from harness.subject.bound_cluster import ApiServerDouble

ABSENT = f"arn:aws:iam::{ACCOUNT}:role/absent"


def document(**statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow"} | statement]})


@requirement("IAM-DOC-01", "IAM-DOC-02", "IAM-DOC-05")
def test_iam_stores_no_malformed_policy(aws: Aws, api: ApiServerDouble) -> None:
    assert api
    iam = aws.client("iam")
    no_resource = document(Action="s3:GetObject")
    too_long = document(Action="s3:GetObject", Resource="*", Sid="x" * 6144)
    trust = document(Action="sts:AssumeRole", Principal={"AWS": ABSENT})

    assert refused(lambda: iam.create_policy(PolicyName="p", PolicyDocument=no_resource)) == (
        400,
        "MalformedPolicyDocument",
        "Policy statement must contain resources.",
    )
    assert refused(lambda: iam.create_policy(PolicyName="p", PolicyDocument=too_long)) == (
        409,
        "LimitExceeded",
        "Cannot exceed quota for PolicySize: 6144",
    )
    assert refused(lambda: iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust)) == (
        400,
        "MalformedPolicyDocument",
        f'Invalid principal in policy: "AWS":"{ABSENT}"',
    )
    assert iam.list_policies(Scope="Local")["Policies"] == []
    assert iam.list_roles()["Roles"] == []


@requirement("IAM-DOC-01", "IAM-DOC-02", "IAM-DOC-05")
def test_s3_stores_no_malformed_policy(aws: Aws, api: ApiServerDouble) -> None:
    assert api
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    foreign = document(Action="s3:GetObject", Principal="*", Resource="arn:aws:s3:::other/*")

    assert refused(lambda: s3.put_bucket_policy(Bucket="notes", Policy=foreign)) == (
        400,
        "MalformedPolicy",
        "Policy has invalid resource",
    )
    absent = document(Action="s3:GetObject", Principal={"AWS": ABSENT}, Resource="arn:aws:s3:::notes/*")
    assert refused(lambda: s3.put_bucket_policy(Bucket="notes", Policy=absent)) == (
        400,
        "MalformedPolicy",
        "Invalid principal in policy",
    )
    assert refused(lambda: s3.get_bucket_policy(Bucket="notes"))[1] == "NoSuchBucketPolicy"
