"""S3 behind the gate: rights, bodies, owners, AWS's words."""

from __future__ import annotations

import dataclasses
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from harness.cloud.localstack.bootstrap import AccessKey
from harness.conformance.marks import requirement
from harness.subject.aws import ACCOUNT, Aws, refused

BUCKET = "my-app-bucket"


@pytest.fixture
def bucket(aws: Aws) -> Iterator[Any]:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_object(Bucket=BUCKET, Key="hello.txt", Body=b"Hello from Pod Identity!\n")
    yield s3
    for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=entry["Key"])
    s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def user(aws: Aws) -> Iterator[Callable[[str], Any]]:
    """A user with keys of its own and this inline policy; returns its client."""
    iam = aws.client("iam")
    iam.create_user(UserName="ana")
    key = iam.create_access_key(UserName="ana")["AccessKey"]

    def with_policy(*statements: dict[str, Any]) -> Any:
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        iam.put_user_policy(UserName="ana", PolicyName="inline", PolicyDocument=json.dumps(document))
        return aws.client("s3", _key(key))

    yield with_policy
    for name in iam.list_user_policies(UserName="ana")["PolicyNames"]:
        iam.delete_user_policy(UserName="ana", PolicyName=name)
    for entry in iam.list_access_keys(UserName="ana")["AccessKeyMetadata"]:
        iam.delete_access_key(UserName="ana", AccessKeyId=entry["AccessKeyId"])
    iam.delete_user(UserName="ana")


def _key(data: dict[str, str]) -> Any:
    return AccessKey(data["AccessKeyId"], data["SecretAccessKey"])


