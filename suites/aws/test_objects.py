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
from harness.conformance.recording import check
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


@requirement("IAM-GATE-04")
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


@requirement("IAM-S3-05", "IAM-S3-06")
@pytest.mark.usefixtures("bucket")
def test_what_is_not_there_is_not_told(user: Callable[..., Any]) -> None:
    """Without the right to list, whatever the prefix, a missing object is a 403; without that to read, every one is."""
    listing = allow("s3:ListBucket", f"arn:aws:s3:::{BUCKET}") | {
        "Condition": {"StringLike": {"s3:prefix": "team-a/*"}}
    }
    of_prefix = user(allow("s3:GetObject", "*"), listing)
    seen = refused(lambda: of_prefix.get_object(Bucket=BUCKET, Key="team-a/none"))
    text = (
        f"User: arn:aws:iam::{ACCOUNT}:user/ana is not authorized to perform: s3:ListBucket "
        f'on resource: "arn:aws:s3:::{BUCKET}" because no identity-based policy allows the s3:ListBucket action'
    )
    check("IAM-S3-05", expected=(403, "AccessDenied", text), observed=seen)

    lister = user(allow("s3:ListBucket", "*"))
    present, absent = (refused(lambda key=key: lister.get_object(Bucket=BUCKET, Key=key)) for key in ("hello.txt", "n"))
    check("IAM-S3-06", expected=present[:2], observed=absent[:2])
    check("IAM-S3-06", what="text", expected=present[2].replace("/hello.txt", "/n"), observed=absent[2])


@requirement("IAM-S3-08")
@pytest.mark.usefixtures("bucket")
def test_missing_object_can_be_deleted(user: Callable[..., Any]) -> None:
    """The right to delete is enough, and nothing is said of the object."""
    s3 = user(allow("s3:DeleteObject", "*"))

    assert s3.delete_object(Bucket=BUCKET, Key="none")["ResponseMetadata"]["HTTPStatusCode"] == 204


@requirement("IAM-SEC-03", "IAM-GATE-06", "IAM-S3-09")
def test_object_read_is_the_one_authorised(bucket: Any, user: Callable[..., Any]) -> None:
    """Dots, slashes and escapes in a key never lead to another object than the one that IAM saw."""
    bucket.put_object(Bucket=BUCKET, Key="team-b/file.txt", Body=b"of team b")
    bucket.put_object(Bucket=BUCKET, Key="team-a/a%2Fb", Body=b"escaped")
    bucket.put_object(Bucket=BUCKET, Key="team-a/a/b", Body=b"slash")
    s3 = user(allow("s3:GetObject", f"arn:aws:s3:::{BUCKET}/team-a/*"), allow("s3:ListBucket", "*"))

    for key in ("team-a/../team-b/file.txt", "team-a/..%2Fteam-b/file.txt", "team-a/./../team-b/file.txt"):
        seen = refused(lambda key=key: s3.get_object(Bucket=BUCKET, Key=key))[:2]
        check("IAM-SEC-03", what=key, expected=(404, "NoSuchKey"), observed=seen)
    plain = refused(lambda: s3.get_object(Bucket=BUCKET, Key="team-b/file.txt"))[0]
    check("IAM-SEC-03", what="the object itself", expected=403, observed=plain)
    escaped, slash = (s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in ("team-a/a%2Fb", "team-a/a/b"))
    check("IAM-GATE-06", expected=["escaped", "slash"], observed=[escaped.decode(), slash.decode()])
    check("IAM-S3-09", expected=["escaped", "slash"], observed=[escaped.decode(), slash.decode()])


