"""The door to the Kubernetes API, as far as it needs no cluster."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from harness import wait
from harness.kube import ApiException, Kube
from harness.limits import Limit


@pytest.fixture
def kube(tmp_path: Path) -> Kube:
    """A client of an API server that does not listen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
        "users": [{"name": "lab", "user": {}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return Kube(file)


def deployment(**status: int | None) -> Any:
    return SimpleNamespace(
        kind="Deployment",
        metadata=SimpleNamespace(generation=2),
        spec=SimpleNamespace(replicas=1),
        status=SimpleNamespace(observed_generation=2, **status),
    )


def test_api_server_that_does_not_listen_is_not_ready(kube: Kube) -> None:
    assert kube.is_ready() is False


def test_rollout_is_over_when_the_former_pods_are_gone(kube: Kube) -> None:
    """With maxSurge the pod that is available may be the former one."""
    states = iter(
        [
            deployment(replicas=1, updated_replicas=None, available_replicas=1),
            deployment(replicas=2, updated_replicas=1, available_replicas=1),
            deployment(replicas=1, updated_replicas=1, available_replicas=1),
        ]
    )
    kube.apps = SimpleNamespace(read_namespaced_deployment=lambda *_: next(states))

    kube.wait_until_deployed("Deployment", "app", "demo")

    assert list(states) == []


def test_rollout_that_stops_half_way_is_not_over(kube: Kube) -> None:
    half_way = deployment(replicas=2, updated_replicas=1, available_replicas=1)
    kube.apps = SimpleNamespace(read_namespaced_deployment=lambda *_: half_way)

    with pytest.raises(wait.Timeout, match="Deployment demo/app to be rolled out"):
        kube.wait_until_deployed("Deployment", "app", "demo", timeout=Limit("SHORT", 0.2))


def test_connection_that_is_reset_before_tls_is_no_leak_of_ours() -> None:
    """The ssl module keeps the socket for itself; its warning would fail whatever test comes to collect it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        wait.until(lambda: not has_peer(client), what="the reset to arrive", timeout=Limit("a reset", 5))
        with pytest.raises(OSError, match="reset"):
            ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
    gc.collect()


def has_peer(client: socket.socket) -> bool:
    try:
        client.getpeername()
    except OSError:
        return False
    return True


def test_namespaces_whose_use_has_ended_can_be_waited_for(kube: Kube) -> None:
    """Until a namespace is gone its pods run on."""
    there = {"used": 3, "in-use": 3}
    readings: list[str] = []

    def read(name: str) -> None:
        readings.append(name)
        there[name] -= 1
        if not there[name]:
            raise ApiException(status=404)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kube, "wait_until_usable", lambda _: None)
        patch.setattr(kube, "_delete_namespace", lambda _: False)
        patch.setattr(kube, "core", SimpleNamespace(create_namespace=lambda _: None, read_namespace=read))
        with kube.namespace("in-use"):
            with kube.namespace("used"):
                pass
            kube.wait_until_left_namespaces_are_gone()
            kube.wait_until_left_namespaces_are_gone()

    assert readings == ["used"] * 3
