"""What the lab waits for before it calls a cluster ready."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import wait
from harness.cluster.base import Completed
from harness.lab import wiring


class OnNode:
    """A cluster whose first node answers with these exit codes, the last of them for ever."""

    name = "lab"
    nodes = (SimpleNamespace(name="first"), SimpleNamespace(name="second"))

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.asked: list[tuple[str, str]] = []

    def run_on_node(self, node: str, command: list[str]) -> Completed:
        self.asked.append((node, command[-1]))
        return Completed(self.codes.pop(0) if len(self.codes) > 1 else self.codes[0], "", "")


KUBE = SimpleNamespace(read=lambda *_: {"spec": {"clusterIP": "10.100.7.7"}})


def test_a_webhook_is_reached_once_the_first_node_connects_to_its_service() -> None:
    """On a real node, the first connection after the Deployment was Available got no answer."""
    cluster = OnNode(124, 1, 0)

    wiring.wait_until_webhook_is_reached(cast("Any", cluster), cast("Any", KUBE))

    assert cluster.asked == [("first", "10.100.7.7")] * 3


def test_a_webhook_that_is_not_reached_ends_the_wait_with_what_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODID_TIMEOUT_SCALE", "0.01")

    with pytest.raises(wait.Timeout, match="the webhook's Service to lead to it on first"):
        wiring.wait_until_webhook_is_reached(cast("Any", OnNode(1)), cast("Any", KUBE))
