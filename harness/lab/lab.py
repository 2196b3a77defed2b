"""A lab as a whole: up, down, and what is in it.

``up`` overlaps what it can: AWS and clusters start while images are built. Everything that comes to exist carries the
mark of the lab's directory from its first moment, in its environment or as a label, so that ``down`` finds it after any
crash.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from harness import limits, wait
from harness.binaries import DEFAULT_KUBERNETES, groups_of
from harness.cloud.localstack.control import Control
from harness.cluster.base import Cluster, ClusterSpec, IpFamily
from harness.cluster.existing.target import Target
from harness.errors import HarnessFault, MissingPrerequisite, UsageError
from harness.images import ImageSpec
from harness.kube import Kube
from harness.lab import wiring
from harness.lab.account import AwsAccount
from harness.lab.api_servers import ApiServers
from harness.lab.aws import REGION, LabAws
from harness.lab.existing import ExistingProvider
from harness.lab.given import (
    GivenImage,
    Role,
    lab_images,
    note_references,
    previous_images,
    read_given,
    take_in,
)
from harness.lab.interruption import builds, without_interruption
from harness.lab.lock import exclusive, is_left_over, shared
from harness.lab.losses import Losses
from harness.lab.native import NativeProvider
from harness.lab.on_aws import AwsProvider
from harness.lab.paths import LabPaths, full_disk, state_directory
from harness.lab.profile import ADMINISTRATORS, write_aws_config, write_kubeconfig
from harness.lab.provider import (
    Choice,
    LabCluster,
    Provider,
    ProviderName,
    choose,
    find_kind,
    find_native,
)
from harness.lab.reuse import Reuse, differences, makings
from harness.lab.transfer import require_all_parts
from harness.progress import Progress

__all__ = ["Lab"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


class Lab:
    """A lab by its name; whether it is up is seen on the machine, not remembered."""

    def __init__(self, name: str, target: Target | None = None) -> None:
        """Attach to a lab; nothing is created or started.

        Args:
            name: Up to 31 lower-case letters, digits and hyphens.
            target: The cluster that a lab on provider ``existing`` shall be raised on.

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
        self._target = target
        self._providers: dict[str, Provider] = {}
        self.losses = Losses(self.status)
        """What ended while somebody depended on it."""
        self._api_servers = ApiServers(self.losses)

    @property
    def exists(self) -> bool:
        """Whether anything of the lab is on this machine, complete or not."""
        return self.paths.directory.exists()

    @property
    def is_left_over(self) -> bool:
        """Whether a run left the lab that was killed."""
        return is_left_over(self.paths)

    def used(self) -> AbstractContextManager[None]:
        """Let no other run take the lab for left over; the kernel lets go of it with the process.

        Raises:
            MissingPrerequisite: The place of labs belongs to another user.
        """
        return shared(self.paths.use, self.name)

    def keep(self) -> None:
        """Let the lab stay when no run uses it any more."""
        self.paths.kept.touch()

    @property
    def provider_name(self) -> ProviderName | None:
        """What the lab stands on; None when there is no lab, or when it ended before anything was made."""
        return self._description().get("provider")

    @property
    def ip_family(self) -> IpFamily:
        """Addresses of pods and services, the same in all its clusters."""
        return self._description().get("ip_family", "ipv4")

    def _description(self) -> dict[str, Any]:
        try:
            return json.loads(self.paths.description.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def differences(self) -> list[str]:
        """Return in what the lab is not what would be raised now: Kubernetes, configuration, subject, harness."""
        return differences(self._description().get("made_of", {}), makings(self._provider.name, self.given))

    @property
    def _provider(self) -> Provider:
        return self.provider(self.provider_name or "native")

    def provider(self, name: ProviderName) -> Provider:
        """Return what raises this lab on a provider."""
        if name not in self._providers:
            if name == "kind":
                # Here: a native lab need not wait for Docker's SDK.
                from harness.lab.kind import KindProvider  # noqa: PLC0415

                self._providers[name] = KindProvider(self.name, self.paths, self.aws)
            elif name == "existing":
                target = self._target or Target.read(self.paths.target)
                on_aws = AwsProvider(self.paths, self._target)
                emulated = ExistingProvider(self.paths, self.aws, self._target)
                self._providers[name] = on_aws if target and target.backend == "aws" else emulated
            else:
                self._providers[name] = NativeProvider(self.name, self.paths, self.aws)
        return self._providers[name]

    @property
    def on_aws(self) -> AwsProvider | None:
        """The account of Amazon's AWS that the lab is on; None where AWS is the lab's own."""
        return self._provider if isinstance(self._provider, AwsProvider) else None

    @property
    def given(self) -> Mapping[Role, GivenImage]:
        """Agent and webhook that run instead of ours."""
        return read_given(self.paths.given)

    @property
    def is_up(self) -> bool:
        """Whether AWS and every cluster of the lab run, and AWS knows them."""
        if self.provider_name is None:
            return False
        clusters = self._provider.clusters()
        return self._provider.aws_stopped() is None and all(c.is_running for c in clusters) and self.is_remembered

    @property
    def is_remembered(self) -> bool:
        """Whether AWS knows the lab's clusters: one that ended and began anew has forgotten all that was in it."""
        if self.on_aws:
            return True
        try:
            known = self.control().ready()["clusters"]
        except HarnessFault:
            # It does not answer; that says nothing of what it knows.
            return True
        return {cluster.spec.name for cluster in self._provider.clusters()} <= set(known)

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

    def cluster(self, name: str) -> Cluster:
        """Return a running cluster of the lab.

        Raises:
            UsageError: There is no such cluster.
        """
        return self._find(name)

    def _find(self, name: str) -> LabCluster:
        for cluster in self._provider.clusters():
            if cluster.spec.name == name and cluster.is_running:
                return cluster
        raise UsageError(f"no cluster {name!r} in lab {self.name!r}", hint=f"add it with: podid up --cluster {name}")

    def add_images(self, cluster: str, specs: Sequence[ImageSpec], progress: Progress) -> None:
        """Build images that the lab does not start with, and make a running cluster able to use them.

        Args:
            cluster: The cluster's name.
            specs: The images.
            progress: Where to report.

        Raises:
            UsageError: There is no such cluster.
            HarnessFault: A build failed; the text has its last lines.
        """
        self._provider.add_images(self._find(cluster), specs, progress)

    def take_previous(self, sources: Mapping[Role, str]) -> None:
        """Copy images that upgrades begin with into the lab's directory, in the place of ours of another version.

        Args:
            sources: An archive, or a reference in the engine's reach.

        Raises:
            UsageError: What is given is no image.
        """
        take_in(self.paths.previous, sources, self._provider.export_image)

    @property
    def previous_images(self) -> Mapping[Role, ImageSpec]:
        """The images that upgrades begin with; nothing is built (see :meth:`add_images`)."""
        return previous_images(self.paths.previous, self.given)

    def restart_api_server(self, cluster: Cluster) -> None:
        """Kill a cluster's API server, and wait until another one is ready; that counts as no loss.

        Raises:
            HarnessFault: It did not end, or a program that waits for it did not.
            harness.wait.Timeout: No other API server got ready, or no other programs run.
        """
        self._api_servers.restart(cluster)

    def restart_aws(self, progress: Progress) -> None:
        """Kill AWS, and wait until another one is ready; that counts as no loss.

        It knows the lab's keys and clusters, and has forgotten everything else (EMU-STATE-FRESH).

        Args:
            progress: Where to report.

        Raises:
            MissingPrerequisite: AWS is Amazon's.
            HarnessFault: It did not end, or no other got ready.
        """
        self.losses.expect_restart("aws", "localstack")
        self._provider.restart_aws(progress)
        self._wait_for_aws(progress)
        images = lab_images(self.given)
        for cluster in self._provider.clusters():
            self._make_known(cluster, self._provider, images)

    def set_metadata_options(self, cluster: Cluster, *, tokens_required: bool = True, hop_limit: int = 1) -> None:
        """Set with EC2 how a cluster's nodes serve instance metadata; without arguments, as a lab begins.

        Args:
            cluster: The cluster.
            tokens_required: Whether IMDSv1 is off (``HttpTokens``).
            hop_limit: How far the answer with a token goes (``HttpPutResponseHopLimit``): pods are at 2.
        """
        ec2 = self.administrator(cluster.spec.account).client("ec2")
        for node in cluster.nodes:
            ec2.modify_instance_metadata_options(
                InstanceId=node.instance_id,
                HttpTokens="required" if tokens_required else "optional",
                HttpPutResponseHopLimit=hop_limit,
            )

    def administrator(self, account: str = "123456789012") -> AwsAccount:
        """Return an administrator's view of an account."""
        if self.on_aws:
            return self.on_aws.administrator(account)
        keys = self.aws.administrator(account)
        return AwsAccount.of_lab(self._provider.aws_endpoint, keys.access_key_id, keys.secret_access_key, REGION)

    def control(self) -> Control:
        """Return a client of the emulator's control route: journal, clock, reset.

        Raises:
            MissingPrerequisite: AWS is Amazon's.
        """
        return self.aws.control(self._provider.aws_endpoint)

    @property
    def aws_address(self) -> str:
        """Address at which AWS answers inside the lab."""
        return self._provider.aws_address

    @property
    def data_plane_token(self) -> str:
        """Secret with which the load balancers' data plane asks AWS for its state."""
        return self.aws.data_plane_token

    def exports(self, kubectl: Path | None) -> list[str]:
        """Return the lines that make a shell's ``kubectl`` and ``aws`` use the lab.

        Args:
            kubectl: The ``kubectl`` for a shell that has none.
        """
        aws = [
            f"export AWS_CONFIG_FILE={self.paths.aws_config}",
            f"export AWS_PROFILE={next(iter(ADMINISTRATORS.values()))}",
        ]
        return [
            f"export KUBECONFIG={self.paths.kubeconfig}",
            *([] if self.on_aws else aws),
            *([f'export PATH="$PATH:{kubectl.parent}"'] if kubectl else []),
        ]

    # --- up ---------------------------------------------------------------------------------------------------------

    def up(
        self,
        specs: Sequence[ClusterSpec],
        progress: Progress,
        provider: ProviderName | Literal["auto"] = "auto",
        *,
        ip_family: IpFamily | None = None,
        given: Mapping[Role, str] | None = None,
        nodes_from_start: int = 1,
        is_offline: bool = False,
        reuse: Reuse = "checked",
    ) -> None:
        """Make sure that the lab runs with these clusters; what runs already stays as it is.

        Whatever was half-made when an error or an interruption comes is removed again before it is passed on.

        Args:
            specs: The clusters.
            progress: Where to report.
            provider: What the lab shall stand on; ``auto`` takes what an existing lab stands on, else kind where it can
                work, else native.
            ip_family: Addresses of pods and services; None takes what an existing lab has, else IPv4.
            given: Agent or webhook to run instead of ours: an archive, or a reference in the engine's reach.
            nodes_from_start: Nodes that new clusters get, at least, where a running one cannot get more later.
            is_offline: Refuse before anything is begun if something would have to be fetched.
            reuse: Whether a lab that is up must be what would be raised now (HRN-CLN-06), or ``force``.

        Raises:
            UsageError: Another command is changing the lab, it stands on another provider or is made of something
                else, or what is given is no image.
            MissingPrerequisite: The machine lacks something.
            HarnessFault: Something did not start.
        """
        with exclusive(self.paths.lock, self.name):
            is_new = not (self.exists and self.is_up)
            name = self._choose(provider, progress) if is_new else self._adopt(provider)
            family = (ip_family or "ipv4") if is_new else self.ip_family
            self.provider(name).require(family)
            if is_offline:
                require_all_parts(self.provider(name))
            if is_new:
                self._remove()
            else:
                self._require_ip_family(ip_family)
                self._require_given(given or {})
                self._require_unchanged(reuse)
            specs = [replace(spec, ip_family=family) for spec in specs]
            present = {cluster.spec.name: cluster for cluster in self.provider(name).clusters()}
            added = [spec for spec in specs if spec.name not in present]
            _require_versions(specs, present, name)
            if not self.provider(name).can_add_nodes:
                added = [replace(spec, nodes=max(spec.nodes, nodes_from_start)) for spec in added]
            try:
                if added:
                    self._raise(added, self.provider(name), progress, given or {}, is_new=is_new)
                for spec in specs:
                    if spec.name in present and len(present[spec.name].nodes) < spec.nodes:
                        self._add_nodes(present[spec.name], spec.nodes, progress)
            except BaseException as error:
                full = full_disk()
                with progress.phase("clean-up"), without_interruption():
                    if is_new:
                        self._remove()
                    else:
                        self._remove_clusters([spec.name for spec in added])
                if full and isinstance(error, Exception):
                    raise full from error  # what came was only a consequence: a database that ended, a cut answer
                raise

    def _choose(self, requested: ProviderName | Literal["auto"], progress: Progress) -> ProviderName:
        choice = choose(find_kind(), find_native()) if requested == "auto" else Choice(requested, "as asked for")
        progress.say(choice.line)
        return choice.name

    def _adopt(self, requested: ProviderName | Literal["auto"]) -> ProviderName:
        """Return what the running lab stands on."""
        name = self._provider.name
        if requested not in {name, "auto"}:
            raise UsageError(
                f"lab {self.name!r} is up on provider {name}, not {requested}",
                hint="remove it with: podid down; or use another lab: set PODID_LAB",
            )
        return name

    def _require_ip_family(self, requested: IpFamily | None) -> None:
        # AWS listens at the addresses that it began with.
        if requested not in {None, self.ip_family}:
            raise UsageError(
                f"lab {self.name!r} is up with IP family {self.ip_family}, not {requested}",
                hint="remove it with: podid down; or use another lab: set PODID_LAB",
            )

    def _require_given(self, given: Mapping[Role, str]) -> None:
        for role, source in given.items():
            running = self.given.get(role)
            if running is None or not running.is_from(source):
                there = f"the {role} of {running.source}" if running else f"our own {role}"
                raise UsageError(
                    f"lab {self.name!r} is up with {there}, not with that of {source}",
                    hint="remove it with: podid down; or use another lab: set PODID_LAB",
                )

    def _require_unchanged(self, reuse: Reuse) -> None:
        if reuse != "force" and (told := self.differences()):
            raise UsageError(
                f"lab {self.name!r} is up, and is not what would be raised now:\n  " + "\n  ".join(told),
                hint="remove it with: podid down; or use it all the same, which the report says, with: --reuse force",
            )

    def _raise(
        self,
        specs: Sequence[ClusterSpec],
        provider: Provider,
        progress: Progress,
        given: Mapping[Role, str],
        *,
        is_new: bool,
    ) -> None:
        self.paths.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # First of all: from here on down knows where to look.
        made_of: dict[str, str] = {} if is_new else self._description().get("made_of", {})
        description = {"provider": provider.name, "ip_family": specs[0].ip_family, "made_of": made_of}
        self.paths.description.write_text(json.dumps(description))
        if is_new:
            if provider.pulls_by_itself:
                note_references(self.paths.given, given)
            else:
                take_in(self.paths.given, given, provider.export_image)
            made_of = makings(provider.name, self.given)
            self.paths.description.write_text(json.dumps(description | {"made_of": made_of}))
        images = lab_images(self.given)
        with builds(self.paths.builds, provider.interrupt) as pool:
            started = provider.start(specs, list(images.values()), pool, progress, is_new=is_new)
            aws = pool.submit(self._wait_for_started_aws, started.aws, progress) if started.aws else None
            for cluster in started.clusters:
                self._complete(cluster, provider, images, aws, progress)
            self._write_profiles()

    def _add_nodes(self, cluster: LabCluster, nodes: int, progress: Progress) -> None:
        """Let a running cluster grow, and wait until the new nodes take pods; it has none of them if that fails."""
        name, before = cluster.spec.name, [node.name for node in cluster.nodes]
        with progress.phase(f"{name} nodes"), contextlib.closing(Kube(cluster.kubeconfig)) as kube:
            try:
                self._provider.add_nodes(cluster, nodes)
                if "agent" in self.given:
                    wiring.provide_agent_link(cluster)
                self.aws.register_nodes(cluster, self._provider.aws_endpoint)
                kube.wait_until_nodes_are_ready([node.name for node in cluster.nodes])
            except BaseException:
                with without_interruption():
                    added = [node.name for node in cluster.nodes if node.name not in before]
                    self._provider.take_back_nodes(cluster, len(before))
                    kube.forget_nodes(added)
                raise

    def _wait_for_started_aws(self, started: Future[None], progress: Progress) -> None:
        started.result()
        self._wait_for_aws(progress)

    def _wait_for_aws(self, progress: Progress) -> None:
        with progress.phase("aws"):
            self.aws.wait_until_ready(self._provider.aws_endpoint, self._provider.aws_stopped)
            self.aws.create_service_roles(self.administrator())

    def _complete(
        self,
        cluster: LabCluster,
        provider: Provider,
        images: Mapping[str, ImageSpec],
        aws: Future[None] | None,
        progress: Progress,
    ) -> None:
        """Wait for a started cluster, install what EKS has in its control plane, and make AWS know it."""
        name = cluster.spec.name
        with progress.phase(name, total=5) as phase, contextlib.ExitStack() as stack:
            phase.step("waiting for the API server")
            provider.wait_until_created(cluster)
            kube = stack.enter_context(contextlib.closing(provider.connect(cluster)))
            wait.until(
                kube.is_ready,
                what=f"the API server of {name}",
                timeout=limits.CLUSTER_CREATE,
                stop=lambda _: None if cluster.is_running else "the cluster ended",
                hint=f"see: podid logs {name}/kube-apiserver",
            )
            phase.step("wiring DNS and trust")
            provider.wire(cluster, kube)
            phase.step("waiting for images")
            provider.deliver_images(cluster)
            wiring.install_webhook(kube, cluster.spec, images["webhook"].reference)
            phase.step("waiting for AWS")
            if aws:
                aws.result()
            if "agent" in self.given:
                wiring.provide_agent_link(cluster)
            self._make_known(cluster, provider, images)
            phase.step("waiting for CoreDNS and the webhook")
            for deployment in ("coredns", "pod-identity-webhook"):
                kube.wait_until_deployed("Deployment", deployment, "kube-system")
            if cluster.tenancy is None:  # somebody else's nodes cannot be asked
                wiring.wait_until_webhook_is_reached(cluster, kube)

    def _make_known(self, cluster: LabCluster, provider: Provider, images: Mapping[str, ImageSpec]) -> None:
        """Make AWS know a cluster whose API server answers."""
        provider.hand_over_keys(cluster)
        agent = provider.fit(cluster, wiring.agent_manifests(cluster.spec, images["agent"].reference))
        self.aws.attach_cluster(cluster, agent, provider.aws_endpoint)

    def _write_profiles(self) -> None:
        write_kubeconfig(self.paths.kubeconfig, [cluster.kubeconfig for cluster in self._provider.clusters()])
        if self.on_aws:
            return  # a person's own credentials lead there
        administrators = [self.aws.administrator(account) for account in ADMINISTRATORS]
        endpoint = self._provider.aws_endpoint
        write_aws_config(self.paths.aws_config, administrators, endpoint=endpoint, region=REGION)

    # --- down -------------------------------------------------------------------------------------------------------

    def down(self) -> bool:
        """Remove the lab; also one that was left half-made or half-removed.

        Returns:
            Whether there was anything to remove.

        Raises:
            MissingPrerequisite: The engine that holds the lab does not answer; nothing was forgotten.
        """
        with exclusive(self.paths.lock, self.name):
            return self._remove()

    def _remove(self) -> bool:
        """Remove what the lab stands on, then its files."""
        found = self.exists
        for provider in self._providers_to_clear():
            found = provider.remove() or found
        if self.exists:
            shutil.rmtree(self.paths.directory)
        self.paths.kept.unlink(missing_ok=True)
        return found

    def _providers_to_clear(self) -> list[Provider]:
        """Return the lab's provider; all that can have something of the lab where its files are gone."""
        if known := self.provider_name:
            return [self.provider(known)]
        names: list[ProviderName] = ["native", *(["kind"] if _engine_answers() else [])]
        return [self.provider(name) for name in names]

    def _remove_clusters(self, names: Sequence[str]) -> None:
        for name in names:
            self._provider.remove_cluster(name)

    # --- looking ----------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, dict[str, Any]]:
        """Return place → program → ``running``, latest ``exits`` and how many ``starts``; empty without a lab."""
        if self.provider_name is None:
            return {}
        places = {"aws": self._provider.aws_programs()}
        places |= {cluster.spec.name: cluster.programs() for cluster in self._provider.clusters()}
        return {place: dict(programs) for place, programs in places.items()}

    def logs(self) -> dict[str, Path]:
        """Return every log of the lab as ``place/program``."""
        if self.provider_name is None:
            return {}
        logs = {f"aws/{name}": path for name, path in self._provider.aws_logs().items()}
        for cluster in self._provider.clusters():
            logs |= {f"{cluster.spec.name}/{name}": path for name, path in cluster.logs().items()}
        return logs


def _require_versions(specs: Sequence[ClusterSpec], present: Mapping[str, LabCluster], provider: ProviderName) -> None:
    """Return if every cluster can have the Kubernetes that is asked for, or has it."""
    for spec in specs:
        if provider == "native":
            groups_of(spec.kubernetes)
        elif spec.kubernetes != DEFAULT_KUBERNETES:
            raise UsageError(
                "kind clusters have the Kubernetes of their node image",
                hint="name one with PODID_KIND_NODE_IMAGE; suites/matrix.yaml has those of kind's release",
            )
        if spec.name in present and present[spec.name].spec.kubernetes != spec.kubernetes:
            raise UsageError(
                f"cluster {spec.name!r} is up with Kubernetes {present[spec.name].spec.kubernetes}, not "
                f"{spec.kubernetes}",
                hint="remove it with: podid down; or use another lab: set PODID_LAB",
            )


def _engine_answers() -> bool:
    from harness.cluster.kind.engine import connect  # noqa: PLC0415 - see find_kind

    try:
        connect(timeout=5).close()
    except MissingPrerequisite:
        return False
    return True
