"""Changes under traffic: agent and webhook rolled to another version and back, a drain, an API server's restart.

On each node two clients read an object twice a second from the first step to the last: one keeps its credentials, one
asks for them each time (``fixtures/upgrade``). Each step is a fixture: a clean time, a change, and ten seconds to
settle, which are the clean time of the next. Images are on the nodes beforehand, as in a roll-out that is planned: what
is measured is the agent and not a registry. Both roll-outs go to the older version first, so that a lab ends as it
began.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from harness import limits, wait
from harness.cluster.base import Cluster, Node
from harness.conformance.ceilings import Ceilings
from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run
from harness.conformance.record import Use
from harness.conformance.recording import Evidence, attach, check
from harness.errors import HarnessFault
from harness.images import ImageSpec
from harness.kube import ApiException, Kube, Manifest, Pod, load_manifests
from harness.lab import Lab
from harness.lab.given import Role
from harness.metering import PodMeter
from harness.scenario import AGENT_ADDON, AwsAccount, LogReader, shown_progress, wait_until_admission_injects
from harness.traffic import CLEAN_SECONDS, Attempt, Step, Traffic, around, parse_attempts

FIXTURES = Path(__file__).parent.parent / "fixtures"
NAMESPACE = "upgrade"
BUCKET = "my-app-bucket"
SYSTEM = "kube-system"
WEBHOOK = "pod-identity-webhook"
READERS = ("cached", "cold")
NOWHERE = {"nodeSelector": {"podid.example/no-such-node": "true"}}
"""Keeps a pod from being scheduled: admission has seen it, and it costs nothing."""
CREATE_EVERY = 0.1

pytestmark = pytest.mark.usefixtures("agent_addon")


# --- Traffic --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Journey:
    """The clients, what agents logged under them, and what each version used."""

    kube: Kube
    meter: PodMeter
    skew: float = 0.0
    """How far the nodes' clock is ahead of ours."""
    clean_since: float = 0.0
    logs: dict[str, list[tuple[float, str]]] = field(default_factory=dict[str, list[tuple[float, str]]])
    """Node → lines of agents that are gone, with their time."""
    uses: dict[str, Use] = field(default_factory=dict[str, Use])
    """What ran → what it used over its last clean time."""

    def start(self) -> None:
        """Create the clients, and wait until each has read once and then for as long as a clean time takes."""
        manifests = load_manifests(FIXTURES / "upgrade" / "traffic.yaml")
        for manifest in manifests:
            if manifest["kind"] == "ConfigMap":
                manifest["data"] = {"client.py": (FIXTURES / "upgrade" / "client.py").read_text()}
        self.kube.apply(manifests, NAMESPACE)
        self.kube.wait_until_deployed("DaemonSet", "traffic", NAMESPACE)
        self.kube.wait_until_deployed("Deployment", "app", NAMESPACE)
        before = time.time()
        told = self.kube.pods(NAMESPACE, "app=app")[0].exec("date", "+%s.%N").stdout
        self.skew = float(told) - (before + time.time()) / 2
        self.clean_since = self.now()
        self.let_flow(self.clean_since)

    def now(self) -> float:
        """Return the time as the nodes have it."""
        return time.time() + self.skew

    def let_flow(self, since: float) -> None:
        """Wait until each client has made an attempt ten seconds later, and keep what agent and webhook used."""
        self.meter.lap()
        wait.until(
            lambda: [pod.name for pod, kind in self._clients() if self._last(pod, kind) < since + CLEAN_SECONDS],
            lambda behind: not behind,
            what=f"{CLEAN_SECONDS:g} s of traffic",
            timeout=limits.READS,
        )
        self.uses[self.versions()] = self.meter.lap()

    def versions(self) -> str:
        """Return the images of agent and webhook."""
        return " and ".join(self.kube.image_of(*where, SYSTEM) for where in WORKLOADS.values())

    def _clients(self) -> list[tuple[Pod, str]]:
        return [(pod, kind) for pod in self.kube.pods(NAMESPACE, "app=traffic") for kind in READERS]

    def _last(self, pod: Pod, kind: str) -> float:
        text = self.kube.core.read_namespaced_pod_log(pod.name, NAMESPACE, container=kind, tail_lines=1)
        return max((attempt.began for attempt in parse_attempts("", kind, text.splitlines())), default=0.0)

    def traffic(self) -> Traffic:
        """Read everything that the clients printed so far."""
        attempts: list[Attempt] = []
        for pod in self.kube.pods(NAMESPACE, "app=traffic"):
            node = node_of(pod)
            for kind in (*READERS, "port"):
                text = self.kube.core.read_namespaced_pod_log(pod.name, NAMESPACE, container=kind)
                attempts += parse_attempts(node, kind, text.splitlines())
        return Traffic(sorted(attempts, key=lambda attempt: attempt.began))

    @contextlib.contextmanager
    def change(self, name: str) -> Generator[list[Step]]:
        """Make a change in the body, let it settle, and append the step to the list.

        Raises:
            HarnessFault: The time before was not clean, so that the step says nothing.
        """
        steps: list[Step] = []
        change_at = self.now()
        yield steps
        settled_at = self.now()
        self.let_flow(settled_at)
        step = Step(name, self.clean_since, change_at, settled_at, self.now())
        self.clean_since = settled_at
        traffic = self.traffic()
        if dirty := [attempt for kind in READERS for attempt in traffic.failed(step, kind, "baseline")]:
            raise HarnessFault(f"there were failed reads before the step {name!r} began, such as {dirty[0]}")
        steps.append(step)

    def keep_logs(self, node: str, lines: Sequence[str]) -> None:
        """Keep what an agent logged, each line with its time."""
        self.logs.setdefault(node, []).extend(timed(line) for line in lines)

    def agent_lines(self) -> Mapping[str, Sequence[tuple[float, str]]]:
        """Return node → what its agents logged, those that are gone and those that run."""
        found = {node: list(lines) for node, lines in self.logs.items()}
        for pod in agent_pods(self.kube):
            text = self.kube.core.read_namespaced_pod_log(pod.name, SYSTEM, timestamps=True)
            found.setdefault(node_of(pod), []).extend(timed(line) for line in text.splitlines())
        return found

    def tell(self, steps: Sequence[Step]) -> Traffic:
        """Attach what the clients saw of some steps, and return all that they saw."""
        traffic, lines = self.traffic(), self.agent_lines()
        for step in steps:
            gaps = {kind: traffic.longest_gap_ms(step, kind) for kind in READERS}
            content = {
                "reads": traffic.counts(step),
                "longest time from one good read of a client to its next, ms": gaps,
                "longest time without an agent on a node, ms": traffic.silent_ms(step),
                "the same as on an idle machine, ms": round(traffic.idle_silent_ms(step)),
                "seconds of the change": round(step.settled_at - step.change_at, 1),
            }
            attach(Evidence("object", f"{step.name}: reads by client and phase", content))
            attach(Evidence("text", f"{step.name}: failed attempts in the agent's log", linked(traffic, step, lines)))
            attach(Evidence("object", f"{step.name}: every attempt, with seconds since the change", traffic.log(step)))
        attach(Evidence("plot", "the reads so far", traffic.plot(steps)))
        return traffic


