"""Verification of AWS Signature Version 4 (``iam.md`` section 13): pure, against a registry of keys and a clock."""

from harness.cloud.sigv4.failures import Family, family_of
from harness.cloud.sigv4.request import Authenticated, RawRequest, SignatureForm
from harness.cloud.sigv4.verification import is_anonymous, verify

__all__ = ["Authenticated", "Family", "RawRequest", "SignatureForm", "family_of", "is_anonymous", "verify"]
