"""Options that choose somebody's cluster, and what a run would do to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.cluster.base import ClusterSpec
from harness.cluster.existing.target import Backend, Target, default_kubeconfig
from harness.doctor_existing import existing_checks
from harness.errors import UsageError
from harness.lab.existing_plan import COREDNS, OF_EVERY_RUN, planned
from harness.limits import BACKEND_VARIABLE

__all__ = [
    "AllowInstall",
    "AllowStaticKeys",
    "AwsAccountId",
    "AwsAddress",
    "AwsRegion",
    "BackendOption",
    "ClusterUid",
    "Context",
    "EksCluster",
    "ImageRegistry",
    "Kubeconfig",
    "on_backend",
    "print_plan",
    "target_of",
]

_PANEL = "Provider existing"

Context = Annotated[
    str,
    typer.Option(
        "--context",
        envvar="PODID_CONTEXT",
        help="Context of the cluster; never the current one.",
        rich_help_panel=_PANEL,
    ),
]
ClusterUid = Annotated[
    str,
    typer.Option(
        "--cluster-uid",
        envvar="PODID_CLUSTER_UID",
        help="UID of its namespace kube-system; podid doctor prints it.",
        rich_help_panel=_PANEL,
    ),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        envvar="PODID_KUBECONFIG",
        help="Kubeconfig, only read; by default what kubectl reads.",
        rich_help_panel=_PANEL,
    ),
]
AllowInstall = Annotated[
    bool,
    typer.Option(
        "--allow-install",
        envvar="PODID_ALLOW_INSTALL",
        help="Create cluster-wide objects and edit CoreDNS, until the lab is removed.",
        rich_help_panel=_PANEL,
    ),
]
ImageRegistry = Annotated[
    str,
    typer.Option(
        "--image-registry",
        metavar="PREFIX",
        envvar="PODID_IMAGE_REGISTRY",
        help="Where the cluster pulls the lab's images; by default its nodes have them under their own names.",
        rich_help_panel=_PANEL,
    ),
]
AwsAddress = Annotated[
    str,
    typer.Option(
        "--aws-address",
        metavar="ADDRESS",
        envvar="PODID_AWS_ADDRESS",
        help="Address of this machine that the nodes reach; by default the one that leads to them.",
        rich_help_panel=_PANEL,
    ),
]
# Without a variable of the environment: Amazon's AWS is used by those who type it (HRN-EXT-08).
BackendOption = Annotated[
    Backend,
    typer.Option(
        "--backend",
        help="Which AWS: the lab's emulator, or aws, which is Amazon's, with an existing cluster of EKS.",
        rich_help_panel=_PANEL,
    ),
]
AwsAccountId = Annotated[
    str,
    typer.Option(
        "--aws-account",
        metavar="ID",
        envvar="PODID_AWS_ACCOUNT",
        help="With --backend aws: account of the cluster, listed as disposable.",
        rich_help_panel=_PANEL,
    ),
]
AwsRegion = Annotated[
    str,
    typer.Option(
        "--aws-region",
        metavar="REGION",
        envvar="PODID_AWS_REGION",
        help="With --backend aws: its region.",
        rich_help_panel=_PANEL,
    ),
]
EksCluster = Annotated[
    str,
    typer.Option(
        "--eks-cluster",
        metavar="NAME",
        envvar="PODID_EKS_CLUSTER",
        help="With --backend aws: what EKS calls it.",
        rich_help_panel=_PANEL,
    ),
]
AllowStaticKeys = Annotated[
    bool, typer.Option("--allow-static-keys", help="Take keys of AWS that have no end.", rich_help_panel=_PANEL)
]


def target_of(
    provider: str,
    *,
    kubeconfig: Path | None,
    context: str,
    cluster_uid: str,
    allow_install: bool,
    image_registry: str = "",
    aws_address: str = "",
    backend: Backend = "emulator",
    aws_account: str = "",
    aws_region: str = "",
    eks_cluster: str = "",
    allow_static_keys: bool = False,
) -> Target | None:
    """Return the cluster that the options choose, None for every other provider.

    Raises:
        UsageError: They choose one for another provider, name no context, or of AWS too little or too much.
    """
    on_aws = {"--aws-account": aws_account, "--aws-region": aws_region, "--eks-cluster": eks_cluster}
    if backend != "aws" and (told := [name for name, value in on_aws.items() if value]):
        raise UsageError(f"{', '.join(told)} without --backend aws", hint="say that Amazon's AWS is meant")
    if backend == "aws" and provider != "existing":
        raise UsageError(
            f"--backend aws with provider {provider}: only a cluster of EKS works with Amazon's AWS",
            hint="add --provider existing, and the options that choose the cluster",
        )
    if provider != "existing":
        if context or cluster_uid or allow_install or image_registry or aws_address:
            raise UsageError(
                "--context, --cluster-uid, --allow-install, --image-registry and --aws-address are about a cluster "
                f"that is there already, not about provider {provider}",
                hint="add --provider existing",
            )
        return None
    file = str((kubeconfig or default_kubeconfig()).absolute())
    target = Target(
        file,
        context,
        cluster_uid,
        allow_install,
        image_registry,
        aws_address,
        backend,
        aws_account,
        aws_region,
        eks_cluster,
        allow_static_keys,
    )
    target.require_named()
    if backend == "aws":
        if missing := [name for name, value in on_aws.items() if not value]:
            raise UsageError(f"--backend aws needs {', '.join(missing)}", hint="nothing of AWS is used by default")
        if allow_install or image_registry or aws_address:
            raise UsageError(
                "--allow-install, --image-registry and --aws-address are about what a lab installs",
                hint="leave them out: with --backend aws nothing is installed",
            )
    return target


def on_backend(
    target: Target | None, clusters: list[str], arguments: list[str], *, labs: int | None, images: str
) -> tuple[list[str], list[str]]:
    """Tell the processes of a run which AWS they are on, and return its clusters and pytest's arguments.

    Args:
        target: The cluster of somebody that is meant, if any.
        clusters: Clusters that were named.
        arguments: Arguments so far.
        labs: How many labs side by side; None for the usual.
        images: Images that were given in the place of ours; empty for none.

    Raises:
        UsageError: On Amazon's AWS there are neither several labs nor images.
    """
    backend = target.backend if target else "emulator"
    os.environ[BACKEND_VARIABLE] = backend
    if target is None or backend != "aws":
        return clusters, arguments
    if (labs or 1) > 1 or images:
        raise UsageError(
            "--labs, --agent-image and --webhook-image with --backend aws",
            hint="leave them out: EKS has one agent and one webhook, its own",
        )
    # What EKS runs is Amazon's, and is held to what Amazon's does.
    subject = [] if any(argument.startswith("--subject") for argument in arguments) else ["--subject=upstream"]
    return [target.eks_cluster], [*arguments, *subject]


def print_plan(target: Target | None, clusters: Sequence[str]) -> None:
    """Print what a run would make and edit in somebody's cluster before its scenarios; only reads (HRN-EXT-05)."""
    if target is None:
        return
    for check in existing_checks(target):
        print(check.line())
    # With Amazon's AWS nothing is installed; what scenarios make there is listed with them.
    emulated = target.backend == "emulator"
    for thing in (*OF_EVERY_RUN, *(planned(ClusterSpec.named(clusters[0])) if emulated else ())):
        print(f"would create  {thing}")
    for thing in COREDNS if emulated else ():
        print(f"would edit    {thing}, and put it back")
