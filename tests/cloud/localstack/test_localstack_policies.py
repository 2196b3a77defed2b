"""Policies that AWS would not store are refused in its words, and nothing is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from api_server_double import ApiServerDouble
from aws_process import ACCOUNT, Aws
from botocore.exceptions import ClientError

ABSENT = f"arn:aws:iam::{ACCOUNT}:role/absent"


def document(**statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow"} | statement]})


def refusal(call: Any, **parameters: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]


def test_iam_stores_no_malformed_policy(aws: Aws, api: ApiServerDouble) -> None:
    assert api
    iam = aws.client("iam")
    no_resource = document(Action="s3:GetObject")
    too_long = document(Action="s3:GetObject", Resource="*", Sid="x" * 6144)
    trust = document(Action="sts:AssumeRole", Principal={"AWS": ABSENT})

    assert refusal(iam.create_policy, PolicyName="p", PolicyDocument=no_resource) == (
        400,
        "MalformedPolicyDocument",
        "Policy statement must contain resources.",
    )
    assert refusal(iam.create_policy, PolicyName="p", PolicyDocument=too_long) == (
        409,
        "LimitExceeded",
        "Cannot exceed quota for PolicySize: 6144",
    )
    assert refusal(iam.create_role, RoleName="r", AssumeRolePolicyDocument=trust) == (
        400,
        "MalformedPolicyDocument",
        f'Invalid principal in policy: "AWS":"{ABSENT}"',
    )
    assert iam.list_policies(Scope="Local")["Policies"] == []
    assert iam.list_roles()["Roles"] == []


def test_s3_stores_no_malformed_policy(aws: Aws, api: ApiServerDouble) -> None:
    assert api
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    foreign = document(Action="s3:GetObject", Principal="*", Resource="arn:aws:s3:::other/*")

    assert refusal(s3.put_bucket_policy, Bucket="notes", Policy=foreign) == (
        400,
        "MalformedPolicy",
        "Policy has invalid resource",
    )
    assert refusal(s3.get_bucket_policy, Bucket="notes")[1] == "NoSuchBucketPolicy"
