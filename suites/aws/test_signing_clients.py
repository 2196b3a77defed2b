"""SigV4 as AWS's own clients sign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config

from harness.cloud.sigv4 import RawRequest, is_anonymous
from harness.conformance.marks import requirement
from harness.subject.signed_requests import (
    KEY,
    NOW,
    SECRET,
    SESSION,
    TOKEN,
    V1,
    check,
    refusal,
    with_headers,
)

# --- real clients ------------------------------------------------------------------------------


class Sent(Exception):  # noqa: N818 - carries a request out of botocore, no error
    def __init__(self, request: AWSPreparedRequest) -> None:
        super().__init__("request captured")
        self.request = request


def signed_by_botocore(service: str, operation: str, endpoint: str | None = None, **parameters: Any) -> RawRequest:
    """Let botocore sign a call and return what it would put on the wire, except for HTTP's own chunked encoding."""
    session = botocore.session.Session()
    session.set_credentials(KEY, SECRET, TOKEN)
    client: Any = session.create_client(
        service, region_name="eu-west-1", endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1})
    )

    def capture(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        raise Sent(request)

    client.meta.events.register("before-send", capture)
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        with pytest.raises(Sent) as caught:
            getattr(client, operation)(**parameters)
    return raw(caught.value.request)


def raw(request: AWSPreparedRequest) -> RawRequest:
    url = urlsplit(request.url)
    body: Any = request.body
    if body is None:
        content = b""
    else:
        content = body.read() if hasattr(body, "read") else body
        content = content.encode() if isinstance(content, str) else bytes(content)
    headers = [
        (name, value.decode() if isinstance(value, bytes) else str(value)) for name, value in request.headers.items()
    ]
    if not any(name.lower() == "host" for name, _ in headers):
        headers.append(("Host", url.netloc))
    return RawRequest(request.method, url.path, url.query, headers, content)


CALLS: Mapping[str, tuple[str, str, str | None, dict[str, Any]]] = {
    "sts query": ("sts", "get_caller_identity", None, {}),
    "s3 list": ("s3", "list_objects_v2", None, {"Bucket": "notes", "Prefix": "team a/ü+", "Delimiter": "/"}),
    "s3 odd key": ("s3", "get_object", None, {"Bucket": "notes", "Key": "a//b/../ü +%.txt"}),
    "s3 path style": ("s3", "head_object", "http://10.0.0.1:4566", {"Bucket": "notes", "Key": "k"}),
    "s3 metadata": ("s3", "put_object", "http://10.0.0.1:4566", {"Bucket": "n", "Key": "k", "Metadata": {"a": "b  c"}, "Body": b"x"}),  # noqa: E501 - one case a line
    "eks encoded path": ("eks", "tag_resource", None, {"resourceArn": "arn:aws:eks:eu-west-1:123456789012:cluster/pod-identity-lab", "tags": {"a": "b"}}),  # noqa: E501 - one case a line
    "eks query": ("eks", "list_pod_identity_associations", None, {"clusterName": "c", "namespace": "team-a", "maxResults": 5}),  # noqa: E501 - one case a line
    "eks-auth": ("eks-auth", "assume_role_for_pod_identity", None, {"clusterName": "pod-identity-lab", "token": "e30.e30.e30"}),  # noqa: E501 - one case a line
    "secrets": ("secretsmanager", "get_secret_value", None, {"SecretId": "demo/app-config"}),
    "ec2": ("ec2", "describe_instances", None, {}),
    "elbv2": ("elbv2", "describe_load_balancers", None, {}),
}  # fmt: skip
SIGNING_NAMES = {"elbv2": "elasticloadbalancing"}


@requirement("IAM-SIG-01", "IAM-SIG-02")
@pytest.mark.parametrize("name", CALLS)
def test_botocores_requests_verify_and_their_shadows_do_not(name: str) -> None:
    service, operation, endpoint, parameters = CALLS[name]
    request = signed_by_botocore(service, operation, endpoint, **parameters)
    signing_name = SIGNING_NAMES.get(service, service)
    forged = replace(request, path=request.path + "x")

    assert check(request, signing_name).credential == SESSION
    assert refusal(forged, signing_name).code in {"SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure"}


@requirement("IAM-SIG-30")
def test_botocore_sends_a_body_hash_over_http() -> None:
    request = signed_by_botocore("s3", "put_object", "http://10.0.0.1:4566", Bucket="notes", Key="k", Body=b"hello")

    result = check(request, "s3")

    assert (result.body, result.was_chunked) == (b"hello", False)
    assert refusal(replace(request, body=b"hallo"), "s3").code == "XAmzContentSHA256Mismatch"


@requirement("IAM-SIG-30")
def test_botocore_sends_a_checksum_trailer_over_https() -> None:
    request = signed_by_botocore("s3", "put_object", None, Bucket="notes", Key="k", Body=b"hello")

    result = check(request, "s3")

    assert request.header_values("x-amz-content-sha256") == ["STREAMING-UNSIGNED-PAYLOAD-TRAILER"]
    assert (result.body, result.was_chunked) == (b"hello", True)
    assert result.trailers == (("x-amz-checksum-crc32", "NhCmhg=="),)
    assert refusal(replace(request, body=request.body.replace(b"hello", b"hallo")), "s3").code == "BadDigest"


def presigned_by_botocore(signature_version: str) -> RawRequest:
    session = botocore.session.Session()
    session.set_credentials(KEY, SECRET, TOKEN)
    client: Any = session.create_client(
        "s3", region_name="eu-west-1", config=Config(signature_version=signature_version)
    )
    with mock.patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        url = urlsplit(client.generate_presigned_url("get_object", {"Bucket": "notes", "Key": "team-a/ü +.txt"}, 60))
    return RawRequest("GET", url.path, url.query, [("Host", url.netloc), ("User-Agent", "curl/8")])


@requirement("IAM-SIG-01")
def test_botocores_presigned_url_verifies() -> None:
    request = presigned_by_botocore("s3v4")

    assert check(request, "s3").expires_in == 60
    assert refusal(replace(request, method="PUT"), "s3").code == "SignatureDoesNotMatch"


@requirement("IAM-SIG-20")
def test_botocores_default_presigned_url_is_sigv2_and_refused() -> None:
    request = presigned_by_botocore("s3")

    assert not is_anonymous(request)
    assert refusal(request, "s3").code == "InvalidRequest"


@requirement("IAM-SIG-04")
@pytest.mark.parametrize(
    ("service", "operation", "endpoint", "parameters"),
    [
        ("sts", "get_caller_identity", "https://sts.amazonaws.com", {}),
        ("sts", "get_caller_identity", "https://sts.eu-west-1.amazonaws.com", {}),
        ("s3", "get_object", "https://s3.amazonaws.com", {"Bucket": "notes", "Key": "k"}),
        ("s3", "get_object", None, {"Bucket": "notes", "Key": "k"}),
        ("s3", "get_object", "http://10.0.0.1:4566", {"Bucket": "notes", "Key": "k"}),
        ("eks-auth", "assume_role_for_pod_identity", None, {"clusterName": "c", "token": "e30.e30.e30"}),
    ],
)
def test_the_host_is_the_one_sent(
    service: str, operation: str, endpoint: str | None, parameters: dict[str, Any]
) -> None:
    """Whatever name a client uses is the one that is signed, port included; another one breaks the signature."""
    request = signed_by_botocore(service, operation, endpoint, **parameters)

    assert check(request, service).credential == SESSION
    assert refusal(with_headers(request, host="elsewhere.amazonaws.com"), service).code in {
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
    }


@requirement("IAM-MSG-21")
@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ({"form", "key", "token", "signature", "clock", "expiry"}, "AuthorizationHeaderMalformed"),
        ({"key", "token", "signature", "clock", "expiry"}, "InvalidAccessKeyId"),
        ({"token", "signature", "clock", "expiry"}, "InvalidToken"),
        ({"signature", "clock", "expiry"}, "SignatureDoesNotMatch"),
        ({"clock", "expiry"}, "RequestTimeTooSkewed"),
        ({"expiry"}, "ExpiredToken"),
    ],
)
def test_faults_are_told_in_order(faults: set[str], code: str) -> None:
    """Of several faults the first is told."""
    request, session = V1, SESSION
    if "signature" in faults:
        request = replace(request, method="PUT")
    if "form" in faults:
        request = with_headers(request, authorization="AWS4-HMAC-SHA256 Credential=a/b")
    if "key" in faults:
        session = replace(session, access_key_id="ASIAOTHER")
    if "token" in faults:
        session = replace(session, session_token="IQoAnotherToken==")
    if "expiry" in faults:
        session = replace(session, expires_at=NOW - timedelta(seconds=1))
    at = NOW + timedelta(seconds=901 if "clock" in faults else 0)

    assert refusal(request, "s3", session=session, at=at).code == code
