"""Nobody is served who is not who they say, and nothing is served that the lab does not know."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from unittest import mock

import botocore.auth
import pytest
from botocore.exceptions import ClientError

from harness.cloud.localstack.bootstrap import AccessKey, Bootstrap
from harness.conformance.marks import requirement
from harness.subject.aws import ACCOUNT, Aws, refused

CALLS = {
    "cloudtrail": lambda client: client.lookup_events(),
    "ec2": lambda client: client.describe_vpcs(),
    "eks": lambda client: client.list_clusters(),
    "eks-auth": lambda client: client.assume_role_for_pod_identity(clusterName="c", token="a.b.c"),
    "iam": lambda client: client.list_roles(),
    "s3": lambda client: client.list_buckets(),
    "secretsmanager": lambda client: client.list_secrets(),
    "sts": lambda client: client.get_caller_identity(),
}
UNKNOWN_KEY = {
    "cloudtrail": (400, "UnrecognizedClientException"),
    "ec2": (401, "AuthFailure"),
    "eks": (403, "UnrecognizedClientException"),
    "eks-auth": (403, "UnrecognizedClientException"),
    "iam": (403, "InvalidClientTokenId"),
    "s3": (403, "InvalidAccessKeyId"),
    "secretsmanager": (400, "UnrecognizedClientException"),
    "sts": (403, "InvalidClientTokenId"),
}
BAD_SIGNATURE = {
    "cloudtrail": (400, "InvalidSignatureException"),
    "ec2": (401, "AuthFailure"),
    "eks": (403, "InvalidSignatureException"),
    "eks-auth": (403, "InvalidSignatureException"),
    "iam": (403, "SignatureDoesNotMatch"),
    "s3": (403, "SignatureDoesNotMatch"),
    "secretsmanager": (400, "InvalidSignatureException"),
    "sts": (403, "SignatureDoesNotMatch"),
}


@requirement("API-107", "IAM-MSG-20")
@pytest.mark.parametrize("service", CALLS)
def test_unknown_key_is_refused_by_every_service(aws: Aws, service: str) -> None:
    key = dataclasses.replace(aws.bootstrap.account(ACCOUNT).administrator, access_key_id="AKIARZPUZDIKGB2VALC4")

    assert refused(lambda: CALLS[service](aws.client(service, key)))[:2] == UNKNOWN_KEY[service]


@requirement("API-107", "IAM-MSG-20")
@pytest.mark.parametrize("service", CALLS)
def test_wrong_secret_is_refused_by_every_service(aws: Aws, service: str) -> None:
    key = dataclasses.replace(aws.bootstrap.account(ACCOUNT).administrator, secret_access_key="x" * 40)

    assert refused(lambda: CALLS[service](aws.client(service, key)))[:2] == BAD_SIGNATURE[service]


@requirement("API-107")
@pytest.mark.parametrize("host", ["iam", "sts", "eks.eu-west-1", "secretsmanager.eu-west-1", "ec2.eu-west-1"])
def test_unsigned_calls_are_refused(aws: Aws, host: str) -> None:
    answer = aws.send("POST", "/", host=f"{host}.amazonaws.com", body=b"Action=ListRoles&Version=2010-05-08")

    assert answer.status in {401, 403}
    assert "<html" not in answer.body.lower()


@requirement("IAM-S3-10")
def test_unsigned_s3_is_anonymous_and_denied(aws: Aws) -> None:
    answer = aws.send("GET", "/", host="some-bucket.s3.eu-west-1.amazonaws.com")

    assert answer.status == 403
    assert "<Code>AccessDenied</Code><Message>Access Denied</Message>" in answer.body


@requirement("IAM-GATE-03")
def test_service_the_lab_lacks_answers_501(aws: Aws) -> None:
    assert refused(lambda: aws.client("sqs").list_queues())[:2] == (501, "NotImplemented")


@requirement("IAM-GATE-03")
def test_operation_without_a_mapping_answers_501_and_has_no_effect(aws: Aws) -> None:
    before = len(aws.control.journal())

    for call in (
        lambda: aws.client("s3").put_bucket_accelerate_configuration(
            Bucket="b", AccelerateConfiguration={"Status": "Enabled"}
        ),
        lambda: aws.client("iam").create_account_alias(AccountAlias="lab"),
        lambda: aws.client("sts").get_web_identity_token(Audience=["a"], SigningAlgorithm="RS256"),
        lambda: aws.client("eks").create_fargate_profile(
            fargateProfileName="f", clusterName="c", podExecutionRoleArn="a"
        ),
        lambda: aws.client("secretsmanager").rotate_secret(SecretId="s"),
        lambda: aws.client("ec2").create_vpc(CidrBlock="10.0.0.0/16"),
    ):
        assert refused(call)[:2] == (501, "NotImplemented")

    assert aws.client("iam").list_account_aliases()["AccountAliases"] == []
    assert [entry["error_code"] for entry in aws.control.journal()[before:]][:6] == ["NotImplemented"] * 6


@requirement("IAM-GATE-06")
def test_bucket_named_like_a_path_of_another_service_takes_no_call(aws: Aws) -> None:
    """LocalStack takes a path that begins with the name of a bucket for S3, whatever was signed."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="clusters", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    try:
        assert isinstance(aws.client("eks").list_clusters()["clusters"], list)
    finally:
        s3.delete_bucket(Bucket="clusters")


