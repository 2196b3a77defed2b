"""Labs on a cluster that the harness did not create: AWS is a process of this machine, the cluster is somebody's."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from harness import doctor_existing
from harness.cloud.localstack import environment as localstack_environment
from harness.cloud.localstack import process
from harness.cluster.base import ClusterSpec, IpFamily
from harness.cluster.existing.changes import Changes, Edit
from harness.cluster.existing.cluster import ExistingCluster
from harness.cluster.existing.corefile import answering_for_aws
from harness.cluster.existing.marked import find_marked, remove
from harness.cluster.existing.target import Target
from harness.cluster.native.sandbox import MARK, let_outlive, marked_processes
from harness.errors import HarnessFault, MissingPrerequisite
from harness.free_port import free_port
from harness.image_lock import read_lock
from harness.images import ImageSpec
from harness.kube import Kube, Manifest
from harness.lab import wiring
from harness.lab.aws import LabAws
from harness.lab.existing_plan import (
    ASSOCIATIONS,
    COREDNS,
    HOSTS,
    agent_hosts,
    eks_name,
    eks_objects,
    keepsake,
    local_address_towards,
)
from harness.lab.native import kill_marked
from harness.lab.paths import CHECKOUT, LabPaths, cache_directory
from harness.lab.provider import LabCluster, Parts, Started
from harness.lab.somebodys import OnSomebodysCluster, refuse_family
from harness.pki import write_private
from harness.progress import Progress
from harness.tenancy import full_name

__all__ = ["ExistingProvider"]

_TOKEN_SECONDS = 24 * 3600


class _NotingKube(Kube):
    """An administrator whose applied objects are marked, and noted so that they can be removed."""

    def __init__(self, cluster: ExistingCluster) -> None:
        super().__init__(cluster.kubeconfig)
        self._tenancy = cluster.tenancy
        self.changes = Changes(cluster.changes_file, self)

    def is_ready(self) -> bool:
        """Ask as somebody: not every API server answers strangers."""
        try:
            return self.get("/version") is not None
        except HarnessFault:
            return False

    def apply(self, manifests: Iterable[Manifest], namespace: str | None = None, *, dry_run: bool = False) -> None:
        """Apply objects that do not exist yet."""
        adapted = [self._tenancy.adapted(manifest) for manifest in manifests]
        if not dry_run:
            self.changes.will_create(adapted)
        super().apply(adapted, namespace, dry_run=dry_run)


class ExistingProvider(OnSomebodysCluster):
    """Somebody's cluster and AWS beside it; implements :class:`harness.lab.provider.Provider`."""

    def __init__(self, paths: LabPaths, aws: LabAws, target: Target | None) -> None:
        """Attach to a lab; nothing is asked or started.

        Args:
            paths: The lab's files.
            aws: The lab's AWS.
            target: The cluster for a lab that is to be raised; None for the one that it was raised on.
        """
        super().__init__(paths, target)
        self._aws = aws

    def _network(self) -> dict[str, Any]:
        return json.loads(self._paths.network.read_text())

    @property
    def aws_address(self) -> str:
        """Address of this machine at which AWS answers for the cluster."""
        return self._network()["aws_address"]

    @property
    def aws_endpoint(self) -> str:
        """URL at which AWS answers for all services."""
        return f"http://{self.aws_address}"

    def require(self, ip_family: IpFamily) -> None:
        """Refuse where a run could not work or was not allowed; only reads."""
        refuse_family(ip_family)
        if not self._paths.target.exists():
            doctor_existing.require(self.target)

    def missing(self) -> Sequence[str]:
        """Say what a start would download or build."""
        return [] if localstack_environment.find(cache_directory()) else ["the emulator's Python environment"]

    def parts(self) -> Parts:
        """Return the emulator's environment."""
        environment = localstack_environment.find(cache_directory())
        return Parts([environment.directory] if environment else [], {})

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
        """Begin to use the cluster, and start AWS beside it; the cluster itself is only read."""
        del images  # the cluster pulls them
        cluster = self.begin(specs, _images(self.target.image_registry), is_new=is_new)
        address = self.target.aws_address or local_address_towards(cluster.nodes[0].address)
        network = {"aws_address": address, "imds_port": free_port(address), "local_port": free_port()}
        self._paths.network.write_text(json.dumps(network))
        self._aws.prepare([address])
        cluster.trust_bundle.write_text(wiring.trust_bundle(self._aws.authority_file.read_text()))
        return Started([cluster], builds.submit(self._start_aws, progress))

    def restart_aws(self, progress: Progress) -> None:
        """Kill AWS, and start it again."""
        kill_marked(self._paths.aws)
        self._start_aws(progress)

    def _start_aws(self, progress: Progress) -> None:
        environment = localstack_environment.ensure(cache_directory(), progress)
        network = self._network()
        with progress.phase("aws start"):
            argv, variables = process.start_command(
                environment,
                # The first is where LocalStack looks whether it is up itself: its usual port may be taken here.
                listen=[f"127.0.0.1:{network['local_port']}", *(f"{self.aws_address}:{port}" for port in (80, 443))],
                certificate=self._aws.certificate_file,
                state_directory=self._paths.aws / "state",
                bootstrap_file=self._aws.bootstrap_file,
                imds_listen=f"{self.aws_address}:{network['imds_port']}",
            )
            with self._log.open("ab") as log:
                started = subprocess.Popen(
                    argv,
                    env=variables | {MARK: str(self._paths.aws)},
                    cwd=CHECKOUT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            let_outlive(started)

    @property
    def _log(self) -> Path:
        return self._paths.aws / "localstack.log"

    def interrupt(self) -> None:
        """End an AWS that is starting: it would be waited for."""
        kill_marked(self._paths.aws)

    def connect(self, cluster: LabCluster) -> _NotingKube:
        """Return a client that marks and notes what it applies."""
        return _NotingKube(_ours(cluster))

    def wire(self, cluster: LabCluster, kube: Kube) -> None:
        """Give EKS's hand its rights and a token, and make cluster DNS answer for AWS."""
        ours, noting = _ours(cluster), cast("_NotingKube", kube)
        name = eks_name(ours.mark.run)
        noting.apply(eks_objects(ours.tenancy))
        request = {"spec": {"expirationSeconds": _TOKEN_SECONDS}}
        answer: Any = noting.core.create_namespaced_service_account_token(name, "kube-system", request)
        write_private(ours.token_file, answer.status.token)
        config_map, deployment = COREDNS
        corefile: str = noting.read("v1", "ConfigMap", config_map.name, config_map.namespace)["data"]["Corefile"]
        # CoreDNS may be without its plugin reload, and with it takes up to a minute.
        annotations = {"podid.dev/restarted-for": ours.mark.run}
        edits = {
            config_map: {"data": {"Corefile": answering_for_aws(corefile, self.aws_address)}},
            deployment: {"spec": {"template": {"metadata": {"annotations": annotations}}}},
        }
        # Kept in the cluster too: the sweeper may not have this machine's notes.
        noting.apply([keepsake(ours.mark.run, [Edit.of(noting, *edit) for edit in edits.items()])])
        for thing, change in edits.items():
            noting.changes.edit(thing, change)

    def fit(self, cluster: LabCluster, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        """Let the agent reach AWS from somebody's node: its names, and instance metadata, are on this machine."""
        ours = _ours(cluster)
        hosts = agent_hosts(self.aws_address, ours.spec.region)
        volume = {"name": HOSTS, "configMap": {"name": HOSTS}}
        mount = {"name": HOSTS, "mountPath": "/etc/hosts", "subPath": "hosts", "readOnly": True}
        metadata = {
            "name": "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "value": f"http://{self.aws_address}:{self._network()['imds_port']}",
        }
        fitted = [ours.tenancy.adapted(manifest) for manifest in manifests]
        for manifest in fitted:
            if manifest["kind"] == "DaemonSet":
                pod = manifest["spec"]["template"]["spec"]
                pod["volumes"].append(volume)
                for container in pod["containers"]:
                    container.setdefault("env", []).append(metadata)
                    container["volumeMounts"].append(mount)
        with contextlib.closing(_NotingKube(ours)) as kube:
            # What EKS's hand will fill is made here, with the marks that it does not know.
            kube.apply([hosts, ASSOCIATIONS.as_manifest()])
            kube.changes.will_create(fitted)
        return fitted

    def add_images(self, cluster: LabCluster, specs: Sequence[ImageSpec], progress: Progress) -> None:
        """Trust in the registry that was named; refuse where there is none."""
        del progress
        if not self.target.image_registry:
            raise MissingPrerequisite(
                f"{cluster.spec.name} has to get {', '.join(spec.reference for spec in specs)}, nobody said where from",
                hint="push them to a registry that it pulls from, and name that with: --image-registry PREFIX",
                kind="environment",
            )

    # --- looking ----------------------------------------------------------------------------------------------------

    def aws_programs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return AWS's one program."""
        return {"localstack": {"running": self.aws_stopped() is None, "exits": []}}

    def aws_logs(self) -> Mapping[str, Path]:
        """Return AWS's log."""
        return {"localstack": self._log} if self._log.exists() else {}

    def aws_stopped(self) -> str | None:
        """Return why AWS does not run, None when it does."""
        return None if marked_processes(self._paths.aws) else "the AWS process ended"

    # --- down -------------------------------------------------------------------------------------------------------

    def remove_cluster(self, name: str) -> None:
        """Undo everything that was changed in the cluster, and forget it."""
        cluster = ExistingCluster(self._paths.cluster(name))
        if not cluster.exists:
            return
        try:
            with contextlib.closing(Kube(cluster.kubeconfig)) as kube:
                left = Changes(cluster.changes_file, kube).undo()
                remove(kube, [found.thing for found in find_marked(kube, cluster.mark.run)])
                dns = COREDNS[1]
                kube.wait_until_deployed(dns.kind, dns.name, dns.namespace)
        except OSError as error:
            raise HarnessFault(
                f"{cluster.name} cannot be put back as it was: {error}",
                hint="podid down tries again; until then the notes of what was changed stay with the lab",
            ) from error
        cluster.delete()
        if left:
            names = ", ".join(str(edit.thing) for edit in left)
            raise HarnessFault(
                f"somebody has edited {names} while the lab was up: left as it is",
                hint="take out what answers for amazonaws.com and api.aws by hand",
            )

    def remove(self) -> bool:
        """Put the cluster back as it was, then end AWS."""
        found = bool(self.clusters())
        for cluster in self.clusters():
            self.remove_cluster(cluster.spec.name)
        kill_marked(self._paths.directory)
        return found


def _ours(cluster: LabCluster) -> ExistingCluster:
    return cast("ExistingCluster", cluster)


def _images(registry: str) -> dict[str, str]:
    """Return image of the lab → what the cluster calls it: the same name, unless a registry was named."""
    ours = [full_name(image.reference) for image in read_lock().values() if image.origin == "build"]
    prefix = re.sub("/+$", "", registry)
    return {name: f"{prefix}/{name.rpartition('/')[2]}" if prefix else name for name in ours}
