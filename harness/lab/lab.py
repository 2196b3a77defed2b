"""A lab as a whole: up, down, and what is in it.

``up`` overlaps what it can: AWS and clusters start while images are built. Everything that comes to exist on the
machine carries the mark of the lab's directory from its first moment, so that ``down`` finds it after any crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from harness import binaries, doctor, images, packages, wait
from harness.cloud.localstack import environment as localstack_environment
from harness.cloud.localstack.control import Control
from harness.cluster.base import Cluster, ClusterSpec
from harness.cluster.native import cgroups
from harness.cluster.native.cluster import NativeCluster
from harness.cluster.native.network import LabNetwork, choose_subnet
from harness.cluster.native.node import PAUSE_IMAGE
from harness.cluster.native.sandbox import MARK, marked_processes
from harness.errors import HarnessFault, UsageError
from harness.kube import Kube
from harness.lab import wiring
from harness.lab.account import AwsAccount
from harness.lab.aws import LabAws
from harness.lab.lock import exclusive
from harness.lab.paths import CHECKOUT, LabPaths, cache_directory, state_directory
from harness.lab.profile import ADMINISTRATORS, write_aws_config, write_kubeconfig
from harness.progress import Progress

__all__ = ["Lab"]

REGION = "eu-west-1"
_IMAGES = CHECKOUT / "fixtures" / "images"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


class Lab:
    """A lab by its name; whether it is up is seen on the machine, not remembered."""

    def __init__(self, name: str) -> None:
        """Attach to a lab; nothing is created or started.

        Args:
            name: Up to 31 lower-case letters, digits and hyphens.

        Raises:
            UsageError: The name cannot be used.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no usable lab name", hint="use 1 to 31 lower-case letters, digits and hyphens"
            )
        self.name = name
        self.paths = LabPaths(state_directory(), name)
        self.aws = LabAws(self.paths.aws)

    @property
    def exists(self) -> bool:
        """Whether anything of the lab is on this machine, complete or not."""
        return self.paths.directory.exists()

    @property
    def is_up(self) -> bool:
        """Whether AWS and every cluster of the lab run."""
        return self.aws.is_running and all(cluster.is_running for cluster in self._clusters())

    def require(self) -> Self:
        """Return the lab if it is up.

        Raises:
            UsageError: It is not.
        """
        if not self.exists:
            raise UsageError(f"there is no lab {self.name!r}", hint="raise one with: podid up")
        if not self.is_up:
            raise UsageError(f"lab {self.name!r} is damaged", hint="podid status shows it; remove it with: podid down")
        return self

    @property
    def network(self) -> LabNetwork:
        """The lab's network."""
        return LabNetwork(**json.loads(self.paths.description.read_text()))

    def _clusters(self) -> list[NativeCluster]:
        if not self.paths.clusters.exists():
            return []
        found = [NativeCluster(directory) for directory in self.paths.clusters.iterdir()]
        return sorted((cluster for cluster in found if cluster.exists), key=lambda cluster: cluster.index)

    def cluster(self, name: str) -> Cluster:
        """Return a running cluster of the lab.

        Raises:
            UsageError: There is no such cluster.
        """
        for cluster in self._clusters():
            if cluster.spec.name == name and cluster.is_running:
                return cluster
        raise UsageError(f"no cluster {name!r} in lab {self.name!r}", hint=f"add it with: podid up --cluster {name}")

    def administrator(self, account: str = "123456789012") -> AwsAccount:
        """Return an administrator's view of an account."""
        administrator = self.aws.administrator(account)
        return AwsAccount(
            self.aws.endpoint(self.network), administrator.access_key_id, administrator.secret_access_key, REGION
        )

    def control(self) -> Control:
        """Return a client of the emulator's control route: journal, clock, reset."""
        return self.aws.control(self.network)

    def exports(self) -> list[str]:
        """Return the lines that make a shell's ``kubectl`` and ``aws`` use the lab; ours if it has no ``kubectl``."""
        kubectl = binaries.path_of("kubectl", cache_directory())
        path = [] if shutil.which("kubectl") else [f'export PATH="$PATH:{kubectl.parent}"']
        return [
            f"export KUBECONFIG={self.paths.kubeconfig}",
            f"export AWS_CONFIG_FILE={self.paths.aws_config}",
            f"export AWS_PROFILE={next(iter(ADMINISTRATORS.values()))}",
            *path,
        ]

    # --- up ---------------------------------------------------------------------------------------------------------

    def up(self, specs: Sequence[ClusterSpec], progress: Progress) -> None:
        """Make sure that the lab runs with these clusters; what runs already stays as it is.

        Whatever was half-made when an error or an interruption comes is removed again before it is passed on.

        Raises:
            UsageError: Another command is changing the lab.
            MissingPrerequisite: The machine lacks something.
            HarnessFault: Something did not start.
        """
        doctor.require()
        with exclusive(self.paths.lock, self.name):
            is_new = not (self.exists and self.is_up)
            if is_new:
                self._remove()
            present = {cluster.spec.name for cluster in self._clusters()}
            added = [spec for spec in specs if spec.name not in present]
            if not added:
                return
            try:
                self._raise(added, progress, is_new=is_new)
            except BaseException:
                with progress.phase("clean-up"), _without_interruption():
                    if is_new:
                        self._remove()
                    else:
                        self._remove_clusters([spec.name for spec in added])
                raise

    def _raise(self, specs: Sequence[ClusterSpec], progress: Progress, *, is_new: bool) -> None:
        cache = cache_directory()
        self.paths.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        packages.install(progress)
        with _builds(self.paths.builds) as pool:
            environment = pool.submit(localstack_environment.ensure, cache, progress)
            programs = binaries.ensure(cache, progress)
            built = pool.submit(images.ensure, _image_specs(programs), cache, programs["registry"], progress)
            if is_new:
                self._start_aws(environment.result(), programs, cache, progress)
            clusters = [self._start_cluster(spec, programs, cache) for spec in specs]
            aws = pool.submit(self._wait_for_aws, progress) if is_new else None
            for cluster in clusters:
                self._complete(cluster, built, aws, progress)
            self._write_profiles()

    def _start_aws(self, environment: Any, programs: Mapping[str, Path], cache: Path, progress: Progress) -> None:
        network = LabNetwork(self.name, choose_subnet())
        self.paths.description.write_text(json.dumps({"lab": network.lab, "subnet": network.subnet}))
        with progress.phase("aws start"):
            self.aws.start(network, environment, registry=programs["registry"], cache=cache, region=REGION)

    def _wait_for_aws(self, progress: Progress) -> None:
        with progress.phase("aws"):
            self.aws.wait_until_ready(self.network, REGION)
            self.aws.create_service_roles(self.administrator())

    def _start_cluster(self, spec: ClusterSpec, programs: Mapping[str, Path], cache: Path) -> NativeCluster:
        taken = {cluster.index for cluster in self._clusters()}
        cluster = NativeCluster(self.paths.cluster(spec.name))
        aws_pid = self.aws.sandbox.pid
        if aws_pid is None:
            raise HarnessFault(
                "the lab's AWS ended while clusters were starting", hint="run: podid logs aws/localstack"
            )
        cluster.start(
            spec,
            index=min(set(range(len(taken) + 1)) - taken),
            lab=self.network,
            aws_pid=aws_pid,
            binaries=programs,
            trust_bundle=wiring.trust_bundle(self.aws.authority_file.read_text()),
            keep=[cache],
        )
        return cluster

    def _complete(
        self, cluster: NativeCluster, built: Future[None], aws: Future[None] | None, progress: Progress
    ) -> None:
        """Wait for a started cluster, install what EKS has in its control plane, and make AWS know it."""
        name = cluster.spec.name
        kube = Kube(cluster.kubeconfig)
        with progress.phase(name, total=5) as phase, contextlib.closing(kube):
            phase.step("waiting for the API server")
            wait.until(
                lambda: self._api_is_ready(kube),
                what=f"the API server of {name}",
                timeout=60,
                stop=lambda _: None if cluster.is_running else "the cluster ended",
                hint=f"see: podid logs {name}/kube-apiserver",
            )
            phase.step("wiring DNS and trust")
            wiring.apply_wiring(kube, aws_address=self.network.aws_address, trust_bundle_path=cluster.trust_bundle)
            phase.step("waiting for images")
            built.result()
            wiring.install_webhook(kube, cluster.spec)
            phase.step("waiting for AWS")
            if aws:
                aws.result()
            self.aws.attach_cluster(cluster, wiring.agent_manifests(cluster.spec), self.network)
            phase.step("waiting for CoreDNS and the webhook")
            for deployment in ("coredns", "pod-identity-webhook"):
                kube.wait_until_deployed("Deployment", deployment, "kube-system")

    @staticmethod
    def _api_is_ready(kube: Kube) -> bool:
        try:
            return kube.is_ready()
        except OSError:
            return False

    def _write_profiles(self) -> None:
        write_kubeconfig(self.paths.kubeconfig, [cluster.kubeconfig for cluster in self._clusters()])
        administrators = [self.aws.administrator(account) for account in ADMINISTRATORS]
        write_aws_config(self.paths.aws_config, administrators, endpoint=self.aws.endpoint(self.network), region=REGION)

    # --- down -------------------------------------------------------------------------------------------------------

    def down(self) -> bool:
        """Remove the lab; also one that was left half-made or half-removed.

        Returns:
            Whether there was anything to remove.
        """
        with exclusive(self.paths.lock, self.name):
            return self._remove()

    def _remove(self) -> bool:
        """End the lab's processes (their namespaces, mounts and links go with them), then its groups and files."""
        directory = self.paths.directory
        prefix = f"podid.{self.name}."
        found = directory.exists() or bool(marked_processes(directory)) or bool(cgroups.names_with_prefix(prefix))
        _kill_marked(directory)
        for group in cgroups.names_with_prefix(prefix):
            cgroups.remove(group)
        if directory.exists():
            shutil.rmtree(directory)
        return found

    def _remove_clusters(self, names: Sequence[str]) -> None:
        for name in names:
            directory = self.paths.cluster(name)
            _kill_marked(directory)
            NativeCluster(directory).delete()

    # --- looking ----------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, dict[str, Any]]:
        """Return place → program → ``running`` and latest ``exits``; empty without a lab."""
        if not self.exists:
            return {}
        places = {"aws": self.aws.sandbox} | {cluster.spec.name: cluster.sandbox for cluster in self._clusters()}
        report: dict[str, dict[str, Any]] = {}
        for place, sandbox in places.items():
            is_alive = sandbox.pid is not None
            report[place] = {
                name: {"running": is_alive and bool(state["running"]), "exits": state["exits"]}
                for name, state in sandbox.programs().items()
            } or {"sandbox": {"running": False, "exits": []}}
        return report

    def logs(self) -> dict[str, Path]:
        """Return every log of the lab as ``place/program``."""
        logs = {f"aws/{path.stem}": path for path in sorted(self.aws.sandbox.logs.glob("*.log"))}
        for cluster in self._clusters():
            logs |= {f"{cluster.spec.name}/{name}": path for name, path in cluster.logs().items()}
        return logs