@requirement("IAM-SIG-10", "IAM-STS-03")
def test_expired_session_is_refused(aws: Aws) -> None:
    iam, account = aws.client("iam"), f"arn:aws:iam::{ACCOUNT}:root"
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": account}, "Action": "sts:AssumeRole"}],
    }
    arn = iam.create_role(RoleName="short", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    try:
        credentials = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="me", DurationSeconds=900)[
            "Credentials"
        ]
        sts = aws.client("sts", credentials)
        assert sts.get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/short/me"
        aws.control.move_clock(840)
        assert sts_at(sts, 840) == (200, "")
        aws.control.move_clock(901)
        assert sts_at(sts, 901) == (403, "ExpiredToken")
    finally:
        aws.control.move_clock(0)
        iam.delete_role(RoleName="short")


def sts_at(sts: object, offset: float) -> tuple[int, str]:
    """Call with a signature as old as the emulator's clock wants it."""
    now = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=offset)).replace(tzinfo=None)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=now):
        try:
            return sts.get_caller_identity()["ResponseMetadata"]["HTTPStatusCode"], ""  # type: ignore[attr-defined] - boto3
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]


@requirement("IAM-SEC-07")
@pytest.mark.parametrize("service", ["s3", "sts", "iam", "eks"])
def test_keys_of_other_emulators_are_unknown(aws: Aws, service: str) -> None:
    """`test` opens nothing, and every lab makes a key of its own."""
    assert refused(lambda: CALLS[service](aws.client(service, AccessKey("test", "test"))))[:2] == UNKNOWN_KEY[service]

    mine, other = aws.bootstrap.account(ACCOUNT).administrator, Bootstrap.generate([ACCOUNT]).account(ACCOUNT)
    assert mine.access_key_id != other.administrator.access_key_id
    assert mine.secret_access_key != other.administrator.secret_access_key


@requirement("IAM-MSG-07")
@pytest.mark.parametrize("service", CALLS)
def test_every_error_has_a_request_id(aws: Aws, service: str) -> None:
    """Each service tells it where its SDK looks; S3 has two."""
    with pytest.raises(ClientError) as error:
        CALLS[service](aws.client(service, AccessKey("AKIARZPUZDIKGB2VALC4", "x" * 40)))

    metadata = error.value.response["ResponseMetadata"]
    names = ("x-amz-request-id", "x-amz-id-2") if service == "s3" else ("x-amzn-requestid",)
    assert metadata["RequestId"]
    assert all(metadata["HTTPHeaders"].get(name) for name in names)
