"""Native labs: AWS and clusters as sandboxed processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

from harness import binaries, doctor, limits, packages, wait
from harness.cloud.localstack import environment as localstack_environment
from harness.cloud.localstack import process
from harness.cloud.localstack.environment import Environment
from harness.cluster.addresses import cluster_dns, ipv6_beside
from harness.cluster.base import ClusterSpec, IpFamily
from harness.cluster.native import cgroups, image_store
from harness.cluster.native.cluster import NativeCluster
from harness.cluster.native.network import IMDS_ADDRESS, LabNetwork, choose_subnet
from harness.cluster.native.node import REGISTRY_PORT
from harness.cluster.native.sandbox import Program, Sandbox, marked_processes
from harness.errors import HarnessFault, UsageError
from harness.image_lock import built
from harness.images import (
    REGISTRY_ENVIRONMENT,
    ImageSpec,
    ensure,
    missing,
    registry_configuration,
    registry_storage,
)
from harness.kube import Kube, Manifest
from harness.lab import wiring
from harness.lab.aws import LabAws
from harness.lab.given import lab_images
from harness.lab.paths import LabPaths, cache_directory
from harness.lab.provider import LabCluster, Parts, Started, WithoutEngine
from harness.progress import Progress

__all__ = ["NativeProvider", "kill_marked"]

_FOR_IMAGES = {"coredns", "pause", "registry"}
"""Groups of programs that go into images or serve them."""


class NativeProvider(WithoutEngine):
    """Sandboxes on a bridge; implements :class:`harness.lab.provider.Provider`."""

    def __init__(self, lab: str, paths: LabPaths, aws: LabAws) -> None:
        """Attach to a lab; nothing is created or started."""
        self._lab = lab
        self._paths = paths
        self._aws = aws
        self._sandbox = Sandbox(paths.aws)
        self._is_starting_aws = False

    @property
    def name(self) -> Literal["native"]:
        """Its name."""
        return "native"

    @property
    def _network(self) -> LabNetwork:
        return LabNetwork(**json.loads(self._paths.network.read_text()))

    @property
    def aws_address(self) -> str:
        """Address at which AWS answers inside the lab."""
        return self._network.aws_address

    @property
    def aws_endpoint(self) -> str:
        """URL at which AWS answers for all services."""
        return f"http://{self.aws_address}"

    def require(self, ip_family: IpFamily) -> None:
        """Refuse where a native lab cannot work."""
        doctor.require("native", ip_family)

    def missing(self) -> Sequence[str]:
        """Say what a start would download or build."""
        cache = cache_directory()
        found = [f"{need.path} ({need.reason})" for need in packages.missing().values()]
        if localstack_environment.find(cache) is None:
            found.append("the emulator's Python environment")
        if groups := binaries.missing(cache):
            # What images are made of is not known without them.
            return [*found, *(f"the programs of {group.name} {group.version}" for group in groups), "the images"]
        lacking = missing(_image_specs(binaries.paths(cache), lab_images({}).values()), cache)
        return [*found, *(f"the image {spec.reference}" for spec in lacking)]

    def parts(self) -> Parts:
        """Return the programs, the registry's storage with its records, and the emulator's environment."""
        cache = cache_directory()
        environment = localstack_environment.find(cache)
        records = sorted((cache / "images").glob("*.json"))
        files = [*binaries.entries(cache), registry_storage(cache), *records]
        return Parts([*files, environment.directory] if environment else files, {})

    def export_image(self, reference: str, file: Path) -> None:
        """Refuse: there is no engine."""
        del file
        raise UsageError(
            f"{reference} is no file, and a native lab has no engine that could pull it",
            hint=f"write it into a file where there is one: docker save --output FILE.tar {reference}",
        )

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
        cache = cache_directory()
        packages.install(progress)
        environment = builds.submit(localstack_environment.ensure, cache, progress) if is_new else None
        # Images wait for the network where Go waits for the processor: begin them before the big builds.
        minors = {spec.name: binaries.groups_of(spec.kubernetes) for spec in specs}
        groups = {group.name: group for wanted in minors.values() for group in wanted}.values()
        first = [group for group in groups if group.name in _FOR_IMAGES]
        programs = binaries.ensure(cache, progress, first)
        wanted = _image_specs(programs, images)
        stored = builds.submit(ensure, wanted, cache, programs["registry"], progress)
        binaries.ensure(cache, progress, [group for group in groups if group not in first])
        started: Future[None] | None = None
        self._is_starting_aws = is_new
        if environment:
            self._start_aws(environment.result(), programs["registry"], cache, progress, specs[0].ip_family)
            started = Future()
            started.set_result(None)
        stored.result()
        clusters: list[NativeCluster] = []
        for spec in specs:
            programs = binaries.paths(cache, minors[spec.name])
            store = image_store.unpacked(wanted, cache, programs, progress)
            clusters.append(self._start_cluster(spec, programs, store, cache))
        return Started(clusters, started)

    def _start_aws(
        self, environment: Environment, registry: Path, cache: Path, progress: Progress, ip_family: IpFamily
    ) -> None:
        subnet = choose_subnet()
        network = LabNetwork(self._lab, subnet, "" if ip_family == "ipv4" else ipv6_beside(subnet))
        self._paths.network.write_text(json.dumps(asdict(network)))
        with progress.phase("aws start"):
            self._aws.prepare([network.aws_address])
            hosts = [f"[{address}]" if ":" in address else address for address in network.aws_addresses.values()]
            listen = [f"{host}:{port}" for host in hosts for port in (80, 443)]
            argv, variables = process.start_command(
                environment,
                listen=listen,
                certificate=self._aws.certificate_file,
                state_directory=self._paths.aws / "state",
                bootstrap_file=self._aws.bootstrap_file,
                imds_listen=f"{IMDS_ADDRESS}:80",
            )
            registry_file = self._paths.aws / "registry.json"
            address = f"{network.aws_address}:{REGISTRY_PORT}"
            registry_file.write_text(registry_configuration(cache, address, read_only=True))
            programs = [
                Program("localstack", argv, variables),
                Program("registry", [str(registry), "serve", str(registry_file)], REGISTRY_ENVIRONMENT),
            ]
            with self._sandbox.starting(programs, hostname="aws", mounts={}, keep=[]) as pid:
                network.wire_aws(pid)

    def restart_aws(self, progress: Progress) -> None:
        """Kill LocalStack: the first process of its sandbox starts it again."""
        del progress
        self._sandbox.kill_program("localstack")

    def _start_cluster(
        self, spec: ClusterSpec, programs: Mapping[str, Path], images: Path, cache: Path
    ) -> NativeCluster:
        cluster = NativeCluster(self._paths.cluster(spec.name))
        cluster.start(
            spec,
            index=self._free_index(),
            lab=self._network,
            aws_pid=self._aws_pid,
            binaries=programs,
            images=images,
            trust_bundle=wiring.trust_bundle(self._aws.authority_file.read_text()),
            keep=[cache],
        )
        self._add_nodes(cluster, spec.nodes, programs)
        return cluster

    def _free_index(self) -> int:
        taken = {index for cluster in self.clusters() for index in cluster.node_indexes}
        return min(set(range(len(taken) + 1)) - taken)

    @property
    def _aws_pid(self) -> int:
        pid = self._sandbox.pid
        if pid is None:
            raise HarnessFault(
                "the lab's AWS ended while clusters were starting", hint="run: podid logs aws/localstack"
            )
        return pid

    @property
    def pulls_by_itself(self) -> bool:
        """No: images are built, or taken in."""
        return False

    @property
    def can_add_nodes(self) -> bool:
        """Yes: a node is a sandbox of its own."""
        return True

    def add_nodes(self, cluster: LabCluster, nodes: int) -> None:
        """Start further nodes."""
        groups = binaries.groups_of(cluster.spec.kubernetes)
        self._add_nodes(cast("NativeCluster", cluster), nodes, binaries.paths(cache_directory(), groups))

    def take_back_nodes(self, cluster: LabCluster, kept: int) -> None:
        """Remove further nodes."""
        for worker in cast("NativeCluster", cluster).workers[kept - 1 :]:
            worker.delete()

    def _add_nodes(self, cluster: NativeCluster, nodes: int, programs: Mapping[str, Path]) -> None:
        while len(cluster.nodes) < nodes:
            cluster.add_node(
                index=self._free_index(),
                lab=self._network,
                aws_pid=self._aws_pid,
                binaries=programs,
                keep=[cache_directory()],
            )

    def interrupt(self) -> None:
        """End an AWS that is starting: it would be waited for. All other work has processes with the lab's mark."""
        if self._is_starting_aws:
            kill_marked(self._paths.aws)

    def wait_until_created(self, cluster: LabCluster) -> None:
        """Do nothing: the kubeconfig is written first."""

    def connect(self, cluster: LabCluster) -> Kube:
        """Return an administrator."""
        return Kube(cluster.kubeconfig)

    def wire(self, cluster: LabCluster, kube: Kube) -> None:
        """Apply DNS and trust."""
        trust_bundle = cast("NativeCluster", cluster).trust_bundle
        wiring.apply_wiring(kube, trust_bundle_path=str(trust_bundle))
        network = self._network
        wiring.apply_dns(
            kube,
            cluster.spec,
            cluster_dns=cluster_dns(cluster.spec),
            aws_addresses=network.aws_addresses,
            elb_address=cluster.nodes[0].address,
        )

    def deliver_images(self, cluster: LabCluster) -> None:
        """Do nothing: a node begins with them, and pulls what comes later from the lab's registry."""
        del cluster

    def add_images(self, cluster: LabCluster, specs: Sequence[ImageSpec], progress: Progress) -> None:
        """Build the images into the storage that the lab's registry serves."""
        del cluster
        cache = cache_directory()
        ensure(specs, cache, binaries.paths(cache)["registry"], progress)

    def fit(self, cluster: LabCluster, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        """Return them as they are: the lab made the nodes for them."""
        del cluster
        return manifests

    def hand_over_keys(self, cluster: LabCluster) -> None:
        """Do nothing: AWS reads the files where they are."""

    # --- looking ----------------------------------------------------------------------------------------------------

    def clusters(self) -> Sequence[NativeCluster]:
        """Return the clusters in the order of their numbers."""
        if not self._paths.clusters.exists():
            return []
        found = [NativeCluster(directory) for directory in self._paths.clusters.iterdir()]
        return sorted((cluster for cluster in found if cluster.exists), key=lambda cluster: cluster.index)

    def aws_programs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return AWS's programs."""
        return self._sandbox.report()

    def aws_logs(self) -> Mapping[str, Path]:
        """Return AWS's log files."""
        return {path.stem: path for path in sorted(self._sandbox.logs.glob("*.log"))}

    def aws_stopped(self) -> str | None:
        """Return why AWS does not run, None when it does."""
        return None if self._sandbox.pid is not None else "the AWS sandbox ended"

    # --- down -------------------------------------------------------------------------------------------------------

    def remove_cluster(self, name: str) -> None:
        """Remove a cluster, also a half-made one."""
        directory = self._paths.cluster(name)
        kill_marked(directory)
        NativeCluster(directory).delete()

    def remove(self) -> bool:
        """End the lab's processes (their namespaces, mounts and links go with them), then remove its groups."""
        directory = self._paths.directory
        prefix = cgroups.lab_prefix(directory)
        found = bool(marked_processes(directory)) or bool(cgroups.names_with_prefix(prefix))
        kill_marked(directory)
        for group in cgroups.names_with_prefix(prefix):
            cgroups.remove(group)
        return found


def kill_marked(directory: Path) -> None:
    """End all processes that carry the mark of a directory or of one below it, and wait until they are gone."""
    for pid in marked_processes(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait.until(
        lambda: marked_processes(directory),
        lambda left: not left,
        what="the lab's processes to end",
        timeout=limits.PROCESS_END,
    )


def _image_specs(programs: Mapping[str, Path], common: Iterable[ImageSpec]) -> list[ImageSpec]:
    return [
        built("pause", {"pause": programs["pause"]}),
        built("coredns", {"coredns": programs["coredns"]}),
        *common,
    ]
