"""A restart of the API server is over when what was killed runs again, and nothing of it counts as a loss."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.lab import api_servers as module
from harness.lab.api_servers import ApiServers
from harness.lab.losses import Losses

NODE_PROGRAMS = ("kubelet", "kube-proxy", "node-1/kubelet", "node-1/kube-proxy")
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", *NODE_PROGRAMS)
_LOOKS = 3
"""Looks at a killed program until it runs again."""


class ControlPlane:
    """Programs, each of which is away for some looks after it was killed, and then was started once more."""

    name = "one"
    kubeconfig = Path("/nowhere")
    node_programs = NODE_PROGRAMS

    def __init__(self) -> None:
        self.killed: list[str] = []
        self.starts = dict.fromkeys(PROGRAMS, 1)
        self.all_run_when_kubelets_are_asked = False
        self.waited_for: list[object] = []
        self._away: dict[str, int] = {}

    def kill_program(self, name: str) -> None:
        assert "kube-apiserver" not in self._away, "the next API server is not ready yet"
        self.killed.append(name)
        self._away[name] = _LOOKS

    def status(self) -> dict[str, dict[str, dict[str, Any]]]:
        for name in list(self._away):
            self._away[name] -= 1
            if not self._away[name]:
                del self._away[name]
                self.starts[name] += 1
        return {
            "one": {
                name: {"running": name not in self._away, "exits": [], "starts": count}
                for name, count in self.starts.items()
            }
        }

    def is_ready(self) -> bool:
        return self.status()["one"]["kube-apiserver"]["running"]

    def wait_until_kubelets_know_their_pods(self, ready: frozenset[str]) -> None:
        self.all_run_when_kubelets_are_asked = not self._away
        self.waited_for.append(ready)

    def wait_until_webhook_is_reached(self, *_: object) -> None:
        self.waited_for.append("webhook")


@pytest.fixture
def control_plane(monkeypatch: pytest.MonkeyPatch) -> ControlPlane:
    made = ControlPlane()
    kube = SimpleNamespace(
        is_ready=made.is_ready,
        ready_pods=lambda: frozenset({"uid"}),
        wait_until_kubelets_know_their_pods=made.wait_until_kubelets_know_their_pods,
        close=lambda: None,
    )
    monkeypatch.setattr(module, "Kube", lambda _: kube)
    monkeypatch.setattr(module.wiring, "wait_until_webhook_is_reached", made.wait_until_webhook_is_reached)
    return made


@pytest.fixture
def losses(control_plane: ControlPlane) -> Losses:
    losses = Losses(control_plane.status)
    losses.begin()
    return losses


@pytest.fixture
def api_servers(losses: Losses) -> ApiServers:
    return ApiServers(losses)


def test_one_restart_leaves_alone_what_follows_the_api_server(
    api_servers: ApiServers, losses: Losses, control_plane: ControlPlane
) -> None:
    api_servers.restart(control_plane)  # pyright: ignore[reportArgumentType] - as much of a cluster as is asked

    assert control_plane.killed == ["kube-apiserver"]
    assert losses.tell() is None


def test_what_outlived_a_restart_begins_anew_with_the_next(
    api_servers: ApiServers, losses: Losses, control_plane: ControlPlane
) -> None:
    """Whoever looks just after it finds nothing lost, although the supervisor takes a moment."""
    api_servers.restart(control_plane)  # pyright: ignore[reportArgumentType]
    api_servers.restart(control_plane)  # pyright: ignore[reportArgumentType]

    followers = ["kube-controller-manager", "kube-scheduler", *NODE_PROGRAMS]
    assert control_plane.killed == ["kube-apiserver", "kube-apiserver", *followers]
    assert control_plane.starts == {"etcd": 1, "kube-apiserver": 3, **dict.fromkeys(followers, 2)}
    assert losses.tell() is None
    assert control_plane.all_run_when_kubelets_are_asked
    assert control_plane.waited_for == [frozenset({"uid"}), "webhook"]


def test_restarts_that_are_far_apart_leave_it_alone(
    api_servers: ApiServers, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_servers.restart(control_plane)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(module, "_SHORT_PAUSES_AGAIN", 0.0)
    api_servers.restart(control_plane)  # pyright: ignore[reportArgumentType]

    assert control_plane.killed == ["kube-apiserver", "kube-apiserver"]


def test_what_ends_beside_them_is_still_a_loss(
    api_servers: ApiServers, losses: Losses, control_plane: ControlPlane
) -> None:
    api_servers.restart(control_plane)  # pyright: ignore[reportArgumentType]
    control_plane.starts["etcd"] += 1

    assert losses.tell() == "etcd of one ended while the lab was in use"
