"""The path of a credential as a picture: who takes part, in which order, and how the run found them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from harness.conformance.reports._view import Row

__all__ = ["Flow", "Node", "Step", "flow_of"]

_WORST_FIRST = ("failed", "error", "could-not-run", "expected-failure", "flaky", "passed")


@dataclass(frozen=True, slots=True)
class Node:
    """Someone on the path; ``area`` is empty for those whom no requirement binds."""

    x: int
    y: int
    title: str
    subtitle: str
    area: str = ""
    state: str = ""
    summary: str = ""
    width: int = 150
    height: int = 68


@dataclass(frozen=True, slots=True)
class Step:
    """An arrow with its number and what travels along it."""

    number: int
    path: str
    at: tuple[int, int]
    text: str


@dataclass(frozen=True, slots=True)
class Flow:
    """The picture."""

    nodes: list[Node]
    steps: list[Step]


_NODES = (
    Node(40, 66, "kube-apiserver", "admits the pod", height=54),
    Node(40, 226, "Webhook", "5 variables, 1 volume", "WHK"),
    Node(270, 66, "kubelet", "writes the token", height=54),
    Node(270, 226, "Pod · SDK", "default provider chain", height=68),
    Node(500, 226, "Agent", "169.254.170.23", "AGT"),
    Node(770, 66, "EKS Auth · STS", "assumes the role, 6 tags", "API", width=180),
    Node(770, 152, "IAM gate", "may this session?", "IAM", width=180),
    Node(770, 254, "Amazon S3, …", "answers", width=180, height=54),
)
_STEPS = (
    ("M115 120 V226", (115, 172), "The API server asks the webhook; the pod gets its variables and token volume."),
    ("M190 93 H270", (230, 93), "The pod is bound to a node; its kubelet asks for a token for pods.eks.amazonaws.com."),
    ("M345 120 V226", (345, 172), "The token appears in the pod, as a file."),
    ("M420 260 H500", (460, 260), "The SDK sends the token to the agent: GET /v1/credentials."),
    ("M575 226 V93 H770", (711, 93), "The agent calls AssumeRoleForPodIdentity, signed with the node's role."),
    ("M345 294 V318 H711 V186 H770", (711, 252), "The SDK calls AWS with the session's keys; all is checked."),
    (
        "M860 220 V254",
        (860, 235),
        "What the gate lets through, the service answers; CloudTrail says whose session it is.",
    ),
)


def flow_of(rows: Iterable[Row]) -> Flow:
    """Return the picture with what the run found in each area."""
    by_area: dict[str, list[Row]] = {}
    for row in rows:
        by_area.setdefault(row.area, []).append(row)
    return Flow(
        [_seen(node, by_area.get(node.area, [])) for node in _NODES],
        [Step(number, *step) for number, step in enumerate(_STEPS, 1)],
    )


def _seen(node: Node, rows: list[Row]) -> Node:
    counts = Counter(row.state for row in rows)
    state = next((state for state in _WORST_FIRST if counts[state]), "provisional" if rows else "")
    decided = sum(counts[state] for state in _WORST_FIRST)
    summary = f"{counts['passed'] + counts['flaky']} of {decided} held" if decided else "not observed"
    return replace(node, state=state, summary=summary) if node.area else node
