"""The native provider: a Kubernetes cluster with its first node in a sandbox, and further nodes each in their own."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from harness.cluster.addresses import pods_of
from harness.cluster.base import Access, ClusterSpec, Completed, Node
from harness.cluster.native import cgroups
from harness.cluster.native.control_plane import Credentials, control_plane, issue_credentials
from harness.cluster.native.network import LabNetwork, route_pods
from harness.cluster.native.node import (
    DIRECTORIES,
    REGISTRY_PORT,
    addresses_of,
    new_node,
    node,
    write_system_files,
)
from harness.cluster.native.sandbox import Sandbox
from harness.cluster.native.worker import Worker
from harness.errors import HarnessFault
from harness.pki import write_private

__all__ = ["NativeCluster"]


class NativeCluster:
    """A native cluster, known by its directory; implements :class:`harness.cluster.base.Cluster`."""

    def __init__(self, directory: Path) -> None:
        """Attach to the cluster in ``directory``; nothing is created or started."""
        self.directory = directory
        self.sandbox = Sandbox(directory)
        self._description = directory / "cluster.json"

    @property
    def provider(self) -> Literal["native"]:
        """Where the cluster comes from."""
        return "native"

    @property
    def exists(self) -> bool:
        """Whether the cluster was created, running or not."""
        return self._description.exists()

    @property
    def is_running(self) -> bool:
        """Whether its programs run, those of all nodes."""
        return (
            self.exists
            and self.sandbox.pid is not None
            and all(worker.sandbox.pid is not None for worker in self.workers)
        )

    @property
    def spec(self) -> ClusterSpec:
        """What was asked for."""
        return ClusterSpec(**self._read()["spec"])

    @property
    def name(self) -> str:
        """Name that EKS knows it by."""
        return self.spec.name

    @property
    def index(self) -> int:
        """Number of the cluster in its lab; its first node's address follows from it."""
        return self._read()["index"]

    @property
    def node_indexes(self) -> set[int]:
        """Numbers of all its nodes among those of the lab."""
        return {self.index, *(worker.index for worker in self.workers)}

    @property
    def workers(self) -> Sequence[Worker]:
        """Its further nodes."""
        directory = self.directory / "workers"
        found = [Worker(entry) for entry in sorted(directory.iterdir())] if directory.exists() else []
        return [worker for worker in found if worker.exists]

    @property
    def kubernetes_minor(self) -> str:
        """Kubernetes version without the patch, such as ``1.34``."""
        return self.spec.kubernetes

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes, the control plane's first."""
        return [Node(**self._read()["node"]), *(worker.node for worker in self.workers)]

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the administrator."""
        return self.directory / "kubeconfig"

    @property
    def tenancy(self) -> None:
        """None: the cluster is the lab's own."""
        return None

    @property
    def control_plane_access(self) -> Access:
        """Access of EKS's own control plane."""
        pki = self.directory / "pki"
        return Access(
            endpoint=self._read()["endpoint"],
            certificate_authority=(pki / "ca.crt").read_text(),
            client_certificate=pki / "eks.crt",
            client_key=pki / "eks.key",
        )

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._description.read_text())
        except FileNotFoundError:
            raise HarnessFault(f"there is no cluster {self.directory.name!r}", hint="run: podid up") from None

    def start(
        self,
        spec: ClusterSpec,
        *,
        index: int,
        lab: LabNetwork,
        aws_pid: int,
        binaries: Mapping[str, Path],
        images: Path,
        trust_bundle: str,
        keep: Sequence[Path],
    ) -> None:
        """Create the cluster and start its programs; does not wait for them.

        Args:
            spec: What the cluster must look like.
            index: Number of the cluster in its lab.
            lab: The lab's network.
            aws_pid: First process of the AWS sandbox, where the bridge is.
            binaries: Program name → path.
            images: The store of images that all its nodes begin with.
            trust_bundle: PEM of all CAs that pods shall trust.
            keep: Directories outside the cluster's own that its programs read.
        """
        the_node = new_node(lab, index, spec.region)
        cgroup = cgroups.lab_prefix(self.directory.parent.parent) + spec.name
        self.directory.mkdir(mode=0o700, parents=True)
        addresses = list(filter(None, [the_node.address, the_node.ipv6]))
        credentials = issue_credentials(self.directory / "pki", spec, addresses=addresses, node=the_node.name)
        description = {
            "spec": asdict(spec),
            "index": index,
            "node": asdict(the_node),
            "endpoint": credentials.endpoint,
            "cgroup": cgroup,
            "images": str(images),
        }
        self._description.write_text(json.dumps(description, indent=1))
        self._write_kubeconfig(spec, credentials)
        advertised, *_ = addresses_of(the_node, spec)
        programs = control_plane(spec, credentials, binaries, address=advertised, data=self.directory)
        configuration = self.directory / "node"
        programs += node(
            spec,
            credentials,
            binaries,
            node=the_node,
            number=0,
            cgroup=cgroup,
            registry=f"{lab.aws_address}:{REGISTRY_PORT}",
            images=images,
            configuration=configuration,
            data=self.directory,
        )
        mounts = write_system_files(configuration, self.directory, the_node, spec, lab)
        self.trust_bundle.write_text(trust_bundle)
        cgroups.create(cgroup)
        with self.sandbox.starting(
            programs,
            hostname=the_node.name,
            mounts=mounts,
            keep=[self.directory, *keep],
            directories=DIRECTORIES,
        ) as pid:
            lab.wire_node(aws_pid, pid, index)

    def add_node(
        self, *, index: int, lab: LabNetwork, aws_pid: int, binaries: Mapping[str, Path], keep: Sequence[Path]
    ) -> None:
        """Start a further node; does not wait for it.

        Args:
            index: Number of the node among all of the lab.
            lab: The lab's network.
            aws_pid: First process of the AWS sandbox, where the bridge is.
            binaries: Program name → path.
            keep: Directories outside the cluster's own that its programs read.
        """
        number = 1 + max((worker.number for worker in self.workers), default=0)
        worker = Worker(self.directory / "workers" / f"{number:03}")
        description = self._read()
        others = self._running_nodes()
        credentials = Credentials(self.directory / "pki", description["endpoint"], "")
        try:
            pid = worker.start(
                self.spec,
                credentials,
                index=index,
                number=number,
                cgroup=f"{description['cgroup']}.{number}",
                lab=lab,
                aws_pid=aws_pid,
                binaries=binaries,
                images=Path(description["images"]),
                keep=[self.directory, *keep],
            )
            # The bridge knows the nodes only; each node knows where the pods of the others are.
            numbers = {Node(**description["node"]).address: 0} | {w.node.address: w.number for w in self.workers}
            for there, other in others:
                route_pods(other, pods_of(self.spec, number), worker.node)
                route_pods(pid, pods_of(self.spec, numbers[there.address]), there)
        except BaseException:
            worker.delete()
            raise

    def _running_nodes(self) -> list[tuple[Node, int]]:
        """Return the nodes with the first process of their sandbox."""
        sandboxes = [self.sandbox, *(worker.sandbox for worker in self.workers)]
        found = zip(self.nodes, sandboxes, strict=True)
        return [(node, pid) for node, sandbox in found if (pid := sandbox.pid) is not None]

    def _write_kubeconfig(self, spec: ClusterSpec, credentials: Credentials) -> None:
        """Write the administrator's kubeconfig with everything inside, so that it can be copied elsewhere."""
        encoded = {
            name: base64.b64encode(credentials.file(name).read_bytes()).decode()
            for name in ("ca.crt", "admin.crt", "admin.key")
        }
        write_private(
            self.kubeconfig,
            f"""\
apiVersion: v1
kind: Config
current-context: {spec.name}
clusters:
- name: {spec.name}
  cluster: {{server: "{credentials.endpoint}", certificate-authority-data: {encoded["ca.crt"]}}}
users:
- name: {spec.name}
  user: {{client-certificate-data: {encoded["admin.crt"]}, client-key-data: {encoded["admin.key"]}}}
contexts:
- name: {spec.name}
  context: {{cluster: {spec.name}, user: {spec.name}}}
""",
        )

    @property
    def trust_bundle(self) -> Path:
        """File on the node that holds all CAs that pods shall trust."""
        return self.directory / "node" / "trust-bundle.pem"

    def run_on_node(self, node: str, command: Sequence[str], *, timeout: float = 60) -> Completed:
        """Run a command in the network and mounts of a node."""
        sandboxes = dict(
            zip(
                (known.name for known in self.nodes),
                (self.sandbox, *(worker.sandbox for worker in self.workers)),
                strict=True,
            )
        )
        if node not in sandboxes:
            raise HarnessFault(f"no node {node!r} in {self.spec.name}; there is {', '.join(sandboxes)}")
        result = subprocess.run(
            [*sandboxes[node].enter(), *command], capture_output=True, text=True, timeout=timeout, check=False
        )
        return Completed(result.returncode, result.stdout, result.stderr)

    @property
    def node_programs(self) -> Sequence[str]:
        """The kubelet and kube-proxy of every node, named as in :meth:`programs`."""
        places = ["", *(f"node-{worker.number}/" for worker in self.workers)]
        return [f"{place}{program}" for place in places for program in ("kubelet", "kube-proxy")]

    def kill_program(self, name: str) -> None:
        """Kill a program, named as in :meth:`programs`; the first process of its sandbox starts it again."""
        place, _, program = name.rpartition("/")
        sandboxes = {"": self.sandbox, **{f"node-{worker.number}": worker.sandbox for worker in self.workers}}
        if place not in sandboxes:
            raise HarnessFault(f"there is no {name} in {self.spec.name}", hint="run: podid status")
        sandboxes[place].kill_program(program)

    def load_image(self, reference: str, archive: Path) -> None:
        """Import an image archive into containerd on every node."""
        for known in self.nodes:
            done = self.run_on_node(
                known.name, ["ctr", "--namespace=k8s.io", "images", "import", str(archive)], timeout=300
            )
            if done.returncode != 0:
                raise HarnessFault(f"cannot load {reference} from {archive}: {done.stderr.strip()}")

    def programs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return name → ``running`` and the latest ``exits`` of every program; ``node-<n>/<name>`` on further nodes."""
        further = {
            f"node-{worker.number}/{name}": state
            for worker in self.workers
            for name, state in worker.sandbox.report().items()
        }
        return {**self.sandbox.report(), **further}

    def logs(self) -> Mapping[str, Path]:
        """Return log files by program name, named as in :meth:`programs`."""
        found = {path.stem: path for path in sorted(self.sandbox.logs.glob("*.log"))}
        for worker in self.workers:
            found |= {f"node-{worker.number}/{path.stem}": path for path in sorted(worker.sandbox.logs.glob("*.log"))}
        return found

    def delete(self) -> None:
        """Remove the cluster; also works on a half-made one."""
        group = self._read()["cgroup"] if self.exists else None
        for worker in self.workers:
            worker.delete()
        self.sandbox.kill()
        if group:
            cgroups.remove(str(group))
        self.sandbox.remove()
