"""A place in which things go wrong: pods with a fault, what they say, and what ``podid diagnose`` names."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from harness import limits, wait
from harness.cluster.base import Cluster, Node
from harness.conformance.outcomes import could_not_run
from harness.conformance.recording import Evidence, attach
from harness.diagnose import find_causes, gather
from harness.errors import SubjectFault
from harness.kube import Kube, Manifest, Pod
from harness.lab.account import AwsAccount
from harness.lab.paths import CHECKOUT
from harness.scenario import caller_identity, hide_agent_link, show_agent_link, wait_until_admission_injects

__all__ = [
    "CONNECT_TIMEOUT",
    "IMAGE",
    "NODE_ROLE",
    "NOT_CONNECTED",
    "SLEEP",
    "WHO_AM_I",
    "Place",
    "container",
    "of_compute_type",
    "packets_dropped",
    "said",
]

IMAGE = "amazon/aws-cli:latest"
SLEEP = ("sleep", "3600")
WHO_AM_I = ("aws", "sts", "get-caller-identity")
NODE_ROLE = "arn:aws:sts::123456789012:assumed-role/pod-identity-lab-node-role/i-"
NOT_CONNECTED = (
    "Error when retrieving credentials from container-role: Error retrieving metadata: "
    "Received error when attempting to retrieve container metadata: "
)
"""What the AWS CLI says before botocore's own words."""
CONNECT_TIMEOUT = f'{NOT_CONNECTED}Connect timeout on endpoint URL: "http://169.254.170.23/v1/credentials"'
_TRUST = CHECKOUT / "fixtures" / "s3" / "pod-identity-trust.json"


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace in which things go wrong; everything in it is gone at the end."""

    kube: Kube
    cluster: Cluster
    aws: AwsAccount
    namespace: str
    role_arn: str
    """A role that pods may be; to know who one is takes no permission."""

    @classmethod
    @contextlib.contextmanager
    def made(cls, kube: Kube, cluster: Cluster, aws: AwsAccount, name: str) -> Generator[Place]:
        """Install the agent, and create a namespace, a role, and ServiceAccount s3-reader with its association."""
        aws.create_agent_addon(cluster.name)
        aws.wait_until_agent_is_active(cluster.name)
        with aws.role(f"{name}-role", _TRUST.read_text()) as role_arn, kube.namespace(name):
            kube.create_service_account("s3-reader", name)
            place = cls(kube, cluster, aws, name, role_arn)
            with place.associated("s3-reader"):
                yield place

    @property
    def role_name(self) -> str:
        """Name of the role."""
        return self.role_arn.rpartition("/")[2]

    @property
    def session(self) -> str:
        """What the ARN of a pod's session begins with, once all is well."""
        return f"arn:aws:sts::123456789012:assumed-role/{self.role_name}/eks-"

    def run(self, name: str, *, namespace: str = "", account: str = "s3-reader", **options: Any) -> Pod:
        """Create a pod, here if nothing else is said, and wait until it is ready."""
        image, overrides = options.pop("image", IMAGE), options
        pod = self.kube.run(
            name,
            namespace or self.namespace,
            image=image,
            service_account=account,
            command=SLEEP,
            overrides=overrides,
        )
        return pod.wait_until_ready()

    def create(self, manifest: Manifest) -> Pod:
        """``kubectl create``, for what ``kubectl run`` has no option for, and wait until it is ready."""
        self.kube.core.create_namespaced_pod(self.namespace, manifest)
        return self.kube.pod(manifest["metadata"]["name"], self.namespace).wait_until_ready()

    def recreate(self, pod: Pod, **options: Any) -> Pod:
        """``kubectl delete pod``, and the same again, or with something mended."""
        pod.delete()
        return self.run(pod.name, namespace=pod.namespace, **options)

    @contextlib.contextmanager
    def associated(self, account: str, namespace: str = "") -> Generator[None]:
        """``aws eks create-pod-identity-association``, once admission knows it; deleted at the end."""
        within = namespace or self.namespace
        with self.aws.association(self.cluster.name, within, account, self.role_arn):
            wait_until_admission_injects(self.kube, within, account)
            yield

    def acts_as(self, pod: Pod) -> str:
        """Return whose session a pod's is, without what differs from session to session."""
        arn = caller_identity(pod)["Arn"]
        return next((begin for begin in (self.session, NODE_ROLE) if arn.startswith(begin)), arn)

    def diagnose(self, pod: Pod) -> list[str]:
        """Return the causes that ``podid diagnose`` names; its text becomes evidence."""
        picture = gather(self.kube, self.aws.client("eks"), self.cluster.name, pod.name, pod.namespace)
        findings = find_causes(picture)
        names = [finding.cause for finding in findings]
        text = "\n".join(finding.text for finding in findings)
        attach(Evidence("command", f"podid diagnose {pod.name}: {', '.join(names) or 'nothing'}", text))
        return names


