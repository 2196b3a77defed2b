"""Watches every pod of a cluster from its start: what it prints, and which images it runs.

Whatever a test deletes, its last words are here when the test fails (HRN-DIAG-06), and an image that nobody pinned is
noticed although its pod is long gone (HRN-IMG-01).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import urllib3.exceptions

from harness.cloud.documents import members
from harness.conformance.diagnostics import Folder
from harness.image_lock import read_lock
from harness.kube import ApiException, Kube, Manifest
from harness.kube_client import UNTIL_CLOSED
from harness.tenancy import full_name

__all__ = ["PodWatch"]

_HEAD_BYTES, _TAIL_BYTES = 64 << 10, 256 << 10
_MOST_FOLLOWED = 64
"""Logs that are followed at a time: each holds a connection."""
_MOST_KEPT = 200
"""Pods of which something is kept."""
_WATCH_SECONDS = 300
_ENDED = (OSError, urllib3.exceptions.HTTPError, ApiException, ValueError)


class _Log:
    """The beginning and the end of what one container prints."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""

    def add(self, part: bytes) -> None:
        room = _HEAD_BYTES - len(self._head)
        self._head += part[:room]
        self._tail = (self._tail + part[room:])[-_TAIL_BYTES:] if len(part) > room else self._tail

    def text(self) -> str:
        return (self._head + self._tail).decode(errors="replace")


