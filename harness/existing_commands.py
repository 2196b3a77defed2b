"""Options that choose somebody's cluster, and what a run would do to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.cluster.base import ClusterSpec
from harness.cluster.existing.target import Target, default_kubeconfig
from harness.doctor_existing import existing_checks
from harness.errors import UsageError
from harness.lab.existing_plan import COREDNS, planned

__all__ = [
    "AllowInstall",
    "AwsAddress",
    "ClusterUid",
    "Context",
    "ImageRegistry",
    "Kubeconfig",
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


def target_of(
    provider: str,
    *,
    kubeconfig: Path | None,
    context: str,
    cluster_uid: str,
    allow_install: bool,
    image_registry: str = "",
    aws_address: str = "",
) -> Target | None:
    """Return the cluster that the options choose, None for every other provider.

    Raises:
        UsageError: They choose one for another provider, or name no context.
    """
    if provider != "existing":
        if context or cluster_uid or allow_install or image_registry or aws_address:
            raise UsageError(
                "--context, --cluster-uid, --allow-install, --image-registry and --aws-address are about a cluster "
                f"that is there already, not about provider {provider}",
                hint="add --provider existing",
            )
        return None
    file = str((kubeconfig or default_kubeconfig()).absolute())
    target = Target(file, context, cluster_uid, allow_install, image_registry, aws_address)
    target.require_named()
    return target


def print_plan(target: Target | None, clusters: Sequence[str]) -> None:
    """Print what a run would make and edit in somebody's cluster before its scenarios; only reads (HRN-EXT-05)."""
    if target is None:
        return
    for check in existing_checks(target):
        print(check.line())
    for thing in planned(ClusterSpec.named(clusters[0])):
        print(f"would create  {thing}")
    for thing in COREDNS:
        print(f"would edit    {thing}, and put it back")
