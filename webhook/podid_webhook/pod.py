"""What the webhook reads of a Pod, taken from its JSON once.

Members are found without regard to case, as Go does, and remembered under the names the object really has: a patch
must address those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from podid_webhook.jsontext import Json, JsonObject, member
from podid_webhook.pod_schema import check_pod


@dataclass(frozen=True, slots=True)
class Container:
    """One container as sent, with the names that decide what it still needs."""

    json: JsonObject
    """The whole container, every field, known or not."""
    name: str
    env_key: str
    env: list[Json]
    env_names: frozenset[str]
    mounts_key: str
    mounts: list[Json]
    mounted_volumes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Containers:
    """The ``containers`` or the ``initContainers`` of a pod."""

    key: str
    items: tuple[Container, ...] | None
    """None when the list is absent or null."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod under review."""

    metadata_key: str
    has_metadata: bool
    display_name: str
    """``metadata.name``, or ``generateName`` with its trailing dash; for log lines."""
    labels_key: str
    has_labels: bool
    annotations: dict[str, str]
    spec_key: str
    service_account: str
    """Verbatim: empty for the mirror pods of static pods (WHK-116)."""
    node_selector: dict[str, str]
    volumes_key: str
    volume_names: frozenset[str] | None
    """None when the list is absent or null."""
    containers: Containers
    init_containers: Containers


_Find = Callable[[JsonObject, str], tuple[str, Json]]
"""Looks a member up, as `jsontext.member` does."""


def decode_pod(value: Json) -> Pod:
    """Read a Pod.

    Raises:
        WrongTypeError: If a field has a JSON type that Kubernetes would not decode. Nulls count as absent (WHK-521).
    """
    find = _exact_member if check_pod(value) else member
    pod = _object(value)
    metadata_key, metadata = find(pod, "metadata")
    meta = _object(metadata)
    labels_key, labels = find(meta, "labels")
    spec_key, spec_value = find(pod, "spec")
    spec = _object(spec_value)
    volumes_key, volumes = find(spec, "volumes")
    return Pod(
        metadata_key=metadata_key,
        has_metadata=metadata is not None,
        display_name=_string(find(meta, "name")[1]) or _string(find(meta, "generateName")[1]),
        labels_key=labels_key,
        has_labels=labels is not None,
        annotations=_string_map(find(meta, "annotations")[1]),
        spec_key=spec_key,
        service_account=_string(find(spec, "serviceAccountName")[1]),
        node_selector=_string_map(find(spec, "nodeSelector")[1]),
        volumes_key=volumes_key,
        volume_names=None if volumes is None else _names(find, _list(volumes)),
        containers=_containers(find, spec, "containers"),
        init_containers=_containers(find, spec, "initContainers"),
    )


def _exact_member(container: JsonObject, name: str) -> tuple[str, Json]:
    return name, container.get(name)


def _containers(find: _Find, spec: JsonObject, name: str) -> Containers:
    key, value = find(spec, name)
    return Containers(key, None if value is None else tuple(_container(find, _object(item)) for item in _list(value)))


def _container(find: _Find, container: JsonObject) -> Container:
    env_key, env = find(container, "env")
    mounts_key, mounts = find(container, "volumeMounts")
    return Container(
        json=container,
        name=_string(find(container, "name")[1]),
        env_key=env_key,
        env=(variables := _list(env)),
        env_names=_names(find, variables),
        mounts_key=mounts_key,
        mounts=(mounted := _list(mounts)),
        mounted_volumes=_names(find, mounted),
    )


# check_pod has been over the value: what is not null has the type that its place asks for.


def _object(value: Json) -> JsonObject:
    return cast("JsonObject", value or {})


def _list(value: Json) -> list[Json]:
    return cast("list[Json]", value or [])


def _string(value: Json) -> str:
    return cast("str", value or "")


def _string_map(value: Json) -> dict[str, str]:
    return {key: _string(item) for key, item in _object(value).items()}


def _names(find: _Find, items: list[Json]) -> frozenset[str]:
    try:
        # Nearly always every entry has its name; a null among them is no name that anybody asks for.
        return frozenset([item["name"] for item in cast("list[dict[str, str]]", items)])
    except (KeyError, TypeError):
        return frozenset([_string(find(_object(item), "name")[1]) for item in items])
