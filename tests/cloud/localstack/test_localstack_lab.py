"""What a lab does with its emulator: nodes, bindings, reset."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest

from harness.cloud.localstack.control import ClusterBinding
from harness.errors import HarnessFault
from harness.subject.aws import ACCOUNT, CLUSTER, INSTANCE, REGION, Aws, refused
from harness.subject.bound_cluster import CONFIG_MAP, ISSUER, ApiServerDouble

PODS = {"Service": "pods.eks.amazonaws.com"}
S3_READ = '{"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],"Resource":"*"}'


@pytest.mark.usefixtures("node")
def test_node_metadata_needs_a_token_and_identifies_the_instance(aws: Aws) -> None:
    assert aws.open_imds("/latest/meta-data/instance-id")[0] == 401
    assert aws.open_imds("/latest/api/token", "PUT")[0] == 400
    arn = aws.client("sts", aws.node_credentials()).get_caller_identity()["Arn"]
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/pod-identity-lab-node-role/{INSTANCE}"


@pytest.mark.usefixtures("node")
def test_what_ec2_is_told_of_a_node_s_metadata_is_how_it_is_served(aws: Aws) -> None:
    """ModifyInstanceMetadataOptions counts at once, keeps what it does not name, and DescribeInstances tells it."""
    ec2 = aws.client("ec2")

    def told() -> tuple[str, int, str]:
        (reservation,) = ec2.describe_instances(InstanceIds=[INSTANCE])["Reservations"]
        options = reservation["Instances"][0]["MetadataOptions"]
        return options["HttpTokens"], options["HttpPutResponseHopLimit"], options["HttpEndpoint"]

    first = told()
    ec2.modify_instance_metadata_options(InstanceId=INSTANCE, HttpPutResponseHopLimit=2)
    answer = ec2.modify_instance_metadata_options(InstanceId=INSTANCE, HttpTokens="optional")
    second, without_token = told(), aws.open_imds("/latest/meta-data/instance-id")[0]
    ec2.modify_instance_metadata_options(InstanceId=INSTANCE, HttpEndpoint="disabled")

    assert answer["InstanceMetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert (first, second, without_token) == (("required", 1, "enabled"), ("optional", 2, "enabled"), 200)
    assert (told()[2], aws.open_imds("/latest/meta-data/instance-id")[0]) == ("disabled", 403)
    unknown = partial(ec2.modify_instance_metadata_options, InstanceId="i-0123456789abcdef9", HttpTokens="required")
    assert refused(unknown)[1] == "InvalidInstanceID.NotFound"


@pytest.mark.usefixtures("node")
def test_a_node_s_metadata_is_not_for_everybody_to_change(aws: Aws) -> None:
    nobody = aws.client("ec2", aws.node_credentials())

    assert (
        refused(partial(nobody.modify_instance_metadata_options, InstanceId=INSTANCE, HttpTokens="optional"))[0] == 403
    )
    assert aws.open_imds("/latest/meta-data/instance-id")[0] == 401


def test_unreachable_cluster_cannot_be_bound(aws: Aws, api: ApiServerDouble) -> None:
    binding = ClusterBinding(
        name="nowhere",
        account=ACCOUNT,
        region=REGION,
        issuer=ISSUER,
        endpoint="https://127.0.0.1:1",
        certificate_authority=api.authority.certificate,
        version="1.34",
        role_arn="",
    )
    with pytest.raises(HarnessFault, match="ClusterUnreachable"):
        aws.control.register_cluster(binding)

    assert aws.client("eks").list_clusters()["clusters"] == [CLUSTER]


def test_reset_returns_to_the_first_state(aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]) -> None:
    role = make_role("reader", PODS, S3_READ)
    aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="d", serviceAccount="s", roleArn=role
    )
    aws.client("s3").create_bucket(Bucket="leftover", CreateBucketConfiguration={"LocationConstraint": REGION})
    iam = aws.client("iam")
    iam.create_user(UserName="leftover")
    key = iam.create_access_key(UserName="leftover")["AccessKey"]
    old = aws.client(
        "sts", {"accessKeyId": key["AccessKeyId"], "secretAccessKey": key["SecretAccessKey"], "sessionToken": None}
    )
    old.get_caller_identity()

    aws.control.reset()

    assert refused(old.get_caller_identity)[:2] == (403, "InvalidClientTokenId")
    assert [user["UserName"] for user in iam.list_users()["Users"]] == ["administrator"]
    assert iam.list_roles()["Roles"] == []
    assert aws.client("s3").list_buckets()["Buckets"] == []
    assert aws.client("eks").list_pod_identity_associations(clusterName=CLUSTER)["associations"] == []
    assert json.loads(api.objects[CONFIG_MAP]["data"]["identities.json"]) == {"identities": []}


MARKER = "R4nDoMm4rK3r"


@pytest.mark.usefixtures("node")
def test_what_is_minted_carries_the_marker_and_is_remembered(aws: Aws, make_role: Callable[..., str]) -> None:
    role = make_role("reader", {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, S3_READ)
    aws.control.set_marker(MARKER)
    sts, iam = aws.client("sts"), aws.client("iam")
    iam.create_user(UserName="somebody")

    minted = [
        iam.create_access_key(UserName="somebody")["AccessKey"],
        sts.assume_role(RoleArn=role, RoleSessionName="someone")["Credentials"],
        sts.get_session_token()["Credentials"],
    ]
    node = aws.node_credentials()
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJl"
    refused(lambda: sts.assume_role_with_web_identity(RoleArn=role, RoleSessionName="web", WebIdentityToken=token))
    issued = aws.control.issued()
    aws.control.set_marker("")
    aws.control.reset()

    secrets = [one["SecretAccessKey"] for one in minted] + [node["secretAccessKey"]]
    tokens = [one["SessionToken"] for one in minted[1:]] + [node["sessionToken"]]
    assert all(len(secret) == 40 and secret.startswith(MARKER) for secret in secrets)
    assert all(token.startswith(f"IQoJ{MARKER}") for token in tokens)
    assert {issued[secret] for secret in secrets} == {"secret access key"}
    assert {issued[token.removeprefix("IQoJ")] for token in tokens} == {"session token"}
    assert issued["c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJl"] == "token signature"
    first = aws.bootstrap.account(ACCOUNT).administrator.secret_access_key
    assert issued[first] == "secret access key"
    assert issued.items() <= aws.control.issued().items()