def timed(line: str) -> tuple[float, str]:
    """Return a line of a log with its time."""
    return datetime.fromisoformat(line.partition(" ")[0]).timestamp(), line


def linked(traffic: Traffic, step: Step, lines: Mapping[str, Sequence[tuple[float, str]]]) -> str:
    """Return the first and last failed attempts, and each time without an agent, with what agents logged then."""
    told: list[Attempt] = list(traffic.silences(step))
    for kind in READERS:
        failed = traffic.failed(step, kind)
        told += [failed[0], failed[-1]] if failed else []
    parts = ["\n".join([repr(attempt), *(f"    {text}" for text in around(attempt, lines))]) for attempt in told]
    return "\n".join(parts) or "no attempt failed, and somebody listened all the time"


def node_of(pod: Pod) -> str:
    return pod.read()["spec"]["nodeName"]


def agent_pods(kube: Kube) -> list[Pod]:
    return kube.pods(SYSTEM, f"app.kubernetes.io/name={AGENT_ADDON}")


@pytest.fixture(scope="module")
def images(
    lab: Lab, cluster: Cluster, kube: Kube, previous_images: Mapping[Role, ImageSpec], pytestconfig: pytest.Config
) -> Mapping[Role, str]:
    """The older images, on every node already."""
    with shown_progress(pytestconfig) as progress:
        lab.add_images(cluster.name, list(previous_images.values()), progress)
    references = {role: image.reference for role, image in previous_images.items()}
    pods = [
        kube.run(
            f"pull-{role}-{number}",
            "default",
            image=reference,
            service_account="default",
            command=["true"],
            overrides={"nodeName": node.name, "restartPolicy": "Never"},
        )
        for role, reference in references.items()
        for number, node in enumerate(cluster.nodes)
    ]
    for pod in pods:
        # Whether the image has such a program is all the same: then it was pulled as well.
        wait.until(
            lambda pod=pod: [s["imageID"] for s in pod.read()["status"].get("containerStatuses", []) if s["imageID"]],
            what=f"the image of pod {pod.name} to be pulled",
            timeout=limits.POD_READY,
        )
        pod.delete()
    return references


