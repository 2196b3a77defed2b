"""Secrets Manager (``iam.md`` 9.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from harness.cloud.actions.model import Key, ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.documents import entries, members
from harness.cloud.iam.model import ContextValue
from harness.cloud.ports import NamedPolicy

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
_OF_KEY = {
    "CreateSecret": ("GenerateDataKey", "Decrypt"),
    "PutSecretValue": ("GenerateDataKey", "Decrypt"),
    "UpdateSecret": ("GenerateDataKey", "Decrypt"),
    "GetSecretValue": ("Decrypt",),
    "BatchGetSecretValue": ("Decrypt",),
}
"""What the caller must be allowed with a key of its own, which Secrets Manager uses in the caller's name."""
_SEALED_ANEW = {"KmsKeyId", "SecretBinary", "SecretString"}
"""Members of UpdateSecret that need the key; a new description does not."""
_OWN_KEY = "alias/aws/secretsmanager"
"""Good for everybody of the account, by way of Secrets Manager; controllers name it as often as they name none."""
_NO_KEY = "Access to KMS is not allowed"
_NO_CONSENT = NamedPolicy("no such key", '{"Version":"2012-10-17","Statement":[]}')


def plan_secretsmanager(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return the checks of a Secrets Manager call."""
    if call.operation in _ON_ANYTHING:
        return Plan((planned(call, "*"),))
    if call.operation == "CreateSecret":
        return Plan((*_create(call), *_key(call, resources)))
    if call.operation == "BatchGetSecretValue":
        listing = (planned(call, "*", action="secretsmanager:ListSecrets"),) if _filters(call) else ()
        return Plan((planned(call, "*"), *listing, *_each(call, resources)))
    if call.operation not in _ON_SECRET:
        return None
    check = _on_secret(call, resources, call.text("SecretId"))
    return Plan((check, *_key(call, resources, resources.secret_key(check.check.resource))))


def _key(call: ParsedCall, resources: Resources, named: str = "") -> Iterator[PlannedCheck]:
    """Yield the checks of the key that protects a secret, as kms:ViaService lets key policies tell them from others."""
    named = call.text("KmsKeyId") or named
    if named in {"", _OWN_KEY, call.arn("kms", _OWN_KEY)}:
        return
    if call.operation == "UpdateSecret" and not _SEALED_ANEW & call.parameters.keys():
        return
    # A key that is not there, or another account's, consents to nothing.
    key = resources.kms_key(call.account, call.region, named, b"") or Key(call.arn("kms", f"key/{named}"), _NO_CONSENT)
    context: dict[str, ContextValue] = {
        "kms:CallerAccount": call.account,
        "kms:ViaService": f"secretsmanager.{call.region}.amazonaws.com",
        "kms:EncryptionContextKeys": ("SecretARN", "SecretVersionId"),
    }
    for operation in _OF_KEY.get(call.operation, ()):
        check = planned(call, key.arn, action=f"kms:{operation}", context=context, tags=())
        yield replace(check, resource_policy=key.policy, denial=_NO_KEY)


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
    """Return the checks of every secret of a batch: who may not read one gets the others, and an error in its place."""
    named = [str(secret) for secret in entries(call.parameters.get("SecretIdList"))]
    if not named:
        named = list(resources.find_secrets(call.account, call.region, _filters(call)))
    checks: list[PlannedCheck] = []
    for secret in named:
        reading = _on_secret(call, resources, secret, "secretsmanager:GetSecretValue")
        opening = _key(call, resources, resources.secret_key(reading.check.resource))
        checks += [replace(check, key=secret) for check in (reading, *opening)]
    return checks


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
