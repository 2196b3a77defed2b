"""Tenants of one role and two accounts, through the running emulator: each half that can be missing is missed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from harness.cloud.localstack.bootstrap import AccessKey
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, CLUSTER, OTHER_ACCOUNT, REGION, Aws, refused
from harness.subject.bound_cluster import ApiServerDouble

BUCKET = "abac-demo-bucket"
PODS = {"Service": "pods.eks.amazonaws.com"}
OWN = "${aws:PrincipalTag/kubernetes-namespace}"
TARGET = f"arn:aws:iam::{OTHER_ACCOUNT}:role/target"
BOTH = ("sts:AssumeRole", "sts:TagSession")


def document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str | list[str], resource: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


# --- tenants --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pod(aws: Aws, api: ApiServerDouble, node: str, make_role: Callable[..., str]) -> Callable[[str], Any]:
    """Return what makes S3 of a pod in a namespace; all have one role, with the guide's policy."""
    assert node
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for team in ("team-a", "team-b"):
        s3.put_object(Bucket=BUCKET, Key=f"{team}/file.txt", Body=team.encode())
    listing = {"StringLike": {"s3:prefix": [f"{OWN}/*"]}}
    role = make_role(
        "team-role",
        PODS,
        json.dumps(allow("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", Condition=listing)),
        json.dumps(allow("s3:GetObject", f"arn:aws:s3:::{BUCKET}/{OWN}/*")),
    )

    def s3_of(namespace: str, **association: Any) -> Any:
        aws.client("eks").create_pod_identity_association(
            clusterName=CLUSTER, namespace=namespace, serviceAccount="app", roleArn=role, **association
        )
        answer = aws.client("eks-auth", aws.node_credentials()).assume_role_for_pod_identity(
            clusterName=CLUSTER, token=api.token(time.time(), namespace, "app")
        )
        return aws.client("s3", answer["credentials"])

    return s3_of


