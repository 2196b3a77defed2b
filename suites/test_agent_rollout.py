"""Rolling the agent's DaemonSet while a pod reads S3: each read is a process of its own and asks the agent anew."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness import wait
from harness.cluster.base import Cluster
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.kube import Kube
from harness.scenario import AGENT_ADDON, AwsAccount, LogReader, wait_until_admission_injects

pytestmark = pytest.mark.usefixtures("agent_addon")

FILES = Path(__file__).parent.parent / "fixtures" / "s3"
NAMESPACE = "rollout"
BUCKET = "my-app-bucket"
# A read that fails is one that the SDK has tried three times, a second apart.
LOOP = f"""
trap 'exit 0' TERM
while true; do
  if error=$(aws s3 cp s3://{BUCKET}/hello.txt /tmp/hello.txt 2>&1); then
    echo "$(date -u +%FT%T.%3NZ) read"
  else
    echo "$(date -u +%FT%T.%3NZ) FAILED $(echo $error)"
  fi
done
"""


@pytest.fixture
def reader(kube: Kube, cluster: Cluster, aws: AwsAccount) -> Iterator[LogReader]:
    """A pod that reads one object after the other as its association's role, and what it prints."""
    with (
        aws.bucket(BUCKET),
        aws.policy("rollout-s3-read", (FILES / "s3-read-policy.json").read_text()) as policy_arn,
        aws.role("rollout-reader", (FILES / "pod-identity-trust.json").read_text(), policies=[policy_arn]) as role_arn,
        kube.namespace(NAMESPACE),
        aws.association(cluster.name, NAMESPACE, "reader", role_arn),
    ):
        aws.client("s3").put_object(Bucket=BUCKET, Key="hello.txt", Body=b"Hello from Pod Identity!\n")
        kube.create_service_account("reader", NAMESPACE)
        wait_until_admission_injects(kube, NAMESPACE, "reader")
        aws.wait_until_agent_is_active(cluster.name)
        command = ("sh", "-c", LOOP)
        pod = kube.run("reader", NAMESPACE, image="amazon/aws-cli:latest", service_account="reader", command=command)
        log = LogReader(pod.wait_until_ready())
        yield log
        pod.delete()
        log.close()


@requirement("AGT-818")
def test_rolling_the_agent_loses_no_read(kube: Kube, reader: LogReader) -> None:
    """From before the old agent ends until after the new one serves, every read succeeds."""
    wait.until(lambda: len(reader.lines()) >= 2, what="the first two reads", timeout=90)
    before = _agents(kube)
    annotation = {"rollout.podid.dev/at": datetime.now(UTC).isoformat()}
    patch = {"spec": {"template": {"metadata": {"annotations": annotation}}}}
    kube.apps.patch_namespaced_daemon_set(AGENT_ADDON, "kube-system", patch)

    kube.wait_until_deployed("DaemonSet", AGENT_ADDON, "kube-system")
    so_far = len(reader.lines())
    wait.until(lambda: len(reader.lines()) >= so_far + 3, what="three reads with the new agent", timeout=120)

    lines = reader.lines()
    attach(Evidence("text", f"{len(lines)} reads over the roll-out", {"lines": lines}))
    assert not before & _agents(kube), "the agent's pod has not been replaced"
    check("AGT-818", expected=[], observed=[line for line in lines if not line.endswith(" read")])


def _agents(kube: Kube) -> set[str]:
    """Return the names of the agent's pods."""
    selector = f"app.kubernetes.io/name={AGENT_ADDON}"
    return {pod.name for pod in kube.pods("kube-system", selector)}
