"""Secrets Manager (``iam.md`` 9.2)."""

from __future__ import annotations

from dataclasses import replace

from harness.cloud.actions.model import ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.iam.model import ContextValue

_ON_SECRET = {
    "DeleteSecret",
    "DescribeSecret",
    "GetResourcePolicy",
    "GetSecretValue",
    "ListSecretVersionIds",
    "PutSecretValue",
    "RestoreSecret",
    "TagResource",
    "UntagResource",
    "UpdateSecret",
}
_ON_ANYTHING = {"GetRandomPassword", "ListSecrets"}


def plan_secretsmanager(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return the checks of a Secrets Manager call."""
    if call.operation in _ON_ANYTHING:
        return Plan((planned(call, "*"),))
    if call.operation == "CreateSecret":
        return Plan((_create(call),))
    if call.operation not in _ON_SECRET:
        return None
    secret_id = call.text("SecretId")
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
    context |= {f"secretsmanager:ResourceTag/{key}": value for key, value in resources.tags(resource).items()}
    return Plan((replace(planned(call, resource, context=context, resources=resources), shown=secret_id),))


def _create(call: ParsedCall) -> PlannedCheck:
    """Return the check of a new secret; AWS adds six random characters, so that no policy can name them."""
    name = call.text("Name")
    context: dict[str, ContextValue] = RequestTags.of(call.parameters.get("Tags")).context()
    context["secretsmanager:Name"] = name
    for member in ("Description", "KmsKeyId"):
        if value := call.text(member):
            context[f"secretsmanager:{member}"] = value
    return planned(call, call.arn("secretsmanager", f"secret:{name}-??????"), context=context)