class PodWatch:
    """Follows the pods of one cluster in threads of its own, until it is closed."""

    def __init__(self, name: str, kube: Kube, given: Collection[str] = (), selector: str = "") -> None:
        """Begin to watch.

        Args:
            name: The cluster's.
            kube: An administrator of it.
            given: Images besides those of ``images.lock`` that the lab knows by digest.
            selector: Labels of the pods that may be looked at; all of them, unless the cluster is somebody else's.
        """
        self.name = f"{name}: pods that are gone"
        self._cluster = name
        self._selector = {"label_selector": selector} if selector else {}
        self._core: Any = kube.core
        # Until it is ready, an API server that came back knows nobody's rights, and forbids.
        self._is_ready = kube.is_ready
        self._ready_at = 0.0
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        self._logs: dict[tuple[str, str, str], _Log] = {}
        """(Namespace and name, UID, container) → what it printed."""
        self._gone: dict[str, datetime] = {}
        """UID → when it was deleted."""
        self._followed = threading.Semaphore(_MOST_FOLLOWED)
        self._foreign: str | None = None
        self._closed = False
        listed = self._list()
        # What runs already came with the lab: images that a node brings along are pinned with the node's.
        own = {full_name(one["image"]) for pod in listed["items"] for one in _containers(pod)}
        self._known = own | {full_name(image) for image in (*given, *(one.reference for one in read_lock().values()))}
        for pod in listed["items"]:
            self._see(pod)
        self._start(self._watch, listed["metadata"]["resourceVersion"])

    def close(self) -> None:
        """Stop; threads that wait for a pod's next word end with it."""
        self._closed = True

    def foreign_image(self) -> str | None:
        """Return which pod ran an image that is not pinned, None while there is none."""
        return self._foreign

    def collect(self, folder: Folder, since: datetime) -> None:
        """Write what pods had printed that were deleted since a test began."""
        with self._lock:
            logs = [(*key, log.text()) for key, log in self._logs.items() if self._gone.get(key[1], since) > since]
        for pod, uid, container, text in logs:
            folder.text(f"{self._cluster}/logs/{pod}.{container}.deleted-{uid[:8]}.log", text)

    def _list(self) -> Manifest:
        return json.loads(
            self._core.list_pod_for_all_namespaces(**self._selector, _preload_content=False, _request_timeout=10).data
        )

    def _start(self, work: Any, *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, name=f"watch of {self._cluster}", daemon=True).start()

    def _watch(self, version: str) -> None:
        while not self._closed:
            with contextlib.suppress(*_ENDED):
                response = self._core.list_pod_for_all_namespaces(
                    **self._selector,
                    watch=True,
                    resource_version=version,
                    timeout_seconds=_WATCH_SECONDS,
                    _preload_content=False,
                    _request_timeout=(5, _WATCH_SECONDS + 10),
                )
                for event in _events(response):
                    if self._closed:
                        return
                    self._note(event["type"], event["object"])
                    version = event["object"]["metadata"]["resourceVersion"]
                continue
            if self._closed:
                return
            # The version may have become too old, or the API server is away: begin with what there is.
            threading.Event().wait(0.5)
            with contextlib.suppress(*_ENDED):
                listed = self._list()
                version = listed["metadata"]["resourceVersion"]
                for pod in listed["items"]:
                    self._see(pod)

    def _note(self, kind: str, pod: Manifest) -> None:
        if kind in {"ADDED", "MODIFIED"}:
            self._see(pod)
        elif kind == "DELETED":
            self._see(pod)
            with self._lock:
                self._gone[pod["metadata"]["uid"]] = datetime.now(UTC)
                for uid in list(self._gone)[:-_MOST_KEPT]:
                    del self._gone[uid]
                    self._logs = {key: log for key, log in self._logs.items() if key[1] != uid}

    def _see(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        place = f"{metadata['namespace']}/{metadata['name']}"
        for status in _statuses(pod):
            # Of a pod that is deleted kubelet says that its containers terminated, those too that never were there.
            state = members(status.get("state"))
            if "running" not in state and not members(state.get("terminated")).get("containerID"):
                continue
            image = full_name(_image_of(pod, status["name"]))
            if image not in self._known and not _is_static(pod) and self._foreign is None:
                self._foreign = f"pod {place} runs {image}, which is not in images.lock"
            key = (place, metadata["uid"], status["name"])
            with self._lock:
                is_new = key not in self._logs
                self._logs.setdefault(key, _Log())
            if is_new:
                self._start(self._follow, metadata["namespace"], metadata["name"], key)

    def _follow(self, namespace: str, name: str, key: tuple[str, str, str]) -> None:
        if not self._followed.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(ApiException, ValueError):
                while not (self._closed or self._read(namespace, name, key)):
                    self._wait_until_ready()
        finally:
            self._followed.release()

    def _wait_until_ready(self) -> None:
        """Wait for the API server, one thread for all: each asking would be what it is busy with when it comes back."""
        lost_at = time.monotonic()
        with self._asking:
            while not self._closed and self._ready_at < lost_at:
                threading.Event().wait(0.5)
                if self._is_ready():
                    self._ready_at = time.monotonic()

    def _read(self, namespace: str, name: str, key: tuple[str, str, str]) -> bool:
        """Read a log from its first line to its last; False when the API server went away in between."""
        log = _Log()
        with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
            response = self._core.read_namespaced_pod_log(
                name,
                namespace,
                container=key[2],
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=UNTIL_CLOSED,
            )
            for part in response.stream():
                log.add(part)
                with self._lock:
                    self._logs[key] = log
                if self._closed:
                    break
            return True
        return False


def _events(response: Any) -> Any:
    rest = b""
    for part in response.stream():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise ValueError(event["object"].get("message", "the watch ended"))
            yield event


def _statuses(pod: Manifest) -> list[Manifest]:
    status = pod.get("status", {})
    return status.get("initContainerStatuses", []) + status.get("containerStatuses", [])


def _containers(pod: Manifest) -> list[Manifest]:
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def _image_of(pod: Manifest, container: str) -> str:
    return next(one["image"] for one in _containers(pod) if one["name"] == container)


def _is_static(pod: Manifest) -> bool:
    """Tell whether a pod comes from a manifest on its node: its image is pinned with the node's."""
    return "kubernetes.io/config.mirror" in pod["metadata"].get("annotations", {})
