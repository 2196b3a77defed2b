"""Key Management Service: what uses a key, and what its key policy may look at (``iam.md`` 9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.cloud.actions.model import ParsedCall, Plan, PlannedCheck, RequestTags, Resources, planned
from harness.cloud.documents import entries, members
from harness.cloud.iam.model import ContextValue
from harness.cloud.ports import Refusal

_ON_ANYTHING = {"GenerateRandom", "ListAliases", "ListKeys"}
_WITH_CONTEXT = {
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
}
_ON_KEY = _WITH_CONTEXT | {
    "CancelKeyDeletion",
    "DescribeKey",
    "DisableKey",
    "DisableKeyRotation",
    "EnableKey",
    "EnableKeyRotation",
    "GetKeyPolicy",
    "GetKeyRotationStatus",
    "GetPublicKey",
    "ListKeyPolicies",
    "ListResourceTags",
    "PutKeyPolicy",
    "ScheduleKeyDeletion",
    "Sign",
    "TagResource",
    "UntagResource",
    "UpdateKeyDescription",
    "Verify",
}
_ON_ALIAS = {"CreateAlias", "DeleteAlias", "UpdateAlias"}
_AS_SENT = {"EncryptionAlgorithm": "kms:EncryptionAlgorithm", "SigningAlgorithm": "kms:SigningAlgorithm"}


def plan_kms(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return the checks of a KMS call.

    Raises:
        Refusal: The key is not there; nobody's policy could have a say.
    """
    if call.operation in _ON_ANYTHING:
        return Plan((planned(call, "*"),))
    if call.operation == "CreateKey":
        return Plan((planned(call, "*", context=_keys(call)),))
    if call.operation in _ON_ALIAS:
        return Plan(tuple(_alias(call, resources)))
    return Plan((_on_key(call, resources, call.text("KeyId")),)) if call.operation in _ON_KEY else None


def _alias(call: ParsedCall, resources: Resources) -> Iterator[PlannedCheck]:
    """Yield the checks of an alias: on itself, on the key that it gets, and on the one that it has."""
    alias = call.text("AliasName")
    yield planned(call, call.arn("kms", alias), context=_keys(call))
    if call.operation != "CreateAlias":
        yield _on_key(call, resources, alias)
    if call.operation != "DeleteAlias":
        yield _on_key(call, resources, call.text("TargetKeyId"))


def _on_key(call: ParsedCall, resources: Resources, named: str) -> PlannedCheck:
    ciphertext = call.parameters.get("CiphertextBlob")
    key = resources.kms_key(call.account, call.region, named, ciphertext if isinstance(ciphertext, bytes) else b"")
    if key is None:
        arn = named if named.startswith("arn:") else call.arn("kms", f"key/{named}")
        raise Refusal("NotFoundException", f"Key '{arn}' does not exist", 400)
    context = _keys(call)
    if call.operation not in _ON_ALIAS and (named.startswith("alias/") or ":alias/" in named):
        context["kms:RequestAlias"] = named.rpartition(":")[2]
    check = planned(call, key.arn, context=context, tags=())
    # Without its consent nobody gets at a key (IAM-EVAL-05).
    return replace(check, resource_policy=key.policy)


def _keys(call: ParsedCall) -> dict[str, ContextValue]:
    context: dict[str, ContextValue] = {"kms:CallerAccount": call.account}
    context |= {key: call.text(member) for member, key in _AS_SENT.items() if call.text(member)}
    if call.operation in _WITH_CONTEXT and (encryption := members(call.parameters.get("EncryptionContext"))):
        context |= {f"kms:EncryptionContext:{name}": str(value) for name, value in encryption.items()}
        context["kms:EncryptionContextKeys"] = tuple(encryption)
    tags = {
        str(members(tag).get("TagKey")): members(tag).get("TagValue") for tag in entries(call.parameters.get("Tags"))
    }
    context |= RequestTags.of(tags).context()
    if removed := entries(call.parameters.get("TagKeys")):
        context["aws:TagKeys"] = tuple(str(key) for key in removed)
    return context