@requirement("IAM-GATE-02")
@pytest.mark.usefixtures("bucket")
def test_first_missing_permission_is_named(user: Callable[..., Any]) -> None:
    """A copy needs the right to read and that to write; tags want a third."""

    def copy(*actions: str, **tags: str) -> str:
        s3 = user(allow(["s3:ListBucket", *actions], "*"))
        source = {"Bucket": BUCKET, "Key": "hello.txt"}
        try:
            s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=source, **tags)
        except ClientError as error:
            return error.response["Error"]["Message"].split("perform: ")[1].split()[0]
        return "done"

    with_tags = {"Tagging": "a=1", "TaggingDirective": "REPLACE"}
    check("IAM-GATE-02", expected="s3:GetObject", observed=copy("s3:PutObject"))
    check("IAM-GATE-02", expected="s3:PutObject", observed=copy("s3:GetObject"))
    check("IAM-GATE-02", expected="s3:PutObjectTagging", observed=copy("s3:GetObject", "s3:PutObject", **with_tags))
    check("IAM-GATE-02", expected="done", observed=copy("s3:GetObject", "s3:PutObject"))


@requirement("IAM-EVAL-10")
def test_permissions_come_from_everywhere(aws: Aws, bucket: Any, user: Callable[..., Any]) -> None:
    """A user has those of its groups too, also with the keys of GetSessionToken; a role attached and inline ones."""
    del bucket
    iam, s3 = aws.client("iam"), user(allow("sqs:*", "*"))
    reading = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:GetObject", "*")]})
    listing = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:ListBucket", "*")]})

    def may(client: Any) -> tuple[bool, bool]:
        calls = (
            lambda: client.get_object(Bucket=BUCKET, Key="hello.txt"),
            lambda: client.list_objects_v2(Bucket=BUCKET),
        )
        allowed: list[bool] = []
        for call in calls:
            try:
                call()
            except ClientError:
                allowed.append(False)
            else:
                allowed.append(True)
        return allowed[0], allowed[1]

    managed = iam.create_policy(PolicyName="listing", PolicyDocument=listing)["Policy"]["Arn"]
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName="both", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.create_group(GroupName="readers")
    try:
        check("IAM-EVAL-10", what="user alone", expected=(False, False), observed=may(s3))
        iam.put_group_policy(GroupName="readers", PolicyName="p", PolicyDocument=reading)
        iam.attach_group_policy(GroupName="readers", PolicyArn=managed)
        iam.add_user_to_group(GroupName="readers", UserName="ana")
        check("IAM-EVAL-10", what="user in a group", expected=(True, True), observed=may(s3))
        iam.put_role_policy(RoleName="both", PolicyName="p", PolicyDocument=reading)
        iam.attach_role_policy(RoleName="both", PolicyArn=managed)
        session = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
        check("IAM-EVAL-10", what="role", expected=(True, True), observed=may(aws.client("s3", session)))
        administrator = aws.client("sts").get_session_token()["Credentials"]
        check("IAM-EVAL-10", what="session token", expected=(True, True), observed=may(aws.client("s3", administrator)))
    finally:
        iam.remove_user_from_group(GroupName="readers", UserName="ana")
        iam.detach_group_policy(GroupName="readers", PolicyArn=managed)
        iam.delete_group_policy(GroupName="readers", PolicyName="p")
        iam.delete_group(GroupName="readers")
        iam.detach_role_policy(RoleName="both", PolicyArn=managed)
        iam.delete_role_policy(RoleName="both", PolicyName="p")
        iam.delete_role(RoleName="both")
        iam.delete_policy(PolicyArn=managed)


@requirement("IAM-SIG-30")
def test_a_changed_body_leaves_no_object(aws: Aws, bucket: Any) -> None:
    """What was changed on its way is refused, and nothing of it is kept."""

    def tamper(request: Any, **_: object) -> None:
        request.body = b"tampered"

    s3 = aws.client("s3")
    s3.meta.events.register("before-send.s3.PutObject", tamper)

    seen = refused(lambda: s3.put_object(Bucket=BUCKET, Key="new", Body=b"original"))

    assert seen[:2] == (400, "XAmzContentSHA256Mismatch")
    assert [entry["Key"] for entry in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["hello.txt"]