def allow(action: str | list[str], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


@requirement("IAM-MSG-01", "IAM-MSG-02", "IAM-MSG-03")
@pytest.mark.usefixtures("bucket")
def test_denied_read_names_caller_action_object_and_reason(user: Callable[..., Any]) -> None:
    s3 = user(allow("s3:ListBucket", f"arn:aws:s3:::{BUCKET}"))

    assert refused(lambda: s3.get_object(Bucket=BUCKET, Key="hello.txt")) == (
        403,
        "AccessDenied",
        (
            f"User: arn:aws:iam::{ACCOUNT}:user/ana is not authorized to perform: s3:GetObject "
            'on resource: "arn:aws:s3:::my-app-bucket/hello.txt" '
            "because no identity-based policy allows the s3:GetObject action"
        ),
    )
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 1


@requirement("IAM-GATE-01")
def test_denied_write_leaves_no_object(bucket: Any, user: Callable[..., Any]) -> None:
    s3 = user(allow(["s3:GetObject", "s3:ListBucket"], "*"))

    assert refused(lambda: s3.put_object(Bucket=BUCKET, Key="new.txt", Body=b"x"))[:2] == (403, "AccessDenied")
    assert [entry["Key"] for entry in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["hello.txt"]


@requirement("API-904", "IAM-GATE-04")
@pytest.mark.usefixtures("bucket")
def test_policy_change_acts_at_once(user: Callable[..., Any]) -> None:
    assert refused(lambda: user(allow("s3:ListBucket", "*")).get_object(Bucket=BUCKET, Key="hello.txt"))[0] == 403
    assert (
        user(allow("s3:GetObject", "*")).get_object(Bucket=BUCKET, Key="hello.txt")["Body"].read().startswith(b"Hello")
    )


@requirement("IAM-SIG-10")
def test_deleted_and_inactive_keys_are_unknown(aws: Aws, user: Callable[..., Any]) -> None:
    s3 = user(allow("s3:*", "*"))
    iam = aws.client("iam")
    key_id = iam.list_access_keys(UserName="ana")["AccessKeyMetadata"][0]["AccessKeyId"]
    s3.list_buckets()

    iam.update_access_key(UserName="ana", AccessKeyId=key_id, Status="Inactive")
    assert refused(s3.list_buckets)[:2] == (403, "InvalidAccessKeyId")
    iam.update_access_key(UserName="ana", AccessKeyId=key_id, Status="Active")
    s3.list_buckets()
    iam.delete_access_key(UserName="ana", AccessKeyId=key_id)
    assert refused(s3.list_buckets)[:2] == (403, "InvalidAccessKeyId")


@requirement("IAM-S3-04")
@pytest.mark.usefixtures("bucket")
def test_missing_object_is_told_only_to_who_may_list(user: Callable[..., Any]) -> None:
    reader = user(allow("s3:GetObject", f"arn:aws:s3:::{BUCKET}/*"))
    assert refused(lambda: reader.get_object(Bucket=BUCKET, Key="none"))[:2] == (403, "AccessDenied")

    lister = user(allow("s3:GetObject", f"arn:aws:s3:::{BUCKET}/*"), allow("s3:ListBucket", f"arn:aws:s3:::{BUCKET}"))
    assert refused(lambda: lister.get_object(Bucket=BUCKET, Key="none"))[:2] == (404, "NoSuchKey")


@requirement("IAM-S3-02", "IAM-S3-03")
@pytest.mark.usefixtures("bucket")
def test_head_of_a_denied_object_is_a_bare_403(user: Callable[..., Any]) -> None:
    s3 = user(allow("s3:ListBucket", "*"))

    assert refused(lambda: s3.head_object(Bucket=BUCKET, Key="hello.txt")) == (403, "403", "Forbidden")


@requirement("IAM-S3-07")
def test_missing_bucket_is_told(user: Callable[..., Any]) -> None:
    assert refused(lambda: user(allow("sts:*", "*")).list_objects_v2(Bucket="no-such-bucket-1"))[:2] == (
        404,
        "NoSuchBucket",
    )


@requirement("IAM-EVAL-04", "IAM-S3-10", "IAM-MSG-05")
def test_other_account_needs_the_buckets_consent(aws: Aws, bucket: Any) -> None:
    """Its administrator is denied without a bucket policy and allowed with one."""
    other = aws.other_account("s3")
    assert refused(lambda: other.get_object(Bucket=BUCKET, Key="hello.txt")) == (403, "AccessDenied", "Access Denied")

    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "987654321098"},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{BUCKET}/*",
    }
    bucket.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))

    assert other.get_object(Bucket=BUCKET, Key="hello.txt")["Body"].read() == b"Hello from Pod Identity!\n"
    assert refused(lambda: other.delete_object(Bucket=BUCKET, Key="hello.txt"))[:2] == (403, "AccessDenied")


@requirement("IAM-S3-09")
@pytest.mark.parametrize("key", ["a b+c~d%25.txt", "ü/ö.txt", "x//y/../z"])
def test_unusual_keys_arrive_unchanged(bucket: Any, key: str) -> None:
    bucket.put_object(Bucket=BUCKET, Key=key, Body=key.encode())

    assert bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()
    assert key in [entry["Key"] for entry in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]]


@requirement("IAM-SIG-31")
@pytest.mark.parametrize("size", [0, 5, 70_000, 3_000_000])
@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256"])
def test_streamed_uploads_arrive_unchanged(bucket: Any, size: int, algorithm: str, tmp_path: Any) -> None:
    """Chunked uploads with a trailing checksum reach the bucket as the plain bytes."""
    data = os.urandom(size)
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as file:
        bucket.put_object(Bucket=BUCKET, Key="big", Body=file, ChecksumAlgorithm=algorithm)

    got = bucket.get_object(Bucket=BUCKET, Key="big")
    assert got["Body"].read() == data
    assert "aws-chunked" not in got.get("ContentEncoding", "")


@requirement("IAM-SIG-31")
def test_multipart_upload_works(bucket: Any) -> None:
    upload = bucket.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    data = os.urandom(5 * 1024 * 1024)
    parts = [
        {
            "PartNumber": number,
            "ETag": bucket.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=number, Body=part)[
                "ETag"
            ],
        }
        for number, part in enumerate((data, b"end"), start=1)
    ]
    bucket.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})

    assert bucket.get_object(Bucket=BUCKET, Key="parts")["Body"].read() == data + b"end"


@requirement("IAM-GATE-01")
def test_presigned_url_has_the_signers_rights(bucket: Any, user: Callable[..., Any]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    parameters = {"Bucket": BUCKET, "Key": "hello.txt"}
    good = bucket.generate_presigned_url("get_object", Params=parameters, ExpiresIn=60)
    assert opener.open(good).read() == b"Hello from Pod Identity!\n"

    powerless = user(allow("sts:*", "*")).generate_presigned_url("get_object", Params=parameters)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        opener.open(powerless)
    assert refusal.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as refusal:
        opener.open(good.replace("hello.txt", "other.txt"))
    assert b"SignatureDoesNotMatch" in refusal.value.read()


@requirement("IAM-GATE-01")
def test_delete_of_several_objects_is_decided_one_by_one(bucket: Any, user: Callable[..., Any]) -> None:
    for key in ("keep", "drop"):
        bucket.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    s3 = user(allow("s3:DeleteObject", f"arn:aws:s3:::{BUCKET}/drop"))

    both = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "keep"}, {"Key": "drop"}]})
    none = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "keep"}]})

    assert [entry["Key"] for entry in both["Deleted"]] == ["drop"]
    assert [(entry["Key"], entry["Code"]) for entry in both["Errors"]] == [("keep", "AccessDenied")]
    assert [entry["Key"] for entry in none["Errors"]] == ["keep"]
    assert {entry["Key"] for entry in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]} == {"hello.txt", "keep"}


@requirement("IAM-S3-14")
@pytest.mark.usefixtures("bucket")
def test_repeated_prefix_is_refused(aws: Aws) -> None:
    s3 = aws.client("s3")
    s3.meta.events.register(
        "before-sign", lambda request, **_: setattr(request, "url", request.url + "&prefix=team-b%2F")
    )

    assert refused(lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix="team-a/"))[:2] == (400, "InvalidArgument")


@requirement("IAM-MSG-20")
def test_wrong_secret_shows_the_calculation(aws: Aws) -> None:
    key = dataclasses.replace(aws.bootstrap.account(ACCOUNT).administrator, secret_access_key="x" * 40)
    with pytest.raises(ClientError) as error:
        aws.client("s3", key).list_buckets()

    assert {"AWSAccessKeyId", "StringToSign", "SignatureProvided", "CanonicalRequest"} <= error.value.response[
        "Error"
    ].keys()
    assert error.value.response["ResponseMetadata"]["HostId"]
