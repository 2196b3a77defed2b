"""The lab's AWS ends in the middle and begins anew: what it has forgotten, who notices, and how to go on.

Amazon's does not forget. The lab's keeps nothing over its end but its keys and clusters (EMU-STATE-FRESH), so what is
to be seen is that nobody hangs, that everybody who asks is told, and that what is made again works. Two clients read
all the time: one keeps its credentials, one asks the agent at each read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest

from harness import limits, wait
from harness.cluster.base import Cluster
from harness.conformance.ceilings import Ceilings
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.kube import Kube, Pod, load_manifests
from harness.scenario import (
    AwsAccount,
    CredentialsResponse,
    admitted_variables,
    credentials_response,
    kill_agents,
    wait_until_admission_injects,
    wait_until_admission_leaves_alone,
)
from harness.traffic import Attempt, parse_attempts

FIXTURES = Path(__file__).parent.parent / "fixtures"
NAMESPACE = "emulator-restart"
BUCKET = "my-app-bucket"
ROLE = "forgotten-reader"
READERS = ("cached", "cold")
UNKNOWN_KEY = "The AWS Access Key Id you provided does not exist in our records."

pytestmark = pytest.mark.usefixtures("agent_addon")


@contextlib.contextmanager
def association(aws: AwsAccount, cluster: Cluster) -> Generator[None]:
    """A bucket with an object, a role that may read it, and the association; gone at the end, if AWS still has it."""
    files = FIXTURES / "s3"
    with (
        aws.bucket(BUCKET),
        aws.policy("forgotten-read", (files / "s3-read-policy.json").read_text()) as policy_arn,
        aws.role(ROLE, (files / "pod-identity-trust.json").read_text(), policies=[policy_arn]) as role_arn,
        aws.association(cluster.name, NAMESPACE, "reader", role_arn),
    ):
        aws.client("s3").put_object(Bucket=BUCKET, Key="hello.txt", Body=b"Hello from Pod Identity!\n")
        yield


def run_readers(kube: Kube) -> dict[str, Pod]:
    """Start both clients, and wait until each has read once: kind → pod."""
    for kind in READERS:
        config_map, pod = load_manifests(FIXTURES / "emulator-restart" / "reader.yaml", {"KIND": kind})
        config_map["data"] = {"client.py": (FIXTURES / "upgrade" / "client.py").read_text()}
        kube.apply([config_map, pod], NAMESPACE)
    return {kind: kube.pod(kind, NAMESPACE).wait_until_ready() for kind in READERS}


def attempts(pod: Pod) -> list[Attempt]:
    """Return what a client printed."""
    text = pod.kube.core.read_namespaced_pod_log(pod.name, pod.namespace)
    return parse_attempts("", pod.name, text.splitlines())


def next_attempts(readers: Mapping[str, Pod]) -> dict[str, Attempt]:
    """Return for each client the first attempt that it begins from now on.

    Raises:
        harness.wait.Timeout: One of them makes none: it hangs.
    """
    so_far = {kind: attempts(pod)[-1].began for kind, pod in readers.items()}
    found = wait.until(
        # The first of the later ones may have been on its way already.
        lambda: {kind: [one for one in attempts(pod) if one.began > so_far[kind]][1:] for kind, pod in readers.items()},
        lambda found: all(found.values()),
        what="another attempt of each client",
        timeout=limits.READS,
    )
    return {kind: later[0] for kind, later in found.items()}


@pytest.fixture(scope="module")
def readers(kube: Kube, aws: AwsAccount, cluster: Cluster) -> Iterator[dict[str, Pod]]:
    """Both clients, reading."""
    with kube.namespace(NAMESPACE), association(aws, cluster):
        kube.create_service_account("reader", NAMESPACE)
        wait_until_admission_injects(kube, NAMESPACE, "reader")
        aws.wait_until_agent_is_active(cluster.name)
        yield run_readers(kube)


@pytest.fixture(scope="module")
def restarted(readers: dict[str, Pod], restart_aws: Callable[[], None]) -> dict[str, Attempt]:
    """AWS, killed and ready again: what each client makes of it."""
    restart_aws()
    return next_attempts(readers)


@pytest.fixture(scope="module")
def told(restarted: dict[str, Attempt], readers: dict[str, Pod], kube: Kube) -> CredentialsResponse:
    """What an agent that has nothing in its cache tells the pod."""
    assert restarted
    kill_agents(kube)
    return credentials_response(readers["cold"])


@pytest.fixture(scope="module")
def made_again(told: CredentialsResponse, aws: AwsAccount, cluster: Cluster, kube: Kube) -> Iterator[None]:
    """Bucket, policy, role and association, as before."""
    assert told
    wait_until_admission_leaves_alone(kube, NAMESPACE, "reader")
    with association(aws, cluster):
        wait_until_admission_injects(kube, NAMESPACE, "reader")
        yield


@requirement("UPG-501")
def test_clients_are_told_and_do_not_hang(
    readers: dict[str, Pod], restarted: dict[str, Attempt], aws: AwsAccount, cluster: Cluster, ceilings: Ceilings
) -> None:
    """What was made is gone, the cluster is known; keys from before are unknown, and both clients are told that."""
    there = aws.client("eks").list_pod_identity_associations(clusterName=cluster.name)["associations"]
    roles = [role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]]
    buckets = [bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]]
    every = [attempt for pod in readers.values() for attempt in attempts(pod)]
    errors = sorted({attempt.error for attempt in every if attempt.error})
    attach(Evidence("text", "every error that a client had", "\n".join(errors)))

    assert (there, ROLE in roles, buckets) == ([], False, [])
    assert aws.client("eks").describe_cluster(name=cluster.name)["cluster"]["status"] == "ACTIVE"
    assert {kind: attempt.error.endswith(UNKNOWN_KEY) for kind, attempt in restarted.items()} == {
        "cached": True,
        "cold": True,
    }
    ceilings.hold("UPG-501", round(1000 * max(attempt.ended - attempt.began for attempt in every)))


@requirement("UPG-502")
def test_next_agent_passes_on_that_there_is_no_association(told: CredentialsResponse) -> None:
    """An agent's cache lives as long as the agent: the next one asks EKS Auth, and says what that says."""
    check("UPG-502", what="status", expected=404, observed=told.status)
    code = "(ResourceNotFoundException): "
    check("UPG-502", what="code", expected=code, observed=told.body, holds=code in told.body)


@requirement("UPG-503")
@pytest.mark.usefixtures("made_again")
def test_what_is_made_again_serves_who_asks_again(readers: dict[str, Pod], kube: Kube) -> None:
    """The client that asks each time reads on by itself, the one that keeps dead keys when it is restarted."""
    began = time.monotonic()
    running = next_attempts(readers)
    for pod in readers.values():
        pod.delete()
    restarted = run_readers(kube)
    after = next_attempts(restarted)
    attach(Evidence("text", "seconds until both read again", f"{time.monotonic() - began:.1f}"))

    assert running["cached"].error.endswith(UNKNOWN_KEY)
    check("UPG-503", what="asks again", expected="", observed=running["cold"].error)
    errors = {kind: attempt.error for kind, attempt in after.items()}
    check("UPG-503", what="restarted", expected=dict.fromkeys(READERS, ""), observed=errors)
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in admitted_variables(restarted["cached"])
