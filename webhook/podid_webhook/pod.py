"""What the webhook reads of a Pod, taken from its JSON once.

Members are found without regard to case, as Go does, and remembered under the names the object really has: a patch
must address those.
"""

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


def decode_pod(value: Json) -> Pod:
    """Read a Pod.

    Raises:
        WrongTypeError: If a field has a JSON type that Kubernetes would not decode. Nulls count as absent (WHK-521).
    """
    check_pod(value)
    pod = _object(value)
    metadata_key, metadata = member(pod, "metadata")
    meta = _object(metadata)
    labels_key, labels = member(meta, "labels")
    spec_key, spec_value = member(pod, "spec")
    spec = _object(spec_value)
    volumes_key, volumes = member(spec, "volumes")
    return Pod(
        metadata_key=metadata_key,
        has_metadata=metadata is not None,
        display_name=_string(member(meta, "name")[1]) or _string(member(meta, "generateName")[1]),
        labels_key=labels_key,
        has_labels=labels is not None,
        annotations=_string_map(member(meta, "annotations")[1]),
        spec_key=spec_key,
        service_account=_string(member(spec, "serviceAccountName")[1]),
        node_selector=_string_map(member(spec, "nodeSelector")[1]),
        volumes_key=volumes_key,
        volume_names=None if volumes is None else _names(_list(volumes)),
        containers=_containers(spec, "containers"),
        init_containers=_containers(spec, "initContainers"),
    )


def _containers(spec: JsonObject, name: str) -> Containers:
    key, value = member(spec, name)
    return Containers(key, None if value is None else tuple(_container(_object(item)) for item in _list(value)))


def _container(container: JsonObject) -> Container:
    env_key, env = member(container, "env")
    mounts_key, mounts = member(container, "volumeMounts")
    return Container(
        json=container,
        name=_string(member(container, "name")[1]),
        env_key=env_key,
        env=(variables := _list(env)),
        env_names=_names(variables),
        mounts_key=mounts_key,
        mounts=(mounted := _list(mounts)),
        mounted_volumes=_names(mounted),
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


def _names(items: list[Json]) -> frozenset[str]:
    return frozenset([_string(member(_object(item), "name")[1]) for item in items])
