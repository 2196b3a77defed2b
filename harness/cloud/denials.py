"""What a denied caller is told: AWS's sentence, in the form of each service (``iam.md`` 14.1 and 14.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.cloud.iam.model import Decision
from harness.cloud.ports import Principal, Refusal

__all__ = ["access_denied"]

_NOT_SHOWN = {"s3:ListAllMyBuckets"}
_IAM_LISTS = {"iam:ListRoles": "role/"}
"""IAM shows the collection where the check was made on a star."""


_NAMED_LAYERS = {"scp", "rcp", "boundary", "session", "identity"}


@dataclass(frozen=True, slots=True)
class _Form:
    """How a service denies."""

    code: str
    status: int


_QUERY = _Form("AccessDenied", 403)
_JSON = _Form("AccessDeniedException", 400)
_REST_JSON = _Form("AccessDeniedException", 403)
_FORMS: Mapping[str, _Form] = {
    "cloudtrail": _JSON,
    "dynamodb": _JSON,
    "ec2": _Form("UnauthorizedOperation", 403),
    "eks": _REST_JSON,
    "eks-auth": _JSON,
    "elbv2": _QUERY,
    "iam": _QUERY,
    "kms": _JSON,
    "lambda": _REST_JSON,
    "s3": _QUERY,
    "secretsmanager": _JSON,
    "sns": _Form("AuthorizationError", 403),
    "sqs": _REST_JSON,
    "ssm": _JSON,
    "sts": _QUERY,
}


def access_denied(
    service: str,
    principal: Principal,
    decision: Decision,
    resource_shown: str | None = None,
    *,
    names_policy: bool = False,
    is_one_organization: bool = False,
    encoded: str = "",
) -> Refusal:
    """Return the refusal that AWS would send for a denial.

    Args:
        service: The called service as SDKs name it; its form counts, also when the denied action is another's, such as
            ``iam:PassRole`` in a call of EKS (IAM-ACT-04).
        principal: Who made the call.
        decision: The denial.
        resource_shown: Name of the resource where it is not the ARN: the SecretId as the caller wrote it.
        names_policy: Whether an explicit denial within the account tells the ARN of its policy (IAM-MSG-06).
        is_one_organization: Whether the accounts of caller and resource belong to one organization.
        encoded: EC2: what may be decoded about a denial on a resource; empty for none.

    Returns:
        Code, text and status. The text discloses no more than section 14 says (IAM-MSG-08).
    """
    form = _FORMS.get(service, _QUERY)
    if service == "s3" and (principal.kind == "anonymous" or (decision.cross_account and not is_one_organization)):
        # Strangers learn nothing (IAM-MSG-05).
        return Refusal(form.code, "Access Denied", form.status)
    text = _sentence(service, principal, decision, resource_shown)
    if names_policy and decision.explicit and decision.layer in _NAMED_LAYERS and not decision.cross_account:
        text += f": {decision.policy}" if decision.policy.startswith("arn:") else ""
    if service == "ec2":
        text = f"You are not authorized to perform this operation. {text}"
        text += f". Encoded authorization failure message: {encoded}" if encoded else ""
    return Refusal(form.code, text, form.status)


def _sentence(service: str, principal: Principal, decision: Decision, resource_shown: str | None) -> str:
    told = decision._replace(action=_action_shown(service, decision.action))
    text = f"User: {decision.principal} is not authorized to perform: {told.action}"
    resource = _resource_shown(service, principal, decision) if resource_shown is None else resource_shown
    if resource:
        text += f" on resource: {resource}"
    # STS gives no reason (IAM-MSG-04).
    return text if service == "sts" else f"{text} {told.reason()}"


def _action_shown(service: str, action: str) -> str:
    if service == "sqs":
        return action.lower()
    return action.replace("sns:", "SNS:", 1) if service == "sns" else action


def _resource_shown(service: str, principal: Principal, decision: Decision) -> str:
    """Return the ARN as the service shows it; empty for actions without a resource."""
    if decision.action in _IAM_LISTS:
        return f"arn:aws:iam::{principal.account}:{_IAM_LISTS[decision.action]}"
    if decision.resource == "*" or decision.action in _NOT_SHOWN:
        return ""
    return f'"{decision.resource}"' if service == "s3" else decision.resource
