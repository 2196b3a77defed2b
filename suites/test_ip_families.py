"""The agent's two addresses: for pods that have IPv6 only, for pods that have both, and on a node without IPv6.

The IP family of the lab (``podid run --ip-family``) decides which of these can be shown; the others are not applicable.
Every other scenario can run with every family: this file has what they would not notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import limits, wait
from harness.cluster.base import Cluster, IpFamily, Node
from harness.conformance.marks import requirement
from harness.conformance.outcomes import not_applicable
from harness.conformance.recording import check
from harness.kube import Kube, Pod
from harness.scenario import (
    AGENT_ADDON,
    AwsAccount,
    admitted_variables,
    caller_identity,
    stage_of,
    wait_until_admission_injects,
)

pytestmark = pytest.mark.usefixtures("agent_addon")

FILES = Path(__file__).parent.parent / "fixtures" / "s3"
NAMESPACE = "ip-families"
BUCKET = "my-app-bucket"
OBJECT = ("aws", "s3", "cp", f"s3://{BUCKET}/hello.txt", "-")
IPV4_URI = "http://169.254.170.23/v1/credentials"
IPV6_URI = "http://[fd00:ec2::23]/v1/credentials"
ASK = (
    'curl --silent --show-error --globoff --max-time 10 --header "Authorization: '
    '$(cat $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)" "$0"'
)


def only_with(cluster: Cluster, *families: IpFamily) -> None:
    """End a test that needs another cluster."""
    if cluster.spec.ip_family not in families:
        other = " or ".join(f"--ip-family {family}" for family in families)
        not_applicable("platform", f"{cluster.name} has IP family {cluster.spec.ip_family}; this is shown with {other}")


@pytest.fixture(scope="module")
def reader(kube: Kube, cluster: Cluster, last_node: Node, aws: AwsAccount) -> Iterator[Pod]:
    """A pod whose association lets it read one bucket, on a node that the cluster can do without."""
    with (
        aws.bucket(BUCKET),
        aws.policy("ip-families-s3-read", (FILES / "s3-read-policy.json").read_text()) as policy_arn,
        aws.role("ip-families", (FILES / "pod-identity-trust.json").read_text(), policies=[policy_arn]) as role_arn,
        kube.namespace(NAMESPACE),
        aws.association(cluster.name, NAMESPACE, "reader", role_arn),
    ):
        aws.client("s3").put_object(Bucket=BUCKET, Key="hello.txt", Body=b"Hello from Pod Identity!\n")
        kube.create_service_account("reader", NAMESPACE)
        wait_until_admission_injects(kube, NAMESPACE, "reader")
        aws.wait_until_agent_is_active(cluster.name)
        pod = kube.run(
            "reader",
            NAMESPACE,
            image="amazon/aws-cli:latest",
            service_account="reader",
            command=("sleep", "3600"),
            overrides={"nodeName": last_node.name},
        )
        yield pod.wait_until_ready()


@requirement("WHK-313", "AGT-223", "IAM-S3-02")
def test_pod_with_ipv6_only_reads_the_object(cluster: Cluster, reader: Pod, last_node: Node, aws: AwsAccount) -> None:
    """Agent, STS and S3 are all asked over IPv6: the pod has no other way."""
    only_with(cluster, "ipv6")
    addresses = [entry["ip"] for entry in reader.read()["status"]["podIPs"]]
    routes = reader.exec("cat", "/proc/net/route").stdout.splitlines()
    assert [":" in address for address in addresses] == [True]
    assert len(routes) == 1, "only the table's heading"

    done = reader.exec(*OBJECT)
    arn = caller_identity(reader)["Arn"]

    check("WHK-313", expected=IPV6_URI, observed=admitted_variables(reader)["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
    check("AGT-223", expected=IPV6_URI, observed=arn, holds=":assumed-role/ip-families/" in arn)
    check("IAM-S3-02", expected=(0, "Hello from Pod Identity!\n"), observed=(done.returncode, done.stdout))
    asked = [event.record for event in aws.lookup_events(EventName="GetCallerIdentity")]
    sources = {record["sourceIPAddress"] for record in asked if record["userIdentity"].get("arn") == arn}
    assert sources == {last_node.ipv6}


@requirement("WHK-313", "AGT-223", "AGT-502", "IAM-S3-02")
def test_pod_with_both_is_answered_at_both_addresses(cluster: Cluster, reader: Pod, last_node: Node) -> None:
    """The link has both addresses. Pods are told IPv4's as long as nobody says otherwise; at IPv6's is the same."""
    only_with(cluster, "dual")
    addresses = [entry["ip"] for entry in reader.read()["status"]["podIPs"]]
    link = cluster.run_on_node(last_node.name, ["ip", "address", "show", "dev", "pod-id-link0"])
    answers = {uri: reader.exec("sh", "-c", ASK, uri) for uri in (IPV4_URI, IPV6_URI)}
    read = reader.exec("env", f"AWS_CONTAINER_CREDENTIALS_FULL_URI={IPV6_URI}", *OBJECT)

    assert [":" in address for address in addresses] == [False, True]
    check("WHK-313", expected=IPV4_URI, observed=admitted_variables(reader)["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
    check(
        "AGT-502",
        expected="169.254.170.23/32 and fd00:ec2::23/128",
        observed=link.stdout,
        holds="inet 169.254.170.23/32 " in link.stdout and "inet6 fd00:ec2::23/128 " in link.stdout,
    )
    assert [done.stderr for done in answers.values()] == ["", ""]
    keys = [json.loads(done.stdout).get("AccessKeyId") for done in answers.values()]
    check("AGT-223", expected="the same key twice", observed=keys, holds=keys[0] == keys[1] is not None)
    check("IAM-S3-02", expected=(0, "Hello from Pod Identity!\n"), observed=(read.returncode, read.stdout))


@pytest.fixture
def agent_without_ipv6(kube: Kube, cluster: Cluster, last_node: Node) -> Iterator[Pod]:
    """The agent of a node whose administrator switched IPv6 off, started there; the node gets it back at the end.

    Not the first node where there is another: an API server talks to itself at ``::1``.
    """
    only_with(cluster, "ipv4")
    _set_ipv6(cluster, last_node, "off")
    try:
        with stage_of("AGT-523"):
            agent = _start_agent_again(kube, last_node)
        yield agent
    finally:
        _set_ipv6(cluster, last_node, "on")
        _start_agent_again(kube, last_node)


def _set_ipv6(cluster: Cluster, node: Node, state: str) -> None:
    value = {"on": "0", "off": "1"}[state]
    done = cluster.run_on_node(node.name, ["sh", "-c", f"echo {value} > /proc/sys/net/ipv6/conf/all/disable_ipv6"])
    assert done.returncode == 0, done.stderr


def _start_agent_again(kube: Kube, node: Node) -> Pod:
    """Let a new pod take the place of the agent's on a node, and wait until it is ready."""
    (former,) = _agents(kube, node)
    kube.pod(former, "kube-system").delete()
    (name,) = wait.until(
        lambda: _agents(kube, node) - {former},
        what=f"the next agent on {node.name}",
        timeout=limits.CONTROLLER,
    )
    return kube.pod(name, "kube-system").wait_until_ready()