@pytest.fixture(scope="module")
def journey(
    kube: Kube, cluster: Cluster, aws: AwsAccount, last_node: Node, images: Mapping[Role, str]
) -> Iterator[Journey]:
    """Clients at work on every node, for ten seconds already."""
    assert last_node
    assert images is not None
    files = FIXTURES / "s3"
    with (
        aws.bucket(BUCKET),
        aws.policy("upgrade-s3-read", (files / "s3-read-policy.json").read_text()) as policy_arn,
        aws.role("upgrade-reader", (files / "pod-identity-trust.json").read_text(), policies=[policy_arn]) as role_arn,
        kube.namespace(NAMESPACE),
        aws.association(cluster.name, NAMESPACE, "reader", role_arn),
    ):
        aws.client("s3").put_object(Bucket=BUCKET, Key="hello.txt", Body=b"Hello from Pod Identity!\n")
        kube.create_service_account("reader", NAMESPACE)
        wait_until_admission_injects(kube, NAMESPACE, "reader")
        aws.wait_until_agent_is_active(cluster.name)
        journey = Journey(kube, PodMeter(cluster, kube))
        journey.start()
        yield journey


# --- Rolling --------------------------------------------------------------------------------------------------------

WORKLOADS: Mapping[Role, tuple[str, str]] = {"agent": ("DaemonSet", AGENT_ADDON), "webhook": ("Deployment", WEBHOOK)}


def set_image(kube: Kube, kind: str, name: str, image: str) -> None:
    """``kubectl set image … '*=IMAGE'``, and wait until it runs everywhere."""
    kube.set_image(kind, name, SYSTEM, image)
    kube.wait_until_deployed(kind, name, SYSTEM)


@contextlib.contextmanager
def kept_image(kube: Kube, role: Role) -> Generator[str]:
    """Return the image that runs, and see that it runs at the end, whatever happened."""
    where = WORKLOADS[role]
    image = kube.image_of(*where, SYSTEM)
    try:
        yield image
    finally:
        if kube.image_of(*where, SYSTEM) != image:
            set_image(kube, *where, image)


def older(images: Mapping[Role, str], role: Role) -> str:
    """Return the image to go back to."""
    if role not in images:
        could_not_run("prerequisite", f"the {role} is not ours, so give an older one: --{role}-image-old ARCHIVE")
    return images[role]


def roll_agent(journey: Journey, name: str, image: str) -> Step:
    """Roll the agent, and keep what the old ones logged to their end."""
    followed = [(node_of(pod), LogReader(pod, timestamps=True)) for pod in agent_pods(journey.kube)]
    with journey.change(name) as steps:
        set_image(journey.kube, *WORKLOADS["agent"], image)
        left = {log.pod.name for _, log in followed} & {pod.name for pod in agent_pods(journey.kube)}
        assert not left, f"agents that were not replaced: {left}"
    for node, log in followed:
        log.close()
        journey.keep_logs(node, log.lines())
    return steps[0]


