"""Options of commands that raise a lab or use one, with their defaults."""

from __future__ import annotations

from typing import Annotated

import typer

from harness import binaries
from harness.cluster.base import ClusterSpec, IpFamily
from harness.lab.given import Role
from harness.lab.reuse import Reuse

__all__ = [
    "DEFAULT_CLUSTERS",
    "DEFAULT_LAB",
    "AgentImage",
    "Clusters",
    "IpFamilyOption",
    "Kubernetes",
    "LabName",
    "Nodes",
    "OfflineOption",
    "ProviderOption",
    "ReuseOption",
    "WebhookImage",
    "given_images",
]

DEFAULT_LAB = "podid"
DEFAULT_CLUSTERS = [ClusterSpec().name]

LabName = Annotated[str, typer.Option("--lab", envvar="PODID_LAB", help="Name of the lab.")]
Clusters = Annotated[
    list[str],
    typer.Option("--cluster", envvar="PODID_CLUSTER", help="Cluster to raise; repeat for several."),
]
ProviderOption = Annotated[
    str,
    typer.Option(
        "--provider",
        envvar="PODID_PROVIDER",
        help="What clusters stand on: auto (kind with a Docker engine, else native), kind, native or existing.",
    ),
]
Nodes = Annotated[
    int, typer.Option("--nodes", envvar="PODID_NODES", min=1, max=9, help="Nodes of each cluster, at least.")
]
IpFamilyOption = Annotated[
    IpFamily | None,
    typer.Option(
        "--ip-family",
        envvar="PODID_IP_FAMILY",
        help="Addresses of pods and services: ipv4 (default), ipv6 or dual; nodes have both in all but the first.",
    ),
]
Kubernetes = Annotated[
    str,
    typer.Option(
        "--kubernetes",
        envvar="PODID_KUBERNETES",
        metavar="MINOR",
        help=f"Version of Kubernetes of native clusters: {' or '.join(binaries.KUBERNETES)}.",
    ),
]
OfflineOption = Annotated[
    bool,
    typer.Option("--offline", envvar="PODID_OFFLINE", help="Refuse at once if something would have to be fetched."),
]
AgentImage = Annotated[
    str,
    typer.Option(
        "--agent-image",
        metavar="IMAGE",
        envvar="PODID_AGENT_IMAGE",
        help="Agent to deploy instead of ours: a file of docker save, or on kind and existing a reference.",
    ),
]
WebhookImage = Annotated[
    str,
    typer.Option(
        "--webhook-image",
        metavar="IMAGE",
        envvar="PODID_WEBHOOK_IMAGE",
        help="Webhook to deploy instead of ours, likewise.",
    ),
]
ReuseOption = Annotated[
    Reuse,
    typer.Option(
        "--reuse",
        envvar="PODID_REUSE",
        help="Whether a lab that is up must be made of what a new one would be (checked), or not (force).",
    ),
]


def given_images(agent_image: str, webhook_image: str) -> dict[Role, str]:
    """Return what is to run instead of ours."""
    sources: dict[Role, str] = {"agent": agent_image, "webhook": webhook_image}
    return {role: source for role, source in sources.items() if source}
