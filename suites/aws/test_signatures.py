"""SigV4 against the vectors of the specification and against requests signed by botocore."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from harness.cloud.credentials import CredentialRegistry
from harness.cloud.ports import Credential, Principal, Refusal
from harness.cloud.sigv4 import Authenticated, RawRequest, is_anonymous, verify
from harness.cloud.sigv4.canonical import canonical_path
from harness.conformance.marks import requirement
from harness.subject.cloud_ports import SettableClock

KEY = "ASIALABEXAMPLE000001"
SECRET = "lab/EXAMPLE+secret/0123456789abcdefABCDE"
TOKEN = "IQoLabExampleSessionToken=="
NOW = datetime(2026, 4, 10, 14, 0, tzinfo=UTC)
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
S3_HOST = "notes.s3.eu-west-1.amazonaws.com"
PRINCIPAL = Principal(
    kind="role-session",
    arn="arn:aws:sts::123456789012:assumed-role/notes-app/s",
    account="123456789012",
    user_id="AROANOTESAPPROLE00001:s",
    role_arn="arn:aws:iam::123456789012:role/notes-app",
)
SESSION = Credential(
    access_key_id=KEY,
    secret_access_key=SECRET,
    session_token=TOKEN,
    principal=PRINCIPAL,
    issued_at=NOW - timedelta(hours=1),
    expires_at=NOW + timedelta(hours=5),
)


def store_of(*credentials: Credential) -> CredentialRegistry:
    registry = CredentialRegistry()
    for credential in credentials:
        registry.add(credential)
    return registry


def check(
    request: RawRequest,
    service: str,
    *,
    at: datetime = NOW,
    region: str | None = "eu-west-1",
    session: Credential = SESSION,
) -> Authenticated:
    return verify(request, store_of(session), SettableClock(at), service=service, region=region)


def refusal(request: RawRequest, service: str, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check(request, service, **options)
    return caught.value


def authorization(service: str, signed: str, signature: str, *, key: str = KEY, region: str = "eu-west-1") -> str:
    scope = f"{key}/20260410/{region}/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={signed}, Signature={signature}"


def with_headers(request: RawRequest, **changes: str | None) -> RawRequest:
    """Return the request with headers (underscores for hyphens) set, added or, with None, removed."""
    wanted = {name.replace("_", "-"): value for name, value in changes.items()}
    kept = [(name, value) for name, value in request.headers if name.lower() not in wanted]
    return replace(request, headers=[*kept, *((name, value) for name, value in wanted.items() if value is not None)])


V1 = RawRequest(
    method="GET",
    path="/team-a//a%20b%2Bc~.txt",
    query="x-id=GetObject&versionId=3%2F4",
    headers=[
        ("Host", S3_HOST),
        ("X-Amz-Content-SHA256", EMPTY),
        ("X-Amz-Date", "20260410T140000Z"),
        ("X-Amz-Security-Token", TOKEN),
        (
            "Authorization",
            authorization(
                "s3",
                "host;x-amz-content-sha256;x-amz-date;x-amz-security-token",
                "b05d2dd6359959fa6963bf3f50b790daf4063dbed2253a592cbba353bc2ac64a",
            ),
        ),
    ],
)
V2 = RawRequest(
    method="GET",
    path="/tags/arn%3Aaws%3Aeks%3Aeu-west-1%3A123456789012%3Acluster%2Fpod-identity-lab",
    query="",
    headers=[
        ("Host", "eks.eu-west-1.amazonaws.com"),
        ("X-Amz-Date", "20260410T140000Z"),
        ("X-Amz-Security-Token", TOKEN),
        (
            "Authorization",
            authorization(
                "eks",
                "host;x-amz-date;x-amz-security-token",
                "5fbd7ce691d9fc9570fd9fc3e247e95e8bd60f7de80864be68351cac74907dbf",
            ),
        ),
    ],
)
V3 = RawRequest(
    method="POST",
    path="/",
    query="",
    headers=[
        ("Host", "sts.eu-west-1.amazonaws.com"),
        ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("X-Amz-Date", "20260410T140000Z"),
        ("X-Amz-Security-Token", TOKEN),
        (
            "Authorization",
            authorization(
                "sts",
                "content-type;host;x-amz-date;x-amz-security-token",
                "ac90dd1fef4a6fb3032a987d84ef6ce18a6cf073dcfeb16d80549dc0a2dd8de2",
            ),
        ),
    ],
    body=b"Action=GetCallerIdentity&Version=2011-06-15",
)
V4 = RawRequest(
    method="GET",
    path="/team-a/file.txt",
    query="X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIALABEXAMPLE000001%2F20260410%2Feu-west-1%2Fs3"
    "%2Faws4_request&X-Amz-Date=20260410T140000Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host"
    "&X-Amz-Security-Token=IQoLabExampleSessionToken%3D%3D"
    "&X-Amz-Signature=939e6f5bf9a2ca1ed799cbb3bd9677491b85a59d3e724857d80ee06fadf911e6",
    headers=[("Host", S3_HOST)],
)
V5 = RawRequest(
    method="GET",
    path="/",
    query="Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=ASIALABEXAMPLE000001%2F20260410%2Feu-west-1%2Fsts%2Faws4_request&X-Amz-Date=20260410T140000Z"
    "&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id&X-Amz-Security-Token=IQoLabExampleSessionToken%3D%3D"
    "&X-Amz-Signature=1a92cfae2625ff6182d35533d24abd88a5bb5295b0286ae1a0702694266ff9b8",
    headers=[("Host", "sts.eu-west-1.amazonaws.com"), ("X-K8s-Aws-Id", "pod-identity-lab")],
)
V6_CHUNKS = (
    "312635b8865349823be20ed36a6817ee0234886867a792e47094b328b82bbd85",
    "8ef38a22751c91dc43c7d64937ec656fcdaab6998259af90d54d2f3f5ffaad21",
    "006fbf0b920af1e356758cffb2b5b3b1cf7a30f90ba3e342c47b0779aff8918e",
)
V6 = RawRequest(
    method="PUT",
    path="/team-a/big.bin",
    query="",
    headers=[
        ("Host", S3_HOST),
        ("Content-Encoding", "aws-chunked"),
        ("X-Amz-Content-SHA256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
        ("X-Amz-Date", "20260410T140000Z"),
        ("X-Amz-Decoded-Content-Length", "8204"),
        ("X-Amz-Security-Token", TOKEN),
        ("X-Amz-Trailer", "x-amz-checksum-crc32"),
        (
            "Authorization",
            authorization(
                "s3",
                "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;"
                "x-amz-security-token;x-amz-trailer",
                "fb4ac50e9fdda3aec0bf386e8d1c734093dfaeaf069afaa6dc40ac0c3972bc18",
            ),
        ),
    ],
    body=b"2000;chunk-signature=%b\r\n%b\r\nc;chunk-signature=%b\r\ntail of data\r\n0;chunk-signature=%b\r\n"
    b"x-amz-checksum-crc32:4rUZNw==\r\n"
    b"x-amz-trailer-signature:4fc400d6cc22e345fd2d732c18a1aae1da4b0e66dd9f2b34bcf5a8a1263689c8\r\n\r\n"
    % (V6_CHUNKS[0].encode(), b"x" * 8192, V6_CHUNKS[1].encode(), V6_CHUNKS[2].encode()),
)
VECTORS = [
    pytest.param(V1, "s3", id="IAM-EX-V1"),
    pytest.param(V2, "eks", id="IAM-EX-V2"),
    pytest.param(V3, "sts", id="IAM-EX-V3"),
    pytest.param(V4, "s3", id="IAM-EX-V4"),
    pytest.param(V5, "sts", id="IAM-EX-V5"),
    pytest.param(V6, "s3", id="IAM-EX-V6"),
]
MISMATCH = {
    "s3": (403, "SignatureDoesNotMatch"),
    "sts": (403, "SignatureDoesNotMatch"),
    "eks": (403, "InvalidSignatureException"),
}


@requirement("IAM-SIG-01")
@pytest.mark.parametrize(("request_", "service"), VECTORS)
def test_vectors_verify(request_: RawRequest, service: str) -> None:
    result = check(request_, service)

    assert result.credential == SESSION
    assert (result.region, result.service) == ("eu-west-1", service)
    assert result.signed_at == NOW


@requirement("IAM-SIG-01", "IAM-MSG-20")
@pytest.mark.parametrize(("request_", "service"), VECTORS)
def test_one_flipped_digit_of_the_signature_is_a_mismatch(request_: RawRequest, service: str) -> None:
    headers = [(n, v[:-1] + ("0" if v[-1] != "0" else "1") if n == "Authorization" else v) for n, v in request_.headers]
    query = request_.query[:-1] + ("0" if request_.query[-1:] != "0" else "1") if "Signature=" in request_.query else ""
    forged = replace(request_, headers=headers, query=query or request_.query)

    error = refusal(forged, service)

    assert (error.status, error.code) == MISMATCH[service]


@requirement("IAM-STS-03", "IAM-MSG-20")
@pytest.mark.parametrize(("request_", "service"), VECTORS)
def test_another_accounts_token_is_refused(request_: RawRequest, service: str) -> None:
    expected = {
        "s3": (400, "InvalidToken"),
        "sts": (403, "InvalidClientTokenId"),
        "eks": (403, "UnrecognizedClientException"),
    }

    error = refusal(request_, service, session=replace(SESSION, session_token="IQoAnotherToken=="))

    assert (error.status, error.code) == expected[service]


@requirement("IAM-SIG-02")
@pytest.mark.parametrize(("request_", "service"), VECTORS)
def test_an_unsigned_amz_header_is_refused(request_: RawRequest, service: str) -> None:
    expected = {
        "s3": (403, "AccessDenied"),
        "sts": (403, "SignatureDoesNotMatch"),
        "eks": (403, "InvalidSignatureException"),
    }

    error = refusal(with_headers(request_, x_amz_meta_a="1"), service)

    assert (error.status, error.code) == expected[service]


@requirement("IAM-SIG-03")
def test_s3_names_the_headers_that_were_not_signed() -> None:
    error = refusal(with_headers(V1, x_amz_meta_a="1"), "s3")

    assert error.message == "There were headers present in the request which were not signed"
    assert error.fields == {"HeadersNotSigned": "x-amz-meta-a"}


@requirement("IAM-SIG-02")
def test_headers_that_proxies_add_need_no_signature() -> None:
    check(with_headers(V1, x_amzn_trace_id="Root=1", user_agent="aws-cli/2", amz_sdk_invocation_id="a"), "s3")


@requirement("IAM-SIG-06")
@pytest.mark.parametrize("seconds", [901, -901])
def test_s3_refuses_a_clock_more_than_15_minutes_off(seconds: int) -> None:
    error = refusal(V1, "s3", at=NOW + timedelta(seconds=seconds))

    assert (error.status, error.code) == (403, "RequestTimeTooSkewed")
    assert error.message == "The difference between the request time and the current time is too large."
    assert error.fields["RequestTime"] == "20260410T140000Z"
    assert error.fields["MaxAllowedSkewMilliseconds"] == "900000"


@requirement("IAM-SIG-06")
@pytest.mark.parametrize("seconds", [900, -900])
def test_exactly_15_minutes_are_tolerated(seconds: int) -> None:
    check(V1, "s3", at=NOW + timedelta(seconds=seconds))


@requirement("IAM-SIG-06", "IAM-MSG-20")
def test_sts_says_which_way_the_clock_is_off() -> None:
    late = refusal(V3, "sts", at=NOW + timedelta(seconds=901))
    early = refusal(V3, "sts", at=NOW - timedelta(seconds=901))

    assert (late.status, late.code) == (403, "SignatureDoesNotMatch")
    assert late.message == (
        "Signature expired: 20260410T140000Z is now earlier than 20260410T140001Z (20260410T141501Z - 15 min.)"
    )
    assert early.message == (
        "Signature not yet current: 20260410T140000Z is still later than 20260410T135959Z (20260410T134459Z + 15 min.)"
    )


@requirement("IAM-SIG-01")
def test_a_path_encoded_otherwise_is_another_path() -> None:
    error = refusal(replace(V1, path="/team-a//a%20b+c~.txt"), "s3")

    assert error.code == "SignatureDoesNotMatch"


@requirement("IAM-MSG-20")
def test_s3_shows_its_caller_the_calculation() -> None:
    error = refusal(replace(V1, method="PUT"), "s3")

    assert error.message == (
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method."
    )
    assert error.fields["AWSAccessKeyId"] == KEY
    assert error.fields["CanonicalRequest"].startswith(
        "PUT\n/team-a//a%20b%2Bc~.txt\nversionId=3%2F4&x-id=GetObject\nhost:notes.s3.eu-west-1.amazonaws.com\n"
    )
    assert error.fields["StringToSign"].startswith(
        "AWS4-HMAC-SHA256\n20260410T140000Z\n20260410/eu-west-1/s3/aws4_request\n"
    )
    assert error.fields["StringToSignBytes"].startswith("41 57 53 34")


@requirement("IAM-SIG-08")
def test_a_changed_body_is_a_signature_mismatch_where_the_hash_is_not_sent() -> None:
    error = refusal(replace(V3, body=b"Action=GetCallerIdentity&Version=2011-06-16"), "sts")

    assert (error.status, error.code) == (403, "SignatureDoesNotMatch")
    assert error.message == (
        "The request signature we calculated does not match the signature you provided. "
        "Check your AWS Secret Access Key"
        " and signing method. Consult the service documentation for details."
    )


@requirement("IAM-SIG-08")
def test_a_changed_body_is_a_hash_mismatch_at_s3() -> None:
    error = refusal(replace(V1, body=b"x"), "s3")

    assert (error.status, error.code) == (400, "XAmzContentSHA256Mismatch")
    assert error.message == "The provided 'x-amz-content-sha256' header does not match what was computed."


# --- keys and sessions -----------------------------------------------------------------------


@requirement("IAM-MSG-20")
@pytest.mark.parametrize(
    ("request_", "service", "status", "code", "text"),
    [
        (V1, "s3", 403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
        (V3, "sts", 403, "InvalidClientTokenId", "The security token included in the request is invalid."),
        (V2, "eks", 403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    ],
)
def test_an_unknown_key_is_refused(request_: RawRequest, service: str, status: int, code: str, text: str) -> None:
    error = refusal(request_, service, session=replace(SESSION, access_key_id="ASIAOTHER"))

    assert (error.status, error.code, error.message) == (status, code, text)


@requirement("IAM-MSG-20")
@pytest.mark.parametrize(
    ("request_", "service", "status", "code", "text"),
    [
        (V1, "s3", 400, "ExpiredToken", "The provided token has expired."),
        (V3, "sts", 403, "ExpiredToken", "The security token included in the request is expired"),
        (V2, "eks", 403, "ExpiredTokenException", "The security token included in the request is expired"),
    ],
)
def test_an_expired_session_is_refused(request_: RawRequest, service: str, status: int, code: str, text: str) -> None:
    error = refusal(request_, service, session=replace(SESSION, expires_at=NOW))

    assert (error.status, error.code, error.message) == (status, code, text)


@requirement("IAM-STS-03")
def test_a_session_key_without_its_token_is_refused() -> None:
    assert refusal(with_headers(V1, x_amz_security_token=None), "s3").code == "InvalidToken"


@requirement("IAM-STS-03")
def test_a_long_term_key_with_a_token_is_refused() -> None:
    assert refusal(V1, "s3", session=replace(SESSION, session_token=None)).code == "InvalidToken"


# --- scope -------------------------------------------------------------------------------------


@requirement("IAM-SIG-05")
def test_s3_names_the_region_it_expects() -> None:
    error = refusal(V1, "s3", region="us-east-1")

    assert (error.status, error.code) == (400, "AuthorizationHeaderMalformed")
    assert (
        error.message == "The authorization header is malformed; the region 'eu-west-1' is wrong; expecting 'us-east-1'"
    )
    assert error.fields == {"Region": "us-east-1"}


@requirement("IAM-SIG-05")
def test_sts_refuses_another_region() -> None:
    error = refusal(V3, "sts", region="us-east-1")

    assert (error.status, error.code) == (403, "SignatureDoesNotMatch")
    assert error.message == "Credential should be scoped to a valid region, not 'eu-west-1'."


@requirement("IAM-SIG-05")
def test_a_signature_for_another_service_is_refused() -> None:
    error = refusal(V3, "iam")

    assert (error.status, error.code) == (403, "SignatureDoesNotMatch")
    assert error.message == "Credential should be scoped to correct service: 'iam'."
    assert refusal(V1, "s3express").code == "InvalidSignatureException"


@requirement("IAM-MSG-20")
def test_a_scope_of_another_day_is_refused() -> None:
    assert refusal(with_headers(V1, x_amz_date="20260411T000000Z"), "s3").code == "AuthorizationHeaderMalformed"


# --- forms -------------------------------------------------------------------------------------

UNSIGNED_GET = RawRequest(method="GET", path="/k", query="", headers=[("Host", S3_HOST)])


@requirement("IAM-SIG-20")
def test_only_a_request_without_any_signature_is_anonymous() -> None:
    assert is_anonymous(UNSIGNED_GET)
    assert not is_anonymous(V1)
    assert not is_anonymous(V4)
    assert not is_anonymous(replace(UNSIGNED_GET, query="AWSAccessKeyId=A&Signature=B&Expires=1"))
    assert not is_anonymous(replace(UNSIGNED_GET, query="x-amz-signature=0"))
    assert not is_anonymous(with_headers(UNSIGNED_GET, authorization="Bearer x"))


@requirement("IAM-MSG-20")
@pytest.mark.parametrize(
    ("service", "status", "code", "text"),
    [
        ("sts", 403, "MissingAuthenticationToken", "Request is missing Authentication Token"),
        ("eks", 403, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        ("secretsmanager", 403, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        ("ec2", 401, "AuthFailure", "AWS was not able to validate the provided access credentials"),
    ],
)
def test_an_unsigned_call_is_refused_in_the_services_words(service: str, status: int, code: str, text: str) -> None:
    error = refusal(UNSIGNED_GET, service)

    assert (error.status, error.code, error.message) == (status, code, text)


@requirement("IAM-SIG-20")
@pytest.mark.parametrize(
    "request_",
    [
        replace(UNSIGNED_GET, query="AWSAccessKeyId=A&Signature=B&Expires=1"),
        with_headers(UNSIGNED_GET, authorization="AWS key:signature"),
        with_headers(UNSIGNED_GET, authorization="AWS4-ECDSA-P256-SHA256 Credential=k"),
        replace(UNSIGNED_GET, query="X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256"),
    ],
)
def test_other_ways_of_signing_are_refused_and_never_anonymous(request_: RawRequest) -> None:
    error = refusal(request_, "s3")

    assert (error.status, error.code, error.message) == (
        400,
        "InvalidRequest",
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    )


@requirement("IAM-MSG-20")
def test_two_signatures_in_one_request_are_refused() -> None:
    both = replace(V4, headers=[*V4.headers, V1.headers[-1]])

    assert (refusal(both, "s3").status, refusal(both, "s3").code) == (400, "InvalidArgument")


@requirement("IAM-MSG-20")
@pytest.mark.parametrize(
    ("header", "s3_code"),
    [
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=a/b", "AuthorizationHeaderMalformed"),
        (authorization("s3", "host", "zz"), "AuthorizationHeaderMalformed"),
        (authorization("s3", "Host", "0" * 64), "AuthorizationHeaderMalformed"),
        (authorization("s3", "host", "0" * 64).replace("aws4_request", "aws4"), "AuthorizationHeaderMalformed"),
    ],
)
def test_a_malformed_header_is_refused(header: str, s3_code: str) -> None:
    assert (refusal(with_headers(V1, authorization=header), "s3").status) == 400
    assert refusal(with_headers(V1, authorization=header), "s3").code == s3_code
    assert refusal(with_headers(V3, authorization=header), "sts").code == "IncompleteSignature"
    assert refusal(with_headers(V2, authorization=header), "eks").code == "IncompleteSignatureException"


@requirement("IAM-MSG-20")
def test_query_services_list_what_the_header_lacks() -> None:
    error = refusal(with_headers(V3, authorization="AWS4-HMAC-SHA256 SignedHeaders=host"), "sts")

    assert error.message == (
        "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter."
    )


@requirement("IAM-SIG-01")
def test_a_header_that_may_stand_once_is_refused_twice() -> None:
    assert refusal(replace(V1, headers=[*V1.headers, ("x-amz-date", "20260410T140000Z")]), "s3").status == 400


@requirement("IAM-SIG-02")
def test_a_missing_host_signature_is_refused() -> None:
    request = with_headers(V1, authorization=authorization("s3", "x-amz-date", "0" * 64))

    assert refusal(request, "s3").code == "SignatureDoesNotMatch"


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


def resigned(request: RawRequest) -> RawRequest:
    """Sign a header-form S3 request anew, as its client would."""
    unsigned = [(name, value) for name, value in request.headers if name != "Authorization"]
    signed = ";".join(sorted({name.lower() for name, _ in unsigned}))
    probe = replace(request, headers=[*unsigned, ("Authorization", authorization("s3", signed, "0" * 64))])
    to_sign = refusal(probe, "s3").fields["StringToSign"]
    key = b"AWS4" + SECRET.encode()
    for part in ("20260410", "eu-west-1", "s3", "aws4_request", to_sign):
        key = hmac_sha256(key, part)
    return replace(probe, headers=[*unsigned, ("Authorization", authorization("s3", signed, key.hex()))])


def hmac_sha256(key: bytes, text: str) -> bytes:
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + text.encode()).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()


def unsigned_trailer_put(body: bytes, trailer: str = "x-amz-checksum-crc32", length: str | None = "5") -> RawRequest:
    request = RawRequest(
        method="PUT",
        path="/k",
        query="",
        headers=[
            ("Host", S3_HOST),
            ("X-Amz-Content-SHA256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("X-Amz-Date", "20260410T140000Z"),
            ("X-Amz-Security-Token", TOKEN),
            ("X-Amz-Trailer", trailer),
        ],
        body=body,
    )
    return resigned(with_headers(request, x_amz_decoded_content_length=length))


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
