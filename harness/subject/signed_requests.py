"""Signed requests, those of the specification and others, and a verifier that knows who signed them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.cloud.credentials import CredentialRegistry
from harness.cloud.ports import Credential, Principal, Refusal
from harness.cloud.sigv4 import Authenticated, RawRequest, verify
from harness.subject.cloud_ports import SettableClock

KEY = "ASIALABEXAMPLE000001"
SECRET = "lab/EXAMPLE+secret/0123456789abcdefABCDE"  # noqa: S105 - an example's
TOKEN = "IQoLabExampleSessionToken=="  # noqa: S105 - an example's
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
    """Return a registry that knows these keys."""
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
    """Verify a request at a time, and return who signed it."""
    return verify(request, store_of(session), SettableClock(at), service=service, region=region)


def refusal(request: RawRequest, service: str, **options: Any) -> Refusal:
    """Return how a request is refused; fail if it is not."""
    with pytest.raises(Refusal) as caught:
        check(request, service, **options)
    return caught.value


def authorization(service: str, signed: str, signature: str, *, key: str = KEY, region: str = "eu-west-1") -> str:
    """Return an Authorization header."""
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
UNSIGNED_GET = RawRequest(method="GET", path="/k", query="", headers=[("Host", S3_HOST)])


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
    """Compute an HMAC by its definition, not with what is under test."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + text.encode()).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()


def unsigned_trailer_put(body: bytes, trailer: str = "x-amz-checksum-crc32", length: str | None = "5") -> RawRequest:
    """Return a signed upload in chunks whose checksum follows the body."""
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
