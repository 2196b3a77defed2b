"""The native provider: a Kubernetes cluster of one node in a sandbox."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from harness.binaries import KUBERNETES
from harness.cluster.base import Access, ClusterSpec, Completed, Node
from harness.cluster.native import cgroups
from harness.cluster.native.control_plane import Credentials, control_plane, issue_credentials
from harness.cluster.native.network import LabNetwork
from harness.cluster.native.node import REGISTRY_PORT, node
from harness.cluster.native.sandbox import Sandbox
from harness.errors import HarnessFault
from harness.pki import write_private

__all__ = ["NativeCluster"]

# Host names that pods in the node's own network need; everyone else asks CoreDNS.
_AWS_HOSTS = ("eks-auth.{region}.api.aws", "eks.{region}.amazonaws.com", "sts.{region}.amazonaws.com")


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
        """Whether its programs run."""
        return self.exists and self.sandbox.pid is not None

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
        """Number of the cluster in its lab; its node's address follows from it."""
        return self._read()["index"]

    @property
    def kubernetes_minor(self) -> str:
        """Kubernetes version without the patch, such as ``1.34``."""
        return ".".join(KUBERNETES.removeprefix("v").split(".")[:2])

    @property
    def nodes(self) -> Sequence[Node]:
        """The one node."""
        return [Node(**self._read()["node"])]

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the administrator."""
        return self.directory / "kubeconfig"

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
            trust_bundle: PEM of all CAs that pods shall trust.
            keep: Directories outside the cluster's own that its programs read.
        """
        address = lab.node_address(index)
        name = f"ip-{address.replace('.', '-')}.{spec.region}.compute.internal"
        the_node = Node(name, address, _instance_id(lab, index))
        self.directory.mkdir(mode=0o700, parents=True)
        credentials = issue_credentials(self.directory / "pki", address=address, node=name)
        description = {
            "spec": asdict(spec),
            "index": index,
            "node": asdict(the_node),
            "endpoint": credentials.endpoint,
            "cgroup": _cgroup(lab, spec.name),
        }
        self._description.write_text(json.dumps(description, indent=1))
        self._write_kubeconfig(spec, credentials)
        programs = control_plane(spec, credentials, binaries, address=address, data=self.directory)
        configuration = self.directory / "node"
        programs += node(
            credentials,
            binaries,
            name=name,
            address=address,
            instance_id=the_node.instance_id,
            cgroup=_cgroup(lab, spec.name),
            registry=f"{lab.aws_address}:{REGISTRY_PORT}",
            configuration=configuration,
            data=self.directory,
        )
        mounts = self._write_system_files(configuration, the_node, spec, lab, trust_bundle)
        cgroups.create(_cgroup(lab, spec.name))
        with self.sandbox.starting(
            programs,
            hostname=name,
            mounts=mounts,
            keep=[self.directory, *keep],
            directories=["/run/containerd", "/var/log/containers", "/var/lib/cni"],
        ) as pid:
            lab.wire_node(aws_pid, pid, index)

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

    def _write_system_files(
        self, configuration: Path, the_node: Node, spec: ClusterSpec, lab: LabNetwork, trust_bundle: str
    ) -> dict[str, str]:
        """Write the node's own system files and return the mounts that put everything in its place."""
        aws_hosts = " ".join(host.format(region=spec.region) for host in _AWS_HOSTS)
        files = {
            "/etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n{the_node.address} {the_node.name}\n"
            f"{lab.aws_address} {aws_hosts}\n",
            # Nothing answers there on purpose: a name that CoreDNS does not know fails at once.
            "/etc/resolv.conf": "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n",
        }
        mounts = {"/run": "tmpfs"}
        for target, text in files.items():
            file = configuration / Path(target).name
            file.write_text(text)
            mounts[target] = str(file)
        (configuration / "trust-bundle.pem").write_text(trust_bundle)
        for target in ("/var/lib", "/var/log"):
            source = self.directory / "var" / Path(target).name
            source.mkdir(parents=True)
            mounts[target] = str(source)
        return mounts

    @property
    def trust_bundle(self) -> Path:
        """File on the node that holds all CAs that pods shall trust."""
        return self.directory / "node" / "trust-bundle.pem"

    def run_on_node(self, node: str, command: Sequence[str], *, timeout: float = 60) -> Completed:
        """Run a command in the network and mounts of the node."""
        if node != self.nodes[0].name:
            raise HarnessFault(f"no node {node!r} in {self.spec.name}; there is {self.nodes[0].name!r}")
        result = subprocess.run(
            [*self.sandbox.enter(), *command], capture_output=True, text=True, timeout=timeout, check=False
        )
        return Completed(result.returncode, result.stdout, result.stderr)

    def load_image(self, reference: str, archive: Path) -> None:
        """Import an image archive into containerd."""
        done = self.run_on_node(
            self.nodes[0].name, ["ctr", "--namespace=k8s.io", "images", "import", str(archive)], timeout=300
        )
        if done.returncode != 0:
            raise HarnessFault(f"cannot load {reference} from {archive}: {done.stderr.strip()}")

    def programs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return name → ``running`` and the latest ``exits`` of every program."""
        return self.sandbox.report()

    def logs(self) -> Mapping[str, Path]:
        """Return log files by program name."""
        return {path.stem: path for path in sorted(self.sandbox.logs.glob("*.log"))}

    def delete(self) -> None:
        """Remove the cluster; also works on a half-made one."""
        group = self._read()["cgroup"] if self.exists else None
        self.sandbox.kill()
        if group:
            cgroups.remove(str(group))
        self.sandbox.remove()


def _cgroup(lab: LabNetwork, cluster: str) -> str:
    return f"podid.{lab.lab}.{cluster}"


def _instance_id(lab: LabNetwork, index: int) -> str:
    """Return ``i-`` and 17 hex digits, the same for the same node of the same lab."""
    return "i-0" + hashlib.sha256(f"{lab.lab}/{index}".encode()).hexdigest()[:16]
