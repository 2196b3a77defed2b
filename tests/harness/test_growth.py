"""A cluster that fails to grow is as it was: a node that AWS does not know would never get credentials."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cluster.base import Node
from harness.lab import Lab
from harness.lab import lab as lab_module
from harness.progress import Progress


class GrowingCluster:
    """A cluster of one node, and the provider that gives it more."""

    spec = SimpleNamespace(name="one")
    kubeconfig = Path("/nowhere")
    aws_endpoint = "https://aws.test"

    def __init__(self) -> None:
        self.nodes = [_node(0)]
        self.forgotten: list[str] = []

    def add_nodes(self, _cluster: Any, nodes: int) -> None:
        self.nodes += [_node(number) for number in range(len(self.nodes), nodes)]

    def take_back_nodes(self, _cluster: Any, kept: int) -> None:
        del self.nodes[kept:]


def _node(number: int) -> Node:
    return Node(f"node-{number}", f"10.0.0.{number}", f"i-{number}")


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> GrowingCluster:
    made = GrowingCluster()
    kube = SimpleNamespace(
        forget_nodes=made.forgotten.extend, wait_until_nodes_are_ready=lambda _: None, close=lambda: None
    )
    monkeypatch.setattr(lab_module, "Kube", lambda _: kube)
    monkeypatch.setattr(Lab, "_provider", made)
    return made


@pytest.mark.parametrize("error", [OSError("AWS does not answer"), KeyboardInterrupt()])
def test_failed_growth_leaves_no_node(
    growing: GrowingCluster, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    lab = Lab("growing")
    monkeypatch.setattr(lab, "aws", SimpleNamespace(register_nodes=fail))

    with pytest.raises(type(error)):
        lab._add_nodes(growing, 3, Progress())  # pyright: ignore[reportArgumentType, reportPrivateUsage]

    assert growing.nodes == [_node(0)]
    assert growing.forgotten == ["node-1", "node-2"]
