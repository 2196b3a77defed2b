"""Rolling the agent's DaemonSet while one pod reads S3 and another asks the agent, both in a loop.

Between the end of the old agent and the start of the new one nobody listens: a DaemonSet with ``maxUnavailable`` has
one pod a node, and the ports are the node's. What SDKs see of it are connections that the node refuses or resets, and
they try again.
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
ANSWERED = "200 0"
REFUSED = "000 7"
"""What curl prints for a connection that was refused: no status, and its exit code."""
RESET = {"000 55", "000 56"}
"""The same for one that the node had accepted, and the agent not yet, when it closed its listener."""
THREE_TRIES = 2.0
"""Seconds from the first to the last time that botocore asks for the credentials of a container."""

# Each read is a process of its own, which asks the agent anew: three times, a second apart, before it gives up.
READ = f"""
trap 'exit 0' TERM
while true; do
  began=$(date -u +%s.%3N)
  if error=$(aws s3 cp s3://{BUCKET}/hello.txt /tmp/hello.txt 2>&1); then outcome=read; else outcome="FAILED $error"; fi
  echo "$began $(date -u +%s.%3N)" $outcome
done
"""
# Ten times a second are enough, and leave the node its time.
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
class Attempt:
    """One read, or one question to the agent, and what came of it."""

    began: float
    ended: float
    outcome: str
    """Of a question: status and curl's exit code."""

    @classmethod
    def of(cls, line: str) -> Attempt:
        """Read a line."""
        began, ended, outcome = line.split(maxsplit=2)
        return cls(float(began), float(ended), outcome)


@dataclass(frozen=True, slots=True)
class Pods:
    """Two pods at work, and what they print."""

    reader: LogReader
    asker: LogReader

    def reads(self) -> list[Attempt]:
        """Return what was read so far."""
        return [Attempt.of(line) for line in self.reader.lines()]

    def questions(self) -> list[Attempt]:
        """Return what was asked so far."""
        return [Attempt.of(line) for line in self.asker.lines()]


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
    """The new agent answers within three seconds; until then nobody is connected, and nothing else is noticed."""
    wait.until(lambda: len(pods.reads()) >= 2, what="the first two reads", timeout=limits.READS)
    before = _agents(kube)
    annotation = {"rollout.podid.dev/at": datetime.now(UTC).isoformat()}
    patch = {"spec": {"template": {"metadata": {"annotations": annotation}}}}
    kube.apps.patch_namespaced_daemon_set(AGENT_ADDON, "kube-system", patch)

    kube.wait_until_deployed("DaemonSet", AGENT_ADDON, "kube-system")
    so_far = len(pods.reads())
    wait.until(lambda: len(pods.reads()) >= so_far + 3, what="three reads with the new agent", timeout=limits.READS)

    questions, reads = pods.questions(), pods.reads()
    assert not before & _agents(kube), "the agent's pod has not been replaced"
    gap = _gap(questions)
    title = f"{len(reads)} reads over the roll-out, which left {gap:.2f} s without"
    attach(Evidence("text", title, {"reads": [repr(read) for read in reads]}))
    noticed = [repr(question) for question in questions if question.outcome != ANSWERED]
    attach(Evidence("text", "what was noticed of it", {"questions": noticed}))

    outcomes, usual = {question.outcome for question in questions}, {ANSWERED, REFUSED, *RESET}
    check("AGT-818", expected=usual, observed=outcomes, holds=outcomes <= usual, what="answers")
    limit = LONGEST_GAP * wait.scale() * _slowness(questions)
    what = f"an answer within {limit:.2f} s"
    check("AGT-818", expected=what, observed=f"after {gap:.2f} s", holds=gap <= limit, what="without an agent")
    check("AGT-818", expected=[], observed=_lost(reads, questions), what="reads that were lost")


def _gap(questions: list[Attempt]) -> float:
    """Return how long nobody answered: from the first refusal to the next answer. All asking was without a pause."""
    refused = [question.began for question in questions if question.outcome != ANSWERED]
    return _next_answer(questions, max(refused)) - min(refused) if refused else 0.0


def _next_answer(questions: list[Attempt], at: float) -> float:
    """Return when the first question was answered that began after a time."""
    return min(question.ended for question in questions if question.began > at)


def _slowness(questions: list[Attempt]) -> float:
    """Return how many times longer than usual everything took during the gap, three at most.

    A question that is refused costs no agent anything, so its time is the machine's alone. The mean knows of a few that
    took long, as everything did meanwhile.
    """
    refusals = [question.ended - question.began for question in questions if question.outcome == REFUSED]
    return min(3.0, max(1.0, statistics.fmean(refusals) / USUAL_REFUSAL)) if refusals else 1.0


def _lost(reads: list[Attempt], questions: list[Attempt]) -> list[str]:
    """Return the reads that failed, but for those whose SDK can have tried all of its times while nobody listened.

    The first of its tries was after the read began, the last before it ended: how long its process takes to start and
    to end, which is the machine's, says nothing.
    """
    refused = [question for question in questions if question.outcome != ANSWERED]
    failed = [read for read in reads if read.outcome != "read"]
    return [
        read.outcome
        for read in failed
        if not (
            "container-role" in read.outcome
            and refused
            and read.began + THREE_TRIES <= _next_answer(questions, refused[-1].began)
            and read.ended - THREE_TRIES >= refused[0].began
        )
    ]


def _agents(kube: Kube) -> set[str]:
    """Return the names of the agent's pods."""
    selector = f"app.kubernetes.io/name={AGENT_ADDON}"
    return {pod.name for pod in kube.pods("kube-system", selector)}
