"""What is larger, deeper or more than AWS takes is refused in AWS's words, by a process that lives on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.aws import ACCOUNT, CLUSTER, REGION, Answer, Aws, refused, user_key
from harness.subject.bound_cluster import ApiServerDouble

READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
PODS = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": "sts:AssumeRole"}
BUCKET = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::notes/*"}


def document(size: int, statement: dict[str, Any] = READ) -> str:
    """Return a policy of exactly so many characters; white space outside of texts would not count."""
    text = json.dumps({"Version": "2012-10-17", "Statement": [{"Sid": "", **statement}]}, separators=(",", ":"))
    return text.replace('"Sid":""', f'"Sid":"{"x" * (size - len(text))}"')


def nested_policy(depth: int) -> str:
    return '{"Version":"2012-10-17","Statement":' + "[" * depth + "]" * depth + "}"


def trust(size: int) -> str:
    return document(size, PODS)


# --- policies -------------------------------------------------------------------------------------------------------

Write = Callable[[Aws, str], object]
WRITES: dict[str, tuple[Write, Callable[[int], str], int, tuple[int, str, str]]] = {
    "managed": (
        lambda aws, text: aws.client("iam").create_policy(PolicyName="p", PolicyDocument=text),
        document,
        6144,
        (409, "LimitExceeded", "Cannot exceed quota for PolicySize: 6144"),
    ),
    "inline-of-a-role": (
        lambda aws, text: aws.client("iam").put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=text),
        document,
        10_240,
        (409, "LimitExceeded", "Maximum policy size of 10240 bytes exceeded for role r"),
    ),
    "inline-of-a-user": (
        lambda aws, text: aws.client("iam").put_user_policy(UserName="u", PolicyName="p", PolicyDocument=text),
        document,
        2048,
        (409, "LimitExceeded", "Maximum policy size of 2048 bytes exceeded for user u"),
    ),
    "inline-of-a-group": (
        lambda aws, text: aws.client("iam").put_group_policy(GroupName="g", PolicyName="p", PolicyDocument=text),
        document,
        5120,
        (409, "LimitExceeded", "Maximum policy size of 5120 bytes exceeded for group g"),
    ),
    "trust": (
        lambda aws, text: aws.client("iam").update_assume_role_policy(RoleName="r", PolicyDocument=text),
        trust,
        2048,
        (409, "LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048"),
    ),
    "bucket": (
        lambda aws, text: aws.client("s3").put_bucket_policy(Bucket="notes", Policy=text),
        lambda size: document(size, BUCKET),
        20_480,
        (400, "PolicyTooLarge", "Policy exceeds the maximum allowed document size."),
    ),
    "secret": (
        lambda aws, text: aws.client("secretsmanager").put_resource_policy(SecretId="s", ResourcePolicy=text),
        lambda size: document(size, {**READ, "Principal": "*"}),
        20_480,
        (400, "MalformedPolicyDocumentException", "The policy is longer than 20480 characters."),
    ),
    "association": (
        lambda aws, text: aws.client("eks").create_pod_identity_association(
            clusterName=CLUSTER, namespace="n", serviceAccount="s", roleArn=f"arn:aws:iam::{ACCOUNT}:role/r",
            disableSessionTags=True, policy=text,
        ),
        document,
        2048,
        (400, "InvalidParameterException", "The policy must have at most 2048 characters."),
    ),
}  # fmt: skip
NESTED = {
    "bucket": (400, "MalformedPolicy"),
    "secret": (400, "MalformedPolicyDocumentException"),
    "association": (400, "InvalidParameterException"),
}


@pytest.fixture
def stored(aws: Aws, api: ApiServerDouble) -> Aws:
    """A role, a user, a group, a bucket and a secret, in an emulator that forgets them at the end."""
    del api
    iam = aws.client("iam")
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust(200))
    iam.create_user(UserName="u")
    iam.create_group(GroupName="g")
    aws.client("s3").create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.client("s3").delete_public_access_block(Bucket="notes")
    aws.client("secretsmanager").create_secret(Name="s", SecretString="x")
    return aws


@requirement("IAM-SEC-08", "IAM-DOC-01", "IAM-DOC-02")
@pytest.mark.parametrize("kind", WRITES)
def test_a_policy_fills_its_limit_and_no_more(stored: Aws, kind: str) -> None:
    """Exactly as long as it may be is stored, one character more is not."""
    write, of_size, limit, expected = WRITES[kind]

    beyond = refused(lambda: write(stored, of_size(limit + 1)))
    write(stored, of_size(limit))

    check("IAM-SEC-08", what=f"{kind}, {limit + 1} characters", expected=expected, observed=beyond)


@requirement("IAM-SEC-08", "IAM-DOC-02")
@pytest.mark.parametrize("kind", WRITES)
def test_a_policy_that_is_nested_too_deeply_is_malformed(stored: Aws, kind: str) -> None:
    """Thousands of arrays in one another."""
    write = WRITES[kind][0]
    # An association takes no more than 2,048 characters.
    text = nested_policy(1000 if kind == "association" else 5000)

    seen = refused(lambda: write(stored, text))

    assert seen[:2] == NESTED.get(kind, (400, "MalformedPolicyDocument"))


@requirement("IAM-SEC-08")
def test_a_session_policy_has_its_limits(stored: Aws) -> None:
    """2,048 characters, and what is nested in them is read without failing."""
    sts = stored.client("sts")

    def assume(policy: str) -> tuple[int, str]:
        role = f"arn:aws:iam::{ACCOUNT}:role/r"
        return refused(lambda: sts.assume_role(RoleArn=role, RoleSessionName="s1", Policy=policy))[:2]

    check("IAM-SEC-08", what="2,049 characters", expected=(400, "ValidationError"), observed=assume(document(2049)))
    expected = (400, "MalformedPolicyDocument")
    check("IAM-SEC-08", what="nested", expected=expected, observed=assume(nested_policy(1000)))


@requirement("IAM-SEC-08")
def test_a_document_parameter_has_an_end(stored: Aws) -> None:
    """131,072 characters, before anybody reads them."""
    seen = refused(lambda: stored.client("iam").create_policy(PolicyName="p", PolicyDocument=" " * 131_073))

    text = (
        "1 validation error detected: Value at 'policyDocument' failed to satisfy constraint: Member must have length "
        "less than or equal to 131072"
    )
    assert seen == (400, "ValidationError", text)


@requirement("IAM-SEC-08")
def test_an_entity_has_so_many_policies_and_tags(stored: Aws) -> None:
    """Ten managed policies and fifty tags; one that is there already takes no room."""
    iam = stored.client("iam")
    arns = [f"arn:aws:iam::aws:policy/{name}" for name in AWS_POLICIES]
    for arn in arns[:10]:
        iam.attach_role_policy(RoleName="r", PolicyArn=arn)
    iam.attach_role_policy(RoleName="r", PolicyArn=arns[0])
    iam.tag_role(RoleName="r", Tags=[{"Key": f"k{number}", "Value": "v"} for number in range(50)])
    iam.tag_role(RoleName="r", Tags=[{"Key": "K0", "Value": "w"}])

    eleventh = refused(lambda: iam.attach_role_policy(RoleName="r", PolicyArn=arns[10]))
    tag = refused(lambda: iam.tag_role(RoleName="r", Tags=[{"Key": "more", "Value": "v"}]))

    expected = (409, "LimitExceeded", "Cannot exceed quota for PoliciesPerRole: 10")
    check("IAM-SEC-08", what="the eleventh policy", expected=expected, observed=eleventh)
    check("IAM-SEC-08", what="the 51st tag", expected=(409, "LimitExceeded"), observed=tag[:2])


AWS_POLICIES = [
    "AmazonEC2FullAccess", "AmazonEC2ReadOnlyAccess", "AmazonEKSClusterPolicy", "AmazonEKSServicePolicy",
    "AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonS3FullAccess", "AmazonS3ReadOnlyAccess",
    "IAMFullAccess", "IAMReadOnlyAccess", "SecretsManagerReadWrite",
]  # fmt: skip


# --- values of context keys -----------------------------------------------------------------------------------------


@requirement("IAM-SEC-08")
@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("s3", lambda client: client.list_objects_v2(Bucket="notes", Prefix="p" * 8193), "InvalidArgument"),
        (
            "kms",
            lambda client: client.create_key(Tags=[{"TagKey": "k", "TagValue": "v" * 8193}]),
            "ValidationException",
        ),
        (
            "dynamodb",
            lambda client: client.get_item(TableName="t", Key={"pk": {"S": "k" * 8193}}),
            "ValidationException",
        ),
    ],
    ids=["prefix", "request-tag", "leading-key"],
)
def test_a_value_that_policies_look_at_has_an_end(
    stored: Aws, service: str, call: Callable[[Any], object], code: str
) -> None:
    """More than 8 KiB is refused, whoever calls, and no policy is asked."""
    if service == "dynamodb":
        stored.client("dynamodb").create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        )
    keys = (None, user_key(stored, "nobody"))

    seen = [refused(lambda key=key: call(stored.client(service, key))) for key in keys]

    assert [found[:2] for found in seen] == [(400, code)] * 2
    assert seen[0][2].endswith(" is longer than 8192 characters.")


@requirement("IAM-SEC-08")
@pytest.mark.parametrize(("length", "status"), [(8192, 200), (8193, 400), (20_000, 400)])
def test_headers_have_an_end(aws: Aws, length: int, status: int) -> None:
    """The one that is longest of those that policies see; and one that no HTTP server takes."""
    answer = aws.send_signed(
        "sts",
        "GET",
        f"https://sts.{REGION}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15",
        headers={"User-Agent": "u" * length},
    )

    assert answer.status == status


# --- JSON -----------------------------------------------------------------------------------------------------------

JSON_TARGETS = {
    "cloudtrail": "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents",
    "dynamodb": "DynamoDB_20120810.ListTables",
    "kms": "TrentService.ListKeys",
    "secretsmanager": "secretsmanager.ListSecrets",
    "ssm": "AmazonSSM.DescribeParameters",
}


def nested(depth: int) -> bytes:
    """Return an object with so many levels, in a member that nobody knows."""
    return ('{"x":' * depth + "1" + "}" * depth).encode()


def post(aws: Aws, service: str, body: bytes) -> Answer:
    if service == "eks":
        return aws.send_signed(service, "POST", f"https://eks.{REGION}.amazonaws.com/tags/arn%3Aaws", body=body)
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": JSON_TARGETS[service]}
    return aws.send_signed(service, "POST", f"https://{service}.{REGION}.amazonaws.com/", body=body, headers=headers)


@requirement("IAM-SEC-08")
@pytest.mark.parametrize("service", JSON_TARGETS)
def test_json_is_nested_in_32_levels_at_most(aws: Aws, service: str) -> None:
    """At the limit it is read, beyond it, and far beyond what a parser can follow, it is refused."""
    seen = [post(aws, service, nested(depth)) for depth in (32, 33, 100_000)]

    assert [answer.status for answer in seen] == [200, 400, 400]
    assert {json.loads(answer.body)["__type"] for answer in seen[1:]} == {"SerializationException"}


@requirement("IAM-SEC-08")
def test_json_of_eks_is_nested_in_32_levels_at_most(aws: Aws, api: ApiServerDouble) -> None:
    """Its words for it are others."""
    del api
    seen = [post(aws, "eks", nested(depth)).headers.get("x-amzn-errortype") for depth in (32, 33, 100_000)]

    assert seen == ["BadRequestException", "InvalidRequestException", "InvalidRequestException"]
