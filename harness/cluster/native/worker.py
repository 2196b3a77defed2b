"""A further node of a native cluster: containerd, kubelet and kube-proxy in a sandbox of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.cluster.base import ClusterSpec, Node
from harness.cluster.native import cgroups
from harness.cluster.native.control_plane import Credentials, issue_node_credentials
from harness.cluster.native.network import LabNetwork
from harness.cluster.native.node import DIRECTORIES, REGISTRY_PORT, new_node, node, write_system_files
from harness.cluster.native.sandbox import Sandbox

__all__ = ["Worker"]


class Worker:
    """A node that is not its cluster's first, known by its directory."""

    def __init__(self, directory: Path) -> None:
        """Attach to the node in ``directory``; nothing is created or started."""
        self.directory = directory
        self.sandbox = Sandbox(directory)
        self._description = directory / "node.json"

    @property
    def exists(self) -> bool:
        """Whether the node was created, running or not."""
        return self._description.exists()

    @property
    def node(self) -> Node:
        """The node."""
        return Node(**self._read()["node"])

    @property
    def index(self) -> int:
        """Its number among all nodes of the lab."""
        return self._read()["index"]

    @property
    def number(self) -> int:
        """Its number in the cluster, from 1."""
        return self._read()["number"]

    def _read(self) -> dict[str, Any]:
        return json.loads(self._description.read_text())

    def start(
        self,
        spec: ClusterSpec,
        cluster: Credentials,
        *,
        index: int,
        number: int,
        cgroup: str,
        lab: LabNetwork,
        aws_pid: int,
        binaries: Mapping[str, Path],
        images: Path,
        keep: Sequence[Path],
    ) -> int:
        """Create the node, start its programs and return the first process of its sandbox; does not wait.

        Args:
            spec: Its cluster.
            cluster: Where the cluster's certificates are.
            index: Number of the node among all of the lab.
            number: Number of the node in its cluster.
            cgroup: Name of the top-level cgroup that holds its pods.
            lab: The lab's network.
            aws_pid: First process of the AWS sandbox, where the bridge is.
            binaries: Program name → path.
            images: The store of images that it begins with.
            keep: Directories outside its own that its programs read.
        """
        the_node = new_node(lab, index, spec.region)
        self.directory.mkdir(mode=0o700, parents=True)
        description = {"node": asdict(the_node), "index": index, "number": number, "cgroup": cgroup}
        self._description.write_text(json.dumps(description, indent=1))
        credentials = issue_node_credentials(
            self.directory / "pki",
            cluster,
            addresses=list(filter(None, [the_node.address, the_node.ipv6])),
            node=the_node.name,
        )
        configuration = self.directory / "node"
        programs = node(
            spec,
            credentials,
            binaries,
            node=the_node,
            number=number,
            cgroup=cgroup,
            registry=f"{lab.aws_address}:{REGISTRY_PORT}",
            images=images,
            configuration=configuration,
            data=self.directory,
        )
        mounts = write_system_files(configuration, self.directory, the_node, spec, lab)
        cgroups.create(cgroup)
        with self.sandbox.starting(
            programs, hostname=the_node.name, mounts=mounts, keep=keep, directories=DIRECTORIES
        ) as pid:
            lab.wire_node(aws_pid, pid, index)
        return pid

    def delete(self) -> None:
        """Remove the node from this machine; also works on a half-made one."""
        group = self._read()["cgroup"] if self.exists else None
        self.sandbox.kill()
        if group:
            cgroups.remove(group)
        self.sandbox.remove()
