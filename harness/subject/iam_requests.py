"""Short forms of what goes into a decision."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cloud.iam import Check, ContextValue, Decision, EvaluationRequest, PolicySet, authorize
from harness.cloud.ports import NamedPolicy, Principal

ACCOUNT = "123456789012"
OTHER_ACCOUNT = "987654321098"
OBJECT = "arn:aws:s3:::notes/a"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/reader"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/job-1"
POD = Principal("role-session", SESSION, ACCOUNT, "AROAREADER:job-1", role_arn=ROLE)
USER = Principal("user", f"arn:aws:iam::{ACCOUNT}:user/ops/alice", ACCOUNT, "AIDAALICE")
ROOT = Principal("root", f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, ACCOUNT)
EKS = Principal("service", "", "", "", service="pods.eks.amazonaws.com")
ANONYMOUS = Principal("anonymous", "", "", "")

ALLOW_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
DENY_ALL = {"Effect": "Deny", "Action": "*", "Resource": "*"}


def policy(*statements: Mapping[str, Any], name: str = "inline:test", version: str = "2012-10-17") -> NamedPolicy:
    """Return a document of these statements."""
    return NamedPolicy(name, json.dumps({"Version": version, "Statement": list(statements)}))


def alone(layer: str, document: NamedPolicy) -> dict[str, Any]:
    """Return a layer of one document in the form in which PolicySet has it."""
    as_levels = {"scp": ((document,),), "rcp": ((document,),), "resource": document, "trust": document}
    names = {"boundary": "boundaries"}
    return {names.get(layer, layer): as_levels.get(layer, (document,))}


def ask(
    principal: Principal,
    action: str = "s3:GetObject",
    target: str = OBJECT,
    *,
    owner: str = ACCOUNT,
    context: Mapping[str, ContextValue] | None = None,
    identity: Sequence[NamedPolicy] = (),
    **layers: Any,
) -> Decision:
    """Decide one check; layers are the members of PolicySet."""
    check = Check(action, target, owner)
    policies = PolicySet(identity=tuple(identity), **layers)
    return authorize(EvaluationRequest(check, principal, policies, context or {}))


def allows(principal: Principal, statement: Mapping[str, Any], resource: str = OBJECT, **context: ContextValue) -> bool:
    """Tell whether one identity statement of version 2012-10-17 allows a GetObject."""
    return ask(principal, target=resource, context=context, identity=[policy(statement)]).allowed