def said(pod: Pod, *command: str) -> str:
    """Return what a command that fails says, on one line.

    Raises:
        SubjectFault: It does not fail.
    """
    done = pod.exec(*command)
    attach(Evidence("command", f"pod {pod.name}: {' '.join(command)} → exit {done.returncode}", done.stderr))
    if done.returncode == 0:
        raise SubjectFault(f"{' '.join(command)} in pod {pod.namespace}/{pod.name} did not fail: {done.stdout.strip()}")
    return " ".join(done.stderr.split())


def container(name: str, variables: Sequence[dict[str, str]]) -> Manifest:
    """Return a container that sleeps, with variables of its own."""
    return {"name": name, "image": IMAGE, "command": list(SLEEP), "env": list(variables)}


@contextlib.contextmanager
def of_compute_type(place: Place, node: Node, compute_type: str) -> Generator[None]:
    """Make a node look like one that is not EC2's: labelled, tainted, and no agent ever ran there."""
    cluster, kube, key = place.cluster, place.kube, "eks.amazonaws.com/compute-type"
    taint = {"key": key, "value": compute_type, "effect": "NoSchedule"}
    kube.core.patch_node(node.name, {"metadata": {"labels": {key: compute_type}}, "spec": {"taints": [taint]}})
    try:
        _wait_for_agents(kube, len(cluster.nodes) - 1)
        hide_agent_link(cluster, node)
        yield
    finally:
        show_agent_link(cluster, node)
        kube.core.patch_node(node.name, {"metadata": {"labels": {key: None}}, "spec": {"taints": None}})
        _wait_for_agents(kube, len(cluster.nodes))


def _wait_for_agents(kube: Kube, count: int) -> None:
    """Wait until so many agents run, all of them ready; the DaemonSet's own counts lag behind a node's labels."""
    selector = "app.kubernetes.io/name=eks-pod-identity-agent"

    def ready() -> list[bool]:
        pods = kube.core.list_namespaced_pod("kube-system", label_selector=selector).items
        conditions = [pod.status.conditions or () for pod in pods]
        return [any(one.type == "Ready" and one.status == "True" for one in each) for each in conditions]

    wait.until(
        ready,
        lambda found: found == [True] * count,
        what=f"{count} ready pods of the agent",
        timeout=limits.AGENT_READY,
    )


@contextlib.contextmanager
def packets_dropped(cluster: Cluster, pod: Pod) -> Generator[None]:
    """A packet filter on the pod's node that drops what the pod sends to the agent, without a word."""
    seen = pod.read()
    node, address = seen["spec"]["nodeName"], seen["status"]["podIP"]
    rules = (
        "add table inet drop-pod; add chain inet drop-pod input { type filter hook input priority -300; }; "
        f"add rule inet drop-pod input ip saddr {address} ip daddr 169.254.170.23 drop"
    )
    done = cluster.run_on_node(node, ["nft", rules])
    if done.returncode != 0:
        could_not_run("environment", f"node {node} has no packet filter to drop with: {done.stderr.strip()}")
    try:
        yield
    finally:
        cluster.run_on_node(node, ["nft", "delete table inet drop-pod"])
