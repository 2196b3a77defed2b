"""What a lab makes and edits on a cluster that the harness did not create (HRN-EXT-05)."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

from harness import lease
from harness.cluster.base import ClusterSpec
from harness.cluster.existing.changes import Edit, Thing
from harness.cluster.existing.marked import KEPT, keepsake_name
from harness.collectors import CANARY
from harness.errors import MissingPrerequisite
from harness.image_lock import built
from harness.kube import Manifest
from harness.lab import wiring
from harness.pki import KeyPair
from harness.tenancy import Mark, Tenancy

__all__ = [
    "ASSOCIATIONS",
    "COREDNS",
    "HOSTS",
    "OF_EVERY_RUN",
    "agent_hosts",
    "eks_name",
    "eks_objects",
    "keepsake",
    "local_address_towards",
    "planned",
]

_SYSTEM = "kube-system"
COREDNS = (Thing("v1", "ConfigMap", "coredns", _SYSTEM), Thing("apps/v1", "Deployment", "coredns", _SYSTEM))
"""What is edited: cluster DNS, and the annotation that starts it anew."""
OF_EVERY_RUN = (
    Thing("coordination.k8s.io/v1", "Lease", lease.NAME, lease.NAMESPACE),
    Thing("v1", "Secret", CANARY, "default"),
    Thing("v1", "Pod", CANARY, "default"),
)
"""What a run makes beside what its scenarios make."""
ASSOCIATIONS = Thing("v1", "ConfigMap", "pod-identity-associations", _SYSTEM)
"""What EKS's hand writes itself."""
HOSTS = "podid-agent-hosts"


def eks_name(run: str) -> str:
    """Return the name of EKS's hand in the cluster."""
    return f"podid-{run}-eks"


def eks_objects(tenancy: Tenancy) -> list[Manifest]:
    """Return the account and the rights of EKS's hand, and what the agent needs to trust AWS."""
    name = eks_name(tenancy.mark.run)
    metadata = {"name": name, "namespace": _SYSTEM}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    return [account, *wiring.eks_rights(name, metadata), tenancy.trust(_SYSTEM)]


def agent_hosts(aws_address: str, region: str) -> Manifest:
    """Return the agent's ``/etc/hosts``: on the host's network it asks the node for names, and not the cluster."""
    names = f"eks-auth.{region}.api.aws eks.{region}.amazonaws.com sts.{region}.amazonaws.com"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": HOSTS, "namespace": _SYSTEM},
        "data": {"hosts": f"127.0.0.1 localhost\n::1 localhost\n{aws_address} {names}\n"},
    }


def keepsake(run: str, edits: Sequence[Edit]) -> Manifest:
    """Return what takes edits back, kept in the cluster for whoever sweeps it."""
    metadata = {"name": keepsake_name(run), "namespace": _SYSTEM}
    data = {KEPT: json.dumps([edit.as_data() for edit in edits])}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def planned(spec: ClusterSpec) -> list[Thing]:
    """Return what a lab makes in a cluster before any scenario; a name with ``RUN`` gets the run's six digits."""
    tenancy = Tenancy(Mark("RUN", "", "", datetime.now(UTC)), {}, "")
    no_pair = KeyPair("", "")
    manifests = [
        *eks_objects(tenancy),
        keepsake("RUN", []),
        *wiring.webhook_manifests(spec, built("webhook").reference, "", no_pair),
        agent_hosts("", spec.region),
        *wiring.agent_manifests(spec, built("agent").reference),
    ]
    return [*map(Thing.of, manifests), ASSOCIATIONS]


def local_address_towards(node: str) -> str:
    """Return this machine's address on its way to a node; nothing is sent.

    Raises:
        MissingPrerequisite: There is no way.
    """
    family = socket.AF_INET6 if ":" in node else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect((node, 53))
        except OSError as error:
            raise MissingPrerequisite(
                f"no route of this machine leads to node {node}: {error}",
                hint="run where the nodes can be reached, or name an address with: --aws-address ADDRESS",
                kind="environment",
            ) from error
        return str(probe.getsockname()[0])
