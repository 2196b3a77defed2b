"""A cluster that the harness did not create: reached through its API alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml

from harness.cluster.base import Access, ClusterSpec, Completed, Node
from harness.errors import HarnessFault, MissingPrerequisite
from harness.kube import Kube
from harness.tenancy import Mark, Tenancy

__all__ = ["Description", "ExistingCluster", "read_nodes"]


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of the cluster since the lab began to use it."""

    spec: dict[str, Any]
    kubernetes: str
    nodes: list[dict[str, str]]
    mark: dict[str, str]
    images: dict[str, str] = field(default_factory=dict[str, str])


class ExistingCluster:
    """Somebody's cluster, known by its directory; implements :class:`harness.cluster.base.Cluster`."""

    index = 0

    def __init__(self, directory: Path) -> None:
        """Attach to the cluster that ``directory`` describes; nothing is asked."""
        self.directory = directory
        self._description = directory / "cluster.json"

    @property
    def provider(self) -> Literal["existing"]:
        """Where the cluster comes from."""
        return "existing"

    @property
    def exists(self) -> bool:
        """Whether the lab began to use it."""
        return self._description.exists()

    def describe(self, description: Description) -> None:
        """Keep what is known of it."""
        self._description.write_text(json.dumps(asdict(description), indent=1))

    def _read(self) -> Description:
        try:
            return Description(**json.loads(self._description.read_text()))
        except FileNotFoundError:
            raise HarnessFault(f"there is no cluster {self.directory.name!r}", hint="run: podid up") from None

    @property
    def is_running(self) -> bool:
        """Whether its API server answers."""
        try:
            with_answer = Kube(self.kubeconfig).get("/version")
        except HarnessFault:
            return False
        return with_answer is not None

    @property
    def spec(self) -> ClusterSpec:
        """The article's cluster, with the issuer that this one really has."""
        return ClusterSpec(**self._read().spec)

    @property
    def name(self) -> str:
        """Name that EKS knows it by."""
        return self.spec.name

    @property
    def kubernetes_minor(self) -> str:
        """Kubernetes version without the patch, such as ``1.34``."""
        return ".".join(self._read().kubernetes.removeprefix("v").split(".")[:2])

    @property
    def kubeconfig(self) -> Path:
        """The copy of the person's kubeconfig with its context alone."""
        return self.directory / "kubeconfig"

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes as they were when the lab began."""
        return [Node(**node) for node in self._read().nodes]

    @property
    def mark(self) -> Mark:
        """What everything that is made in it carries."""
        mark = self._read().mark
        return Mark(mark["run"], mark["owner"], mark["repo"], datetime.fromisoformat(mark["expires"]))

    @property
    def trust_bundle(self) -> Path:
        """PEM of all CAs that the lab's pods trust."""
        return self.directory / "trust-bundle.pem"

    @property
    def token_file(self) -> Path:
        """Token of EKS's control plane."""
        return self.directory / "eks.token"

    @property
    def changes_file(self) -> Path:
        """Notes of what is to be undone."""
        return self.directory / "changes.json"

    @property
    def tenancy(self) -> Tenancy:
        """What to keep to: it is somebody else's."""
        return Tenancy(self.mark, self._read().images, self.trust_bundle.read_text())

    @property
    def control_plane_access(self) -> Access:
        """Access of EKS's own control plane: a ServiceAccount, because not every authority signs certificates."""
        cluster: dict[str, Any] = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster.get("certificate-authority-data", "")).decode()
        return Access(cluster["server"], authority, token_file=self.token_file)

    def programs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the one program that is seen from here."""
        return {"kube-apiserver": {"running": self.is_running, "exits": []}}

    def run_on_node(self, node: str, command: Sequence[str], *, timeout: float = 60) -> Completed:
        """Refuse: the harness has no access to somebody's nodes."""
        del command, timeout
        _refuse(f"running commands on node {node}")

    @property
    def node_programs(self) -> Sequence[str]:
        """Nothing: what runs on somebody's nodes is not seen from here."""
        return ()

    def kill_program(self, name: str) -> None:
        """Refuse: it is not the harness's to end."""
        _refuse(f"ending its {name}")

    def load_image(self, reference: str, archive: Path) -> None:
        """Refuse: the cluster pulls its images itself."""
        del archive
        _refuse(f"loading image {reference} into its nodes")

    def logs(self) -> Mapping[str, Path]:
        """Return nothing: what its programs log is on its nodes."""
        return {}

    def delete(self) -> None:
        """Forget the cluster; what was changed in it is undone by its provider."""
        for path in (self._description, self.kubeconfig, self.token_file, self.trust_bundle, self.changes_file):
            path.unlink(missing_ok=True)


def _refuse(what: str) -> NoReturn:
    raise MissingPrerequisite(
        f"{what} is not possible on a cluster that the harness did not create (provider existing)",
        hint="run this scenario on a lab's own cluster: --provider native or --provider kind",
        kind="environment",
    )


def read_nodes(kube: Kube) -> list[Node]:
    """Return the cluster's Linux nodes, each with the instance that it is, or stands for.

    Raises:
        MissingPrerequisite: There is none.
    """
    nodes: list[Node] = []
    for node in kube.items("/api/v1/nodes"):
        addresses = {entry["type"]: entry["address"] for entry in node["status"].get("addresses", [])}
        if node["metadata"].get("labels", {}).get("kubernetes.io/os", "linux") == "linux" and "InternalIP" in addresses:
            identifier = str(node["spec"].get("providerID", "")).rpartition("/")[2]
            digest = hashlib.sha256(node["metadata"]["uid"].encode()).hexdigest()[:17]
            instance = identifier if identifier.startswith("i-") else f"i-{digest}"
            nodes.append(Node(node["metadata"]["name"], addresses["InternalIP"], instance))
    if not nodes:
        raise MissingPrerequisite("the cluster has no Linux node with an InternalIP", kind="environment")
    return nodes
