"""``podid diagnose``: the causes that no heading of the article's troubleshooting section has, and the command.

Each is made by its real cause: the pod, what is named; then the cure, and nothing left to name.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from harness import limits, wait
from harness.cloud.documents import members
from harness.cluster.base import Cluster, Node
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.kube import Kube, Manifest, pod_manifest
from harness.lab import Lab
from harness.scenario import AGENT_ADDON, AwsAccount
from harness.troubleshooting import (
    CONNECT_TIMEOUT,
    IMAGE,
    NOT_CONNECTED,
    SLEEP,
    WHO_AM_I,
    Place,
    container,
    of_compute_type,
    said,
)

pytestmark = pytest.mark.usefixtures("ipv4_pods")

POLICIES = Path(__file__).parent.parent / "fixtures" / "s3"
SYSTEM = "kube-system"
NOWHERE = "127.0.0.1:1/eks-pod-identity-agent:v9"
"""An image of a registry that nobody runs."""


@pytest.fixture(scope="module")
def place(kube: Kube, cluster: Cluster, aws: AwsAccount) -> Iterator[Place]:
    """The namespace, with the agent, and ServiceAccount s3-reader with its association."""
    with Place.made(kube, cluster, aws, "diagnosed") as place:
        yield place


# --- Admission injected it ------------------------------------------------------------------------------------------


@requirement("TRB-601")
def test_webhook_was_told_to_skip_the_pod(place: Place) -> None:
    """A label keeps the webhook from a pod that is younger than its association."""
    manifest = pod_manifest("skipped", IMAGE, "s3-reader", SLEEP)
    manifest["metadata"]["labels"] |= {"eks.amazonaws.com/skip-pod-identity-webhook": "true"}
    pod = place.create(manifest)
    named = place.diagnose(pod)
    pod = place.recreate(pod)

    check("TRB-601", what="fault", expected=["not-injected"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


# --- It reaches the agent -------------------------------------------------------------------------------------------


@requirement("TRB-601")
def test_add_on_does_not_cover_the_node(place: Place, last_node: Node) -> None:
    """On a hybrid node the add-on runs no agent unless it is told to; on an EC2 node the same pod works."""
    key = "eks.amazonaws.com/compute-type"
    with of_compute_type(place, last_node, "hybrid"):
        pod = place.run("on-hybrid", nodeSelector={key: "hybrid"}, tolerations=[{"key": key, "operator": "Exists"}])
        text, named = said(pod, *WHO_AM_I), place.diagnose(pod)
    pod = place.recreate(pod)

    check("TRB-601", what="text", expected=CONNECT_TIMEOUT, observed=text)
    check("TRB-601", what="fault", expected=["node-without-agent"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@contextlib.contextmanager
def agent_that_cannot_start(kube: Kube) -> Generator[str]:
    """``kubectl set image`` of the agent to one that cannot be pulled; yield the first node that is without one."""
    image = kube.image_of("DaemonSet", AGENT_ADDON, SYSTEM)
    kube.set_image("DaemonSet", AGENT_ADDON, SYSTEM, NOWHERE)
    try:
        yield wait.until(
            lambda: next((pod["spec"]["nodeName"] for pod in agents_in_vain(kube)), ""),
            what="an agent whose image cannot be pulled",
            timeout=limits.ROLLOUT,
        )
    finally:
        kube.set_image("DaemonSet", AGENT_ADDON, SYSTEM, image)
        kube.wait_until_deployed("DaemonSet", AGENT_ADDON, SYSTEM)


def agents_in_vain(kube: Kube) -> list[Manifest]:
    """Return the agents that wait for their image."""
    selector = "app.kubernetes.io/name=eks-pod-identity-agent"
    pods = kube.items(f"/api/v1/namespaces/{SYSTEM}/pods", labelSelector=selector)
    return [pod for pod in pods if waits_for(pod) & {"ErrImagePull", "ImagePullBackOff"}]


def waits_for(pod: Manifest) -> set[str]:
    states = [members(one["state"]) for one in pod["status"].get("initContainerStatuses") or ()]
    return {members(state.get("waiting")).get("reason", "") for state in states}


@requirement("TRB-601")
def test_agent_does_not_start(place: Place) -> None:
    """Where the agent waits for its image, connections are refused; its image back, the running pod works."""
    with agent_that_cannot_start(place.kube) as node:
        pod = place.run("too-early", nodeSelector={"kubernetes.io/hostname": node})
        text, named = said(pod, *WHO_AM_I), place.diagnose(pod)

    refused = f'{NOT_CONNECTED}Could not connect to the endpoint URL: "http://169.254.170.23/v1/credentials"'
    check("TRB-601", what="text", expected=refused, observed=text)
    check("TRB-601", what="fault", expected=["agent-not-ready"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


# --- The agent gets an answer ---------------------------------------------------------------------------------------


@requirement("TRB-601")
def test_eks_auth_does_not_answer_or_refuses(place: Place, lab: Lab) -> None:
    """No way to EKS Auth, and throttling, are told apart by the agent's words; the second container asks."""
    containers = [container("sidecar", []), container("app", [])]
    manifest = pod_manifest("cut-off", IMAGE, "s3-reader", SLEEP, {"containers": containers})
    manifest["metadata"]["annotations"] = {"eks.amazonaws.com/skip-containers": "sidecar"}
    pod = place.create(manifest)
    fault = {"service": "eks-auth", "operation": "AssumeRoleForPodIdentity"}
    throttled = {"code": "ThrottlingException", "message": "Rate exceeded", "status": 400}
    named: list[list[str]] = []
    for kind in ({"drop": True}, throttled):
        lab.control().set_faults(fault | kind)
        try:
            named.append(place.diagnose(pod))
        finally:
            lab.control().set_faults()

    check("TRB-601", what="faults", expected=[["eks-auth-unreachable"], ["refused"]], observed=named)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@requirement("TRB-601")
