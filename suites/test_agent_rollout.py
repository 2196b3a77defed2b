"""Rolling the agent's DaemonSet while one pod reads S3 and another asks the agent, both in a loop.

Between the end of the old agent and the start of the new one nobody listens: a DaemonSet with ``maxUnavailable`` has
one pod a node, and the ports are the node's. What SDKs see of it are refused connections, and they try again.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness import limits, wait
from harness.cluster.base import Cluster
from harness.conformance.marks import requirement
from harness.conformance.recording import Evidence, attach, check
from harness.kube import Kube
from harness.scenario import AGENT_ADDON, AwsAccount, LogReader, wait_until_admission_injects

pytestmark = pytest.mark.usefixtures("agent_addon")

FILES = Path(__file__).parent.parent / "fixtures" / "s3"
NAMESPACE = "rollout"
BUCKET = "my-app-bucket"
LONGEST_GAP = 3.0
USUAL_REFUSAL = 0.03
"""Seconds that a refused question takes on two idle processors: it is four small processes in a row."""
REFUSED = "000 7"
"""What curl prints for a connection that was refused: no status, and its exit code."""

# Each read is a process of its own, which asks the agent anew: three times, a second apart, before it gives up.
READ = f"""
trap 'exit 0' TERM
while true; do
  if error=$(aws s3 cp s3://{BUCKET}/hello.txt /tmp/hello.txt 2>&1); then
    echo "$(date -u +%s.%3N) read"
  else
    echo "$(date -u +%s.%3N) FAILED $(echo $error)"
  fi
done
"""
# When it asked, when it had the answer, and what that was. Ten times a second are enough, and leave the node its time.
ASK = """
trap 'exit 0' TERM
while true; do
  began=$(date -u +%s.%3N)
  status=$(curl --silent --max-time 20 --output /dev/null --write-out '%{http_code}' \
    --header "Authorization: $(cat $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)" $AWS_CONTAINER_CREDENTIALS_FULL_URI)
  exit_code=$?
  echo "$began $(date -u +%s.%3N) $status $exit_code"
  sleep 0.1
done
"""


@dataclass(frozen=True, slots=True)
class Question:
    """One question to the agent, and what came of it."""

    began: float
    ended: float
    outcome: str
    """Status and curl's exit code."""

    @classmethod
    def of(cls, line: str) -> Question:
        """Read a line."""
        began, ended, outcome = line.split(maxsplit=2)
        return cls(float(began), float(ended), outcome)


@dataclass(frozen=True, slots=True)
class Pods:
    """Two pods at work, and what they print."""

    reader: LogReader
    asker: LogReader

    def questions(self) -> list[Question]:
        """Return what was asked so far."""
        return [Question.of(line) for line in self.asker.lines()]


@pytest.fixture
def pods(kube: Kube, cluster: Cluster, aws: AwsAccount) -> Iterator[Pods]:
    """A pod that reads one object after the other as its association's role, and one that only asks for credentials.

    Both are on one node: another one's agent ends at another time.
    """
    with (
        aws.bucket(BUCKET),
        aws.policy("rollout-s3-read", (FILES / "s3-read-policy.json").read_text()) as policy_arn,
        aws.role("rollout-reader", (FILES / "pod-identity-trust.json").read_text(), policies=[policy_arn]) as role_arn,
        kube.namespace(NAMESPACE),
        aws.association(cluster.name, NAMESPACE, "reader", role_arn),
        ExitStack() as stack,
    ):
        aws.client("s3").put_object(Bucket=BUCKET, Key="hello.txt", Body=b"Hello from Pod Identity!\n")
        kube.create_service_account("reader", NAMESPACE)
        wait_until_admission_injects(kube, NAMESPACE, "reader")
        aws.wait_until_agent_is_active(cluster.name)
        logs: list[LogReader] = []
        for name, script in (("reader", READ), ("asker", ASK)):
            pod = kube.run(
                name,
                NAMESPACE,
                image="amazon/aws-cli:latest",
                service_account="reader",
                command=("sh", "-c", script),
                overrides={"nodeName": cluster.nodes[0].name},
            )
            logs.append(LogReader(pod.wait_until_ready()))
            stack.callback(logs[-1].close)
            stack.callback(pod.delete)
        yield Pods(*logs)


@requirement("AGT-818")
def test_rolling_the_agent_loses_nothing_that_is_not_tried_again(kube: Kube, pods: Pods) -> None:
    """The new agent answers within three seconds; until then connections are refused, and nothing else is noticed."""
    wait.until(lambda: len(pods.reader.lines()) >= 2, what="the first two reads", timeout=limits.READS)
    before = _agents(kube)
    annotation = {"rollout.podid.dev/at": datetime.now(UTC).isoformat()}
    patch = {"spec": {"template": {"metadata": {"annotations": annotation}}}}
    kube.apps.patch_namespaced_daemon_set(AGENT_ADDON, "kube-system", patch)

    kube.wait_until_deployed("DaemonSet", AGENT_ADDON, "kube-system")
    so_far = len(pods.reader.lines())
    wait.until(
        lambda: len(pods.reader.lines()) >= so_far + 3, what="three reads with the new agent", timeout=limits.READS
    )

    questions, reads = pods.questions(), pods.reader.lines()
    assert not before & _agents(kube), "the agent's pod has not been replaced"
    gap = _gap(questions)
    attach(Evidence("text", f"{len(reads)} reads over the roll-out, which left {gap:.2f} s without", {"lines": reads}))
    attach(
        Evidence("text", "what was noticed of it", {"questions": [repr(q) for q in questions if q.outcome != "200 0"]})
    )

    outcomes = {question.outcome for question in questions}
    check(
        "AGT-818", expected={"200 0", REFUSED}, observed=outcomes, holds=outcomes <= {"200 0", REFUSED}, what="answers"
    )
    limit = LONGEST_GAP * wait.scale() * _slowness(questions)
    what = f"an answer within {limit:.2f} s"
    check("AGT-818", expected=what, observed=f"after {gap:.2f} s", holds=gap <= limit, what="without an agent")
    check("AGT-818", expected=[], observed=_lost(reads, questions), what="reads that were lost")


def _gap(questions: list[Question]) -> float:
    """Return how long nobody answered: from the first refusal to the next answer. All asking was without a pause."""
    refused = [question.began for question in questions if question.outcome != "200 0"]
    if not refused:
        return 0.0
    return min(question.ended for question in questions if question.began > max(refused)) - min(refused)


def _slowness(questions: list[Question]) -> float:
    """Return how many times longer than usual everything took during the gap, three at most.

    A question that is refused costs no agent anything, so its time is the machine's alone.
    """
    refusals = [question.ended - question.began for question in questions if question.outcome == REFUSED]
    return min(3.0, max(1.0, statistics.median(refusals) / USUAL_REFUSAL)) if refusals else 1.0


def _lost(reads: list[str], questions: list[Question]) -> list[str]:
    """Return the reads that failed, but for those whose SDK has tried all of its times while nobody listened.

    Three tries take two seconds and a little, and the new agent has three.
    """
    refused = [question for question in questions if question.outcome == REFUSED]
    failed = [line.split(maxsplit=1) for line in reads if not line.endswith(" read")]
    return [
        text
        for at, text in failed
        if not ("container-role" in text and refused and refused[0].began + 2 <= float(at) <= refused[-1].ended + 1)
    ]


def _agents(kube: Kube) -> set[str]:
    """Return the names of the agent's pods."""
    selector = f"app.kubernetes.io/name={AGENT_ADDON}"
    return {pod.name for pod in kube.pods("kube-system", selector)}
