"""Whether an AWS that runs has what features of the ledger need: it is asked, and how it refuses tells."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from harness.conformance.features import Detection

__all__ = ["detect_in_aws"]

_ABSENT = {"InvalidAction", "NotImplemented", "InternalFailure", "UnknownOperationException"}
"""Codes of an AWS that does not know an operation, or does not have it."""
_ROLE = "arn:aws:iam::000000000000:role/podid-is-it-there"


def detect_in_aws(client: Callable[[str], Any], feature: str) -> Detection | None:
    """Return whether AWS has a feature, and its answer; None for features that are not its own.

    Args:
        client: Returns the boto3 client of a service.
        feature: ``irsa`` or ``cross-account``, or one that AWS has no part in.
    """
    if feature == "irsa":
        operation = "sts:AssumeRoleWithWebIdentity"
        token = "eyJhIjoxfQ.eyJhIjoxfQ.eA"  # noqa: S105 - good for nothing
        members = {"RoleArn": _ROLE, "RoleSessionName": "podid", "WebIdentityToken": token}
        ask = partial(client("sts").assume_role_with_web_identity, **members)
    elif feature == "cross-account":
        operation = "eks:CreatePodIdentityAssociation with targetRoleArn"
        members = {"clusterName": "podid-none", "namespace": "a", "serviceAccount": "a"}
        ask = partial(client("eks").create_pod_identity_association, **members, roleArn=_ROLE, targetRoleArn=_ROLE)
    else:
        return None
    try:
        ask()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        return Detection(code not in _ABSENT, f"{operation} is answered with {code}")
    return Detection(is_present=False, evidence=f"{operation} takes anything")