def test_role_does_not_let_eks_tag_the_session(place: Place, aws: AwsAccount) -> None:
    """A trust policy without sts:TagSession is named, and the universal one mends it under the running pod."""
    pod = place.run("untagged")
    with aws.trusting(place.role_arn, (POLICIES / "trust-without-tag-session.json").read_text()):
        named = place.diagnose(pod)

    check("TRB-601", what="fault", expected=["role-not-assumable"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@requirement("TRB-601")
def test_association_is_gone_under_the_pod(place: Place, kube: Kube) -> None:
    """A pod keeps the variables of an association that was deleted; the association back, it works again."""
    kube.create_service_account("left", place.namespace)
    with place.associated("left"):
        pod = place.run("left", account="left")
    named = place.diagnose(pod)
    with place.associated("left"):
        cured = place.diagnose(pod)

    check("TRB-601", what="fault", expected=["association-deleted"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=cured)


# --- The SDK takes it -----------------------------------------------------------------------------------------------


@requirement("TRB-601")
def test_static_keys_come_first(place: Place) -> None:
    """Keys in the pod's variables win over the agent's."""
    keys = [{"name": name, "value": "AKIAIOSFODNN7EXAMPLE"} for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    pod = place.run("static", containers=[container("static", keys)])
    named = place.diagnose(pod)
    pod = place.recreate(pod)

    check("TRB-601", what="fault", expected=["other-credentials"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


@requirement("TRB-601")
def test_sdk_raises_before_it_asks(place: Place) -> None:
    """A profile that is not there ends the search for credentials before the agent's are asked for."""
    pod = place.run("profiled", containers=[container("profiled", [{"name": "AWS_PROFILE", "value": "absent"}])])
    text, named = said(pod, *WHO_AM_I), place.diagnose(pod)
    pod = place.recreate(pod)

    sentence = "The config profile (absent) could not be found"
    check("TRB-601", what="text", expected=sentence, observed=text, holds=sentence in text)
    check("TRB-601", what="fault", expected=["sdk-fails"], observed=named)
    check("TRB-601", what="cured", expected=[], observed=place.diagnose(pod))


# --- The command ----------------------------------------------------------------------------------------------------


@requirement("TRB-601")
def test_command_says_the_same(place: Place, lab: Lab, cluster: Cluster) -> None:
    """``podid diagnose POD`` names cause and evidence and ends with 1; for a sound pod with 0."""
    plain = place.run("plain", account="default")
    sound = place.run("sound")

    command = [str(Path(sys.executable).with_name("podid")), "diagnose", "-n", place.namespace, "--lab", lab.name]
    command += ["--cluster", cluster.name, "--json"]
    found, fine = (
        subprocess.run([*command, pod.name], capture_output=True, text=True, timeout=120, check=False)
        for pod in (plain, sound)
    )

    causes = json.loads(found.stdout)["causes"]
    assert (found.returncode, fine.returncode) == (1, 0), found.stderr + fine.stderr
    check("TRB-601", what="fault", expected=["service-account-mismatch"], observed=[one["cause"] for one in causes])
    check("TRB-601", what="sound", expected=[], observed=json.loads(fine.stdout)["causes"])
    assert f"{place.namespace}/default" in "\n".join(causes[0]["evidence"])
