"""SigV4 in a header, against the vectors of the specification."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from harness.cloud.sigv4 import RawRequest, is_anonymous
from harness.conformance.marks import requirement
from harness.subject.signed_requests import (
    KEY,
    MISMATCH,
    NOW,
    SESSION,
    UNSIGNED_GET,
    V1,
    V2,
    V3,
    V4,
    VECTORS,
    authorization,
    check,
    refusal,
    with_headers,
)


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
