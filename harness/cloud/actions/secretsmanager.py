"""Secrets Manager (``iam.md`` 9.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from harness.cloud.actions.model import ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.documents import entries, members
from harness.cloud.iam.model import ContextValue

_ON_SECRET = {
    "DeleteResourcePolicy",
    "DeleteSecret",
    "DescribeSecret",
    "GetResourcePolicy",
    "GetSecretValue",
    "ListSecretVersionIds",
    "PutResourcePolicy",
    "PutSecretValue",
    "RestoreSecret",
    "TagResource",
    "UntagResource",
    "UpdateSecret",
    "UpdateSecretVersionStage",
}
_ON_ANYTHING = {"GetRandomPassword", "ListSecrets"}


def plan_secretsmanager(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return the checks of a Secrets Manager call."""
    if call.operation in _ON_ANYTHING:
        return Plan((planned(call, "*"),))
    if call.operation == "CreateSecret":
        return Plan(tuple(_create(call)))
    if call.operation == "BatchGetSecretValue":
        listing = (planned(call, "*", action="secretsmanager:ListSecrets"),) if _filters(call) else ()
        return Plan((planned(call, "*"), *listing, *_each(call, resources)))
    if call.operation not in _ON_SECRET:
        return None
    return Plan((_on_secret(call, resources, call.text("SecretId")),))


def _on_secret(call: ParsedCall, resources: Resources, secret_id: str, action: str = "") -> PlannedCheck:
    stored = resources.secret(call.account, call.region, secret_id)
    # An absent secret is checked under the name as given, so that its absence is told only to who may read it.
    resource = stored or (
        secret_id if secret_id.startswith("arn:") else call.arn("secretsmanager", f"secret:{secret_id}")
    )
    context: dict[str, ContextValue] = RequestTags.of(call.parameters.get("Tags")).context()
    if removed := call.parameters.get("TagKeys"):
        context["aws:TagKeys"] = tuple(str(key) for key in removed)
    context["secretsmanager:SecretId"] = resource
    for member in ("VersionId", "VersionStage"):
        if value := call.text(member):
            context[f"secretsmanager:{member}"] = value
    check = planned(call, resource, action=action, context=context, tags=("secretsmanager:ResourceTag/",))
    return replace(check, shown=secret_id, resource_policy=resources.secret_policy(resource))


def _each(call: ParsedCall, resources: Resources) -> Sequence[PlannedCheck]:
    """Return the check of every secret of a batch: who may not read one gets the others, and an error in its place."""
    named = [str(secret) for secret in entries(call.parameters.get("SecretIdList"))]
    if not named:
        named = list(resources.find_secrets(call.account, call.region, _filters(call)))
    return [
        replace(_on_secret(call, resources, secret, "secretsmanager:GetSecretValue"), key=secret) for secret in named
    ]


def _filters(call: ParsedCall) -> Sequence[dict[str, Any]]:
    return [dict(members(entry)) for entry in entries(call.parameters.get("Filters"))]


def _create(call: ParsedCall) -> Iterator[PlannedCheck]:
    """Yield the checks of a new secret; AWS adds six random characters, so that no policy can name them."""
    name = call.text("Name")
    context: dict[str, ContextValue] = RequestTags.of(call.parameters.get("Tags")).context()
    context["secretsmanager:Name"] = name
    for member in ("Description", "KmsKeyId"):
        if value := call.text(member):
            context[f"secretsmanager:{member}"] = value
    resource = call.arn("secretsmanager", f"secret:{name}-??????")
    yield planned(call, resource, context=context)
    if call.parameters.get("Tags"):
        yield planned(call, resource, action="secretsmanager:TagResource", context=context)
