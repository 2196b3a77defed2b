"""Which service and region a request is addressed to, by host name and credential scope. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from harness.cloud.sigv4 import RawRequest

__all__ = ["SERVICES", "Address", "address_of", "api_name", "claimed_key", "scope_of"]

SERVICES = {
    "cloudtrail": "cloudtrail",
    "dynamodb": "dynamodb",
    "ec2": "ec2",
    "eks": "eks",
    "eks-auth": "eks-auth",
    "elasticloadbalancing": "elbv2",
    "iam": "iam",
    "kms": "kms",
    "s3": "s3",
    "secretsmanager": "secretsmanager",
    "shield": "shield",
    "ssm": "ssm",
    "sts": "sts",
    "waf-regional": "waf-regional",
    "wafv2": "wafv2",
}
"""Signing name → name in SDKs, of every service that the lab serves."""

_API_AWS = re.compile(r"(?P<service>[a-z0-9-]+)\.(?P<region>[a-z]{2}-[a-z]+-\d)\.api\.aws")
_S3 = re.compile(r"(?:.+\.)?s3(?:\.dualstack)?(?:[.-](?P<region>[a-z]{2}-[a-z]+-\d))?\.amazonaws\.com")
_ISSUER = re.compile(r"oidc\.eks\.(?P<region>[a-z]{2}-[a-z]+-\d)\.amazonaws\.com")
_REGIONAL = re.compile(r"(?P<service>[a-z0-9-]+)\.(?P<region>[a-z]{2}-[a-z]+-\d)\.amazonaws\.com")
_GLOBAL = re.compile(r"(?P<service>[a-z0-9-]+)\.amazonaws\.com")
_CREDENTIAL = re.compile(r"Credential=([^,\s]+)")
_KEY_ID = re.compile(r"\w{16,128}", re.ASCII)
GLOBAL_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Address:
    """What a host name says; empty where it says nothing, as an IP address does."""

    service: str = ""
    """Signing name."""
    region: str = ""
    is_issuer: bool = False


@lru_cache(maxsize=1024)
def address_of(host: str) -> Address:
    """Read a Host header."""
    name = host.rsplit(":", 1)[0].lower().rstrip(".") if host.count(":") == 1 else host.lower().rstrip(".")
    if found := _ISSUER.fullmatch(name):
        return Address(region=found["region"], is_issuer=True)
    if found := _API_AWS.fullmatch(name):
        return Address(found["service"], found["region"])
    # Before the rest: a bucket may be named like a service.
    if found := _S3.fullmatch(name):
        return Address("s3", found["region"] or "")
    if found := _REGIONAL.fullmatch(name):
        return Address(found["service"], found["region"])
    if found := _GLOBAL.fullmatch(name):
        return Address(found["service"], GLOBAL_REGION)
    return Address()


def scope_of(raw: RawRequest) -> tuple[str, str]:
    """Return (region, signing name) that a request claims to be signed for; empty texts if it is not readable.

    A signature of S3's own former kind, which names no scope, is meant for S3 and is refused in its words.
    """
    parts = _credential_of(raw).rsplit("/", 4)
    if len(parts) == 5:
        return parts[2], parts[3]
    names = {name for name, _ in raw.query_items()}
    return "", "s3" if {"AWSAccessKeyId", "Signature", "Expires"} <= names else ""


def claimed_key(raw: RawRequest) -> str:
    """Return the access key id that a request claims to be signed with; a word of ours for what cannot be one."""
    key = _credential_of(raw).partition("/")[0]
    return key if _KEY_ID.fullmatch(key) else "(unreadable)"


def _credential_of(raw: RawRequest) -> str:
    credential = ""
    for value in raw.header_values("authorization"):
        found = _CREDENTIAL.search(value)
        credential = found[1] if found else ""
    for name, value in raw.query_items():
        if unquote(name) == "X-Amz-Credential" and not credential:
            credential = unquote(value)
    return credential


def api_name(signing_name: str) -> str | None:
    """Return the name that SDKs have for a service of the lab, None for one that it does not serve."""
    return SERVICES.get(signing_name)