@requirement("IAM-ABAC-04", "IAM-MSG-01", "IAM-MSG-02")
@pytest.mark.parametrize(("own", "other"), [("team-a", "team-b"), ("team-b", "team-a")])
def test_a_team_has_its_own_prefix_and_no_other(pod: Callable[[str], Any], own: str, other: str) -> None:
    """One role; the namespace in the session's tags is all that differs."""
    s3 = pod(own)

    listed = [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{own}/")["Contents"]]
    read = s3.get_object(Bucket=BUCKET, Key=f"{own}/file.txt")["Body"].read().decode()
    foreign = refused(lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{other}/"))
    headed = refused(lambda: s3.head_object(Bucket=BUCKET, Key=f"{other}/file.txt"))

    check("IAM-ABAC-04", what="listed and read", expected=([f"{own}/file.txt"], own), observed=(listed, read))
    check("IAM-ABAC-04", what="a foreign file, by HEAD", expected=(403, "403", "Forbidden"), observed=headed)
    caller = foreign[2].partition(" is not authorized")[0]
    session = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/team-role/eks-pod-identi-s3-test-"
    check("IAM-MSG-01", expected=f"{session}…", observed=caller, holds=caller.startswith(session))
    text = (
        f'{caller} is not authorized to perform: s3:ListBucket on resource: "arn:aws:s3:::{BUCKET}" because no '
        "identity-based policy allows the s3:ListBucket action"
    )
    check("IAM-MSG-02", expected=(403, "AccessDenied", text), observed=foreign)


@requirement("IAM-ABAC-05")
def test_without_tags_the_same_role_has_nothing(pod: Callable[..., Any]) -> None:
    """Not even its own namespace's."""
    s3 = pod("team-a", disableSessionTags=True)

    assert refused(lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix="team-a/"))[:2] == (403, "AccessDenied")
    assert refused(lambda: s3.get_object(Bucket=BUCKET, Key="team-a/file.txt"))[:2] == (403, "AccessDenied")


# --- accounts -------------------------------------------------------------------------------------------------------


@requirement("IAM-EVAL-03", "IAM-MSG-05")
@pytest.mark.usefixtures("api")
def test_a_foreign_bucket_needs_both_accounts(aws: Aws) -> None:
    """The user's own policy and the bucket's; what is missing is not told across accounts."""
    owner, iam = aws.client("s3"), aws.other_account("iam")
    owner.create_bucket(Bucket="shared", CreateBucketConfiguration={"LocationConstraint": REGION})
    owner.put_object(Bucket="shared", Key="k", Body=b"x")
    iam.create_user(UserName="reader")
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    reader = aws.client("s3", AccessKey(key["AccessKeyId"], key["SecretAccessKey"]))
    objects = "arn:aws:s3:::shared/*"
    consent = document(allow("s3:GetObject", objects, Principal={"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:user/reader"}))
    permission = document(allow("s3:GetObject", objects))

    def read() -> bytes:
        return reader.get_object(Bucket="shared", Key="k")["Body"].read()

    denied = (403, "AccessDenied", "Access Denied")
    check("IAM-EVAL-03", what="neither", expected=denied, observed=refused(read))
    owner.put_bucket_policy(Bucket="shared", Policy=consent)
    check("IAM-EVAL-03", what="the bucket's alone", expected=denied, observed=refused(read))
    iam.put_user_policy(UserName="reader", PolicyName="p", PolicyDocument=permission)
    check("IAM-EVAL-03", what="both", expected=b"x", observed=read())
    owner.delete_bucket_policy(Bucket="shared")
    check("IAM-MSG-05", what="the user's alone", expected=denied, observed=refused(read))


def trust(source: str, *actions: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": source}, "Action": list(actions)}
    return document(statement)


@requirement("API-606", "API-608")
@pytest.mark.usefixtures("node")
def test_a_target_role_needs_both_rights_on_both_sides(
    aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]
) -> None:
    """Each of the four taken away in turn, the pod gets nothing, also not the first role; with all four it is there."""
    source = make_role("source", PODS)
    iam, other = aws.client("iam"), aws.other_account("iam")
    other.create_role(RoleName="target", AssumeRolePolicyDocument=trust(source, *BOTH))
    aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="demo", serviceAccount="s3-reader", roleArn=source, targetRoleArn=TARGET
    )
    node = aws.client("eks-auth", aws.node_credentials())

    def exchange(own: tuple[str, ...], trusted: tuple[str, ...]) -> Any:
        iam.put_role_policy(RoleName="source", PolicyName="hop", PolicyDocument=document(allow(list(own), TARGET)))
        other.update_assume_role_policy(RoleName="target", PolicyDocument=trust(source, *trusted))
        return node.assume_role_for_pod_identity(clusterName=CLUSTER, token=api.token(time.time()))

    text = "Unauthorized Exception! EKS does not have permissions to assume the associated role."
    for missing in BOTH:
        left = tuple(action for action in BOTH if action != missing)
        for side, halves in {"source": (left, BOTH), "target": (BOTH, left)}.items():
            seen = refused(lambda halves=halves: exchange(*halves))
            expected = (400, "AccessDeniedException", text)
            check("API-606", what=f"{side} without {missing}", expected=expected, observed=seen)
    account = aws.client("sts", exchange(BOTH, BOTH)["credentials"]).get_caller_identity()["Account"]
    check("API-606", what="all four", expected=OTHER_ACCOUNT, observed=account)


@requirement("IAM-STS-10", "IAM-MSG-04")
@pytest.mark.usefixtures("api")
def test_a_role_of_another_account_needs_both_accounts(aws: Aws) -> None:
    """A user who may not, a role that does not trust: both are told the same."""
    iam, other = aws.client("iam"), aws.other_account("iam")
    iam.create_user(UserName="alice")
    key = iam.create_access_key(UserName="alice")["AccessKey"]
    sts = aws.client("sts", AccessKey(key["AccessKeyId"], key["SecretAccessKey"]))
    alice = f"arn:aws:iam::{ACCOUNT}:user/alice"
    other.create_role(RoleName="target", AssumeRolePolicyDocument=trust(alice, "sts:AssumeRole"))
    text = f"User: {alice} is not authorized to perform: sts:AssumeRole on resource: {TARGET}"

    def assume() -> Any:
        return sts.assume_role(RoleArn=TARGET, RoleSessionName="me")

    silent = refused(assume)
    iam.put_user_policy(UserName="alice", PolicyName="p", PolicyDocument=document(allow("sts:AssumeRole", TARGET)))
    assumed = assume()["AssumedRoleUser"]["Arn"]
    other.update_assume_role_policy(RoleName="target", PolicyDocument=trust(f"arn:aws:iam::{ACCOUNT}:root", BOTH[1]))
    untrusted = refused(assume)

    check("IAM-MSG-04", what="the user's policy is silent", expected=(403, "AccessDenied", text), observed=silent)
    check("IAM-STS-10", expected=f"arn:aws:sts::{OTHER_ACCOUNT}:assumed-role/target/me", observed=assumed)
    check("IAM-MSG-04", what="the role is silent", expected=(403, "AccessDenied", text), observed=untrusted)
