"""What AWS says when a request cannot be authenticated (IAM-MSG-20).

One function per case; the service families differ in code, status and text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from harness.cloud.ports import Refusal

Family = Literal["s3", "query", "json", "rest-json", "ec2"]

_FAMILIES: Mapping[str, Family] = {
    "s3": "s3",
    "ec2": "ec2",
    "sts": "query",
    "iam": "query",
    "elasticloadbalancing": "query",
    "sns": "query",
    "autoscaling": "query",
    "cloudformation": "query",
    "rds": "query",
    "eks": "rest-json",
    "eks-auth": "rest-json",
    "lambda": "rest-json",
}

MAX_SKEW = timedelta(minutes=15)

_INVALID_TOKEN_TEXT = "The security token included in the request is invalid."  # noqa: S105 - AWS's text, no token
_MISMATCH_TEXT = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key"
    " and signing method. Consult the service documentation for details."
)
_EC2_FAILURE = ("AuthFailure", "AWS was not able to validate the provided access credentials", 401)


def family_of(service: str) -> Family:
    """Return which family of error texts a service (by signing name) uses; unknown services count as JSON ones."""
    return _FAMILIES.get(service, "json")


def compact(moment: datetime) -> str:
    """Return a time as signatures write it, such as ``20260410T140000Z``."""
    return moment.strftime("%Y%m%dT%H%M%SZ")


def extended(moment: datetime) -> str:
    """Return a time as S3's error members write it, such as ``2026-04-10T14:00:00Z``."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def json_status(family: Family) -> int:
    """Return the status of authentication failures in the two JSON families."""
    return 403 if family == "rest-json" else 400


