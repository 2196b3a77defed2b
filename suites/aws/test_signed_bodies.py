"""SigV4 in a query, and over bodies: hashes, chunks, trailers, checksums."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cloud.sigv4.canonical import canonical_path
from harness.conformance.marks import requirement
from harness.subject.signed_requests import (
    NOW,
    SESSION,
    V1,
    V3,
    V4,
    V5,
    V6,
    check,
    refusal,
    resigned,
    unsigned_trailer_put,
    with_headers,
)

# --- presigned ---------------------------------------------------------------------------------


@requirement("IAM-SIG-22")
def test_a_presigned_url_is_valid_until_its_last_second() -> None:
    result = check(V4, "s3", at=NOW + timedelta(seconds=300))

    assert result.form == "presigned"
    assert result.expires_in == 300


@requirement("IAM-SIG-22")
def test_an_expired_presigned_url_says_when() -> None:
    error = refusal(V4, "s3", at=NOW + timedelta(seconds=301))

    assert (error.status, error.code, error.message) == (403, "AccessDenied", "Request has expired")
    assert error.fields == {
        "X-Amz-Expires": "300",
        "Expires": "2026-04-10T14:05:00Z",
        "ServerTime": "2026-04-10T14:05:01Z",
    }


@requirement("IAM-SIG-10")
def test_a_presigned_url_never_outlives_its_session() -> None:
    error = refusal(
        V4, "s3", at=NOW + timedelta(seconds=200), session=replace(SESSION, expires_at=NOW + timedelta(seconds=100))
    )

    assert error.code == "ExpiredToken"


@requirement("IAM-SIG-21")
def test_more_than_a_week_is_refused() -> None:
    error = refusal(replace(V4, query=V4.query.replace("Expires=300", "Expires=604801")), "s3")

    assert (error.status, error.code) == (400, "AuthorizationQueryParametersError")
    assert error.message == "X-Amz-Expires must be less than a week (in seconds) that is 604800"


@requirement("IAM-MSG-20")
@pytest.mark.parametrize(
    "name", ["X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Credential", "X-Amz-Signature"]
)
def test_a_presigned_url_needs_all_its_parameters(name: str) -> None:
    query = "&".join(item for item in V4.query.split("&") if not item.startswith(f"{name}="))

    error = refusal(replace(V4, query=query), "s3")

    assert (error.status, error.code) == (400, "AuthorizationQueryParametersError")


@requirement("IAM-SIG-01")
def test_a_header_under_a_presigned_signature_must_be_sent() -> None:
    assert refusal(with_headers(V5, x_k8s_aws_id=None), "sts").code == "SignatureDoesNotMatch"
    assert refusal(with_headers(V5, x_k8s_aws_id="other"), "sts").code == "SignatureDoesNotMatch"


# --- bodies ------------------------------------------------------------------------------------


@requirement("IAM-SIG-30")
def test_signed_chunks_are_decoded_and_their_trailer_becomes_a_header() -> None:
    result = check(V6, "s3")

    assert result.body == b"x" * 8192 + b"tail of data"
    assert result.was_chunked
    assert result.trailers == (("x-amz-checksum-crc32", "4rUZNw=="),)


@requirement("IAM-SIG-30", "IAM-SIG-33")
@pytest.mark.parametrize(
    ("old", "new", "status", "code"),
    [
        (b"tail of data", b"tail of dat4", 403, "SignatureDoesNotMatch"),
        (b"4rUZNw==", b"4rUZNg==", 403, "SignatureDoesNotMatch"),
        (b"4fc400d6", b"4fc400d7", 403, "SignatureDoesNotMatch"),
        (b"006fbf0b", b"106fbf0b", 403, "SignatureDoesNotMatch"),
        (b"c;chunk-signature", b"z;chunk-signature", 400, "InvalidRequest"),
        (b"c;chunk-signature", b"d;chunk-signature", 403, "SignatureDoesNotMatch"),
        (b"c;chunk-signature", b"fffffff;chunk-signature", 400, "IncompleteBody"),
        (b"x-amz-checksum-crc32:4rUZNw==\r\n", b"", 400, "MalformedTrailerError"),
    ],
)
def test_a_tampered_chunked_body_is_refused(old: bytes, new: bytes, status: int, code: str) -> None:
    assert V6.body.count(old) == 1

    error = refusal(replace(V6, body=V6.body.replace(old, new)), "s3")

    assert (error.status, error.code) == (status, code)


@requirement("IAM-SIG-30")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crc32", "NhCmhg=="),
        ("crc32c", "mnG7TA=="),
        ("crc64nvme", "M3eFcAZSQlc="),
        ("sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00="),
        ("sha256", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="),
    ],
)
def test_each_kind_of_trailer_checksum_is_verified(name: str, value: str) -> None:
    good = f"5\r\nhello\r\n0\r\nx-amz-checksum-{name}:{value}\r\n\r\n".encode()
    bad = good.replace(b"hello", b"hallo")

    result = check(unsigned_trailer_put(good, f"x-amz-checksum-{name}"), "s3")
    error = refusal(unsigned_trailer_put(bad, f"x-amz-checksum-{name}"), "s3")

    assert result.body == b"hello"
    assert result.trailers == ((f"x-amz-checksum-{name}", value),)
    assert (error.status, error.code) == (400, "BadDigest")


@requirement("IAM-SIG-30")
def test_an_unsigned_body_without_checksum_is_refused() -> None:
    error = refusal(unsigned_trailer_put(b"5\r\nhello\r\n0\r\n\r\n"), "s3")

    assert (error.status, error.code) == (400, "MalformedTrailerError")


@requirement("IAM-SIG-33")
def test_a_decoded_length_is_needed_and_must_be_right() -> None:
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"

    absent = refusal(unsigned_trailer_put(body, length=None), "s3")
    wrong = refusal(unsigned_trailer_put(body, length="6"), "s3")

    assert (absent.status, absent.code) == (411, "MissingContentLength")
    assert (wrong.status, wrong.code) == (400, "IncompleteBody")


@requirement("IAM-SIG-33")
@given(st.binary(max_size=200))
def test_no_framing_crashes_the_decoder(body: bytes) -> None:
    assert refusal(replace(V6, body=body), "s3").code in {"IncompleteBody", "InvalidRequest", "SignatureDoesNotMatch"}


@requirement("IAM-SIG-30")
@pytest.mark.parametrize(
    ("value", "status", "code", "text"),
    [
        (None, 400, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"),
        ("nonsense", 400, "InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD or a valid sha256 value."),  # noqa: E501 - one case a line
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", 400, "InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."),  # noqa: E501 - one case a line
    ],
)  # fmt: skip
def test_s3_needs_a_payload_hash_it_knows(value: str | None, status: int, code: str, text: str) -> None:
    error = refusal(with_headers(V1, x_amz_content_sha256=value), "s3")

    assert (error.status, error.code, error.message) == (status, code, text)


@requirement("IAM-SIG-30")
def test_an_unsigned_payload_is_not_hashed() -> None:
    request = with_headers(replace(V1, body=b"anything"), x_amz_content_sha256="UNSIGNED-PAYLOAD")

    assert check(resigned(request), "s3").body == b"anything"


@requirement("IAM-SIG-08")
def test_a_sent_hash_is_compared_with_the_body_of_other_services_too() -> None:
    request = with_headers(V3, x_amz_content_sha256="0" * 64)

    assert refusal(request, "sts").code == "SignatureDoesNotMatch"


# --- checksums and paths -----------------------------------------------------------------------


@requirement("IAM-SIG-01")
@pytest.mark.parametrize(
    ("path", "other", "s3"),
    [
        ("", "/", "/"),
        ("/a/./b//c/../d/", "/a/b/d/", "/a/./b//c/../d/"),
        ("/../..", "/", "/../.."),
        ("/a%2Fb c", "/a%252Fb%20c", "/a%2Fb c"),
        ("/\xc3\xbc~", "/%C3%BC~", "/\xc3\xbc~"),
    ],
)
def test_only_s3_takes_the_path_as_sent(path: str, other: str, s3: str) -> None:
    assert canonical_path(path, is_s3=False) == other
    assert canonical_path(path, is_s3=True) == s3
