"""The verification itself, in AWS's order of checks (IAM-MSG-21).

Malformed, unknown key, token, signature, headers left unsigned, skew, expiry of the session. The body comes last: chunk
signatures continue the request's own.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta

from harness.cloud.ports import Clock, Credential, CredentialStore, Refusal
from harness.cloud.sigv4 import failures
from harness.cloud.sigv4.canonical import canonical_request, sign, signing_key, string_to_sign, wire_bytes
from harness.cloud.sigv4.failures import MAX_SKEW, Family, family_of
from harness.cloud.sigv4.payload import Body, SigningContext, s3_payload_hash, verify_s3_body
from harness.cloud.sigv4.request import Authenticated, RawRequest
from harness.cloud.sigv4.scope import Signature, form_of, read_signature

_NOBODYS_SECRET = "0" * 40
"""An unknown key is checked against this one, so that it takes as long as a known key (IAM-SIG-07)."""


def is_anonymous(request: RawRequest) -> bool:
    """Tell whether a request carries no signature of any kind, not even a broken or outdated one."""
    return form_of(request) is None


def verify(
    request: RawRequest,
    store: CredentialStore,
    clock: Clock,
    *,
    service: str,
    region: str | None,
    body_follows: bool = False,
) -> Authenticated:
    """Find out who signed a request, and that it is the request that was signed.

    Args:
        request: The request as received.
        store: Registry of access keys.
        clock: The lab's time.
        service: Signing name of the called service, such as ``s3`` or ``eks-auth``.
        region: Region the endpoint belongs to; None accepts any.
        body_follows: The client waits with its body until somebody wants it (S3 alone says in a header what is signed
            of it): everything but the body is verified.

    Raises:
        Refusal: In the service's own words (``iam.md`` 14.3).
    """
    family = family_of(service)
    signature = _read(request, family)
    presigned = signature.form == "presigned"
    if signature.service != service:
        raise failures.wrong_service(family, presigned=presigned, got=signature.service, want=service)
    if region is not None and signature.region != region:
        raise failures.wrong_region(family, presigned=presigned, got=signature.region, want=region)
    payload_hash = _payload_hash(request, family, presigned=presigned)

    credential = store.find(signature.access_key_id)
    key = signing_key(
        credential.secret_access_key if credential else _NOBODYS_SECRET, signature.date, signature.region, service
    )
    canonical = canonical_request(
        request,
        is_s3=family == "s3",
        query=signature.query,
        signed_headers=signature.signed_headers,
        payload_hash=payload_hash,
    )
    to_sign = string_to_sign(canonical, time=signature.time, scope=signature.scope)
    is_match = hmac.compare_digest(sign(key, to_sign), signature.signature)
    if credential is None:
        raise failures.unknown_key(family, signature.access_key_id)
    _check_token(credential, signature, family)

    def mismatch() -> Refusal:
        return failures.signature_mismatch(family, _calculation(signature, to_sign, canonical))

    if not is_match or not _carries_signed_headers(request, signature):
        raise mismatch()
    _check_all_signed(request, signature, family)
    _check_times(credential, signature, family, clock.now())
    context = SigningContext(
        key=key,
        time=signature.time,
        scope=signature.scope,
        seed=signature.signature,
        mismatch=mismatch,
    )
    body = Body(b"") if body_follows else _verify_body(request, family, payload_hash, context)
    return Authenticated(
        credential=credential,
        region=signature.region,
        service=service,
        body=body.data,
        form=signature.form,
        signed_at=signature.signed_at,
        expires_in=signature.expires_in,
        was_chunked=body.was_chunked,
        trailers=body.trailers,
    )


def _read(request: RawRequest, family: Family) -> Signature:
    match form_of(request):
        case "header":
            return read_signature(request, "header", family)
        case "presigned":
            return read_signature(request, "presigned", family)
        case "both":
            raise failures.two_mechanisms(family)
        case None:
            raise failures.unsigned(family)
        case _:
            raise failures.unsupported(family)


def _payload_hash(request: RawRequest, family: Family, *, presigned: bool) -> str:
    if family == "s3":
        return s3_payload_hash(request, presigned=presigned)
    # Others sign the hash without sending it; one that is sent is compared with the body later (IAM-SIG-08).
    sent = request.header_values("x-amz-content-sha256")
    return sent[0].strip() if sent else hashlib.sha256(request.body).hexdigest()


def _check_token(credential: Credential, signature: Signature, family: Family) -> None:
    issued = credential.session_token
    sent = signature.token
    if issued is None and sent is None:
        return
    if issued is None or sent is None or not hmac.compare_digest(wire_bytes(issued), wire_bytes(sent)):
        raise failures.invalid_token(family)


def _carries_signed_headers(request: RawRequest, signature: Signature) -> bool:
    return set(signature.signed_headers).issubset(request.header_names())


def _check_all_signed(request: RawRequest, signature: Signature, family: Family) -> None:
    # "x-amzn-trace-id" begins alike but is no x-amz- header, and proxies add it after signing.
    wanted = {"host"} | {name for name in request.header_names() if name.startswith("x-amz-")}
    left_out = sorted(wanted.difference(signature.signed_headers))
    if left_out:
        raise failures.headers_not_signed(family, left_out)


def _check_times(credential: Credential, signature: Signature, family: Family, now: datetime) -> None:
    signed_at = signature.signed_at
    if signature.expires_in is not None:
        if signed_at - now > MAX_SKEW:
            raise failures.presign_too_early(family, signed_at=signed_at, now=now)
        if now > signed_at + timedelta(seconds=signature.expires_in):
            raise failures.presign_expired(family, signed_at=signed_at, expires_in=signature.expires_in, now=now)
    elif abs(now - signed_at) > MAX_SKEW:
        raise failures.skewed(family, signed_at=signed_at, now=now)
    if credential.expires_at is not None and now >= credential.expires_at:
        raise failures.session_expired(family)


def _verify_body(request: RawRequest, family: Family, payload_hash: str, context: SigningContext) -> Body:
    if family == "s3":
        return verify_s3_body(request, payload_hash, context)
    if not hmac.compare_digest(wire_bytes(payload_hash), hashlib.sha256(request.body).hexdigest().encode()):
        raise failures.signature_mismatch(family)
    return Body(request.body)


def _calculation(signature: Signature, to_sign: str, canonical: str) -> Mapping[str, str]:
    """Return what S3 shows its own caller of a failed calculation; holds the token, so it must not be logged."""
    return {
        "AWSAccessKeyId": signature.access_key_id,
        "StringToSign": to_sign,
        "SignatureProvided": signature.signature,
        "StringToSignBytes": wire_bytes(to_sign).hex(" "),
        "CanonicalRequest": canonical,
        "CanonicalRequestBytes": wire_bytes(canonical).hex(" "),
    }