def unsigned(family: Family) -> Refusal:
    """Refuse a call without any signature."""
    if family == "s3":
        return Refusal("AccessDenied", "Access Denied", 403)
    if family == "query":
        return Refusal("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    if family == "ec2":
        return Refusal(*_EC2_FAILURE)
    return Refusal("MissingAuthenticationTokenException", "Missing Authentication Token", 403)


def unsupported(family: Family) -> Refusal:
    """Refuse another way of signing: SigV2, SigV4A, a form with a POST policy."""
    if family == "s3":
        return Refusal(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
            400,
        )
    return incomplete(family, "Unsupported AWS 'algorithm'.")


def two_mechanisms(family: Family) -> Refusal:
    """Refuse a request with both an Authorization header and signature parameters in the query."""
    text = (
        "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or"
        " the Authorization header should be specified"
    )
    if family == "s3":
        return Refusal("InvalidArgument", text, 400, {"ArgumentName": "Authorization"})
    return incomplete(family, text)


def incomplete(family: Family, text: str) -> Refusal:
    """Refuse a signature with missing or unreadable parts, services other than S3."""
    if family == "ec2":
        return Refusal(*_EC2_FAILURE)
    if family == "query":
        return Refusal("IncompleteSignature", text, 400)
    return Refusal("IncompleteSignatureException", text, json_status(family))


def malformed_header(family: Family, missing: Sequence[str]) -> Refusal:
    """Refuse an Authorization header that lacks ``missing`` components."""
    if family == "s3":
        return s3_malformed(
            presigned=False,
            text="the authorization header requires three components: Credential, SignedHeaders, and Signature.",
        )
    return incomplete(family, " ".join(f"Authorization header requires '{name}' parameter." for name in missing))


def malformed_presign(family: Family, missing: Sequence[str]) -> Refusal:
    """Refuse a presigned request that lacks ``missing`` parameters."""
    if family == "s3":
        return s3_query_error(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature,"
            " X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
        )
    sentences = [f"AWS query-string parameters must include '{name}'." for name in missing]
    return incomplete(family, " ".join([*sentences, "Re-examine the query-string parameters."]))


def s3_malformed(*, presigned: bool, text: str, fields: Mapping[str, str] | None = None) -> Refusal:
    """Refuse a credential scope, S3's way in either form."""
    if presigned:
        return s3_query_error(f"Error parsing the X-Amz-Credential parameter; {text}", fields)
    return Refusal("AuthorizationHeaderMalformed", f"The authorization header is malformed; {text}", 400, fields)


def s3_query_error(text: str, fields: Mapping[str, str] | None = None) -> Refusal:
    """Refuse the parameters of a presigned S3 request."""
    return Refusal("AuthorizationQueryParametersError", text, 400, fields)


def bad_scope(family: Family, *, presigned: bool, credential: str) -> Refusal:
    """Refuse a credential that is not ``key/date/region/service/aws4_request``."""
    if family == "s3":
        text = 'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
        return s3_malformed(presigned=presigned, text=text)
    return incomplete(family, f"Credential must have exactly 5 slash-delimited elements, got {credential!r}.")


def wrong_region(family: Family, *, presigned: bool, got: str, want: str) -> Refusal:
    """Refuse a signature made for another region."""
    if family == "s3":
        return s3_malformed(
            presigned=presigned, text=f"the region '{got}' is wrong; expecting '{want}'", fields={"Region": want}
        )
    return _scope_mismatch(family, f"Credential should be scoped to a valid region, not '{got}'.")


def wrong_service(family: Family, *, presigned: bool, got: str, want: str) -> Refusal:
    """Refuse a signature made for another service."""
    if family == "s3":
        return s3_malformed(presigned=presigned, text=f'incorrect service "{got}". This endpoint belongs to "{want}".')
    return _scope_mismatch(family, f"Credential should be scoped to correct service: '{want}'.")


def wrong_scope_date(family: Family, *, presigned: bool, got: str, want: str) -> Refusal:
    """Refuse a credential scope of another day than the request's time."""
    if family == "s3":
        return s3_malformed(
            presigned=presigned,
            text=f'Invalid credential date "{got}". This date is not the same as X-Amz-Date: "{want}".',
        )
    return _scope_mismatch(
        family,
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP:"
        f" '{got}' != '{want}'.",
    )


def missing_date(family: Family) -> Refusal:
    """Refuse a signature without a readable time."""
    if family == "s3":
        return Refusal("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header", 403)
    return incomplete(family, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")


def unknown_key(family: Family, access_key_id: str) -> Refusal:
    """Refuse an access key that nobody issued."""
    if family == "s3":
        return Refusal(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            403,
            {"AWSAccessKeyId": access_key_id},
        )
    return invalid_token(family)


def invalid_token(family: Family) -> Refusal:
    """Refuse a session token that is missing, superfluous or not the key's own."""
    if family == "s3":
        return Refusal("InvalidToken", "The provided token is malformed or otherwise invalid.", 400)
    if family == "query":
        return Refusal("InvalidClientTokenId", _INVALID_TOKEN_TEXT, 403)
    if family == "ec2":
        return Refusal(*_EC2_FAILURE)
    return Refusal("UnrecognizedClientException", _INVALID_TOKEN_TEXT, json_status(family))


def signature_mismatch(family: Family, fields: Mapping[str, str] | None = None) -> Refusal:
    """Refuse a signature that is not the one calculated.

    Args:
        family: Service family.
        fields: What S3 shows of the calculation; other services show nothing.
    """
    if family == "s3":
        text = (
            "The request signature we calculated does not match the signature you provided."
            " Check your key and signing method."
        )
        return Refusal("SignatureDoesNotMatch", text, 403, fields)
    return _scope_mismatch(family, _MISMATCH_TEXT)


def _scope_mismatch(family: Family, text: str) -> Refusal:
    if family == "ec2":
        return Refusal(*_EC2_FAILURE)
    if family == "query":
        return Refusal("SignatureDoesNotMatch", text, 403)
    return Refusal("InvalidSignatureException", text, json_status(family))


def headers_not_signed(family: Family, names: Sequence[str]) -> Refusal:
    """Refuse headers that change the meaning of the request but are not under the signature (IAM-SIG-03)."""
    if family == "s3":
        text = "There were headers present in the request which were not signed"
        return Refusal("AccessDenied", text, 403, {"HeadersNotSigned": ", ".join(names)})
    sentences = [f"'{name.title()}' must be a 'SignedHeader' in the AWS Authorization." for name in names]
    return _scope_mismatch(family, " ".join(sentences))


def skewed(family: Family, *, signed_at: datetime, now: datetime) -> Refusal:
    """Refuse a signature made more than 15 minutes before or after now."""
    if family == "s3":
        fields = {
            "RequestTime": compact(signed_at),
            "ServerTime": extended(now),
            "MaxAllowedSkewMilliseconds": "900000",
        }
        text = "The difference between the request time and the current time is too large."
        return Refusal("RequestTimeTooSkewed", text, 403, fields)
    if family == "ec2":
        return Refusal("RequestExpired", "Request has expired.", 400)
    if signed_at < now:
        text = f"Signature expired: {compact(signed_at)} is now earlier than {compact(now - MAX_SKEW)}"
        return _scope_mismatch(family, f"{text} ({compact(now)} - 15 min.)")
    text = f"Signature not yet current: {compact(signed_at)} is still later than {compact(now + MAX_SKEW)}"
    return _scope_mismatch(family, f"{text} ({compact(now)} + 15 min.)")


def presign_expired(family: Family, *, signed_at: datetime, expires_in: int, now: datetime) -> Refusal:
    """Refuse a presigned request after its time (IAM-SIG-22)."""
    if family != "s3":
        return skewed(family, signed_at=signed_at, now=now)
    fields = {
        "X-Amz-Expires": str(expires_in),
        "Expires": extended(signed_at + timedelta(seconds=expires_in)),
        "ServerTime": extended(now),
    }
    return Refusal("AccessDenied", "Request has expired", 403, fields)


def presign_too_early(family: Family, *, signed_at: datetime, now: datetime) -> Refusal:
    """Refuse a presigned request dated more than 15 minutes ahead."""
    if family != "s3":
        return skewed(family, signed_at=signed_at, now=now)
    return Refusal("AccessDenied", "Request is not valid yet", 403, {"ServerTime": extended(now)})


def session_expired(family: Family) -> Refusal:
    """Refuse the key of a session that is over."""
    if family == "s3":
        return Refusal("ExpiredToken", "The provided token has expired.", 400)
    if family == "query":
        return Refusal("ExpiredToken", "The security token included in the request is expired", 403)
    if family == "ec2":
        return Refusal("RequestExpired", "Request has expired.", 400)
    return Refusal(
        "ExpiredTokenException", "The security token included in the request is expired", json_status(family)
    )
