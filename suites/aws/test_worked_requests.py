"""What IAM is asked about requests as they come over the wire: the worked ones of ``iam.md`` 18.3."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, REGION, Aws, refused, user_key
from harness.subject.bound_cluster import ApiServerDouble

NOTES = f"notes.s3.{REGION}.amazonaws.com"
ANYWHERE = f"s3.{REGION}.amazonaws.com"
BUCKET = "arn:aws:s3:::notes"
ENCRYPTION = "s3:PutEncryptionConfiguration"
TWO = b"<Delete><Object><Key>a</Key></Object><Object><Key>b</Key><VersionId>4</VersionId></Object></Delete>"


@dataclass(frozen=True)
class Request:
    """A request to S3."""

    method: str
    target: str
    host: str = NOTES
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


REQUESTS: dict[str, tuple[Request, list[tuple[str, str]]]] = {
    "R01": (Request("GET", "/?list-type=2&prefix=team-a%2F&delimiter=%2F"), [("s3:ListBucket", BUCKET)]),
    "R02": (Request("GET", "/notes?list-type=2", ANYWHERE), [("s3:ListBucket", BUCKET)]),
    "R03": (Request("HEAD", "/team-a/file.txt"), [("s3:GetObject", f"{BUCKET}/team-a/file.txt")]),
    "R04": (Request("GET", "/k?versionId=3"), [("s3:GetObjectVersion", f"{BUCKET}/k")]),
    "R05": (
        Request("PUT", "/k", body=b"x", headers={"x-amz-tagging": "a=1", "x-amz-acl": "private"}),
        [(f"s3:{action}", f"{BUCKET}/k") for action in ("PutObject", "PutObjectTagging", "PutObjectAcl")],
    ),
    "R06": (
        Request("PUT", "/k", headers={"x-amz-copy-source": "/src/k2?versionId=9"}),
        [("s3:PutObject", f"{BUCKET}/k"), ("s3:GetObjectVersion", "arn:aws:s3:::src/k2")],
    ),
    "R07": (
        Request("POST", "/?delete", body=TWO),
        [("s3:DeleteObject", f"{BUCKET}/a"), ("s3:DeleteObjectVersion", f"{BUCKET}/b")],
    ),
    "R08": (Request("DELETE", "/?encryption"), [(ENCRYPTION, BUCKET)]),
    "R09": (Request("HEAD", "/"), [("s3:ListBucket", BUCKET)]),
    "R19": (Request("GET", "/other/k"), [("s3:GetObject", f"{BUCKET}/other/k")]),
    "R20": (Request("GET", "/?list-type=2&prefix=team-a/&prefix=team-b/"), []),
}


@pytest.fixture
def stored(aws: Aws, api: ApiServerDouble) -> Aws:
    """Buckets notes, with an object for each key above, and src, in an emulator that forgets them at the end."""
    del api
    s3 = aws.client("s3")
    for bucket in ("notes", "src"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in ("k", "other/k", "team-a/file.txt"):
        s3.put_object(Bucket="notes", Key=key, Body=b"x")
    return aws


def asked(aws: Aws, since: int) -> list[tuple[str, str]]:
    """Return action and resource of every question since an entry of the journal."""
    entries = aws.control.journal()[since:]
    return [(one["action"], one["resource"]) for entry in entries for one in entry["decisions"]]


@requirement("IAM-ACT-01", "IAM-S3-01", "IAM-S3-02", "IAM-S3-09", "IAM-S3-14")
@pytest.mark.parametrize("example", REQUESTS)
def test_a_request_to_s3_is_these_questions(stored: Aws, example: str) -> None:
    """About these resources, and nothing else is asked; which of two comes first, AWS does not say."""
    request, expected = REQUESTS[example]
    before = len(stored.control.journal())

    answer = stored.send_signed(
        "s3",
        request.method,
        f"https://{request.host}{request.target}",
        body=request.body,
        headers={"X-Amz-Content-SHA256": hashlib.sha256(request.body).hexdigest(), **request.headers},
    )

    assert asked(stored, before) == expected
    if example == "R20":
        assert (answer.status, "<Code>InvalidArgument</Code>" in answer.body) == (400, True)


@requirement("IAM-ACT-01", "IAM-ACT-02")
@pytest.mark.usefixtures("node")
def test_what_is_created_with_tags_is_two_questions(stored: Aws) -> None:
    """R14 and R15: the identifiers that are not there yet are stars."""
    ec2, elbv2 = stored.client("ec2"), stored.client("elbv2")
    of_vpc = [{"Name": "vpc-id", "Values": ["vpc-0a1b2c3d4e5f67890"]}]
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets(Filters=of_vpc)["Subnets"]]
    tags = [{"Key": "a", "Value": "1"}]
    name, before = "k8s-demo-nginx-380f880b9d", len(stored.control.journal())

    elbv2.create_load_balancer(Name=name, Subnets=subnets, Tags=tags)
    ec2.create_security_group(
        GroupName="g",
        Description="d",
        VpcId="vpc-0a1b2c3d4e5f67890",
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
    )

    balancer = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/app/{name}/*"
    group = f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/*"
    vpc = f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/vpc-0a1b2c3d4e5f67890"
    assert asked(stored, before) == [
        ("elasticloadbalancing:CreateLoadBalancer", balancer),
        ("elasticloadbalancing:AddTags", balancer),
        ("ec2:CreateSecurityGroup", group),
        ("ec2:CreateSecurityGroup", vpc),
        ("ec2:CreateTags", group),
    ]


@requirement("IAM-ACT-01")
def test_a_query_of_an_index_is_about_the_index(stored: Aws) -> None:
    """R16."""
    dynamodb = stored.client("dynamodb")
    text = {"AttributeType": "S"}
    dynamodb.create_table(
        TableName="notes",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", **text}, {"AttributeName": "day", **text}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-day",
                "KeySchema": [{"AttributeName": "day", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )
    own = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["team-a"]}}
    index = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/notes/index/by-day"
    allow = {"Effect": "Allow", "Action": "dynamodb:Query", "Resource": index, "Condition": own}
    reader = stored.client("dynamodb", user_key(stored, "reader", allow))

    def query(day: str) -> Any:
        return reader.query(
            TableName="notes",
            IndexName="by-day",
            KeyConditionExpression="#d = :d",
            ExpressionAttributeNames={"#d": "day"},
            ExpressionAttributeValues={":d": {"S": day}},
        )

    before = len(stored.control.journal())
    assert query("team-a")["Items"] == []
    assert asked(stored, before) == [("dynamodb:Query", index)]
    assert refused(lambda: query("team-b"))[:2] == (400, "AccessDeniedException")


def trusted(*actions: str) -> str:
    principal = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    statement = {"Effect": "Allow", "Principal": principal, "Action": list(actions)}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@requirement("IAM-STS-11", "IAM-STS-12")
def test_a_session_with_tags_and_a_source_identity_is_three_questions(stored: Aws) -> None:
    """R12: each is named while the role does not trust with it."""
    iam = stored.client("iam")
    sts = stored.client("sts", user_key(stored, "alice", {"Effect": "Allow", "Action": "sts:*", "Resource": "*"}))
    actions = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument=trusted("sts:SetContext"))["Role"]["Arn"]

    def assume() -> Any:
        tags = [{"Key": "team", "Value": "a"}]
        return sts.assume_role(RoleArn=role, RoleSessionName="me", Tags=tags, SourceIdentity="alice")

    for number, action in enumerate(actions):
        text = f"User: arn:aws:iam::{ACCOUNT}:user/alice is not authorized to perform: {action} on resource: {role}"
        check("IAM-STS-11", what=action, expected=(403, "AccessDenied", text), observed=refused(assume))
        trust = trusted(*actions[: number + 1])
        iam.update_assume_role_policy(RoleName="r", PolicyDocument=trust)
    check("IAM-STS-12", what="source identity", expected="alice", observed=assume()["SourceIdentity"])


@requirement("IAM-GATE-04")
def test_older_sessions_can_be_revoked_and_later_ones_work(stored: Aws) -> None:
    """S26: by the statement about the time at which a session began, put beside the role's others."""
    iam, sts = stored.client("iam"), stored.client("sts")
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument=trusted("sts:AssumeRole"))["Role"]["Arn"]
    allow = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
    soon = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    older = {"DateLessThan": {"aws:TokenIssueTime": soon}}
    revoke = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": older}

    def put(name: str, statement: Mapping[str, Any]) -> None:
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_role_policy(RoleName="r", PolicyName=name, PolicyDocument=document)

    def begin() -> Any:
        return stored.client("s3", sts.assume_role(RoleArn=role, RoleSessionName="me")["Credentials"])

    put("work", allow)
    first = begin()
    assert first.list_buckets()["Buckets"] != []
    put("AWSRevokeOlderSessions", revoke)

    told = refused(first.list_buckets)
    stored.control.move_clock(120)
    try:
        later = begin().list_buckets()["Buckets"]
    finally:
        stored.control.move_clock(0)

    assert told[:2] == (403, "AccessDenied")
    assert told[2].endswith("with an explicit deny in an identity-based policy")
    assert len(later) == 2
