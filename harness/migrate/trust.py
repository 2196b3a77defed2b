"""Whether Pod Identity may assume a role for a ServiceAccount, as the role's trust policy says it. Pure."""

from __future__ import annotations

import json

from harness.audit import Association, Role
from harness.cloud.eks.validation import POD_IDENTITY_SERVICE
from harness.cloud.iam import Check, ContextValue, EvaluationRequest, PolicySet, authorize, keys_asked
from harness.cloud.ports import NamedPolicy, Principal

__all__ = ["refused"]

_SERVICE = Principal(kind="service", arn="", account="", user_id="", service=POD_IDENTITY_SERVICE)
_OF_PODS = ("kubernetes-pod-name", "kubernetes-pod-uid")
"""Tags that are other ones for each pod."""
_TOLD = ("aws:requesttag/", "aws:tagkeys", "aws:resourcetag/", "iam:resourcetag/", "aws:principal", "sts:externalid")


def refused(role: Role, association: Association, cluster_arn: str) -> tuple[list[str], list[str]]:
    """Return the actions that the trust policy does not allow Pod Identity, and on which unknown keys that depends.

    Args:
        role: The association's role.
        association: Whose tags are sent along, unless it has none.
        cluster_arn: The cluster's.
    """
    keys, actions = _context(role, association, cluster_arn), ["sts:AssumeRole"]
    if association.has_session_tags:
        actions.append("sts:TagSession")
    policies = PolicySet(trust=NamedPolicy("trust", json.dumps(role.trust)))
    checks = [Check(action, association.role_arn, association.role_arn.split(":")[4]) for action in actions]
    denied = [check for check in checks if not authorize(EvaluationRequest(check, _SERVICE, policies, keys)).allowed]
    asked = {key for check in denied for key in keys_asked(policies, _SERVICE, check)}
    open_keys = {key for key in asked - {key.lower() for key in keys} if not _is_told(key)}
    return [check.action for check in denied], sorted(open_keys)


def _is_told(key: str) -> bool:
    """Whether a key that is not in the call is known to be absent from it, for every pod."""
    return key.startswith(_TOLD) and not key.endswith(_OF_PODS)


def _context(role: Role, association: Association, cluster_arn: str) -> dict[str, ContextValue]:
    """Return the keys of EKS's call, as far as they are the same for each pod (API-504)."""
    keys: dict[str, ContextValue] = {
        "aws:SourceArn": cluster_arn,
        "aws:SourceAccount": cluster_arn.split(":")[4],
        "aws:SecureTransport": "true",
    }
    for key, value in role.tags.items():
        keys |= {f"aws:ResourceTag/{key}": value, f"iam:ResourceTag/{key}": value}
    if association.has_session_tags:
        tags = {
            "eks-cluster-arn": cluster_arn,
            "eks-cluster-name": cluster_arn.rpartition("/")[2],
            "kubernetes-namespace": association.namespace,
            "kubernetes-service-account": association.service_account,
        }
        names = (*tags, *_OF_PODS)
        keys |= {f"aws:RequestTag/{key}": value for key, value in tags.items()}
        keys |= {"aws:TagKeys": names, "sts:TransitiveTagKeys": names}
    return keys