@pytest.fixture(scope="module")
def agent_rolled(journey: Journey, kube: Kube, images: Mapping[Role, str]) -> Iterator[list[Step]]:
    """The agent, back to the older version and forward again."""
    old = older(images, "agent")
    with kept_image(kube, "agent") as new:
        yield [roll_agent(journey, "agent, new to old", old), roll_agent(journey, "agent, old to new", new)]


@contextlib.contextmanager
def two_replicas(kube: Kube) -> Generator[None]:
    """The webhook with two replicas, as its manifests have it; a lab makes do with one."""
    before = kube.read("apps/v1", "Deployment", WEBHOOK, SYSTEM)["spec"]["replicas"]
    scale(kube, max(2, before))
    try:
        yield
    finally:
        scale(kube, before)


def scale(kube: Kube, replicas: int) -> None:
    kube.apps.patch_namespaced_deployment_scale(WEBHOOK, SYSTEM, {"spec": {"replicas": replicas}})
    kube.wait_until_deployed("Deployment", WEBHOOK, SYSTEM)


@dataclass(slots=True)
class Made:
    """Pods that were created all the time."""

    names: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])


@contextlib.contextmanager
def creating_pods(kube: Kube) -> Generator[Made]:
    """Create a pod every tenth of a second, until the end of the body."""
    made, ended = Made(), threading.Event()

    def create() -> None:
        while not ended.wait(CREATE_EVERY):
            name = f"made-{len(made.names) + len(made.refused)}"
            try:
                kube.run(
                    name,
                    NAMESPACE,
                    image="amazon/aws-cli:latest",
                    service_account="reader",
                    command=["sleep", "3600"],
                    overrides=NOWHERE,
                )
                made.names.append(name)
            except ApiException as error:
                made.refused.append(f"{name}: {error.body}")

    thread = threading.Thread(target=create, name="creating pods")
    thread.start()
    try:
        yield made
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def webhook_rolled(
    journey: Journey, kube: Kube, images: Mapping[Role, str], agent_rolled: list[Step]
) -> Iterator[tuple[Step, Made]]:
    """The webhook, back to the older version and forward again, while pods are created."""
    assert agent_rolled
    old, where = older(images, "webhook"), WORKLOADS["webhook"]
    with two_replicas(kube), kept_image(kube, "webhook") as new:
        with journey.change("webhook, new to old to new") as steps, creating_pods(kube) as made:
            set_image(kube, *where, old)
            set_image(kube, *where, new)
        yield steps[0], made


# --- Nodes and control plane ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drained(journey: Journey, kube: Kube, cluster: Cluster, webhook_rolled: tuple[Step, Made]) -> Iterator[Step]:
    """``kubectl drain`` of a node, and ``kubectl uncordon``."""
    assert webhook_rolled
    node = node_to_drain(kube, cluster)
    with journey.change(f"node {node} drained") as steps:
        try:
            cordon(kube, node, unschedulable=True)
            for pod in evictable(kube, node):
                evict(kube, pod)
            kube.wait_until_deployed("Deployment", "app", NAMESPACE)
            kube.wait_until_deployed("Deployment", WEBHOOK, SYSTEM)
        finally:
            cordon(kube, node, unschedulable=False)
    yield steps[0]


def cordon(kube: Kube, node: str, *, unschedulable: bool) -> None:
    kube.core.patch_node(node, {"spec": {"unschedulable": unschedulable}})


def node_to_drain(kube: Kube, cluster: Cluster) -> str:
    """Return a node without cluster DNS: that has one replica in a lab, and is not what is looked at."""
    if len(cluster.nodes) < 2:
        could_not_run("prerequisite", "draining takes a second node: podid down, then podid up --nodes 2")
    dns = {node_of(pod) for pod in kube.pods(SYSTEM, "k8s-app=kube-dns")}
    nodes = [node.name for node in cluster.nodes]
    return next((name for name in reversed(nodes) if name not in dns), nodes[-1])


