"""What the webhook reads of a Pod, once, from either form in which it comes.

Nearly every pod fits the schema and has been decoded by it. One with fields that the schema does not have, or in
another case, is plain JSON: its members are found without regard to case, as Go does, and remembered under the names
the object really has, since a patch must address those.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, TypeAlias

from msgspec import UNSET, Struct

from podid_webhook.jsontext import Json, JsonObject, member
from podid_webhook.pod_schema import check_pod, empty

Object: TypeAlias = JsonObject | Struct
"""A JSON object, plain or as the schema decoded it."""


class Container(Struct, frozen=True, gc=False):
    """One container as sent, with the names that decide what it still needs."""

    json: Object
    """The whole container, every field, known or not."""
    name: str
    env_key: str
    env: list[Json]
    env_names: frozenset[str]
    mounts_key: str
    mounts: list[Json]
    mounted_volumes: frozenset[str]


class Containers(Struct, frozen=True, gc=False):
    """The ``containers`` or the ``initContainers`` of a pod."""

    key: str
    items: tuple[Container, ...] | None
    """None when the list is absent or null."""


class Pod(Struct, frozen=True, gc=False):
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


def decode_pod(value: Object) -> Pod:
    """Read a Pod.

    Raises:
        WrongTypeError: If a field has a JSON type that Kubernetes would not decode. Nulls count as absent (WHK-521).
    """
    if isinstance(value, Struct):
        return _read_decoded(value)
    check_pod(value)
    return _read_plain(value)


# --- A pod that the schema has decoded. What is not set is UNSET, which is as false as null. -------------------------

_NO_METADATA, _NO_SPEC, _NO_CONTAINER = empty("ObjectMeta"), empty("PodSpec"), empty("Container")


def _read_decoded(pod: Any) -> Pod:
    meta, spec = pod.metadata or _NO_METADATA, pod.spec or _NO_SPEC
    return Pod(
        metadata_key="metadata",
        has_metadata=_is_present(pod.metadata),
        display_name=meta.name or meta.generateName or "",
        labels_key="labels",
        has_labels=_is_present(meta.labels),
        annotations=_texts(meta.annotations),
        spec_key="spec",
        service_account=spec.serviceAccountName or "",
        node_selector=_texts(spec.nodeSelector),
        volumes_key="volumes",
        volume_names=_names(spec.volumes) if _is_present(spec.volumes) else None,
        containers=_decoded_containers("containers", spec.containers),
        init_containers=_decoded_containers("initContainers", spec.initContainers),
    )


def _decoded_containers(key: str, containers: Any) -> Containers:
    return Containers(key, tuple(map(_decoded_container, containers)) if _is_present(containers) else None)


def _decoded_container(container: Any) -> Container:
    container = container or _NO_CONTAINER
    env: list[Any] = container.env or []
    mounts: list[Any] = container.volumeMounts or []
    return Container(container, container.name or "", "env", env, _names(env), "volumeMounts", mounts, _names(mounts))


def _is_present(value: Any) -> bool:
    return value is not None and value is not UNSET


_name_of = attrgetter("name")


def _names(items: Iterable[Any]) -> frozenset[str]:
    try:
        return frozenset(map(_name_of, items))  # UNSET among them is no name that anybody asks for
    except AttributeError:  # a null among the items
        return frozenset(item.name for item in items if item is not None)


# --- A pod as it came. Types have been checked: what is not null has the one that its place asks for. ----------------


def _read_plain(pod: Any) -> Pod:
    metadata_key, metadata = member(pod, "metadata")
    meta: Any = metadata or {}
    labels_key, labels = member(meta, "labels")
    spec_key, spec_value = member(pod, "spec")
    spec: Any = spec_value or {}
    volumes_key, volumes = member(spec, "volumes")
    return Pod(
        metadata_key=metadata_key,
        has_metadata=metadata is not None,
        display_name=_text(meta, "name") or _text(meta, "generateName"),
        labels_key=labels_key,
        has_labels=labels is not None,
        annotations=_texts(member(meta, "annotations")[1]),
        spec_key=spec_key,
        service_account=_text(spec, "serviceAccountName"),
        node_selector=_texts(member(spec, "nodeSelector")[1]),
        volumes_key=volumes_key,
        volume_names=None if volumes is None else _plain_names(volumes),
        containers=_plain_containers(spec, "containers"),
        init_containers=_plain_containers(spec, "initContainers"),
    )


def _plain_containers(spec: JsonObject, name: str) -> Containers:
    key, containers = member(spec, name)
    items: Any = containers
    return Containers(key, None if items is None else tuple(_plain_container(item or {}) for item in items))


def _plain_container(container: JsonObject) -> Container:
    env_key, env_value = member(container, "env")
    mounts_key, mounts_value = member(container, "volumeMounts")
    env: Any = env_value or []
    mounts: Any = mounts_value or []
    names, volumes = _plain_names(env), _plain_names(mounts)
    return Container(container, _text(container, "name"), env_key, env, names, mounts_key, mounts, volumes)


def _plain_names(items: Any) -> frozenset[str]:
    return frozenset(_text(item or {}, "name") for item in items)


def _text(container: JsonObject, name: str) -> str:
    text: Any = member(container, name)[1]
    return text or ""


def _texts(texts: Any) -> dict[str, str]:
    return {key: text or "" for key, text in texts.items()} if texts else {}
