"""What commands look at: a cluster of a lab that is up, or any cluster and account that a person has access to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import boto3
import kubernetes.config
import typer
from botocore.exceptions import BotoCoreError

from harness.cluster.base import ClusterSpec
from harness.diagnose.picture import AGENT, agent_argument
from harness.errors import UsageError
from harness.kube import Kube
from harness.lab import Lab

__all__ = [
    "AwsProfile",
    "AwsRegion",
    "ClusterName",
    "KubeContext",
    "KubeconfigFile",
    "LabName",
    "Target",
    "find_target",
]

KubeconfigFile = Annotated[
    Path | None, typer.Option("--kubeconfig", envvar="KUBECONFIG", help="Kubeconfig file, if not the lab's.")
]
KubeContext = Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")]
ClusterName = Annotated[
    str, typer.Option("--cluster", envvar="PODID_CLUSTER", help="Name that EKS knows the cluster by.")
]
AwsProfile = Annotated[str, typer.Option("--profile", help="AWS profile, if not the default.")]
AwsRegion = Annotated[str, typer.Option("--region", help="AWS region, if not the profile's.")]
LabName = Annotated[str, typer.Option("--lab", envvar="PODID_LAB", help="The lab to look at if it is up.")]


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster, and the account that it is in."""

    cluster: str
    """Name that EKS knows it by; empty if it is not known."""
    kubeconfig: Path
    context: str
    session: Any
    """A boto3 session."""
    endpoint: str | None = None
    """URL of a lab's AWS; None for AWS itself."""

    def kube(self) -> Kube:
        """Return a client of the cluster.

        Raises:
            UsageError: There is no such kubeconfig or context.
        """
        try:
            return Kube(self.kubeconfig, self.context or None)
        except (kubernetes.config.ConfigException, OSError) as error:
            raise UsageError(
                f"no access to a cluster through {self.kubeconfig}: {error}",
                hint="name a file with --kubeconfig and a context with --context; or raise a lab: podid up",
            ) from error

    def name_in(self, kube: Kube) -> str:
        """Return the name that EKS knows the cluster by: as given, else as its agent was told.

        Raises:
            UsageError: It was not given, and there is no agent.
        """
        agent = None if self.cluster else kube.get(f"/apis/apps/v1/namespaces/kube-system/daemonsets/{AGENT}")
        if name := self.cluster or agent_argument(agent, "--cluster-name"):
            return name
        raise UsageError("which cluster of EKS is this? It has no agent that knows", hint="name it with --cluster")

    def client(self, service: str) -> Any:
        """Return a boto3 client.

        Raises:
            UsageError: There is no region to have one in.
        """
        try:
            return self.session.client(service, endpoint_url=self.endpoint)
        except BotoCoreError as error:
            raise UsageError(f"no client of {service}: {error}", hint="name --profile and --region") from error


def find_target(lab: str, *, kubeconfig: Path | None, context: str, profile: str, region: str, cluster: str) -> Target:
    """Return what to look at: what is named, else a lab that is up, else what kubectl and aws would take.

    Args:
        lab: Name of the lab that counts if neither a kubeconfig nor a context nor a profile is named.
        kubeconfig: Kubeconfig file; None if none is named.
        context: Context; empty for the current one.
        profile: AWS profile; empty for the default.
        region: AWS region; empty for the profile's.
        cluster: Name that EKS knows the cluster by; empty for the lab's or the context's.
    """
    the_lab = Lab(lab)
    is_labs = kubeconfig is not None and kubeconfig == the_lab.paths.kubeconfig
    if not profile and (is_labs or (kubeconfig is None and not context)) and the_lab.exists and the_lab.is_up:
        name = cluster or context or ClusterSpec().name
        administrator = the_lab.administrator()
        return Target(name, the_lab.cluster(name).kubeconfig, "", administrator.session, administrator.endpoint)
    try:
        session = boto3.Session(profile_name=profile or None, region_name=region or None)
    except BotoCoreError as error:
        raise UsageError(f"{error}", hint="see: aws configure list-profiles") from error
    return Target(cluster, kubeconfig or Path.home() / ".kube" / "config", context, session)
