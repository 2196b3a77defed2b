"""Requests that make no sense get an answer of AWS's, and nothing of what is behind it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping

import pytest

from harness.conformance.marks import requirement
from harness.subject.aws import REGION, Answer, Aws

JSON = "application/x-amz-json-1.1"
TARGETS = {
    "cloudtrail": "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents",
    "dynamodb": "DynamoDB_20120810.PutItem",
    "kms": "TrentService.DescribeKey",
    "secretsmanager": "secretsmanager.GetSecretValue",
}
INSIDE = ("localstack", "moto", "python", "traceback", "exception while", "<html", "license", "licence", "object, got")
"""What would tell of LocalStack, lower-cased."""


@pytest.fixture
def notes(aws: Aws) -> Iterator[Aws]:
    aws.client("s3").create_bucket(Bucket="notes", CreateBucketConfiguration={"LocationConstraint": REGION})
    yield aws
    aws.control.reset()


def send(
    aws: Aws,
    service: str,
    method: str = "POST",
    target: str = "/",
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    name = {"elbv2": "elasticloadbalancing", "s3": "notes.s3"}.get(service, service)
    url = f"https://{name}.{REGION}.amazonaws.com{target}"
    signing_name = "elasticloadbalancing" if service == "elbv2" else service
    # S3 wants to be told.
    hashed = {"X-Amz-Content-SHA256": hashlib.sha256(body).hexdigest()} if service == "s3" else {}
    return aws.send_signed(
        service, method, url, body=body, headers={**(headers or {}), **hashed}, signing_name=signing_name
    )


def query(aws: Aws, service: str, form: bytes) -> Answer:
    return send(aws, service, body=form, headers={"Content-Type": "application/x-www-form-urlencoded"})


def code_of(answer: Answer) -> str:
    if "x-amzn-errortype" in answer.headers:
        return answer.headers["x-amzn-errortype"]
    return answer.body.partition("<Code>")[2].partition("</Code>")[0]


def told_of_the_inside(answer: Answer) -> list[str]:
    return [word for word in INSIDE if word in answer.body.lower()]


@requirement("IAM-GATE-03", "IAM-SEC-01")
@pytest.mark.parametrize(
    ("service", "form", "status", "code"),
    [
        ("sts", "Action=FetchCallerIdentity&Version=2011-06-15", 400, "InvalidAction"),
        ("iam", "Action=FetchRole&Version=2010-05-08", 501, "NotImplemented"),
        ("ec2", "Action=FetchInstances&Version=2016-11-15", 501, "NotImplemented"),
        ("elbv2", "Action=FetchLoadBalancers&Version=2015-12-01", 501, "NotImplemented"),
    ],
)
def test_operations_that_are_none_are_named(aws: Aws, service: str, form: str, status: int, code: str) -> None:
    """Also to the administrator, in the protocol of the service, and with an entry in the journal."""
    before = len(aws.control.journal())

    answer = query(aws, service, form.encode())

    assert (answer.status, code_of(answer)) == (status, code)
    assert form.partition("=")[2].partition("&")[0] in answer.body
    assert [entry["error_code"] for entry in aws.control.journal()[before:]] == [code]


@requirement("IAM-GATE-03", "IAM-SEC-01")
def test_paths_and_targets_that_are_none_are_named(aws: Aws) -> None:
    """REST and JSON name what they want in the path or in a header."""
    path = send(aws, "eks", "PATCH", "/clusters")
    target = send(aws, "kms", body=b"{}", headers={"Content-Type": JSON, "X-Amz-Target": "TrentService.FetchKey"})

    assert [(answer.status, code_of(answer)) for answer in (path, target)] == [(501, "NotImplemented")] * 2
    assert "eks:PATCH /clusters" in path.body
    assert "kms:FetchKey" in target.body


@requirement("IAM-SEC-01", "IAM-SEC-08")
@pytest.mark.parametrize("service", TARGETS)
@pytest.mark.parametrize(
    "body",
    [b"[]", b"nonsense", b"\xff\xfe", b"[" * 100_000, b'{"x":' * 40 + b"1" + b"}" * 40],
    ids=["array", "text", "binary", "arrays", "objects"],
)
def test_bodies_that_are_no_json_objects_are_refused(aws: Aws, service: str, body: bytes) -> None:
    answer = send(aws, service, body=body, headers={"Content-Type": JSON, "X-Amz-Target": TARGETS[service]})

    assert (answer.status, code_of(answer)) == (400, "SerializationException")
    assert told_of_the_inside(answer) == []


@requirement("IAM-SEC-01")
@pytest.mark.parametrize(
    ("service", "parameters"),
    [
        ("cloudtrail", {"StartTime": "yesterday"}),
        ("cloudtrail", {"LookupAttributes": {"AttributeKey": 1}}),
        ("dynamodb", {"TableName": "t", "Item": [1]}),
        ("dynamodb", {"TableName": {"S": "t"}, "Item": {}}),
        ("secretsmanager", {"SecretId": {"a": 1}}),
        ("secretsmanager", {"SecretId": ["a"]}),
        ("secretsmanager", {"SecretId": 1}),
        ("secretsmanager", {"SecretId": None}),
    ],
)
def test_members_of_other_types_are_refused(aws: Aws, service: str, parameters: dict[str, object]) -> None:
    """None of them gets as far as to break something."""
    headers = {"Content-Type": JSON, "X-Amz-Target": TARGETS[service]}

    answer = send(aws, service, body=json.dumps(parameters).encode(), headers=headers)

    assert (answer.status, code_of(answer)) == (400, "SerializationException")
    assert told_of_the_inside(answer) == []


@requirement("IAM-SEC-01")
@pytest.mark.parametrize(
    ("service", "form", "code"),
    [
        ("sts", b"", "ValidationError"),
        ("sts", b"\xff\xfe\x00", "ValidationError"),
        ("sts", b"Action=AssumeRole&Version=2011-06-15&RoleArn=x&DurationSeconds=long", "ValidationError"),
        ("sts", b"Action=AssumeRole&Version=2011-06-15&Tags.member.x.Key=1", "ValidationError"),
        ("iam", b"Action=CreateRole&Version=2010-05-08&RoleName=r&MaxSessionDuration=long", "ValidationError"),
        ("ec2", b"Action=DescribeInstances&Version=2016-11-15&MaxResults=many", "InvalidParameterValue"),
        ("elbv2", b"Action=DescribeRules&Version=2015-12-01&PageSize=large", "ValidationError"),
    ],
    ids=["empty", "binary", "duration", "tags", "session", "results", "page"],
)
def test_forms_that_cannot_be_read_are_refused(aws: Aws, service: str, form: bytes, code: str) -> None:
    answer = query(aws, service, form)

    assert (answer.status, code_of(answer)) == (400, code)
    assert told_of_the_inside(answer) == []


ENTITIES = b"".join(b'<!ENTITY %c "%s">' % (98 + level, b"&%c;" % (97 + level) * 10) for level in range(9))
BOMB = b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">' + ENTITIES + b"]><Delete><Object><Key>&j;</Key></Object></Delete>"
FOREIGN_ENTITY = (
    b'<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/hostname">]><Delete><Object><Key>&a;</Key></Object></Delete>'
)


@requirement("IAM-SEC-01")
@pytest.mark.parametrize(
    "body",
    [b"", b"junk", b"\xff\x00", b"<Other/>", b"<a>" * 20_000 + b"</a>" * 20_000, BOMB, FOREIGN_ENTITY],
    ids=["empty", "junk", "binary", "other", "deep", "bomb", "foreign-entity"],
)
def test_xml_that_is_none_is_refused(notes: Aws, body: bytes) -> None:
    """Nothing is expanded, and nothing of the machine is read."""
    answer = send(notes, "s3", target="/?delete", body=body)

    assert (answer.status, code_of(answer)) == (400, "MalformedXML")
    assert told_of_the_inside(answer) == []


@requirement("IAM-SEC-01")
@pytest.mark.parametrize("target", ["/?list-type=2&max-keys=many", "/?max-keys=many"])
def test_parameters_of_s3_that_are_none_are_refused(notes: Aws, target: str) -> None:
    answer = send(notes, "s3", "GET", target)

    assert (answer.status, code_of(answer)) == (400, "InvalidArgument")
    assert told_of_the_inside(answer) == []


@requirement("IAM-SEC-01")
@pytest.mark.parametrize(
    "inner", [b"[" * 9000, b'["a","b"]', b"{}", b"\xff"], ids=["deep", "forged", "object", "binary"]
)
def test_page_tokens_that_nobody_gave_are_refused(aws: Aws, inner: bytes) -> None:
    """Whatever is in them."""
    body = json.dumps({"NextToken": base64.urlsafe_b64encode(inner).decode()}).encode()

    answer = send(aws, "cloudtrail", body=body, headers={"Content-Type": JSON, "X-Amz-Target": TARGETS["cloudtrail"]})

    assert (answer.status, code_of(answer)) == (400, "InvalidNextTokenException")
