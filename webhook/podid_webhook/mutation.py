"""From a pod and what one mechanism injects to a JSON Patch (WHK-301 to WHK-318, WHK-401 to WHK-409, WHK-501 to 522).

Pod Identity and IRSA differ in values only, so both are an `Injection` and share one `mutate`.
"""

from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import Struct

from podid_webhook.goparse import clean_join
from podid_webhook.jsontext import Json, JsonObject
from podid_webhook.pod import Container, Object, Pod

Method = Literal["container_credentials", "sts_web_identity"]
"""The mechanism, named as in upstream's metric ``pod_identity_webhook_pod_count``."""

LABEL = "eks.amazonaws.com/pod-identity"
_LABEL_VALUE = "enabled"

_STS = "AWS_STS_REGIONAL_ENDPOINTS"
_REGIONS = ("AWS_DEFAULT_REGION", "AWS_REGION")
_OS_LABELS = ("kubernetes.io/os", "beta.kubernetes.io/os")


class Injection(Struct, frozen=True, gc=False):
    """What a mechanism adds to a pod."""

    method: Method
    source: tuple[str, str]
    """First variable of the credential pair, with its value: the credentials' URI, or the role's ARN."""
    token_variable: str
    """Second variable of the pair; its value is the path of the token in the container."""
    volume_name: str
    audience: str
    """Empty: the projection has none, and the API server puts its own (WHK-409)."""
    token_path: str
    """Path of the token in the volume."""
    mount_path: str
    expiration_seconds: int
    regional_sts: bool
    region: str
    """Empty: no region is injected."""
    labelled: bool
    """Whether the pod gets the Pod Identity label."""


class Mutation(Struct, frozen=True, gc=False):
    """What to answer for a pod that has a configuration."""

    method: Method
    patch: list[JsonObject]
    """RFC 6902 operations, all ``add``, in the order label, volume, containers, initContainers (WHK-511)."""
    changes_spec: bool
    """False when the pod was complete before: then the patch sets only what is there already."""


def mutate(pod: Pod, injection: Injection, skipped: frozenset[str]) -> Mutation:
    """Build the patch that gives ``pod`` its credentials.

    Args:
        pod: The pod as received; the patch applies to exactly that object.
        injection: What to add.
        skipped: Names of containers and initContainers that get neither variables nor mount (WHK-516).
    """
    patch: list[JsonObject] = []
    if injection.labelled:
        patch.append(_label_operation(pod))
    volume_missing = injection.volume_name not in (pod.volume_names or ())
    if volume_missing:
        patch.append(_volume_operation(pod, injection))
    variables = _variables(pod, injection)
    completed = False
    for containers in (pod.containers, pod.init_containers):
        if containers.items is None:
            continue
        items: list[Json] = []
        for container in containers.items:
            item = container.json if container.name in skipped else _complete(container, injection, variables)
            completed = completed or item is not container.json
            items.append(item)
        patch.append(_add(items, pod.spec_key, containers.key))
    return Mutation(injection.method, patch, changes_spec=volume_missing or completed)


def _add(value: Json, *path: str) -> JsonObject:
    return {"op": "add", "path": _pointer(path), "value": value}


@lru_cache(maxsize=64)
def _pointer(path: tuple[str, ...]) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _label_operation(pod: Pod) -> JsonObject:
    if pod.has_labels:
        return _add(_LABEL_VALUE, pod.metadata_key, pod.labels_key, LABEL)
    labels: JsonObject = {LABEL: _LABEL_VALUE}
    if pod.has_metadata:
        return _add(labels, pod.metadata_key, pod.labels_key)
    # Without its parent the path above would not apply, and the API server would answer 500 (WHK-513).
    return _add({pod.labels_key: labels}, pod.metadata_key)


def _volume_operation(pod: Pod, injection: Injection) -> JsonObject:
    token: JsonObject = {"audience": injection.audience} if injection.audience else {}
    token |= {"expirationSeconds": injection.expiration_seconds, "path": injection.token_path}
    volume: JsonObject = {
        "name": injection.volume_name,
        "projected": {"sources": [{"serviceAccountToken": token}]},
    }
    if pod.volume_names is None:
        return _add([volume], pod.spec_key, pod.volumes_key)
    return _add(volume, pod.spec_key, pod.volumes_key, "0")


class _Group(Struct, frozen=True, gc=False):
    """Variables that a container gets together, and only if it has none of their names."""

    names: frozenset[str]
    variables: tuple[JsonObject, ...]
    """Entries of ``env``, shared by all pods. None when flags switch the group off; its names still count (WHK-506)."""


@lru_cache(maxsize=1024)  # the roles that pods are given most
def _group(*variables: tuple[str, str]) -> _Group:
    return _Group(
        frozenset(name for name, _ in variables), tuple({"name": name, "value": value} for name, value in variables)
    )


_STS_GROUP = _group((_STS, "regional"))
_NO_STS_GROUP = _Group(_STS_GROUP.names, ())


@lru_cache(maxsize=1)
def _region_group(region: str) -> _Group:
    group = _group(*((name, region) for name in _REGIONS))
    return group if region else _Group(group.names, ())


def _variables(pod: Pod, injection: Injection) -> tuple[_Group, ...]:
    token_file = clean_join(injection.mount_path, injection.token_path)
    if "windows" in map(pod.node_selector.get, _OS_LABELS):
        token_file = "C:" + token_file.replace("/", "\\")
    regional_sts = _STS_GROUP if injection.regional_sts else _NO_STS_GROUP
    return (
        regional_sts,
        _region_group(injection.region),
        _group(injection.source, (injection.token_variable, token_file)),
    )


def _complete(container: Container, injection: Injection, groups: tuple[_Group, ...]) -> Object:
    # Presence is by name only: an empty value, or one from elsewhere, is the user's choice (WHK-504).
    missing = [group for group in groups if group.names.isdisjoint(container.env_names)]
    if not missing:
        return container.json  # entirely untouched, without a mount even (WHK-506)
    additions = [variable for group in missing for variable in group.variables]
    mounted = injection.volume_name in container.mounted_volumes  # at whatever path (WHK-507)
    if mounted and not additions:
        return container.json
    changed: JsonObject = {}
    if additions:
        changed[container.env_key] = [*container.env, *additions]
    if not mounted:
        mount: JsonObject = {"name": injection.volume_name, "readOnly": True, "mountPath": injection.mount_path}
        changed[container.mounts_key] = [*container.mounts, mount]
    if isinstance(container.json, Struct):
        return msgspec.structs.replace(container.json, **changed)
    return {**container.json, **changed}