def _image_specs(programs: Mapping[str, Path]) -> list[images.ImageSpec]:
    return [
        images.ImageSpec(PAUSE_IMAGE, _IMAGES / "pause", {"pause": programs["pause"]}),
        images.ImageSpec(
            "registry.k8s.io/coredns/coredns:v1.13.1", _IMAGES / "coredns", {"coredns": programs["coredns"]}
        ),
        images.ImageSpec("docker.io/podid/pod-identity-webhook:0.1.0", CHECKOUT / "webhook"),
        images.ImageSpec("docker.io/podid/eks-pod-identity-agent:0.1.0", CHECKOUT / "agent"),
        images.ImageSpec("docker.io/amazon/aws-cli:latest", _IMAGES / "aws-cli"),
    ]


@contextlib.contextmanager
def _builds(mark: Path) -> Generator[ThreadPoolExecutor]:
    """Yield a pool for builds whose processes (go, buildah, uv) carry the lab's mark, and end them on an error."""
    before = os.environ.get(MARK)
    os.environ[MARK] = str(mark)
    pool = ThreadPoolExecutor()
    try:
        yield pool
    except BaseException:
        # The threads wait for these processes: without them they end at once.
        for pid in marked_processes(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        os.environ.pop(MARK) if before is None else os.environ.update({MARK: before})


def _kill_marked(directory: Path) -> None:
    for pid in marked_processes(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait.until(
        lambda: marked_processes(directory), lambda left: not left, what="the lab's processes to end", timeout=20
    )


@contextlib.contextmanager
def _without_interruption() -> Generator[None]:
    """Finish cleaning up although Ctrl-C is pressed again; a third time is a kill -9's business."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