def evictable(kube: Kube, node: str) -> list[Pod]:
    """Return the pods that ``kubectl drain --ignore-daemonsets`` evicts."""
    found: list[Any] = kube.core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items
    stays = {"DaemonSet", "Node"}
    return [
        kube.pod(pod.metadata.name, pod.metadata.namespace)
        for pod in found
        if pod.status.phase in {"Pending", "Running"}
        and not stays & {owner.kind for owner in pod.metadata.owner_references or ()}
    ]


def evict(kube: Kube, pod: Pod) -> None:
    """Evict a pod once its disruption budget allows it, and wait until it is gone."""
    body: Manifest = {"metadata": {"name": pod.name, "namespace": pod.namespace}}

    def is_evicted() -> bool:
        try:
            kube.core.create_namespaced_pod_eviction(pod.name, pod.namespace, body)
        except ApiException as error:
            if error.status in {404, 429}:
                return error.status == 404
            raise
        return False

    wait.until(is_evicted, what=f"pod {pod.namespace}/{pod.name} to be evicted", timeout=limits.ROLLOUT)


@pytest.fixture(scope="module")
def restarted(journey: Journey, lab: Lab, cluster: Cluster, drained: Step) -> Step:
    """The API server's process, killed and started again."""
    assert drained
    with journey.change("API server restarted") as steps:
        lab.restart_api_server(cluster)
    return steps[0]


# --- What the clients saw -------------------------------------------------------------------------------------------


@requirement("UPG-101", "UPG-102", "UPG-103")
def test_rolling_the_agent_is_not_noticed(journey: Journey, agent_rolled: list[Step], ceilings: Ceilings) -> None:
    """To another version and back: no read fails that had credentials or could get some, and the gap is short."""
    traffic = journey.tell(agent_rolled)
    attach(Evidence("object", "what each pair of versions used over ten seconds of traffic", journey.uses))

    ceilings.hold("UPG-101", sum(len(traffic.failed(step, "cached")) for step in agent_rolled))
    ceilings.hold("UPG-102", sum(len(traffic.outside_the_gap(step)) for step in agent_rolled))
    # A start is processes in a row: on a machine that does other things as well, each takes longer.
    ceilings.hold("UPG-103", max(traffic.idle_silent_ms(step) for step in agent_rolled))


@requirement("UPG-201")
def test_rolling_the_webhook_misses_no_pod(
    journey: Journey, kube: Kube, webhook_rolled: tuple[Step, Made], ceilings: Ceilings
) -> None:
    """Of pods that are created every tenth of a second, each has its variables, and none is refused."""
    step, made = webhook_rolled
    journey.tell([step])
    created = {name: kube.pod(name, NAMESPACE).environment() for name in made.names}
    bare = [name for name, variables in created.items() if "AWS_CONTAINER_CREDENTIALS_FULL_URI" not in variables]
    attach(Evidence("object", f"{len(created)} pods created meanwhile", {"without variables": bare}))

    ceilings.hold("UPG-201", len(bare))
    check("UPG-201", what="refused", expected=[], observed=made.refused)


@requirement("UPG-301")
def test_draining_a_node_is_not_noticed(journey: Journey, drained: Step, ceilings: Ceilings) -> None:
    """Cordoned, evicted, uncordoned: clients read on, and what was evicted has read elsewhere, or it were not ready."""
    traffic = journey.tell([drained])

    ceilings.hold("UPG-301", sum(len(traffic.failed(drained, kind)) for kind in READERS))


@requirement("UPG-401")
def test_restarting_the_api_server_is_not_noticed(journey: Journey, restarted: Step, ceilings: Ceilings) -> None:
    """Neither kind of client fails while there is no API server, nor when it is back."""
    traffic = journey.tell([restarted])

    ceilings.hold("UPG-401", sum(len(traffic.failed(restarted, kind)) for kind in READERS))
