"""The S3 walkthrough at the level of API calls: association, token, session, S3, CloudTrail."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, CLUSTER, INSTANCE, OTHER_ACCOUNT, REGION, Aws, refused, user_key
from harness.subject.bound_cluster import DAEMON_SET, ISSUER, ApiServerDouble

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
CLUSTER_ARN = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"
PODS = {"Service": "pods.eks.amazonaws.com"}
S3_READ = '{"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],"Resource":"*"}'


@pytest.fixture
def association(aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]) -> dict[str, Any]:
    assert api
    role = make_role("pod-identity-lab-s3-reader-role", PODS, S3_READ)
    return aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="demo", serviceAccount="s3-reader", roleArn=role
    )["association"]


@requirement("API-401", "API-402", "API-501", "API-503", "API-514", "API-811", "API-812", "API-813", "API-814")
@pytest.mark.usefixtures("node")
def test_pod_reads_s3_as_its_associations_role(aws: Aws, api: ApiServerDouble, association: dict[str, Any]) -> None:
    """The whole path: association published, token exchanged by the node, session reads S3, CloudTrail tells it."""
    assert api.published() == [{"namespace": "demo", "serviceAccount": "s3-reader"}]
    assert api.applied_by == ["eks", "eks"]
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="my-app-bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="my-app-bucket", Key="hello.txt", Body=b"Hello from Pod Identity!\n")

    answer = aws.client("eks-auth", aws.node_credentials()).assume_role_for_pod_identity(
        clusterName=CLUSTER, token=api.token(time.time())
    )

    session = rf"eks-pod-identi-s3-test-{UUID4}"
    arn = answer["assumedRoleUser"]["arn"]
    assert re.fullmatch(rf"arn:aws:sts::{ACCOUNT}:assumed-role/pod-identity-lab-s3-reader-role/{session}", arn)
    assert re.fullmatch(rf"AROA[A-Z0-9]{{17}}:{session}", answer["assumedRoleUser"]["assumeRoleId"])
    assert answer["subject"] == {"namespace": "demo", "serviceAccount": "s3-reader"}
    assert answer["audience"] == "pods.eks.amazonaws.com"
    assert answer["podIdentityAssociation"]["associationId"] == association["associationId"]
    assert 21590 < answer["credentials"]["expiration"].timestamp() - time.time() <= 21600

    pod = answer["credentials"]
    assert aws.client("sts", pod).get_caller_identity()["Arn"] == arn
    assert (
        aws.client("s3", pod).get_object(Bucket="my-app-bucket", Key="hello.txt")["Body"].read()
        == b"Hello from Pod Identity!\n"
    )
    assert refused(lambda: aws.client("s3", pod).put_object(Bucket="my-app-bucket", Key="x", Body=b""))[2] == (
        f'User: {arn} is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::my-app-bucket/x" '
        "because no identity-based policy allows the s3:PutObject action"
    )
    check_events(aws, arn, pod)


def check_events(aws: Aws, arn: str, pod: dict[str, str]) -> None:
    trail = aws.client("cloudtrail")

    def lookup(key: str, value: str) -> list[Any]:
        return trail.lookup_events(LookupAttributes=[{"AttributeKey": key, "AttributeValue": value}])["Events"]

    (event,) = lookup("EventName", "AssumeRoleForPodIdentity")
    record = json.loads(event["CloudTrailEvent"])
    assert record["requestParameters"] == {"clusterName": CLUSTER, "token": "HIDDEN_DUE_TO_SECURITY_REASONS"}
    assert (record["responseElements"], record["readOnly"]) == (None, True)
    assert record["userIdentity"]["sessionContext"]["ec2RoleDelivery"] == "2.0"
    assert event["Username"] == INSTANCE
    assert event["Resources"] == [{"ResourceType": "AWS::EKS::Cluster", "ResourceName": CLUSTER}]

    (assumed,) = [
        json.loads(event["CloudTrailEvent"])
        for event in lookup("EventName", "AssumeRole")
        if arn in event["CloudTrailEvent"]
    ]
    assert assumed["userIdentity"] == {"type": "AWSService", "invokedBy": "pods.eks.amazonaws.com"}
    assert assumed["requestParameters"]["durationSeconds"] == 21600
    assert assumed["requestParameters"]["transitiveTagKeys"] == [
        "eks-cluster-arn",
        "eks-cluster-name",
        "kubernetes-namespace",
        "kubernetes-service-account",
        "kubernetes-pod-name",
        "kubernetes-pod-uid",
    ]
    assert assumed["responseElements"]["credentials"]["accessKeyId"] == pod["accessKeyId"]
    (identity,) = lookup("AccessKeyId", pod["accessKeyId"])
    assert (identity["EventName"], identity["EventSource"]) == ("GetCallerIdentity", "sts.amazonaws.com")
    everything = json.dumps([trail.lookup_events()["Events"], aws.control.journal()], default=str)
    assert pod["secretAccessKey"] not in everything
    assert pod["sessionToken"] not in everything


@requirement("API-408", "API-409", "API-410", "API-423")
@pytest.mark.usefixtures("node", "association")
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": ["sts.amazonaws.com"]}, "InvalidTokenException"),
        (
            {"iss": "https://oidc.eks.eu-west-1.amazonaws.com/id/FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"},
            "InvalidTokenException",
        ),
        ({"exp": 1}, "ExpiredTokenException"),
        ({"nbf": 1 << 40}, "InvalidTokenException"),
        ({"sub": "system:serviceaccount:demo:other"}, "InvalidTokenException"),
        ({"kubernetes.io": {"namespace": "demo", "serviceaccount": {"name": "s3-reader"}}}, "InvalidTokenException"),
    ],
)
def test_token_that_is_not_the_pods_is_refused(
    aws: Aws, api: ApiServerDouble, changes: dict[str, Any], code: str
) -> None:
    auth = aws.client("eks-auth", aws.node_credentials())

    token = api.token(time.time(), **changes)
    assert refused(lambda: auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=token))[:2] == (400, code)


@requirement("API-406")
@pytest.mark.usefixtures("node", "association")
def test_foreign_key_is_refused_and_a_rotated_one_is_found(aws: Aws, api: ApiServerDouble) -> None:
    auth = aws.client("eks-auth", aws.node_credentials())
    genuine = api.token(time.time())
    auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=genuine)

    api.rotate_key("key-1")
    forged = api.token(time.time())
    assert (
        refused(lambda: auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=forged))[1]
        == "InvalidTokenException"
    )
    api.rotate_key("key-2")
    assert auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=api.token(time.time()))["credentials"]


@requirement("API-413", "API-424")
@pytest.mark.usefixtures("node")
def test_association_that_is_gone_is_not_found(aws: Aws, api: ApiServerDouble, association: dict[str, Any]) -> None:
    aws.client("eks").delete_pod_identity_association(clusterName=CLUSTER, associationId=association["associationId"])

    assert api.published() == []
    auth = aws.client("eks-auth", aws.node_credentials())
    token = api.token(time.time())
    assert refused(lambda: auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=token))[:2] == (
        404,
        "ResourceNotFoundException",
    )


@requirement("API-421", "API-508")
@pytest.mark.usefixtures("node")
def test_role_without_tag_session_is_not_assumed(aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]) -> None:
    role = make_role("no-tags", PODS, S3_READ, actions='"sts:AssumeRole"')
    aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="demo", serviceAccount="s3-reader", roleArn=role
    )
    auth = aws.client("eks-auth", aws.node_credentials())

    token = api.token(time.time())
    assert refused(lambda: auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=token)) == (
        400,
        "AccessDeniedException",
        "Unauthorized Exception! EKS does not have permissions to assume the associated role.",
    )


@requirement("API-405")
@pytest.mark.usefixtures("association")
def test_caller_without_permission_is_named(aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]) -> None:
    role = make_role("powerless", {"AWS": f"arn:aws:iam::{ACCOUNT}:user/administrator"})
    credentials = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]

    token = api.token(time.time())
    auth = aws.client("eks-auth", credentials)
    assert refused(lambda: auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=token)) == (
        400,
        "AccessDeniedException",
        (
            f"User: arn:aws:sts::{ACCOUNT}:assumed-role/powerless/me is not authorized to perform: "
            f"eks-auth:AssumeRoleForPodIdentity on resource: {CLUSTER_ARN} because no identity-based policy allows "
            "the eks-auth:AssumeRoleForPodIdentity action"
        ),
    )


@requirement("API-601", "API-602", "API-603")
@pytest.mark.usefixtures("node")
def test_target_role_of_another_account_is_assumed_behind_the_first(
    aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]
) -> None:
    target = f"arn:aws:iam::{OTHER_ACCOUNT}:role/target"
    hop = f'{{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession"],"Resource":"{target}"}}'
    source = make_role("source", PODS, hop)
    external_id = f"{REGION}/{ACCOUNT}/{CLUSTER}/demo/s3-reader"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": source},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
            },
            {"Effect": "Allow", "Principal": {"AWS": source}, "Action": "sts:TagSession"},
        ],
    }
    aws.other_account("iam").create_role(RoleName="target", AssumeRolePolicyDocument=json.dumps(trust))
    record = aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="demo", serviceAccount="s3-reader", roleArn=source, targetRoleArn=target
    )["association"]
    assert record["externalId"] == external_id

    answer = aws.client("eks-auth", aws.node_credentials()).assume_role_for_pod_identity(
        clusterName=CLUSTER, token=api.token(time.time())
    )

    assert answer["assumedRoleUser"]["arn"].startswith(
        f"arn:aws:sts::{OTHER_ACCOUNT}:assumed-role/target/eks-pod-identi-s3-test-"
    )
    assert aws.client("sts", answer["credentials"]).get_caller_identity()["Account"] == OTHER_ACCOUNT
    assert 3500 < answer["credentials"]["expiration"].timestamp() - time.time() <= 3540
    for account in (aws.client("cloudtrail"), aws.other_account("cloudtrail")):
        events = account.lookup_events(LookupAttributes=[{"AttributeKey": "ResourceName", "AttributeValue": target}])[
            "Events"
        ]
        (found,) = [json.loads(event["CloudTrailEvent"]) for event in events if event["EventName"] == "AssumeRole"]
        assert found["requestParameters"]["externalId"] == external_id


@requirement("API-215", "IAM-ACT-04")
def test_pass_role_is_needed_for_an_association(aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]) -> None:
    assert api
    role = make_role("reader", PODS)
    iam = aws.client("iam")
    iam.create_user(UserName="operator")
    statement = {"Effect": "Allow", "Action": "eks:*", "Resource": "*"}
    iam.put_user_policy(
        UserName="operator",
        PolicyName="p",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    eks = aws.client(
        "eks", {"accessKeyId": key["AccessKeyId"], "secretAccessKey": key["SecretAccessKey"], "sessionToken": None}
    )

    assert refused(
        lambda: eks.create_pod_identity_association(
            clusterName=CLUSTER, namespace="d", serviceAccount="s", roleArn=role
        )
    ) == (
        403,
        "AccessDeniedException",
        (
            f"User: arn:aws:iam::{ACCOUNT}:user/operator is not authorized to perform: iam:PassRole "
            f"on resource: {role} because no identity-based policy allows the iam:PassRole action"
        ),
    )
    assert eks.list_pod_identity_associations(clusterName=CLUSTER)["associations"] == []


@requirement("API-105", "API-106", "API-204")
def test_association_record_has_the_articles_shape(aws: Aws, association: dict[str, Any]) -> None:
    eks = aws.client("eks")
    raw = eks.meta.events
    bodies: list[bytes] = []
    raw.register(
        "before-parse.eks.DescribePodIdentityAssociation",
        lambda response_dict, **_: bodies.append(response_dict["body"]),
    )
    eks.describe_pod_identity_association(clusterName=CLUSTER, associationId=association["associationId"])

    record = json.loads(bodies[0])["association"]
    assert set(record) == {
        "clusterName",
        "namespace",
        "serviceAccount",
        "roleArn",
        "associationArn",
        "associationId",
        "tags",
        "createdAt",
        "modifiedAt",
        "disableSessionTags",
    }
    assert (record["tags"], record["disableSessionTags"]) == ({}, False)
    assert isinstance(record["createdAt"], float)
    assert round(record["createdAt"], 3) == record["createdAt"]


@requirement("API-110", "API-271", "API-272")
def test_association_tags_go_by_arn_in_the_path(aws: Aws, association: dict[str, Any]) -> None:
    eks, arn = aws.client("eks"), association["associationArn"]

    eks.tag_resource(resourceArn=arn, tags={"team": "a", "env": "lab"})
    eks.untag_resource(resourceArn=arn, tagKeys=["env"])

    assert eks.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "a"}
    assert refused(lambda: eks.list_tags_for_resource(resourceArn=arn + "x"))[:2] == (404, "NotFoundException")


@requirement("API-303", "API-306")
def test_addon_follows_its_daemon_set(aws: Aws, api: ApiServerDouble) -> None:
    eks = aws.client("eks")
    made = eks.create_addon(clusterName=CLUSTER, addonName="eks-pod-identity-agent", addonVersion="v1.3.10-eksbuild.2")[
        "addon"
    ]

    def status() -> str:
        return eks.describe_addon(clusterName=CLUSTER, addonName="eks-pod-identity-agent")["addon"]["status"]

    assert (made["status"], status()) == ("CREATING", "CREATING")
    assert eks.list_addons(clusterName=CLUSTER)["addons"] == ["eks-pod-identity-agent"]
    api.roll_out(desired=2, ready=1)
    assert status() == "CREATING"
    api.roll_out(desired=2, ready=2)
    assert status() == "ACTIVE"
    api.roll_out(desired=2, ready=0)
    degraded = eks.describe_addon(clusterName=CLUSTER, addonName="eks-pod-identity-agent")["addon"]
    assert (degraded["status"], degraded["health"]["issues"][0]["code"]) == ("DEGRADED", "InsufficientNumberOfReplicas")

    update = eks.update_addon(
        clusterName=CLUSTER, addonName="eks-pod-identity-agent", addonVersion="v1.3.9-eksbuild.5"
    )["update"]
    assert (update["type"], status()) == ("AddonUpdate", "UPDATING")
    api.roll_out(desired=2, ready=2)
    assert status() == "ACTIVE"

    eks.delete_addon(clusterName=CLUSTER, addonName="eks-pod-identity-agent")

    assert DAEMON_SET not in api.objects
    assert refused(status)[:2] == (404, "ResourceNotFoundException")


@requirement("API-225")
def test_refused_publication_fails_the_call_and_leaves_nothing(
    aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]
) -> None:
    role = make_role("reader", PODS)
    api.refuses = "quota exceeded"
    eks = aws.client("eks")

    status, code, text = refused(
        lambda: eks.create_pod_identity_association(
            clusterName=CLUSTER, namespace="d", serviceAccount="s", roleArn=role
        )
    )

    assert (status, code) == (500, "ServerException")
    assert "quota exceeded" in text
    assert eks.list_pod_identity_associations(clusterName=CLUSTER)["associations"] == []


@requirement("API-109", "API-322")
def test_bound_cluster_is_described(aws: Aws, api: ApiServerDouble) -> None:
    cluster = aws.client("eks").describe_cluster(name=CLUSTER)["cluster"]

    assert cluster["arn"] == CLUSTER_ARN
    assert (cluster["endpoint"], cluster["status"], cluster["version"]) == (api.endpoint, "ACTIVE", "1.34")
    assert cluster["identity"]["oidc"]["issuer"] == ISSUER
    assert base64.b64decode(cluster["certificateAuthority"]["data"]).decode() == api.authority.certificate
    assert refused(lambda: aws.client("eks", region="us-east-1").describe_cluster(name=CLUSTER)) == (
        404,
        "ResourceNotFoundException",
        "No cluster found for name: pod-identity-lab.",
    )


@requirement("API-324")
def test_issuer_documents_verify_the_clusters_tokens(aws: Aws, api: ApiServerDouble) -> None:
    """Anybody reads issuer and keys, and finds the new key after a rotation."""

    def read(document: str) -> Any:
        url = urlsplit(f"{ISSUER}/{document}")
        answer = aws.send("GET", url.path, host=url.netloc)
        return json.loads(answer.body) if answer.status == 200 else answer

    def subject(token: str) -> str:
        (key,) = [key for key in read("keys")["keys"] if key["kid"] == jwt.get_unverified_header(token)["kid"]]
        return jwt.decode(token, jwt.PyJWK(key), audience="pods.eks.amazonaws.com", issuer=ISSUER)["sub"]

    discovery = read(".well-known/openid-configuration")
    before = subject(api.token(time.time()))
    api.rotate_key("key-2")
    after = subject(api.token(time.time()))

    check("API-324", what="issuer", expected=ISSUER, observed=discovery["issuer"])
    check("API-324", what="address of the keys", expected=f"{ISSUER}/keys", observed=discovery["jwks_uri"])
    expected = "system:serviceaccount:demo:s3-reader"
    check("API-324", what="tokens before and after", expected=[expected, expected], observed=[before, after])


@requirement("API-325")
@pytest.mark.usefixtures("api")
def test_cluster_is_active(aws: Aws) -> None:
    """The status is one of the model, and the waiter ends at once."""
    eks = aws.client("eks")

    eks.get_waiter("cluster_active").wait(name=CLUSTER, WaiterConfig={"Delay": 1, "MaxAttempts": 2})

    model = {"CREATING", "ACTIVE", "DELETING", "FAILED", "UPDATING", "PENDING"}
    assert eks.describe_cluster(name=CLUSTER)["cluster"]["status"] in model


@requirement("API-404")
@pytest.mark.usefixtures("association")
def test_worker_node_policy_is_enough(aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]) -> None:
    """A caller with AWS's managed policy for nodes gets credentials, and without it is refused."""
    role = make_role("worker", {"AWS": f"arn:aws:iam::{ACCOUNT}:user/administrator"})
    auth = aws.client("eks-auth", aws.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"])
    token = api.token(time.time())

    before = refused(lambda: auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=token))[1]
    policy = "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"
    aws.client("iam").attach_role_policy(RoleName="worker", PolicyArn=policy)
    after = auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=token)

    assert before == "AccessDeniedException"
    assert after["subject"]["serviceAccount"] == "s3-reader"


