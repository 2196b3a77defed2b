"""What is known of a pod and of everything between it and its credentials. Pure; :mod:`.gather` fills it in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from harness.cloud.documents import entries, members

__all__ = [
    "AGENT",
    "AGENT_ADDRESS",
    "Association",
    "Picture",
    "Reach",
    "Sdk",
    "agent_argument",
    "compute_type",
    "deployment_of",
    "reach_told_by",
    "workload_of",
]

Manifest = Mapping[str, Any]

AGENT = "eks-pod-identity-agent"
AGENT_ADDRESS = "169.254.170.23"
_FULL_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_FARGATE = re.compile(r"fargate-")
_RESTARTABLE = {"DaemonSet", "StatefulSet"}
"""Kinds, beside Deployment, that ``kubectl rollout restart`` takes."""


@dataclass(frozen=True, slots=True)
class Association:
    """A pod identity association; the times only where it was described."""

    namespace: str
    service_account: str
    id: str = ""
    role_arn: str = ""
    created_at: datetime | None = None
    target_role_arn: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """How the agent answered when it was asked from inside the pod."""

    outcome: Literal["answered", "silent", "timeout", "refused", "not-asked"] = "not-asked"
    """``silent``: the connection was taken, and no answer came; ``timeout``: it was not taken."""
    status: int = 0
    body: str = ""
    """Of a refusal; credentials are never kept."""
    through_proxy: Literal["same", "fails", "not-asked"] = "not-asked"
    """How it goes with the proxies of the pod's variables."""


_NO_CONNECTION = re.compile(r"Connect timeout on endpoint URL|ConnectTimeoutError")
_CLOSED = re.compile(r"Could not connect to the endpoint URL|Connection refused")
_NO_ANSWER = re.compile(r"Read timeout on endpoint URL|ReadTimeoutError")
_ANSWER = re.compile(r"Received non 200 response (\d+) from container metadata: (.*)", re.DOTALL)


def reach_told_by(error: str) -> Reach:
    """Return how the agent answered as botocore tells it, for pods that have nothing else to ask with."""
    if answer := _ANSWER.search(error):
        return Reach("answered", int(answer[1]), answer[2].strip())
    if _NO_CONNECTION.search(error):
        return Reach("timeout")
    if _NO_ANSWER.search(error):
        return Reach("silent")
    return Reach("refused") if _CLOSED.search(error) else Reach()


@dataclass(frozen=True, slots=True)
class Sdk:
    """What a botocore in the pod says of itself."""

    version: str = ""
    method: str = ""
    """``get_credentials().method``; ``none`` without credentials, empty if there is no botocore."""
    error: str = ""
    """What ``get_credentials()`` raised."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A pod and what is around it."""

    pod: Manifest
    node: Manifest | None = None
    daemon_set: Manifest | None = None
    """The agent's."""
    is_agent_known: bool = True
    """Whether DaemonSet and pods of the agent could be looked at."""
    agent_pods: Sequence[Manifest] = ()
    events: Sequence[Manifest] = ()
    """Of the pod."""
    network_policies: Sequence[Manifest] = ()
    """Of the pod's namespace."""
    associations: Sequence[Association] | None = None
    """Of the cluster; None when EKS could not be asked."""
    workload: str = ""
    """What starts the pod anew, as kubectl names it: ``deployment/app``; empty where the pod has to be deleted."""
    reach: Reach = field(default_factory=Reach)
    sdk: Sdk = field(default_factory=Sdk)
    gaps: Sequence[str] = ()
    """What could not be looked at, and why."""

    @property
    def name(self) -> str:
        """Name of the pod."""
        return self.pod["metadata"]["name"]

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.pod["metadata"]["namespace"]

    @property
    def service_account(self) -> str:
        """Its ServiceAccount."""
        return self.pod["spec"].get("serviceAccountName") or "default"

    @property
    def labels(self) -> Manifest:
        """Its labels."""
        return members(self.pod["metadata"].get("labels"))

    @property
    def created_at(self) -> datetime:
        """When it was created."""
        return datetime.fromisoformat(self.pod["metadata"]["creationTimestamp"])

    @property
    def node_name(self) -> str:
        """Node it was scheduled to; empty while it was not."""
        return self.pod["spec"].get("nodeName") or ""

    @property
    def is_on_fargate(self) -> bool:
        """Whether its node is one of Fargate's."""
        return compute_type(self.node) == "fargate" or bool(_FARGATE.match(self.node_name))

    @property
    def has_agent_built_in(self) -> bool:
        """Whether its node is one of EKS Auto Mode's, which need no DaemonSet."""
        return compute_type(self.node) == "auto"

    @property
    def is_injected(self) -> bool:
        """Whether a container has Pod Identity's variables."""
        return any(_FULL_URI in variables for variables in self.variables())

    @property
    def is_with_irsa(self) -> bool:
        """Whether a container has IRSA's variables."""
        return any("AWS_WEB_IDENTITY_TOKEN_FILE" in variables for variables in self.variables())

    def variables(self) -> Iterator[Mapping[str, str]]:
        """Yield the variables of each container."""
        for container in self.pod["spec"]["containers"]:
            yield {entry["name"]: entry.get("value", "") for entry in container.get("env") or ()}

    @property
    def agent_pod(self) -> Manifest | None:
        """The agent on the pod's node."""
        return next((pod for pod in self.agent_pods if pod["spec"].get("nodeName") == self.node_name), None)


def compute_type(node: Manifest | None) -> str:
    """Return what EKS says a node is: ``fargate``, ``auto``, ``hybrid``; empty for EC2's, nodes elsewhere and none."""
    labels = members(members(members(node).get("metadata")).get("labels"))
    return labels.get("eks.amazonaws.com/compute-type", "")


def workload_of(pod: Manifest, deployment: Callable[[str], str]) -> str:
    """Return what ``kubectl rollout restart`` takes to start a pod anew, such as ``deployment/app``.

    Args:
        pod: The pod.
        deployment: Names the Deployment of a ReplicaSet of the pod's namespace; empty for one that has none.

    Returns:
        Nothing for pods that end by themselves, stand alone, or belong to something else.
    """
    for owner in map(members, entries(pod["metadata"].get("ownerReferences"))):
        if owner["kind"] == "ReplicaSet" and (name := deployment(owner["name"])):
            return f"deployment/{name}"
        if owner["kind"] in _RESTARTABLE:
            return f"{owner['kind'].lower()}/{owner['name']}"
    return ""


def deployment_of(replica_set: Manifest | None) -> str:
    """Return the name of a ReplicaSet's Deployment; empty without one."""
    owners = map(members, entries(members(members(replica_set).get("metadata")).get("ownerReferences")))
    return next((owner["name"] for owner in owners if owner["kind"] == "Deployment"), "")


def agent_argument(daemon_set: Manifest | None, option: str) -> str:
    """Return the value of an option of the agent's command line; empty without the agent or the option."""
    if daemon_set is None:
        return ""
    for container in daemon_set["spec"]["template"]["spec"]["containers"]:
        words: list[str] = [*(container.get("command") or ()), *(container.get("args") or ())]
        if option in words[:-1]:
            return words[words.index(option) + 1]
        for word in words:
            if word.startswith(f"{option}="):
                return word.partition("=")[2]
    return ""
