"""Where NetworkPolicy cannot be enforced, the test could not run, and nothing of the attempt is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import binaries, network_policy
from harness.cluster.base import Completed
from harness.conformance.outcomes import NotExecuted
from harness.progress import Progress


class Place:
    """A cluster of one node, what is applied to it, and what is run on its node."""

    def __init__(self, *networks: str, tenancy: object = None, refused: str = "") -> None:
        self.applied: list[str] = []
        self.ever_applied = False
        self.commands: list[str] = []
        self.tenancy = tenancy
        self.nodes = [SimpleNamespace(name="node-1")]
        self.spec = SimpleNamespace(name="lab")
        self.name = "lab"
        daemon_sets = [SimpleNamespace(metadata=SimpleNamespace(name=name)) for name in networks]
        self.apps = SimpleNamespace(list_namespaced_daemon_set=lambda _: SimpleNamespace(items=daemon_sets))
        self._refused = refused

    def apply(self, manifests: Sequence[dict[str, Any]]) -> None:
        self.ever_applied = True
        self.applied += [manifest["kind"] for manifest in manifests]

    def delete(self, manifest: dict[str, Any]) -> None:
        if manifest["kind"] in self.applied:
            self.applied.remove(manifest["kind"])

    def wait_until_deployed(self, *_: object) -> None: ...

    def wait_until_no_pod(self, *_: object) -> None: ...

    def add_images(self, *_: object) -> None: ...

    def run_on_node(self, _: str, command: Sequence[str]) -> Completed:
        self.commands.append(" ".join(command[:5]))
        return Completed(int(self._refused in command), "98 4711 0 2 128", "no chain/target/match by that name")


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The engine's program, without building it."""

    def ensure(*_: object) -> dict[str, Path]:
        return {"kube-network-policies": tmp_path}

    monkeypatch.setattr(binaries, "ensure", ensure)


def enforce(place: Any) -> list[str]:
    """Have it enforced, and return what was applied meanwhile."""
    with Progress() as progress, network_policy.enforced(place, place, place, progress):
        return list(place.applied)


def test_where_the_network_enforces_nothing_is_installed() -> None:
    place = Place("kindnet")

    assert (enforce(place), place.commands) == ([], [])


def test_nothing_is_installed_on_somebody_elses_cluster() -> None:
    place = Place("aws-node", tenancy=object())

    with pytest.raises(NotExecuted, match="no network plugin"):
        enforce(place)
    assert (place.applied, place.commands) == ([], [])


def test_engine_and_rules_are_gone_at_the_end() -> None:
    place = Place()

    assert "DaemonSet" in enforce(place)
    assert place.applied == []
    assert place.commands == [
        "iptables --wait --table=mangle --append INPUT",
        "iptables --wait --table=mangle --append FORWARD",
        "cat /proc/net/netfilter/nfnetlink_queue",
        "iptables --wait --table=mangle --delete INPUT",
        "iptables --wait --table=mangle --delete FORWARD",
        "nft delete table inet kube-network-policies",
    ]


def test_node_that_hands_no_packet_over_is_left_as_it_was() -> None:
    place = Place(refused="FORWARD")

    with pytest.raises(NotExecuted, match=r"node-1 can hand no packet .*; install iptables"):
        enforce(place)
    assert (place.applied, place.ever_applied) == ([], False)
    assert "iptables --wait --table=mangle --delete INPUT" in place.commands
