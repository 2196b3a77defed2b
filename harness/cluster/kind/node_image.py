"""The node image: which one, whether it is there, and what it needs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from docker.errors import DockerException, ImageNotFound

from harness.cluster.kind.configuration import NodeTraits
from harness.cluster.kind.engine import Engine, LabEngine, explained
from harness.errors import HarnessFault, MissingPrerequisite
from harness.image_lock import pulled
from harness.progress import Progress

__all__ = ["NodeImage", "ensure_node_image", "find_node_image", "read_traits", "wanted"]

_REPOSITORY = "kindest/node"
_MINOR = "v1.34."
_FACTS = {
    "version": "cat /kind/version",
    "cgroups": "cat /etc/containerd/config.toml",
    "network": "ls /etc/cni/net.d",
}
_SEPARATOR = "--podid--"


@dataclass(frozen=True, slots=True)
class NodeImage:
    """A node image that is in the engine."""

    reference: str
    """What kind is told to use."""
    id: str


def wanted() -> str:
    """Return the reference that was asked for with ``PODID_KIND_NODE_IMAGE``, or the one of ``images.lock``."""
    return os.environ.get("PODID_KIND_NODE_IMAGE") or pulled("node").reference


def find_node_image(engine: Engine) -> NodeImage | None:
    """Return the node image if it is in the engine.

    Unless one was asked for, any ``kindest/node:v1.34.*`` that is there serves: an image that was loaded from an
    archive, as on a machine without a registry, has no digest in the engine.
    """
    try:
        image: Any = engine.client.images.get(wanted())
        return NodeImage(wanted(), str(image.id))
    except ImageNotFound:
        if os.environ.get("PODID_KIND_NODE_IMAGE"):
            return None
    found = {
        tag: str(image.id)
        for image in engine.client.images.list(name=_REPOSITORY)
        for tag in image.tags
        if tag.startswith(f"{_REPOSITORY}:{_MINOR}") and re.fullmatch(r"v1\.\d+\.\d+", tag.rpartition(":")[2])
    }
    if not found:
        return None
    newest = max(found, key=lambda tag: int(tag.rpartition(".")[2]))
    return NodeImage(newest, found[newest])


def is_pullable(engine: Engine) -> bool:
    """Ask the image's registry, through the engine, whether it has the image."""
    try:
        engine.client.images.get_registry_data(wanted())
    except (DockerException, OSError):
        return False
    return True


def ensure_node_image(engine: Engine, progress: Progress) -> NodeImage:
    """Return the node image, pulling it when it is not in the engine.

    Raises:
        MissingPrerequisite: It cannot be pulled.
    """
    if found := find_node_image(engine):
        return found
    with progress.phase("node image") as phase:
        phase.step(f"pulling {wanted()}")
        try:
            with explained(f"pulling {wanted()}"):
                image: Any = engine.client.images.pull(wanted())
        except HarnessFault as error:
            raise MissingPrerequisite(
                error.message,
                hint="check the network; without one, load an image with: docker load --input FILE, and name it with "
                "PODID_KIND_NODE_IMAGE",
            ) from error
        return NodeImage(wanted(), str(image.id))


def read_traits(engine: LabEngine, image: NodeImage) -> NodeTraits:
    """Read what the image needs from its own files.

    In a privileged container, as kind will run the image, so that an engine that refuses those says it here and not
    after half a minute.

    Raises:
        MissingPrerequisite: The engine refuses privileged containers.
        HarnessFault: The image is no node image of kind.
    """
    script = f"; echo {_SEPARATOR}; ".join(f"{command} 2>/dev/null" for command in _FACTS.values())
    output = engine.engine.run_privileged(image.reference, ["sh", "-c", script], engine.labels)
    return traits_of(image.reference, output)


def traits_of(reference: str, output: str) -> NodeTraits:
    """Read what the probe printed.

    Raises:
        HarnessFault: It is not what a node image of kind prints.
    """
    version, cgroups, network = (part.strip() for part in (output + f"{_SEPARATOR}" * 2).split(_SEPARATOR)[:3])
    if not re.fullmatch(r"v\d+\.\d+\.\d+\S*", version):
        raise HarnessFault(f"{reference} is no node image of kind: /kind/version says {version!r}")
    return NodeTraits(
        kubernetes=version,
        uses_systemd_cgroups=re.search(r"^\s*SystemdCgroup\s*=\s*true", cgroups, re.MULTILINE) is not None,
        brings_network=any(name.endswith((".conf", ".conflist")) for name in network.split()),
    )
