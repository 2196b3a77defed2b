"""What a lab stands on, and which one to take: native sandboxes, or containers of a Docker engine."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from harness.cluster.base import Cluster, ClusterSpec, IpFamily
from harness.errors import MissingPrerequisite, UsageError
from harness.images import ImageSpec
from harness.kube import Kube, Manifest
from harness.progress import Progress

__all__ = [
    "Choice",
    "Finding",
    "LabCluster",
    "Parts",
    "Provider",
    "ProviderName",
    "Started",
    "WithoutEngine",
    "choose",
    "chosen_provider",
    "find_kind",
    "find_native",
    "parse_request",
]

ProviderName = Literal["native", "kind", "existing"]
Programs = Mapping[str, Mapping[str, Any]]


class LabCluster(Cluster, Protocol):
    """A cluster that a lab raised."""

    @property
    def index(self) -> int:
        """Number of the cluster in its lab, 0 for the first."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether its node runs."""
        ...

    def programs(self) -> Programs:
        """Return program → ``running`` and the latest ``exits``."""
        ...


@dataclass(frozen=True, slots=True)
class Started:
    """Clusters that are starting, and the AWS that is; done when its process was started."""

    clusters: Sequence[LabCluster]
    aws: Future[None] | None
    """None when AWS ran before."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a start needs and that a machine without network cannot make."""

    files: Sequence[Path]
    """Files and directories below the cache directory."""
    images: Mapping[str, str]
    """Images in the Docker engine: name with tag → ID."""


class WithoutEngine:
    """Part of a provider whose images are files or somebody else's: :meth:`Provider.parts` has none of an engine."""

    def save_image(self, name: str, identifier: str, file: Path) -> None:
        """Refuse: there is nothing to save."""
        raise NotImplementedError

    def load_image(self, name: str, identifier: str, file: Path) -> None:
        """Refuse: there is nothing to load it into."""
        raise NotImplementedError


