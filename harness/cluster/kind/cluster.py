"""A kind cluster; implements :class:`harness.cluster.base.Cluster`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from harness import limits, wait
from harness.cluster import pod_network
from harness.cluster.addresses import pods_of
from harness.cluster.base import Access, ClusterSpec, Completed, Node
from harness.cluster.kind import configuration
from harness.cluster.kind.configuration import NodeTraits
from harness.cluster.kind.engine import LabEngine, instance_id, refusal
from harness.cluster.kind.node_image import NodeImage
from harness.errors import HarnessFault, MissingPrerequisite
from harness.pki import write_private

__all__ = ["BASE_CONFIGURATION", "KindCluster", "Tool"]

BASE_CONFIGURATION = Path(__file__).resolve().parents[3] / "kind-config.yaml"
_AWS_HOSTS = ("eks-auth.{region}.api.aws", "eks.{region}.amazonaws.com", "sts.{region}.amazonaws.com")
_TRUST_BUNDLE = "/etc/podid/trust-bundle.pem"
_IMDS_ADDRESS = "169.254.169.254"
# Where control_plane_access's files are for whoever acts as EKS's control plane: in the AWS container.
_KEYS = "/etc/podid/clusters"
_CREATION_SECONDS = 300
_LOGS = {
    "containerd": ["journalctl", "--unit=containerd", "--no-pager"],
    "kubelet": ["journalctl", "--unit=kubelet", "--no-pager"],
    **{
        name: ["sh", "-c", f"cat /var/log/containers/{name}-*.log"]
        for name in ("coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler")
    },
}


@dataclass(frozen=True, slots=True)
class Tool:
    """The kind program, and the environment that keeps it to the lab's network and away from the user's files."""

    program: Path
    network: str

    def command(self, *arguments: str) -> list[str]:
        """Return a command that does not outlive us, where the system can promise that."""
        bound = ["setpriv", "--pdeathsig=KILL"] if shutil.which("setpriv") else []
        return [*bound, str(self.program), *arguments]

    def variables(self, kubeconfig: Path) -> dict[str, str]:
        """Return the environment of a command."""
        return os.environ | {
            "KIND_EXPERIMENTAL_DOCKER_NETWORK": self.network,
            "KIND_EXPERIMENTAL_PROVIDER": "docker",
            "KUBECONFIG": str(kubeconfig),
        }


class KindCluster:
    """A kind cluster, known by its directory; what runs is seen in the Docker engine."""

    def __init__(self, directory: Path, engine: LabEngine) -> None:
        """Attach to the cluster in ``directory``; nothing is created or started."""
        self.directory = directory
        self._engine = engine
        self._description = directory / "cluster.json"
        self._creation: subprocess.Popen[bytes] | None = None

    @property
    def provider(self) -> Literal["kind"]:
        """Where the cluster comes from."""
        return "kind"

    @property
    def exists(self) -> bool:
        """Whether the cluster was begun, complete or not."""
        return self._description.exists()

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
        """Number of the cluster in its lab."""
        return self._read()["index"]

    @property
    def kubernetes_minor(self) -> str:
        """Kubernetes version without the patch, such as ``1.34``."""
        return NodeTraits(**self._read()["traits"]).minor

    @property
    def kind_name(self) -> str:
        """Name that kind knows it by; EKS's names may be longer and have capitals."""
        return f"{self._engine.network_name}-{self.index}"

    @property
    def container(self) -> str:
        """Name of the first node's container, which is the node's name too."""
        return f"{self.kind_name}-control-plane"

    @property
    def containers(self) -> Sequence[str]:
        """Names of all nodes' containers, the first node's first."""
        workers = range(1, self.spec.nodes)
        return [self.container, *(f"{self.kind_name}-worker{number if number > 1 else ''}" for number in workers)]

    @property
    def is_running(self) -> bool:
        """Whether the nodes' containers run."""
        return self.exists and all(map(self._engine.is_running, self.containers))

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the administrator."""
        return self.directory / "kubeconfig"

    @property
    def trust_bundle(self) -> str:
        """File on the node that holds all CAs that pods shall trust."""
        return _TRUST_BUNDLE

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes, the control plane's first."""
        return [self._node(number, name) for number, name in enumerate(self.containers)]

    def _node(self, number: int, name: str) -> Node:
        networks = self._engine.engine.client.containers.get(name).attrs["NetworkSettings"]["Networks"]
        found = networks[self._engine.network_name]
        return Node(name, str(found["IPAddress"]), self._instance_id(self.index, number), found["GlobalIPv6Address"])

    def _instance_id(self, index: int, number: int) -> str:
        """Return the instance of a node: those of one lab differ; a cluster's further nodes count on from a hundred."""
        return instance_id(self._engine.lab, index if number == 0 else 100 * (index + 1) + number)

    @property
    def tenancy(self) -> None:
        """None: the cluster is the lab's own."""
        return None

    @property
    def control_plane_access(self) -> Access:
        """Access of EKS's own control plane; its files are in the AWS container."""
        cluster = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]
        keys = Path(_KEYS) / self.spec.name
        return Access(
            endpoint=f"https://{self.container}:6443",
            certificate_authority=base64.b64decode(cluster["certificate-authority-data"]).decode(),
            client_certificate=keys / "eks.crt",
            client_key=keys / "eks.key",
        )

    @property
    def _tool(self) -> Tool:
        """The kind program that creates the cluster."""
        return Tool(Path(self._read()["kind"]), self._engine.network_name)

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._description.read_text())
        except FileNotFoundError:
            raise HarnessFault(f"there is no cluster {self.directory.name!r}", hint="run: podid up") from None

    # --- creation ---------------------------------------------------------------------------------------------------

    def start(
        self, spec: ClusterSpec, *, index: int, tool: Tool, image: NodeImage, traits: NodeTraits, cgroup_version: str
    ) -> None:
        """Begin to create the cluster; does not wait.

        Args:
            spec: What the cluster must look like.
            index: Number of the cluster in its lab.
            tool: The kind program.
            image: The node image.
            traits: What the node image needs.
            cgroup_version: The engine's.
        """
        self.directory.mkdir(mode=0o700, parents=True)
        description = {
            "spec": asdict(spec),
            "index": index,
            "image": asdict(image),
            "traits": asdict(traits),
            "kind": str(tool.program),
        }
        self._description.write_text(json.dumps(description, indent=1))
        self._engine.refuse_foreign_cluster(self.kind_name)
        file = self.directory / "kind-config.yaml"
        text = configuration.render(
            BASE_CONFIGURATION.read_text(),
            spec,
            traits,
            cgroup_version=cgroup_version,
            instance_ids=[self._instance_id(index, number) for number in range(spec.nodes)],
            network=self._write_network(spec) if traits.brings_network else None,
        )
        file.write_text(text)
        arguments = ["create", "cluster", f"--name={self.kind_name}", f"--config={file}", f"--image={image.reference}"]
        arguments += [f"--kubeconfig={self.kubeconfig}", "--retain"]
        with self._log.open("wb") as log:
            self._creation = subprocess.Popen(
                tool.command(*arguments),
                env=tool.variables(self.kubeconfig),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _write_network(self, spec: ClusterSpec) -> Path:
        """Write the CNI configuration of the cluster's one node, and return its directory."""
        directory = self.directory / "cni"
        directory.mkdir()
        (directory / pod_network.FILE_NAME).write_text(pod_network.configuration(pods_of(spec, 0)))
        return directory

    @property
    def _log(self) -> Path:
        return self.directory / "kind.log"

    def wait_until_created(self, logs: Path) -> None:
        """Wait until kind is done, and make the node know the lab's names for itself.

        Args:
            logs: Directory that gets the node's logs when kind fails.

        Raises:
            MissingPrerequisite: The engine refuses what kind needs.
            HarnessFault: The cluster did not come up; the text has what kind said.
        """
        creation = self._creation
        if creation is None:
            return
        try:
            code = creation.wait(_CREATION_SECONDS)
        except subprocess.TimeoutExpired:
            creation.kill()
            code = creation.wait()
        if code != 0:
            raise self._failure(logs)
        self._rename_context()

    def _failure(self, logs: Path) -> HarnessFault | MissingPrerequisite:
        said = self._log.read_text(errors="replace").strip()
        last = "\n".join(f"  {line}" for line in said.splitlines()[-12:])
        error = refusal(f"creating the kind cluster {self.kind_name}", said)
        if isinstance(error, MissingPrerequisite):
            return error
        shutil.rmtree(logs, ignore_errors=True)
        command = self._tool.command("export", "logs", str(logs), f"--name={self.kind_name}")
        subprocess.run(command, env=self._tool.variables(self.kubeconfig), capture_output=True, timeout=60, check=False)
        return HarnessFault(
            f"the kind cluster {self.kind_name} did not come up; kind said:\n{last}",
            hint=f"the node's logs are in {logs}; podid doctor looks for usual causes",
        )

    def _rename_context(self) -> None:
        """Name context, cluster and user after the EKS cluster, as in every lab."""
        document: dict[str, Any] = yaml.safe_load(self.kubeconfig.read_text())
        name = self.spec.name
        for part in ("clusters", "users", "contexts"):
            (entry,) = document[part]
            entry["name"] = name
        document["contexts"][0]["context"] = {"cluster": name, "user": name}
        document["current-context"] = name
        write_private(self.kubeconfig, yaml.safe_dump(document, sort_keys=False))

    def join_lab(self, *, aws_address: str, trust_bundle: str) -> None:
        """Give the nodes the way to the metadata service, AWS's names, and the lab's CA."""
        for name in self.containers:
            self._join_lab(name, aws_address=aws_address, trust_bundle=trust_bundle)

    def _join_lab(self, node: str, *, aws_address: str, trust_bundle: str) -> None:
        self._engine.put_files(node, {_TRUST_BUNDLE: trust_bundle}, mode=0o644)
        hosts = " ".join(host.format(region=self.spec.region) for host in _AWS_HOSTS)
        # A link-local address that nobody on the node has leads nowhere, as in a VPC; here it would leave through the
        # engine's network. Wider than the agent's route, so that it is never in its way.
        steps = [
            "ip route replace blackhole 169.254.0.0/16",
            f"ip route replace {_IMDS_ADDRESS}/32 via {aws_address}",
            f'echo "{aws_address} {hosts}" >> /etc/hosts',
            *(["ip route replace blackhole fd00:ec2::/32"] if 6 in self.spec.ip_versions else []),
        ]
        done = self.run_on_node(node, ["sh", "-c", " && ".join(steps)])
        if done.returncode != 0:
            raise HarnessFault(f"cannot attach node {node} to the lab: {done.stderr.strip()}")

    # --- use --------------------------------------------------------------------------------------------------------

    def run_on_node(self, node: str, command: Sequence[str], *, timeout: float = 60) -> Completed:
        """Run a command in the network and mounts of the node."""
        if node not in self.containers:
            raise HarnessFault(f"no node {node!r} in {self.spec.name}; there is {', '.join(self.containers)}")
        return self._engine.run_in(node, command, timeout=timeout)

    @property
    def node_programs(self) -> Sequence[str]:
        """The kube-proxy and the kubelet of every node, as ``<node>/<program>``."""
        # This order: a kubelet would wait before it starts a container again that it has seen end before.
        return [f"{node}/{program}" for node in self.containers for program in ("kube-proxy", "kubelet")]

    def kill_program(self, name: str) -> None:
        """Kill a program; the kubelet starts a container in the place of one, and systemd the kubelet.

        Args:
            name: Of one on the first node, or ``<node>/<program>``.
        """
        node, _, program = name.rpartition("/")
        stop = f'id=$(crictl ps --quiet --name \'^{program}$\') && test -n "$id" && crictl stop --timeout 0 "$id"'
        kill = "systemctl kill --signal=KILL kubelet"
        done = self.run_on_node(node or self.container, ["sh", "-c", kill if program == "kubelet" else stop])
        if done.returncode != 0:
            raise HarnessFault(f"cannot kill {name} of {self.kind_name}: {done.stderr.strip() or 'it does not run'}")

    def load_image(self, reference: str, archive: Path) -> None:
        """Make an image from a ``docker-archive`` file available to the cluster under its full name."""
        self.load_images(archive, [reference])

    def load_images(self, archive: Path, references: Sequence[str]) -> None:
        """Load an archive of several images.

        Args:
            archive: The file.
            references: Names that it holds, for the error.
        """
        tool = self._tool
        done = subprocess.run(
            tool.command("load", "image-archive", str(archive), f"--name={self.kind_name}"),
            env=tool.variables(self.kubeconfig),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode != 0:
            raise refusal(f"loading {', '.join(references)} into {self.container}", done.stderr.strip())

    def wait_until_images_can_be_loaded(self) -> None:
        """Wait for the nodes' containerd, which answers long before kind is done.

        Raises:
            HarnessFault: It does not, or kind gave up before.
        """
        wait.until(
            self._answers_for_images,
            what=f"containerd of {self.container}",
            timeout=limits.NODE_READY,
            stop=lambda _: "kind ended" if self._creation and self._creation.poll() else None,
            transient=(HarnessFault,),
        )

    def _answers_for_images(self) -> bool:
        command = ["ctr", "--namespace=k8s.io", "images", "list", "--quiet"]
        return self.is_running and all(self.run_on_node(name, command).returncode == 0 for name in self.containers)

    def image_ids(self) -> dict[str, str]:
        """Return the node's images: full name → ID, the digest of the image's configuration."""
        done = self.run_on_node(self.container, ["crictl", "images", "--output=json"])
        if done.returncode != 0:
            raise HarnessFault(f"cannot list the images of {self.container}: {done.stderr.strip()}")
        images = json.loads(done.stdout)["images"]
        return {tag: image["id"] for image in images for tag in image.get("repoTags") or ()}

    def programs(self) -> dict[str, dict[str, object]]:
        """Return name → ``running`` and ``exits`` of what the cluster consists of."""
        return {name: {"running": self._engine.is_running(name), "exits": []} for name in self.containers}

    def logs(self) -> Mapping[str, Path]:
        """Return log files by what wrote them, freshly copied from the node as long as it runs."""
        directory = self.directory / "logs"
        if self.is_running:
            directory.mkdir(exist_ok=True)
            for name, command in _LOGS.items():
                (directory / f"{name}.log").write_text(self.run_on_node(self.container, command).stdout)
        found = {path.stem: path for path in sorted(directory.glob("*.log"))}
        return ({"kind": self._log} if self._log.exists() else {}) | found

    def delete(self) -> None:
        """Remove the cluster; also works on a half-made one."""
        if self.exists:
            self._end_creation()
            network = self._engine.network_name
            for name in self.containers:
                wait.until(
                    lambda name=name: self._is_removed(name),
                    what=f"node {name} to leave {network}",
                    timeout=limits.CLEANUP_STEP,
                )
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def _end_creation(self) -> None:
        if self._creation is not None and self._creation.poll() is None:
            self._creation.kill()
            self._creation.wait()

    def _is_removed(self, name: str) -> bool:
        self._engine.remove_containers([name])
        return not any(f"/{name}" in container.attrs["Names"] for container in self._engine.containers())
