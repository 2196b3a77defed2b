"""Checks of parameters, with the errors of EKS (``eks-api.md`` sections 2 to 4)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from harness.cloud.documents import is_too_deep, members, one_or_more
from harness.cloud.eks.model import Scope
from harness.cloud.iam.policy import strict_json
from harness.cloud.iam.variables import literal_tokens
from harness.cloud.iam.wildcard import Pattern
from harness.cloud.ports import Refusal, Role

CLUSTER_NAME = re.compile(r"[0-9A-Za-z][A-Za-z0-9\-_]{0,99}")
POD_IDENTITY_SERVICE = "pods.eks.amazonaws.com"
_ROLE_ARN = re.compile(r"arn:(aws[a-z-]*):iam::(\d{12}):role/[\w+=,.@/-]{1,512}")
_MAX_TAGS = 50
_MAX_POLICY = 2048


def invalid_parameter(message: str) -> Refusal:
    """Return EKS's answer to a parameter that cannot be."""
    return Refusal("InvalidParameterException", message, 400)


def not_found(message: str) -> Refusal:
    """Return EKS's answer to a resource that is not there."""
    return Refusal("ResourceNotFoundException", message, 404)


def required(request: Mapping[str, Any], member: str) -> str:
    """Return a required text member (API-224).

    Raises:
        Refusal: It is missing, empty or no text.
    """
    value = request.get(member)
    if not isinstance(value, str) or not value:
        raise invalid_parameter(f"The parameter {member} is required.")
    return value


def optional(request: Mapping[str, Any], member: str) -> str | None:
    """Return an optional text member, None when it was not given.

    Raises:
        Refusal: It is no text.
    """
    value = request.get(member)
    if value is not None and not isinstance(value, str):
        raise invalid_parameter(f"The parameter {member} must be a string.")
    return value


def page_size(request: Mapping[str, Any]) -> int:
    """Return ``maxResults``, 100 by default (API-236).

    Raises:
        Refusal: It is not within 1 to 100.
    """
    value = request.get("maxResults", 100)
    if not isinstance(value, int) or not 1 <= value <= 100:
        raise invalid_parameter(f"maxResults must be between 1 and 100, not {value}.")
    return value


def check_association_id(association_id: str) -> None:
    """Refuse ids of a wrong length (API-232)."""
    if len(association_id) != 19:
        raise invalid_parameter("The parameter associationId should be 19 characters long.")


def check_tags(tags: Mapping[str, str], code: str = "InvalidParameterException") -> dict[str, str]:
    """Return valid tags as a dict of its own (API-223).

    Args:
        tags: Key → value; empty means that none were given.
        code: Error code of the operation.

    Raises:
        Refusal: Too many, too long, or a reserved key.
    """
    problem = ""
    if len(tags) > _MAX_TAGS:
        problem = f"A resource has at most {_MAX_TAGS} tags, not {len(tags)}."
    for key, value in tags.items():
        if not 1 <= len(key) <= 128:
            problem = "A tag key must have 1 to 128 characters."
        elif len(value) > 256:
            problem = f"The value of tag {key} must have at most 256 characters."
        elif key.lower().startswith("aws:"):
            problem = f"The tag key {key} is reserved: keys must not start with aws:."
    if problem:
        raise Refusal(code, problem, 400)
    return dict(tags)


def check_role_arn(arn: str, scope: Scope) -> None:
    """Refuse what is no role ARN, and roles of other accounts (API-213, API-214)."""
    found = _ROLE_ARN.fullmatch(arn)
    if not found or found[1] != scope.partition:
        raise invalid_parameter(f"The role ARN {arn} is not valid.")
    if found[2] != scope.account:
        raise invalid_parameter(f"The role {arn} must be in the account of the cluster, {scope.account}.")


def check_target_role_arn(arn: str, scope: Scope) -> None:
    """Refuse what is no role ARN; whether the role exists shows at assume time (API-216)."""
    found = _ROLE_ARN.fullmatch(arn)
    if not found or found[1] != scope.partition:
        raise invalid_parameter(f"The target role ARN {arn} is not valid.")


def check_role(role: Role | None) -> None:
    """Refuse an absent role and one that does not trust Pod Identity at all (API-210 to API-212)."""
    if role is None:
        raise invalid_parameter("Role provided in the request does not exist.")
    if not trusts_pod_identity(role.trust_policy):
        raise invalid_parameter(
            "Trust policy of the role provided is invalid. Follow the official documentation to resolve the issue."
        )


def trusts_pod_identity(trust_policy: str) -> bool:
    """Tell whether a trust policy allows ``sts:AssumeRole`` to the service; conditions are not looked at (API-212)."""
    try:
        document = json.loads(trust_policy)
    except ValueError:
        return False
    return any(_names_pod_identity(members(statement)) for statement in one_or_more(members(document).get("Statement")))


def _names_pod_identity(statement: Mapping[str, Any]) -> bool:
    services = one_or_more(members(statement.get("Principal")).get("Service"))
    actions = (str(action).lower() for action in one_or_more(statement.get("Action")))
    return (
        statement.get("Effect") == "Allow"
        and POD_IDENTITY_SERVICE in services
        and any(_covers_assume_role(action) for action in actions)
    )


def _covers_assume_role(pattern: str) -> bool:
    return Pattern(literal_tokens(pattern, has_wildcards=True)).matches("sts:assumerole", {})


def check_policy(policy: str, *, disable_session_tags: bool) -> None:
    """Refuse a session policy that tags exclude, or that is none (API-218, API-219)."""
    if not disable_session_tags:
        raise invalid_parameter("A policy can only be specified when disableSessionTags is true.")
    if len(policy) > _MAX_POLICY:
        raise invalid_parameter(f"The policy must have at most {_MAX_POLICY} characters.")
    try:
        document = strict_json(policy)
    except ValueError as error:
        raise invalid_parameter("The policy is not valid JSON.") from error
    if "Statement" not in members(document) or is_too_deep(document):
        raise invalid_parameter("The policy is not a valid IAM policy document.")