class Provider(Protocol):
    """Raises the AWS and the clusters of one lab, and finds and removes everything of it, also after a crash.

    A lab uses it in this order: :meth:`require`, :meth:`start`, for each cluster :meth:`wait_until_created`,
    :meth:`wire`, :meth:`deliver_images` and, once AWS is ready, :meth:`hand_over_keys`.
    """

    @property
    def name(self) -> ProviderName:
        """Its name."""
        ...

    @property
    def aws_endpoint(self) -> str:
        """URL at which AWS answers for all services on this machine."""
        ...

    @property
    def aws_address(self) -> str:
        """Address at which AWS answers inside the lab."""
        ...

    def require(self, ip_family: IpFamily) -> None:
        """Refuse where a lab of an IP family cannot work.

        Raises:
            MissingPrerequisite: Lists everything that is missing, with the ways out.
        """
        ...

    def missing(self) -> Sequence[str]:
        """Say what :meth:`start` would pull, download or build; nothing is."""
        ...

    def parts(self) -> Parts:
        """Return what a machine without network needs, where nothing is :meth:`missing`."""
        ...

    def save_image(self, name: str, identifier: str, file: Path) -> None:
        """Write one of the parts' images to an archive."""
        ...

    def load_image(self, name: str, identifier: str, file: Path) -> None:
        """Load such an archive."""
        ...

    def export_image(self, reference: str, file: Path) -> None:
        """Write an image that somebody else built to an archive, pulling it if it is not here.

        Raises:
            UsageError: There is no engine that knows or pulls it.
        """
        ...

    def start(
        self,
        specs: Sequence[ClusterSpec],
        images: Sequence[ImageSpec],
        builds: ThreadPoolExecutor,
        progress: Progress,
        *,
        is_new: bool,
    ) -> Started:
        """Begin to build what is missing and to start everything; does not wait for clusters or AWS to be ready.

        Args:
            specs: Clusters to add.
            images: What every cluster can use.
            builds: Runs what can overlap.
            progress: Where to report.
            is_new: Whether AWS must be started too.
        """
        ...

    def restart_aws(self, progress: Progress) -> None:
        """End AWS as a crash does, and start it again at the same address; does not wait for it to be ready."""
        ...

    @property
    def pulls_by_itself(self) -> bool:
        """Whether clusters pull what is given by its reference, so that the lab keeps no copy."""
        ...

    @property
    def can_add_nodes(self) -> bool:
        """Whether a running cluster can get more nodes."""
        ...

    def add_nodes(self, cluster: LabCluster, nodes: int) -> None:
        """Start nodes until a running cluster has so many; does not wait for them to be ready.

        Raises:
            UsageError: Its clusters cannot grow.
        """
        ...

    def take_back_nodes(self, cluster: LabCluster, kept: int) -> None:
        """Remove what :meth:`add_nodes` started from this machine, also half-made, so that only ``kept`` are left."""
        ...

    def interrupt(self) -> None:
        """Make work in ``builds`` that has no process of its own end soon."""
        ...

    def wait_until_created(self, cluster: LabCluster) -> None:
        """Wait until the cluster's kubeconfig is there."""
        ...

    def connect(self, cluster: LabCluster) -> Kube:
        """Return the client with which a lab installs what it adds to a cluster."""
        ...

    def wire(self, cluster: LabCluster, kube: Kube) -> None:
        """Make a cluster whose API server is ready look like one on EKS: DNS, trust, metadata service."""
        ...

    def deliver_images(self, cluster: LabCluster) -> None:
        """Wait until the lab's images are built, and until the cluster can use them."""
        ...

    def add_images(self, cluster: LabCluster, specs: Sequence[ImageSpec], progress: Progress) -> None:
        """Build images that a lab does not start with, and make a running cluster able to use them."""
        ...

    def fit(self, cluster: LabCluster, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        """Return the agent's manifests as they work on the cluster's nodes."""
        ...

    def hand_over_keys(self, cluster: LabCluster) -> None:
        """Make the keys of the cluster's ``control_plane_access`` readable for AWS, which runs."""
        ...

    def clusters(self) -> Sequence[LabCluster]:
        """Return the clusters that were begun, in the order of their numbers."""
        ...

    def aws_programs(self) -> Programs:
        """Return AWS's programs as :meth:`LabCluster.programs` does."""
        ...

    def aws_logs(self) -> Mapping[str, Path]:
        """Return AWS's log files by program."""
        ...

    def aws_stopped(self) -> str | None:
        """Return why AWS does not run, None when it does."""
        ...

    def remove_cluster(self, name: str) -> None:
        """Remove a cluster, also a half-made one."""
        ...

    def remove(self) -> bool:
        """Remove everything of the lab but its files; return whether there was anything."""
        ...


# --- choice ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a provider can be used here, and why, as one clause."""

    is_usable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The provider to use, and why."""

    name: ProviderName
    reason: str

    @property
    def line(self) -> str:
        """The choice in one line."""
        return f"provider {self.name}: {self.reason}"


def parse_request(text: str) -> ProviderName | Literal["auto"]:
    """Read the value of ``--provider``.

    Raises:
        UsageError: There is no such provider.
    """
    for name in (*get_args(ProviderName), "auto"):
        if text == name:
            return name
    raise UsageError(f"there is no provider {text!r}", hint="use --provider auto, native, kind or existing")


def choose(kind: Finding, native: Finding) -> Choice:
    """Return what ``auto`` takes: kind where it can work, else native.

    Raises:
        MissingPrerequisite: Neither can; the text has both ways out.
    """
    if kind.is_usable:
        return Choice("kind", kind.reason)
    if native.is_usable:
        return Choice("native", f"{native.reason}; kind not: {kind.reason}")
    raise MissingPrerequisite(
        f"this machine can raise no lab:\n  kind: {kind.reason}\n  native: {native.reason}",
        hint="start a Docker engine, with the node image or a registry in reach; or run on Linux as root. "
        "podid doctor --provider kind and --provider native say more",
    )


def chosen_provider(request: str) -> ProviderName:
    """Return what a new lab would stand on.

    Raises:
        UsageError: There is no such provider.
        MissingPrerequisite: Neither provider can be used.
    """
    requested = parse_request(request)
    return choose(find_kind(), find_native()).name if requested == "auto" else requested


def find_native() -> Finding:
    """Tell whether a native lab can be raised, as far as a glance shows."""
    if platform.system() != "Linux":
        return Finding(False, f"{platform.system()} is not Linux")
    if os.geteuid() != 0:
        return Finding(False, "not root")
    return Finding(True, "Linux, root")


def find_kind() -> Finding:
    """Tell whether a kind lab can be raised: quick where no engine answers, seconds where a registry must be asked."""
    # Here, because a machine without Docker need not wait for the SDK to be imported twice.
    from harness.cluster.kind import engine, node_image  # noqa: PLC0415

    if problem := client_problem():
        return Finding(False, problem)
    try:
        connected = engine.connect(timeout=5)
    except MissingPrerequisite as error:
        return Finding(False, error.message)
    try:
        version = connected.version
        if image := node_image.find_node_image(connected):
            return Finding(True, f"Docker {version} answers and has {image.reference.partition('@')[0]}")
        wanted = node_image.wanted()
        if node_image.is_pullable(connected):
            return Finding(True, f"Docker {version} answers and can pull {wanted.partition('@')[0]}")
        return Finding(False, f"Docker {version} answers, but {wanted} is neither there nor can it be pulled")
    finally:
        connected.close()


def client_problem() -> str:
    """Return what is wrong with the ``docker`` command, which kind calls; empty if nothing is."""
    return "" if shutil.which("docker") else "there is no docker command, which kind needs"