@requirement("API-262", "API-412", "API-431")
@pytest.mark.usefixtures("node")
def test_credentials_outlive_their_association(aws: Aws, api: ApiServerDouble, association: dict[str, Any]) -> None:
    """The pod is not in the cluster, the association goes away, and the session stays until it is revoked."""
    auth, seconds = aws.client("eks-auth", aws.node_credentials()), list[float]()
    for _ in range(5):
        started = time.monotonic()
        answer = auth.assume_role_for_pod_identity(clusterName=CLUSTER, token=api.token(time.time()))
        seconds.append(time.monotonic() - started)
    s3 = aws.client("s3", answer["credentials"])
    aws.client("s3").create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    identifier = association["associationId"]
    aws.client("eks").delete_pod_identity_association(clusterName=CLUSTER, associationId=identifier)

    after_deletion = s3.list_objects_v2(Bucket="bucket")["KeyCount"]
    revoked = {
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": {"DateLessThan": {"aws:TokenIssueTime": "2099-01-01T00:00:00Z"}},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [revoked]})
    name = association["roleArn"].rpartition("/")[2]
    aws.client("iam").put_role_policy(RoleName=name, PolicyName="revoke", PolicyDocument=document)

    check("API-412", what="pod", expected="s3-test", observed=answer["assumedRoleUser"]["arn"].split("-identi-")[1][:7])
    check("API-262", what="after deletion", expected=0, observed=after_deletion)
    check("API-262", what="revoked", expected=403, observed=refused(lambda: s3.list_objects_v2(Bucket="bucket"))[0])
    check("API-431", expected="half of five within a second", observed=seconds, holds=sorted(seconds)[2] < 1)


@requirement("API-513")
@pytest.mark.usefixtures("node")
def test_calls_of_a_session_carry_its_tags(aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]) -> None:
    """A policy that asks for all six tags, the role's ARN and the user ID lets the session through."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    role = make_role("reader", PODS)
    identifier = aws.client("iam").get_role(RoleName="reader")["Role"]["RoleId"]
    tags = {
        "eks-cluster-arn": CLUSTER_ARN,
        "eks-cluster-name": CLUSTER,
        "kubernetes-namespace": "demo",
        "kubernetes-service-account": "s3-reader",
        "kubernetes-pod-name": "s3-test",
        "kubernetes-pod-uid": "5d3b6e1c-0c58-4a53-9d3d-3b8a2f6f9a11",
    }
    conditions: dict[str, Any] = {
        "StringEquals": {f"aws:PrincipalTag/{key}": value for key, value in tags.items()},
        "ArnEquals": {"aws:PrincipalArn": role},
        "StringLike": {"aws:userid": f"{identifier}:eks-pod-identi-s3-test-*"},
    }
    aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="demo", serviceAccount="s3-reader", roleArn=role
    )
    answer = aws.client("eks-auth", aws.node_credentials()).assume_role_for_pod_identity(
        clusterName=CLUSTER, token=api.token(time.time())
    )
    pod = aws.client("s3", answer["credentials"])

    def permit(condition: dict[str, Any]) -> None:
        statement = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*", "Condition": condition}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        aws.client("iam").put_role_policy(RoleName="reader", PolicyName="inline", PolicyDocument=document)

    permit(conditions)
    assert pod.list_objects_v2(Bucket="bucket")["KeyCount"] == 0
    permit({"StringEquals": {"aws:PrincipalTag/kubernetes-namespace": "prod"}})
    assert refused(lambda: pod.list_objects_v2(Bucket="bucket"))[0] == 403


@requirement("IAM-ACT-03")
def test_stored_tags_decide_about_deletion(aws: Aws, association: dict[str, Any]) -> None:
    """Who may delete what has a tag is refused until it is there."""
    arn, identifier = association["associationArn"], association["associationId"]
    condition = {"StringEquals": {"aws:ResourceTag/team": "a"}}
    statement = {"Effect": "Allow", "Action": "eks:*", "Resource": arn, "Condition": condition}
    eks = aws.client("eks", user_key(aws, "ana", statement))

    aws.client("eks").tag_resource(resourceArn=arn, tags={"team": "b"})
    denied = refused(lambda: eks.delete_pod_identity_association(clusterName=CLUSTER, associationId=identifier))
    aws.client("eks").tag_resource(resourceArn=arn, tags={"team": "a"})
    deleted = eks.delete_pod_identity_association(clusterName=CLUSTER, associationId=identifier)["association"]

    assert denied[:2] == (403, "AccessDeniedException")
    assert deleted["tags"] == {"team": "a"}


@requirement("API-816")
def test_calls_of_eks_are_recorded(aws: Aws, association: dict[str, Any]) -> None:
    """A write with caller, request and response, a read without the response, a refusal with its error."""
    eks, identifier = aws.client("eks"), association["associationId"]
    eks.describe_pod_identity_association(clusterName=CLUSTER, associationId=identifier)
    refused(lambda: eks.describe_pod_identity_association(clusterName=CLUSTER, associationId="a-00000000000000000"))

    events = aws.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "EventSource", "AttributeValue": "eks.amazonaws.com"}]
    )["Events"]
    records = [json.loads(event["CloudTrailEvent"]) for event in reversed(events)]
    created, described, failed = [one for one in records if "PodIdentityAssociation" in one["eventName"]]

    names = [record["eventName"] for record in (created, described, failed)]
    wanted = ["CreatePodIdentityAssociation", *["DescribePodIdentityAssociation"] * 2]
    check("API-816", what="events", expected=wanted, observed=names)
    caller = {"arn": f"arn:aws:iam::{ACCOUNT}:user/administrator", "accountId": ACCOUNT, "userName": "administrator"}
    observed = {name: created["userIdentity"].get(name) for name in caller}
    check("API-816", what="caller", expected=caller, observed=observed)
    request = {"namespace": "demo", "serviceAccount": "s3-reader", "roleArn": association["roleArn"]}
    observed = {name: created["requestParameters"].get(name) for name in request}
    check("API-816", what="request", expected=request, observed=observed)
    answered = created["responseElements"]["association"]["associationId"]
    check("API-816", what="response of a write", expected=identifier, observed=answered)
    check("API-816", what="response of a read", expected=None, observed=described["responseElements"])
    check("API-816", what="error", expected="ResourceNotFoundException", observed=failed["errorCode"])