def _agents(kube: Kube, node: Node) -> set[str]:
    pods = kube.pods("kube-system", f"app.kubernetes.io/name={AGENT_ADDON}")
    return {pod.name for pod in pods if pod.read()["spec"].get("nodeName") == node.name}


@requirement("AGT-506", "AGT-523", "AGT-607")
def test_node_with_ipv6_disabled_serves_ipv4(kube: Kube, reader: Pod, agent_without_ipv6: Pod) -> None:
    """Init container and agent say in their logs what the node lacks; pods get their credentials all the same."""
    agent = agent_without_ipv6
    (init,) = agent.read()["status"]["initContainerStatuses"]
    logs = {
        name: kube.core.read_namespaced_pod_log(agent.name, agent.namespace, container=name)
        for name in (f"{AGENT_ADDON}-init", AGENT_ADDON)
    }

    answer = reader.exec("sh", "-c", ASK, IPV4_URI)
    read = reader.exec(*OBJECT)

    check("AGT-506", what="exit code", expected=0, observed=init["state"]["terminated"]["exitCode"])
    told = logs[f"{AGENT_ADDON}-init"]
    check("AGT-506", what="log", expected="fd00:ec2::23", observed=told, holds="fd00:ec2::23" in told)
    warned = "Not serving on fd00:ec2::23" in logs[AGENT_ADDON]
    check("AGT-523", what="log", expected="a warning", observed=logs[AGENT_ADDON], holds=warned)
    check(
        "AGT-523", what="answer", expected="credentials", observed=answer.stderr, holds="AccessKeyId" in answer.stdout
    )
    check("AGT-523", what="S3", expected="Hello from Pod Identity!\n", observed=read.stdout)
    check("AGT-607", expected=True, observed=agent.read()["status"]["containerStatuses"][0]["ready"])
