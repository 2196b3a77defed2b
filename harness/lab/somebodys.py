"""What labs on somebody's cluster have in common, whichever AWS is beside it."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from harness.cluster.base import ClusterSpec, IpFamily
from harness.cluster.existing.cluster import Description, ExistingCluster, read_nodes
from harness.cluster.existing.target import Target, settle_target
from harness.errors import MissingPrerequisite, UsageError
from harness.kube import Kube
from harness.lab.paths import CHECKOUT, LabPaths
from harness.lab.provider import LabCluster, WithoutEngine
from harness.tenancy import Mark

__all__ = ["OnSomebodysCluster", "refuse_family"]

_LIFETIME = timedelta(hours=4)


def refuse_family(ip_family: IpFamily) -> None:
    """Return if nobody asked for addresses of another family than the usual one.

    Raises:
        UsageError: Somebody did.
    """
    if ip_family != "ipv4":
        raise UsageError(
            f"--ip-family {ip_family} with --provider existing", hint="its pods have the addresses that they have"
        )


class OnSomebodysCluster(WithoutEngine):
    """The part of :class:`harness.lab.provider.Provider` that is about a cluster which was there before."""

    can_add_nodes = False
    pulls_by_itself = True

    def __init__(self, paths: LabPaths, target: Target | None) -> None:
        """Attach to a lab; nothing is asked.

        Args:
            paths: The lab's files.
            target: The cluster, where the caller names it; None for the one that the lab was raised on.
        """
        self._paths = paths
        self._given = target

    @property
    def name(self) -> Literal["existing"]:
        """Its name."""
        return "existing"

    @property
    def target(self) -> Target:
        """The cluster that is meant.

        Raises:
            UsageError: None was named, or another one than the lab is on.
        """
        return settle_target(self._paths.target, self._given)

    def export_image(self, reference: str, file: Path) -> None:
        """Refuse: the cluster pulls what it is told."""
        raise NotImplementedError

    def begin(self, specs: Sequence[ClusterSpec], images: Mapping[str, str], *, is_new: bool) -> ExistingCluster:
        """Begin to use the cluster, which is only read.

        Args:
            specs: The clusters that are wanted: one.
            images: Image of the lab → the reference under which the cluster gets it.
            is_new: Whether the lab has no cluster yet.

        Raises:
            MissingPrerequisite: More than this one is wanted, or it does not say enough of itself.
        """
        if not is_new or len(specs) != 1:
            raise MissingPrerequisite(
                "a lab on an existing cluster has that one cluster, and cannot get another",
                hint="scenarios of two clusters run in a lab of its own: --provider native or --provider kind",
                kind="environment",
            )
        self.target.write(self._paths.target)
        cluster = ExistingCluster(self._paths.cluster(specs[0].name))
        cluster.directory.mkdir(mode=0o700, parents=True)
        self.target.write_copy(cluster.kubeconfig)
        cluster.describe(_look_at(cluster, specs[0], images))
        return cluster

    def add_nodes(self, cluster: LabCluster, nodes: int) -> None:
        """Refuse."""
        raise UsageError(f"{cluster.spec.name} has {len(cluster.nodes)} nodes, and is not ours to grow to {nodes}")

    def take_back_nodes(self, cluster: LabCluster, kept: int) -> None:
        """Do nothing: none can be added."""

    def wait_until_created(self, cluster: LabCluster) -> None:
        """Do nothing: it was there before."""

    def deliver_images(self, cluster: LabCluster) -> None:
        """Do nothing: the cluster's nodes pull them, or have them."""

    def hand_over_keys(self, cluster: LabCluster) -> None:
        """Do nothing: AWS reads them at the cluster."""

    def clusters(self) -> Sequence[ExistingCluster]:
        """Return the cluster, once the lab uses it."""
        if not self._paths.clusters.exists():
            return []
        found = [ExistingCluster(directory) for directory in self._paths.clusters.iterdir()]
        return [cluster for cluster in found if cluster.exists]


def _look_at(cluster: ExistingCluster, spec: ClusterSpec, images: Mapping[str, str]) -> Description:
    """Return what a cluster says of itself, and the mark of a new run on it; only reads.

    Args:
        cluster: The cluster, with its kubeconfig.
        spec: What is known of it already.
        images: Image of the lab → the reference under which the cluster gets it.

    Raises:
        MissingPrerequisite: It does not say enough.
    """
    with contextlib.closing(Kube(cluster.kubeconfig)) as kube:
        version, discovery = kube.get("/version"), kube.get("/.well-known/openid-configuration")
        nodes = read_nodes(kube)
    if version is None or discovery is None:
        raise MissingPrerequisite("the cluster does not say its version or its issuer", kind="environment")
    mark = _new_mark()
    return Description(
        asdict(replace(spec, issuer=discovery["issuer"], nodes=len(nodes))),
        version["gitVersion"],
        [asdict(node) for node in nodes],
        asdict(mark) | {"expires": mark.expires.isoformat()},
        dict(images),
    )


def _new_mark() -> Mark:
    owner = os.environ.get("PODID_OWNER") or f"{getpass.getuser()}@{socket.gethostname()}"
    repo = os.environ.get("GITHUB_REPOSITORY") or CHECKOUT.name
    expires = (datetime.now(UTC) + _LIFETIME).replace(microsecond=0)
    return Mark(secrets.token_hex(3), owner, repo, expires)
