"""kind labs: AWS and clusters as containers of a Docker engine, on one network of their own. Needs no root."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from docker.errors import APIError, ImageNotFound

from harness import binaries, doctor
from harness.cloud.localstack import process
from harness.cluster.addresses import ipv6_beside
from harness.cluster.base import ClusterSpec, IpFamily
from harness.cluster.dns import aws_answers
from harness.cluster.kind import configuration
from harness.cluster.kind.binary import ensure_kind, find_kind
from harness.cluster.kind.cluster import KindCluster, Tool
from harness.cluster.kind.engine import LabEngine, connect, explained
from harness.cluster.kind.node_image import ensure_node_image, find_node_image, read_traits, wanted
from harness.docker_images import Archive, DockerImages
from harness.errors import HarnessFault, MissingPrerequisite, UsageError
from harness.free_port import free_port
from harness.image_lock import built
from harness.images import ImageSpec
from harness.kube import Kube, Manifest
from harness.lab import wiring
from harness.lab.aws import LabAws
from harness.lab.given import lab_images
from harness.lab.native import kill_marked
from harness.lab.paths import CHECKOUT, LabPaths, cache_directory
from harness.lab.provider import LabCluster, Parts, Started
from harness.pki import new_client_request
from harness.progress import Progress

__all__ = ["KindProvider"]

_AWS_DIRECTORY = "/etc/podid"
_HOME = "/var/lib/podid"
_CONTROL_PLANE_USER = "podid:eks-control-plane"


class KindProvider:
    """Containers of a Docker engine; implements :class:`harness.lab.provider.Provider`."""

    def __init__(self, lab: str, paths: LabPaths, aws: LabAws) -> None:
        """Attach to a lab; the engine is not asked yet."""
        self._lab = lab
        self._paths = paths
        self._aws = aws
        self._loads: dict[str, Future[None]] = {}
        self._cancelled = threading.Event()
        self._is_starting_aws = False

    @cached_property
    def engine(self) -> LabEngine:
        """The engine.

        Raises:
            MissingPrerequisite: It does not answer; of a lab that it holds, the text says so.
        """
        try:
            return LabEngine(connect(timeout=300), self._lab, self._paths.directory)
        except MissingPrerequisite as error:
            if not self._paths.description.exists():
                raise
            # Not for another provider to take the name: what the engine holds comes back with it.
            raise MissingPrerequisite(
                f"lab {self._lab!r} stands on kind: {error.message}",
                hint=f"{error.hint}, then remove the lab with: podid down; or use another lab: set PODID_LAB",
            ) from error

    @property
    def name(self) -> Literal["kind"]:
        """Its name."""
        return "kind"

    @property
    def _aws_container(self) -> str:
        return f"podid-{self._lab}-aws"

    @property
    def aws_address(self) -> str:
        """AWS's address on the lab's network: the last one, as the engine gives addresses from the first on."""
        return str(ipaddress.ip_network(json.loads(self._paths.network.read_text())["subnet"])[-2])

    @property
    def _aws_addresses(self) -> dict[int, str]:
        """Version of IP → AWS's address; IPv6's is the last of its network likewise."""
        ipv6 = json.loads(self._paths.network.read_text()).get("ipv6", "")
        return {4: self.aws_address} | ({6: str(ipaddress.ip_network(ipv6)[-2])} if ipv6 else {})

    @property
    def aws_endpoint(self) -> str:
        """URL at which AWS answers for all services on this machine."""
        with explained("looking for the lab's AWS"):
            ports = self.engine.engine.client.containers.get(self._aws_container).ports
        (published,) = ports["80/tcp"]
        return f"http://127.0.0.1:{published['HostPort']}"

    def require(self, ip_family: IpFamily) -> None:
        """Refuse where a kind lab cannot work."""
        doctor.require("kind", ip_family)

    def missing(self) -> Sequence[str]:
        """Say what a start would pull, download or build."""
        cache, engine = cache_directory(), self.engine.engine
        node = [] if find_node_image(engine) else [f"the node image {wanted()}"]
        kind = [] if find_kind() or not binaries.missing(cache, [binaries.KIND]) else ["the program kind"]
        common = list(lab_images({}).values())
        images = DockerImages(engine, cache, self._cancelled).missing(common, [_aws_image()])
        return [*node, *kind, *images]

    def parts(self) -> Parts:
        """Return the node image, ours, and kind if it is ours."""
        cache, engine = cache_directory(), self.engine.engine
        common = list(lab_images({}).values())
        files, names = DockerImages(engine, cache, self._cancelled).stored(common, [_aws_image()])
        kind = [] if find_kind() else binaries.entries(cache, [binaries.KIND])
        images = {name: str(engine.client.images.get(name).id) for name in names}
        if node := find_node_image(engine):
            images[node.reference.partition("@")[0]] = node.id
        return Parts([*files, *kind], images)

    def save_image(self, name: str, identifier: str, file: Path) -> None:
        """Write an image of the engine to an archive."""
        with file.open("wb") as archive, explained(f"saving {name}"):
            for chunk in self.engine.engine.client.api.get_image(identifier):
                archive.write(chunk)

    def load_image(self, name: str, identifier: str, file: Path) -> None:
        """Load an archive into the engine, and name its image."""
        client = self.engine.engine.client
        with file.open("rb") as archive, explained(f"loading {name}"):
            client.images.load(archive)
            client.images.get(identifier).tag(*name.split(":"))

    def export_image(self, reference: str, file: Path) -> None:
        """Write an image that the engine has or can pull to an archive."""
        client = self.engine.engine.client
        try:
            image = client.images.get(reference)
        except ImageNotFound:
            try:
                image = client.images.pull(reference)
            except APIError as error:
                raise UsageError(
                    f"the engine neither has {reference} nor can it pull it: {error.explanation or error}",
                    hint="name an image of `docker images`, log in to its registry, or give a file of docker save",
                ) from error
        self.save_image(reference, str(image.id), file)

    # --- up ---------------------------------------------------------------------------------------------------------

    def start(
        self,
        specs: Sequence[ClusterSpec],
        images: Sequence[ImageSpec],
        builds: ThreadPoolExecutor,
        progress: Progress,
        *,
        is_new: bool,
    ) -> Started:
        """Build what is missing and start AWS and the clusters."""
        engine, cache = self.engine, cache_directory()
        builder = DockerImages(engine.engine, cache, self._cancelled)
        archive = builds.submit(builder.ensure_archive, images, progress)
        kind = builds.submit(ensure_kind, cache, progress)
        started: Future[None] | None = None
        self._is_starting_aws = is_new
        if is_new:
            has_ipv6 = specs[0].ip_family != "ipv4"
            subnet = engine.create_network(has_ipv6=has_ipv6)
            network = {"subnet": subnet, "ipv6": ipv6_beside(subnet) if has_ipv6 else ""}
            self._paths.network.write_text(json.dumps(network))
            self._aws.prepare([self.aws_address, "127.0.0.1"])
            started = builds.submit(self._start_aws, builder, progress)
        image = ensure_node_image(engine.engine, progress)
        with progress.phase("kind", total=2) as phase:
            phase.step(f"looking into {image.reference.partition('@')[0]}")
            traits = read_traits(engine, image)
            phase.step(f"starting {', '.join(spec.name for spec in specs)}, Kubernetes {traits.kubernetes}")
            if traits.brings_network and any(spec.nodes > 1 for spec in specs):
                # Seen: no name of another node resolves on such a node, so that kubeadm cannot join it.
                phase.note(
                    "the node image has no network of kind's, which would join a second node: one node a cluster"
                )
                specs = [replace(spec, nodes=1) for spec in specs]
            tool = Tool(kind.result(), engine.network_name)
            cgroup_version = engine.engine.cgroup_version
            clusters: list[KindCluster] = []
            for spec in specs:
                taken = {cluster.index for cluster in self.clusters()}
                cluster = KindCluster(self._paths.cluster(spec.name), engine)
                index = min(set(range(len(taken) + 1)) - taken)
                cluster.start(spec, index=index, tool=tool, image=image, traits=traits, cgroup_version=cgroup_version)
                clusters.append(cluster)
                self._loads[spec.name] = builds.submit(_load_images, cluster, archive)
        return Started(clusters, started)

    def _start_aws(self, builder: DockerImages, progress: Progress) -> None:
        image = builder.ensure_image(_aws_image(), progress, phase_name="aws image")
        with progress.phase("aws start"), explained("starting the lab's AWS"):
            client, addresses = self.engine.engine.client, self._aws_addresses
            hosts = [f"[{address}]" if ":" in address else address for address in addresses.values()]
            variables = process.variables(
                listen=[f"{host}:{port}" for host in hosts for port in (80, 443)],
                certificate=Path(_AWS_DIRECTORY, "tls", "aws.pem"),
                state_directory=Path(_HOME),
                bootstrap_file=Path(_AWS_DIRECTORY, "bootstrap.json"),
                imds_listen="169.254.169.254:80",
            )
            network = client.api.create_networking_config(
                {
                    self.engine.network_name: client.api.create_endpoint_config(
                        ipv4_address=addresses[4], ipv6_address=addresses.get(6)
                    )
                }
            )
            host = client.api.create_host_config(
                cap_add=["NET_ADMIN"],
                # The same after a restart: who uses the lab has been told.
                port_bindings={80: ("127.0.0.1", free_port())},
                network_mode=self.engine.network_name,
                security_opt=["no-new-privileges"],
            )
            client.api.create_container(
                image,
                name=self._aws_container,
                hostname="aws",
                environment=variables,
                ports=[80],
                labels=self.engine.labels,
                host_config=host,
                networking_config=network,
            )
            files = {
                f"{_AWS_DIRECTORY}/tls/aws.pem": self._aws.certificate_file.read_text(),
                f"{_AWS_DIRECTORY}/bootstrap.json": self._aws.bootstrap_file.read_text(),
            }
            self.engine.put_files(self._aws_container, files)
            client.api.start(self._aws_container)

    def restart_aws(self, progress: Progress) -> None:
        """Kill the container's process, and start it again."""
        with progress.phase("aws start"), explained("restarting the lab's AWS"):
            container = self.engine.engine.client.containers.get(self._aws_container)
            container.kill()
            container.wait()
            container.start()

    @property
    def pulls_by_itself(self) -> bool:
        """No: images are built, or taken in."""
        return False

    @property
    def can_add_nodes(self) -> bool:
        """No: kind makes all nodes when it makes the cluster."""
        return False

    def add_nodes(self, cluster: LabCluster, nodes: int) -> None:
        """Refuse."""
        raise UsageError(
            f"kind cluster {cluster.spec.name!r} has {len(cluster.nodes)} nodes and cannot get {nodes}",
            hint=f"raise it with them: podid down; podid up --nodes {nodes}",
        )

    def take_back_nodes(self, cluster: LabCluster, kept: int) -> None:
        """Do nothing: none can be added."""

    def interrupt(self) -> None:
        """End builds in the engine, and an AWS that is starting: it would be waited for."""
        self._cancelled.set()
        if self._is_starting_aws:
            self.engine.remove_containers([self._aws_container])

    def wait_until_created(self, cluster: LabCluster) -> None:
        """Wait for kind."""
        ours = _ours(cluster)
        ours.wait_until_created(cache_directory() / "logs" / ours.kind_name)

    def connect(self, cluster: LabCluster) -> Kube:
        """Return an administrator."""
        return Kube(cluster.kubeconfig)

    def wire(self, cluster: LabCluster, kube: Kube) -> None:
        """Attach the node, apply trust and the rule about pulls, and make CoreDNS answer for AWS."""
        ours = _ours(cluster)
        trust = wiring.trust_bundle(self._aws.authority_file.read_text())
        ours.join_lab(aws_address=self.aws_address, trust_bundle=trust)
        wiring.apply_wiring(kube, trust_bundle_path=ours.trust_bundle)
        wiring.apply_pull_rule(kube)
        # A CoreDNS that starts before services can be reached waits up to half a minute to try again.
        kube.wait_until_deployed("DaemonSet", "kube-proxy", "kube-system")
        corefile = kube.read("v1", "ConfigMap", "coredns", "kube-system")["data"]["Corefile"]
        answers = aws_answers(ours.spec, self._aws_addresses)
        wiring.replace_corefile(kube, configuration.patched_corefile(corefile, answers, ours.nodes[0].address))

    def deliver_images(self, cluster: LabCluster) -> None:
        """Wait until the images are in the node; they are loaded while kind still works on it."""
        self._loads[cluster.spec.name].result()

    def add_images(self, cluster: LabCluster, specs: Sequence[ImageSpec], progress: Progress) -> None:
        """Have the engine build the images, and load them into the node."""
        archive = DockerImages(self.engine.engine, cache_directory(), self._cancelled).ensure_archive(specs, progress)
        _load_archive(_ours(cluster), archive)

    def fit(self, cluster: LabCluster, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        """Return them as they are: the lab made the nodes for them."""
        del cluster
        return manifests

    def hand_over_keys(self, cluster: LabCluster) -> None:
        """Get a client certificate from the cluster, and put it where AWS reads it."""
        access = cluster.control_plane_access
        key, request = new_client_request(_CONTROL_PLANE_USER)
        with contextlib.closing(Kube(cluster.kubeconfig)) as kube:
            certificate = kube.sign_client_request("podid-eks-control-plane", request)
        files = {str(access.client_certificate): certificate, str(access.client_key): key}
        self.engine.put_files(self._aws_container, files)

    # --- looking ----------------------------------------------------------------------------------------------------

    def clusters(self) -> Sequence[KindCluster]:
        """Return the clusters in the order of their numbers."""
        if not self._paths.clusters.exists():
            return []
        found = [KindCluster(directory, self.engine) for directory in self._paths.clusters.iterdir()]
        return sorted((cluster for cluster in found if cluster.exists), key=lambda cluster: cluster.index)

    def aws_programs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return AWS's one program."""
        return {"localstack": {"running": self.aws_stopped() is None, "exits": []}}

    def aws_logs(self) -> Mapping[str, Path]:
        """Return AWS's log, freshly copied from the engine."""
        path = self._paths.aws / "localstack.log"
        with explained("reading the log of the lab's AWS"):
            path.write_bytes(self.engine.engine.client.containers.get(self._aws_container).logs())
        return {"localstack": path}

    def aws_stopped(self) -> str | None:
        """Return why AWS does not run, None when it does."""
        return None if self.engine.is_running(self._aws_container) else "the AWS container ended"

    # --- down -------------------------------------------------------------------------------------------------------

    def remove_cluster(self, name: str) -> None:
        """Remove a cluster, also a half-made one."""
        KindCluster(self._paths.cluster(name), self.engine).delete()

    def remove(self) -> bool:
        """End commands of the lab that still run, then remove its containers, volumes and network."""
        kill_marked(self._paths.directory)
        return self.engine.remove()


def _load_images(cluster: KindCluster, archive: Future[Archive]) -> None:
    """Load the lab's images while kind still works on the cluster."""
    wanted = archive.result()
    cluster.wait_until_images_can_be_loaded()
    _load_archive(cluster, wanted)


def _load_archive(cluster: KindCluster, wanted: Archive) -> None:
    """Load images, and check that the node has these and no others under their names."""
    cluster.load_images(wanted.path, list(wanted.ids))
    there = cluster.image_ids()
    if stale := [name for name, identifier in wanted.ids.items() if there.get(name) != identifier]:
        raise HarnessFault(
            f"node {cluster.container} has other images than were loaded under {', '.join(stale)}: "
            f"{[there.get(name) for name in stale]}",
            hint="start afresh with: podid down",
        )


def _ours(cluster: LabCluster) -> KindCluster:
    return cast("KindCluster", cluster)


def _aws_image() -> ImageSpec:
    """Return the image of AWS: of the harness, only what runs in LocalStack's process."""
    package = CHECKOUT / "harness"
    modules = [package / "__init__.py", package / "errors.py", *(package / "cloud").rglob("*.py")]
    files = {str(path.relative_to(CHECKOUT)): path for path in modules}
    files |= {name: CHECKOUT / name for name in ("LICENSE", "pyproject.toml")}
    files["requirements.txt"] = package / "cloud" / "localstack" / "requirements.txt"
    return built("aws", files)
