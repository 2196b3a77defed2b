"""Nobody is served who is not who they say, and nothing is served that the lab does not know."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import Any
from unittest import mock

import botocore.auth
import pytest
from botocore.exceptions import ClientError

from harness.cloud.localstack.bootstrap import AccessKey, Bootstrap
from harness.conformance.marks import requirement
from harness.subject.aws import ACCOUNT, Aws, refused

CALLS: dict[str, Callable[[Any], object]] = {
    "cloudtrail": lambda client: client.lookup_events(),
    "dynamodb": lambda client: client.list_tables(),
    "ec2": lambda client: client.describe_vpcs(),
    "eks": lambda client: client.list_clusters(),
    "eks-auth": lambda client: client.assume_role_for_pod_identity(clusterName="c", token="a.b.c"),
    "elbv2": lambda client: client.describe_load_balancers(),
    "iam": lambda client: client.list_roles(),
    "kms": lambda client: client.list_keys(),
    "s3": lambda client: client.list_buckets(),
    "secretsmanager": lambda client: client.list_secrets(),
    "shield": lambda client: client.get_subscription_state(),
    "ssm": lambda client: client.describe_parameters(),
    "sts": lambda client: client.get_caller_identity(),
    "waf-regional": lambda client: client.get_web_acl_for_resource(ResourceArn="arn:aws:x:::balancer"),
    "wafv2": lambda client: client.get_web_acl_for_resource(ResourceArn="arn:aws:x:::balancer"),
}
"""A call of every service that the lab has."""
NOT_JSON = {
    "ec2": ((401, "AuthFailure"), (401, "AuthFailure"), (400, "RequestExpired")),
    "s3": ((403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken")),
    **dict.fromkeys(
        ("elbv2", "iam", "sts"),
        ((403, "InvalidClientTokenId"), (403, "SignatureDoesNotMatch"), (403, "ExpiredToken")),
    ),
}


def faults(service: str) -> tuple[tuple[int, str], ...]:
    """Return what a service says to an unknown key, a wrong signature, and an expired session."""
    status = 403 if service in {"eks", "eks-auth"} else 400
    json_codes = ("UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException")
    return NOT_JSON.get(service, tuple((status, code) for code in json_codes))


@requirement("API-107", "IAM-MSG-20")
@pytest.mark.parametrize("service", CALLS)
def test_unknown_key_is_refused_by_every_service(aws: Aws, service: str) -> None:
    key = dataclasses.replace(aws.bootstrap.account(ACCOUNT).administrator, access_key_id="AKIARZPUZDIKGB2VALC4")

    assert refused(lambda: CALLS[service](aws.client(service, key)))[:2] == faults(service)[0]


@requirement("API-107", "IAM-MSG-20")
@pytest.mark.parametrize("service", CALLS)
def test_wrong_secret_is_refused_by_every_service(aws: Aws, service: str) -> None:
    key = dataclasses.replace(aws.bootstrap.account(ACCOUNT).administrator, secret_access_key="x" * 40)

    assert refused(lambda: CALLS[service](aws.client(service, key)))[:2] == faults(service)[1]


HOSTS = {"elbv2": "elasticloadbalancing", "eks-auth": "eks-auth.eu-west-1.api.aws"}


@requirement("API-107", "IAM-MSG-20")
@pytest.mark.parametrize("service", [service for service in CALLS if service != "s3"])
def test_unsigned_calls_are_refused(aws: Aws, service: str) -> None:
    """By every service but S3, whose unsigned callers are nobody."""
    name = HOSTS.get(service, service)
    host = name if "." in name else f"{name}.eu-west-1.amazonaws.com"
    answer = aws.send("POST", "/", host=host, body=b"Action=ListRoles&Version=2010-05-08")

    assert answer.status in {400, 401, 403}
    assert "<html" not in answer.body.lower()
    assert any(code in answer.body + str(answer.headers) for code in ("MissingAuthenticationToken", "AuthFailure"))


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


@requirement("IAM-SIG-10", "IAM-STS-03", "IAM-MSG-20")
def test_expired_session_is_refused_by_every_service(aws: Aws) -> None:
    """A minute before its end it is served, a second after it is not."""
    iam, account = aws.client("iam"), f"arn:aws:iam::{ACCOUNT}:root"
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": account}, "Action": "sts:AssumeRole"}],
    }
    arn = iam.create_role(RoleName="short", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    try:
        session = {"RoleArn": arn, "RoleSessionName": "me", "DurationSeconds": 900}
        credentials = aws.client("sts").assume_role(**session)["Credentials"]
        clients = {service: aws.client(service, credentials) for service in CALLS}
        assert clients["sts"].get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/short/me"
        aws.control.move_clock(840)
        assert called_at(840, clients["sts"].get_caller_identity) == (200, "")
        aws.control.move_clock(901)
        seen = {service: called_at(901, lambda of=service: CALLS[of](clients[of])) for service in CALLS}
    finally:
        aws.control.move_clock(0)
        iam.delete_role(RoleName="short")

    assert seen == {service: faults(service)[2] for service in CALLS}


def called_at(offset: float, call: Callable[[], Any]) -> tuple[int, str]:
    """Call with a signature as old as the emulator's clock wants it."""
    now = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=offset)).replace(tzinfo=None)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=now):
        try:
            return call()["ResponseMetadata"]["HTTPStatusCode"], ""
        except ClientError as error:
            response: Any = error.response
            return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


@requirement("IAM-SEC-07")
@pytest.mark.parametrize("service", ["s3", "sts", "iam", "eks"])
def test_keys_of_other_emulators_are_unknown(aws: Aws, service: str) -> None:
    """`test` opens nothing, and every lab makes a key of its own."""
    assert refused(lambda: CALLS[service](aws.client(service, AccessKey("test", "test"))))[:2] == faults(service)[0]

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
