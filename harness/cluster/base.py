"""What the harness needs of a Kubernetes cluster, whoever provides it.

A provider (native, kind, an existing cluster) implements :class:`Cluster`; suites and the lab know nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from harness.errors import UsageError
from harness.tenancy import Tenancy

__all__ = ["Access", "Cluster", "ClusterSpec", "Completed", "IpFamily", "Node"]

IpFamily = Literal["ipv4", "ipv6", "dual"]
"""Addresses of pods and services. EKS has the first two; nodes have both kinds in all but the first."""


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What a cluster must look like; the defaults are the article's."""

    name: str = "pod-identity-lab"
    region: str = "eu-west-1"
    account: str = "123456789012"
    issuer: str = "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E"
    """``iss`` of service-account tokens: ``https://oidc.eks.<region>.amazonaws.com/id/<32 upper-case hex>``."""
    nodes: int = 1
    """How many nodes it begins with; the first one runs the control plane and pods."""
    ip_family: IpFamily = "ipv4"
    kubernetes: str = "1.34"
    """Minor version."""

    @classmethod
    def named(cls, name: str, *, nodes: int = 1, kubernetes: str = "1.34") -> ClusterSpec:
        """Return the article's cluster for its own name, else one with an issuer derived from the name.

        Args:
            name: Name of the cluster.
            nodes: How many nodes it must have.
            kubernetes: Minor version of Kubernetes.

        Raises:
            UsageError: EKS allows no such name.
        """
        # Shorter than EKS's 100 characters: the name is part of a cgroup's and of file names.
        if not re.fullmatch(r"[0-9A-Za-z][A-Za-z0-9_-]{0,62}", name):
            raise UsageError(
                f"{name!r} is no usable cluster name",
                hint="use 1 to 63 letters, digits, - and _, beginning with a letter or digit",
            )
        article = cls(nodes=nodes, kubernetes=kubernetes)
        if name == article.name:
            return article
        identifier = hashlib.sha256(name.encode()).hexdigest()[:32].upper()
        return replace(article, name=name, issuer=f"https://oidc.eks.{article.region}.amazonaws.com/id/{identifier}")

    @property
    def arn(self) -> str:
        """ARN of the EKS cluster that this cluster stands for."""
        return f"arn:aws:eks:{self.region}:{self.account}:cluster/{self.name}"

    @property
    def ip_versions(self) -> tuple[Literal[4, 6], ...]:
        """Versions of IP that pods and services speak, the first one by default."""
        versions: dict[IpFamily, tuple[Literal[4, 6], ...]] = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}
        return versions[self.ip_family]

    @property
    def agent_host(self) -> str:
        """Address of the agent as a URL has it, of the version that pods speak by default."""
        return "[fd00:ec2::23]" if self.ip_versions[0] == 6 else "169.254.170.23"


@dataclass(frozen=True, slots=True)
class Node:
    """A node and the EC2 instance that it stands for."""

    name: str
    address: str
    """IPv4."""
    instance_id: str
    ipv6: str = ""
    """Empty where the cluster has IPv4 only."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a program that is no person reaches the API server."""

    endpoint: str
    certificate_authority: str
    """PEM."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    token_file: Path | None = None
    """In the place of certificate and key, where the cluster's authority signs none."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command on a node printed and how it ended."""

    returncode: int
    stdout: str
    stderr: str


class Cluster(Protocol):
    """A running cluster."""

    @property
    def provider(self) -> Literal["native", "kind", "existing"]:
        """Where the cluster comes from."""
        ...

    @property
    def spec(self) -> ClusterSpec:
        """What was asked for."""
        ...

    @property
    def name(self) -> str:
        """Name that EKS knows it by."""
        ...

    @property
    def kubernetes_minor(self) -> str:
        """Kubernetes version without the patch, such as ``1.34``."""
        ...

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig file of an administrator; the cluster's own, never the user's."""
        ...

    @property
    def tenancy(self) -> Tenancy | None:
        """What to keep to, where the cluster is somebody else's."""
        ...

    @property
    def nodes(self) -> Sequence[Node]:
        """The cluster's nodes."""
        ...

    @property
    def control_plane_access(self) -> Access:
        """Access of EKS's own control plane: publishes associations and runs add-ons, and may do nothing else."""
        ...

    def run_on_node(self, node: str, command: Sequence[str], *, timeout: float = 60) -> Completed:
        """Run a command in the network and mounts of a node."""
        ...

    @property
    def node_programs(self) -> Sequence[str]:
        """The kubelet and kube-proxy of every node, as :meth:`kill_program` names them."""
        ...

    def kill_program(self, name: str) -> None:
        """End a program as a crash does; whatever runs it starts it again at once.

        Args:
            name: Such as ``kube-apiserver``, or one of :attr:`node_programs`.

        Raises:
            HarnessFault: It does not run, or it cannot be ended.
        """
        ...

    def load_image(self, reference: str, archive: Path) -> None:
        """Make an image from a ``docker-archive`` file available to the cluster under its full name."""
        ...

    def logs(self) -> Mapping[str, Path]:
        """Return log files by the name of what wrote them, such as ``kubelet``."""
        ...

    def delete(self) -> None:
        """Remove the cluster and everything it left on the host; also works on a half-made one."""
        ...
