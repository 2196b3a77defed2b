"""Pods are watched from their start: their last words outlive them, and an image that is not pinned is noticed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3.exceptions

from harness import limits, wait
from harness.conformance.diagnostics import Folder
from harness.conformance.redaction import Redactor
from harness.kube import ApiException
from harness.limits import Limit
from harness.pod_watch import PodWatch
from harness.tenancy import full_name


def pod(name: str, image: str, *, running: bool = True, version: str = "1") -> dict[str, Any]:
    state = {"running": {}} if running else {"waiting": {"reason": "ContainerCreating"}}
    return {
        "metadata": {"namespace": "demo", "name": name, "uid": f"uid-{name}-0123", "resourceVersion": version},
        "spec": {"containers": [{"name": "app", "image": image}]},
        "status": {"containerStatuses": [{"name": "app", "state": state}]},
    }


def started(made: dict[str, Any]) -> dict[str, Any]:
    """A pod that kubelet has not told anything of yet."""
    return made | {"status": {"phase": "Pending"}}


def static(made: dict[str, Any]) -> dict[str, Any]:
    """A pod as kubelet shows one of its own manifests."""
    return made | {"metadata": made["metadata"] | {"annotations": {"kubernetes.io/config.mirror": "0123"}}}


class ScriptedApi:
    """An API server with some pods, that then tells what happens; whatever a pod prints ends when it is deleted."""

    def __init__(self, *present: dict[str, Any]) -> None:
        self._present = present
        self._events: list[bytes] = []
        self._told = threading.Condition()
        self.is_closed = False
        self.outages = 0
        """How many more logs are cut off; after each it is not ready for a while, and forbids."""
        self.is_coming_back = False

    def tell(self, kind: str, thing: dict[str, Any]) -> None:
        with self._told:
            self._events.append(json.dumps({"type": kind, "object": thing}).encode() + b"\n")
            self._told.notify_all()

    def close(self) -> None:
        with self._told:
            self.is_closed = True
            self._told.notify_all()

    def list_pod_for_all_namespaces(self, *, watch: bool = False, **_: Any) -> Any:
        if not watch:
            listed = {"items": list(self._present), "metadata": {"resourceVersion": "1"}}
            return SimpleNamespace(data=json.dumps(listed).encode())
        return SimpleNamespace(stream=self._stream)

    def _stream(self) -> Iterator[bytes]:
        told = 0
        while True:
            with self._told:
                self._told.wait_for(lambda told=told: self.is_closed or len(self._events) > told, timeout=5)
                if self.is_closed:
                    return
                parts, told = self._events[told:], len(self._events)
            # As a socket gives it: not in whole lines.
            for part in parts:
                yield from (part[:10], part[10:])

    def is_ready(self) -> bool:
        was_coming_back, self.is_coming_back = self.is_coming_back, False
        return not was_coming_back

    def read_namespaced_pod_log(self, name: str, _namespace: str, **_: Any) -> Any:
        if self.is_coming_back:
            raise ApiException(status=403)
        if self.outages:
            self.outages -= 1
            self.is_coming_back = True
            return SimpleNamespace(stream=lambda: cut_off(f"first words of {name}\n".encode()))
        return SimpleNamespace(stream=lambda: iter([f"first words of {name}\n".encode(), b"last words\n"]))


def cut_off(part: bytes) -> Iterator[bytes]:
    yield part
    raise urllib3.exceptions.ProtocolError("Connection broken")


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    made = ScriptedApi(pod("old", "quay.io/brought/along:1"), started(pod("young", "quay.io/brought/as-well:1")))
    yield made
    made.close()


@pytest.fixture
def watch(api: ScriptedApi) -> Iterator[PodWatch]:
    made = PodWatch("lab", SimpleNamespace(core=api, is_ready=api.is_ready), ["docker.io/podid/given-agent:abc"])  # pyright: ignore[reportArgumentType]
    yield made
    made.close()


def collected(watch: PodWatch, path: Path, since: datetime) -> dict[str, str]:
    watch.collect(Folder(path, Redactor()), since)
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*.log")}


def test_a_deleted_pod_keeps_its_words_for_the_test_that_deleted_it(
    api: ScriptedApi, watch: PodWatch, tmp_path: Path
) -> None:
    began = datetime.now(UTC)
    api.tell("ADDED", pod("short", "amazon/aws-cli", running=False))
    api.tell("MODIFIED", pod("short", "amazon/aws-cli"))
    api.tell("DELETED", pod("short", "amazon/aws-cli"))

    logs = wait.until(
        lambda: collected(watch, tmp_path, began), what="the log of the deleted pod", timeout=limits.SUBJECT_ACTS
    )

    assert logs == {"lab/logs/demo/short.app.deleted-uid-shor.log": "first words of short\nlast words\n"}
    later = began + timedelta(minutes=1)
    assert collected(watch, tmp_path / "later", later) == {}
    assert watch.foreign_image() is None


def test_log_that_is_cut_off_is_read_again(api: ScriptedApi, watch: PodWatch, tmp_path: Path) -> None:
    """An API server that is restarted ends what is followed through it; its successor begins with the first line."""
    began = datetime.now(UTC)
    api.outages = 2
    api.tell("ADDED", pod("long", "amazon/aws-cli"))
    api.tell("DELETED", pod("long", "amazon/aws-cli"))

    wait.until(
        lambda: collected(watch, tmp_path, began),
        lambda logs: logs == {"lab/logs/demo/long.app.deleted-uid-long.log": "first words of long\nlast words\n"},
        what="the whole log, once",
        timeout=limits.SUBJECT_ACTS,
    )


def test_one_asks_for_all_whether_the_api_server_is_back(api: ScriptedApi) -> None:
    """Dozens of logs end with it, and their readers are not to be what it is busy with first."""
    asked: list[bool] = []
    cut: list[str] = []
    all_cut = threading.Barrier(8)

    def is_ready() -> bool:
        asked.append(bool(asked))
        return asked[-1]

    def read(name: str, _namespace: str, **_: Any) -> Any:
        if name in cut:
            return SimpleNamespace(stream=lambda: iter([b"all words\n"]))
        cut.append(name)
        all_cut.wait()
        return SimpleNamespace(stream=lambda: cut_off(b"first words\n"))

    core = SimpleNamespace(list_pod_for_all_namespaces=api.list_pod_for_all_namespaces, read_namespaced_pod_log=read)
    watch = PodWatch("lab", SimpleNamespace(core=core, is_ready=is_ready))  # pyright: ignore[reportArgumentType]
    for number in range(8):
        api.tell("ADDED", pod(f"many-{number}", "amazon/aws-cli"))
    wait.until(lambda: True in asked, what="the API server to be back", timeout=limits.SUBJECT_ACTS)

    wait.never(lambda: len(asked), lambda times: times > 2, what="a further question", during=Limit("a while", 1))
    watch.close()


@pytest.mark.parametrize(
    "image",
    [
        "nginx:1.27",
        "amazon/aws-cli:latest",
        "docker.io/podid/given-agent:abc",
        "quay.io/brought/along:1",
        "quay.io/brought/as-well:1",
    ],
)
def test_images_of_the_lock_and_of_the_lab_may_run(api: ScriptedApi, watch: PodWatch, image: str) -> None:
    api.tell("ADDED", pod("fine", image))
    api.tell("ADDED", pod("next", "busybox"))

    found = wait.until(watch.foreign_image, what="the image that may not run", timeout=limits.SUBJECT_ACTS)

    assert found == "pod demo/next runs docker.io/library/busybox:latest, which is not in images.lock"


def test_static_pods_are_the_node_images_own(api: ScriptedApi, watch: PodWatch) -> None:
    """A young cluster may show its API server, or start it again, when the watch has begun already."""
    api.tell("ADDED", static(pod("kube-apiserver", "registry.k8s.io/kube-apiserver:v1.34.4")))
    api.tell("ADDED", pod("kube-apiserver-2", "registry.k8s.io/kube-apiserver:v1.34.4"))

    found = wait.until(watch.foreign_image, what="the image that may not run", timeout=limits.SUBJECT_ACTS)

    assert found == "pod demo/kube-apiserver-2 runs registry.k8s.io/kube-apiserver:v1.34.4, which is not in images.lock"


def test_an_image_that_never_ran_is_none_that_a_run_uses(api: ScriptedApi, watch: PodWatch) -> None:
    api.tell("ADDED", pod("pending", "busybox", running=False))
    # What kubelet says of it when it is deleted.
    ended = {"terminated": {"reason": "ContainerStatusUnknown", "exitCode": 137}}
    deleted = pod("pending", "busybox") | {"status": {"containerStatuses": [{"name": "app", "state": ended}]}}
    api.tell("MODIFIED", deleted)
    api.tell("ADDED", pod("foreign", "example.org/other@sha256:" + "0" * 64))

    found = wait.until(watch.foreign_image, what="the image that may not run", timeout=limits.SUBJECT_ACTS)

    assert found == "pod demo/foreign runs example.org/other:latest, which is not in images.lock"


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("amazon/aws-cli:2", "docker.io/amazon/aws-cli:2"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("registry.k8s.io/pause:3.10.1@sha256:ab", "registry.k8s.io/pause:3.10.1"),
    ],
)
def test_references_are_compared_in_full(reference: str, full: str) -> None:
    assert full_name(reference) == full
