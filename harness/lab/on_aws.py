"""Labs on somebody's cluster of EKS, with Amazon's own AWS: nothing is installed, what is there is what is tested."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from botocore.exceptions import BotoCoreError, ClientError

from harness import doctor_existing, limits
from harness.account_tenancy import GUIDE_ACCOUNT, AccountTenancy, Record
from harness.cluster.base import ClusterSpec, IpFamily
from harness.cluster.existing.cluster import ExistingCluster
from harness.cluster.existing.marked import find_marked, remove
from harness.errors import HarnessFault, MissingPrerequisite, UsageError
from harness.images import ImageSpec
from harness.kube import Kube, Manifest
from harness.lab.account import AwsAccount
from harness.lab.provider import LabCluster, Parts, Started
from harness.lab.somebodys import OnSomebodysCluster, refuse_family
from harness.progress import Progress
from harness.sweep.account import AccountRules, rules_of, session_of
from harness.sweep.aws import find_tagged

__all__ = ["AwsProvider"]


class AwsProvider(OnSomebodysCluster):
    """Somebody's cluster of EKS and account of AWS; implements :class:`harness.lab.provider.Provider`."""

    @property
    def aws_address(self) -> str:
        """Refuse: it has many."""
        _refuse("the address of the lab's AWS")

    @property
    def aws_endpoint(self) -> str:
        """Refuse: SDKs know it."""
        _refuse("the endpoint of the lab's AWS")

    def require(self, ip_family: IpFamily) -> None:
        """Refuse where a run could not work or was not allowed; only reads."""
        refuse_family(ip_family)
        if self._given is None and os.environ.get(limits.BACKEND_VARIABLE) != "aws":
            raise UsageError(
                f"the lab is on account {self.target.aws_account} of AWS, which is used only by those who say so",
                hint="say it again with: --provider existing --backend aws, and the options that go with it",
            )
        if self._given is not None:
            doctor_existing.require(self.target)

    def missing(self) -> Sequence[str]:
        """Return nothing: nothing is downloaded or built."""
        return []

    def parts(self) -> Parts:
        """Return nothing."""
        return Parts([], {})

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
        """Begin to use cluster and account; both are only read, and nothing has to be completed."""
        del images, builds, progress
        target = self.target
        cluster = self.begin(
            [replace(spec, account=target.aws_account, region=target.aws_region) for spec in specs], {}, is_new=is_new
        )
        cluster.trust_bundle.write_text("")
        return Started([], None)

    def restart_aws(self, progress: Progress) -> None:
        """Refuse: it is Amazon's."""
        del progress
        _refuse("restarting AWS")

    def interrupt(self) -> None:
        """Do nothing: nothing is built."""

    def connect(self, cluster: LabCluster) -> Kube:
        """Refuse: nothing is installed."""
        _refuse(f"installing something in {cluster.spec.name}")

    def wire(self, cluster: LabCluster, kube: Kube) -> None:
        """Refuse: nothing is installed."""
        del kube
        _refuse(f"installing something in {cluster.spec.name}")

    def add_images(self, cluster: LabCluster, specs: Sequence[ImageSpec], progress: Progress) -> None:
        """Refuse: what a lab builds, nobody has pushed."""
        del progress
        _refuse(f"building {', '.join(spec.reference for spec in specs)} for {cluster.spec.name}")

    def fit(self, cluster: LabCluster, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        """Refuse: nothing is installed."""
        del manifests
        _refuse(f"installing an agent in {cluster.spec.name}")

    # --- looking ----------------------------------------------------------------------------------------------------

    def aws_programs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return nothing: it does not run here."""
        return {}

    def aws_logs(self) -> Mapping[str, Path]:
        """Return nothing: it does not run here."""
        return {}

    def aws_stopped(self) -> str | None:
        """Return None: it does not stop."""
        return None

    @property
    def rules(self) -> AccountRules:
        """What the account's owner says about it.

        Raises:
            MissingPrerequisite: The credentials are of another account, or it may not be touched.
        """
        return rules_of(self.target, session_of(self.target))

    @property
    def record(self) -> Record:
        """What the run made in the account."""
        return Record(self._paths.account_record)

    def administrator(self, account: str) -> AwsAccount:
        """Return the account as a run may use it.

        Raises:
            MissingPrerequisite: Another account is wanted than the guide's first, or than the credentials are of.
        """
        if account not in {GUIDE_ACCOUNT, self.target.aws_account}:
            raise MissingPrerequisite(
                f"account {account} of the guide: a run on AWS has one account, {self.target.aws_account}",
                hint="scenarios of two accounts run in a lab: --provider native or --provider kind",
            )
        target, session = self.target, session_of(self.target)
        (cluster,) = self.clusters()
        boundary = rules_of(target, session).permissions_boundary
        keeps = AccountTenancy(
            cluster.mark, target.aws_account, target.aws_region, target.eks_cluster, boundary, self.record
        )
        return AwsAccount(session, tenancy=keeps)

    # --- down -------------------------------------------------------------------------------------------------------

    def remove_cluster(self, name: str) -> None:
        """Remove what carries the run's mark, in the cluster and then in the account."""
        cluster = ExistingCluster(self._paths.cluster(name))
        if not cluster.exists:
            return
        run = cluster.mark.run
        try:
            with contextlib.closing(Kube(cluster.kubeconfig)) as kube:
                remove(kube, [found.thing for found in find_marked(kube, run)])
            self._remove_from_account(run)
        except (OSError, BotoCoreError, ClientError, MissingPrerequisite) as error:
            raise HarnessFault(
                f"what run {run} made is not removed: {error}",
                hint="podid down tries again, given good credentials; once it has expired, podid sweep removes it",
            ) from error
        cluster.delete()

    def _remove_from_account(self, run: str) -> None:
        if not self.record.calls:
            return
        session = session_of(self.target)
        rules_of(self.target, session)
        for resource in find_tagged(session.client):
            if resource.tags["podid:run"] == run:
                resource.remove()

    def remove(self) -> bool:
        """Remove everything of the run."""
        found = bool(self.clusters())
        for cluster in self.clusters():
            self.remove_cluster(cluster.spec.name)
        return found


def _refuse(what: str) -> NoReturn:
    raise MissingPrerequisite(
        f"{what}: AWS is Amazon's, and the cluster is somebody's",
        hint="run this scenario in a lab: --provider native or --provider kind",
        kind="backend-unsupported",
    )
