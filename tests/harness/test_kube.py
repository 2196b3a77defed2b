"""The door to the Kubernetes API, as far as it needs no cluster."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import struct
import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3.exceptions
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from harness import limits, wait
from harness.cluster.base import Completed
from harness.errors import HarnessFault
from harness.kube import ApiException, Kube, Pod
from harness.kube_client import UNTIL_CLOSED
from harness.limits import Limit


@pytest.fixture
def kube(tmp_path: Path) -> Kube:
    """A client of an API server that does not listen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return client_of(f"https://127.0.0.1:{port}", tmp_path)


def client_of(server: str, directory: Path) -> Kube:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": server}}],
        "users": [{"name": "lab", "user": {}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    }
    file = directory / "kubeconfig"
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


# --- A server that does not answer ----------------------------------------------------------------------------------


def test_a_server_that_froze_holds_no_call_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a program that is stopped the kernel takes the connections, and nobody answers."""
    monkeypatch.setattr(limits, "API_CALL", Limit("API_CALL", 0.2))
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        kube = client_of(f"http://127.0.0.1:{frozen.getsockname()[1]}", tmp_path)
        with pytest.raises(urllib3.exceptions.HTTPError, match="Read timed out"):
            kube.core.create_namespace({"metadata": {"name": "demo"}})
        kube.close()


# --- exec -----------------------------------------------------------------------------------------------------------


STDOUT, STDERR, STATUS = 1, 2, 3
FAILED = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"message": "255"}]}}


@contextlib.contextmanager
def server_of_commands(
    frames: list[tuple[int, str]], asked: list[web.Request], opening: threading.Barrier | None = None
) -> Generator[str]:
    """Yield the URL of an API server that answers every exec with the frames, then closes.

    Args:
        frames: Channel and text of each.
        asked: Gets the requests.
        opening: Awaited twice while the stream is being opened.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        if "Upgrade" not in request.headers:
            return web.json_response({})
        if opening:
            await asyncio.to_thread(opening.wait)
            await asyncio.to_thread(opening.wait)
        stream = web.WebSocketResponse(protocols=request.headers["Sec-WebSocket-Protocol"].split(","))
        await stream.prepare(request)
        for channel, text in frames:
            await stream.send_bytes(bytes([channel]) + text.encode())
        await stream.close()
        return stream

    async def serve() -> None:
        async with TestServer(server) as started:
            url.set_result(f"http://127.0.0.1:{started.port}")
            await asyncio.to_thread(over.wait)

    server, url, over = web.Application(), Future[str](), threading.Event()
    server.router.add_route("*", "/{path:.*}", answer)
    with ThreadPoolExecutor(1) as threads:
        served = threads.submit(asyncio.run, serve())
        try:
            yield url.result(timeout=10)
        finally:
            over.set()
            served.result()


def test_command_is_asked_for_with_the_protocol_whose_lost_status_is_no_success(tmp_path: Path) -> None:
    """With v5 the API server itself says Success where the status of a command got lost on the way to it."""
    asked: list[web.Request] = []
    frames = [(STDOUT, "out"), (STDERR, "bad"), (STATUS, json.dumps(FAILED))]
    with server_of_commands(frames, asked) as url:
        done = Pod(client_of(url, tmp_path), "s3-test", "demo").exec("aws", "sts", "get-caller-identity")
    assert done == Completed(255, "out", "bad")
    assert asked[0].headers["Sec-WebSocket-Protocol"] == "v4.channel.k8s.io"


def test_command_without_exit_code_is_no_success(tmp_path: Path) -> None:
    with server_of_commands([(STDERR, "bad")], []) as url:
        pod = Pod(client_of(url, tmp_path), "s3-test", "demo")
        with pytest.raises(HarnessFault, match=r"pod s3-test ended before the exit code of aws came"):
            pod.exec("aws", "s3", "ls")


def test_other_threads_call_the_api_while_a_stream_opens(tmp_path: Path) -> None:
    """The library replaces how a client sends; a log that was followed meanwhile was asked for as a WebSocket."""
    asked: list[web.Request] = []
    opening = threading.Barrier(2, timeout=10)
    with server_of_commands([(STATUS, json.dumps({"status": "Success"}))], asked, opening) as url:
        kube = client_of(url, tmp_path)
        command = threading.Thread(target=Pod(kube, "s3-test", "demo").exec, args=("true",))
        command.start()
        opening.wait()
        log = kube.core.read_namespaced_pod_log
        log("s3-test", "demo", follow=True, _preload_content=False, _request_timeout=UNTIL_CLOSED).read()
        opening.wait()
        command.join()
        kube.close()
    assert ["Upgrade" in request.headers for request in asked] == [True, False]


# --- Kubelets that began anew ---------------------------------------------------------------------------------------


def test_a_kubelet_that_began_is_waited_for_until_it_found_ready_what_was_ready(
    kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first it knows no pod; then the API server still says of a pod what the former kubelet said."""
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    spec = {"nodeName": "node", "containers": [{"name": "c", "readinessProbe": {}}]}
    pods = [{"metadata": {"namespace": "ns", "name": name, "uid": name}, "spec": spec} for name in ("was", "never")]
    pods[0]["status"], pods[1]["status"] = status, {}
    probed = (
        '# TYPE prober_probe_total counter\nprober_probe_total{container="c",namespace="ns",pod="was",pod_uid="was",'
        'probe_type="Readiness",result="successful"} 1\n'
    )
    by_kubelet = iter(
        [('{"items": null}', ""), (json.dumps({"items": pods}), ""), (json.dumps({"items": pods}), probed)]
    )
    asked: list[str] = []

    def raw(path: str) -> str:
        asked.append(path)
        if path.endswith("/proxy/pods"):
            known, metrics[0] = next(by_kubelet)
            return known
        return metrics[0]

    metrics = [""]
    monkeypatch.setattr(kube, "items", lambda *_, **__: pods)
    monkeypatch.setattr(kube, "raw", raw)

    kube.wait_until_kubelets_know_their_pods(kube.ready_pods())

    assert asked == ["/api/v1/nodes/node/proxy/pods", "/api/v1/nodes/node/proxy/metrics/probes"] * 3
