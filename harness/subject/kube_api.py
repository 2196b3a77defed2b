"""A controllable Kubernetes API server: what a webhook lists, watches and gets, and 404 for everything else."""

from __future__ import annotations

import itertools
import json
import queue
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["KubeApi", "Request", "serve_kube_api"]

Object = dict[str, Any]
_KINDS = {"serviceaccounts": "ServiceAccount", "configmaps": "ConfigMap"}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the server received."""

    path: str
    """Without its query."""
    query: dict[str, str]
    at: float
    """Monotonic seconds."""


@dataclass(slots=True)
class _Watch:
    kind: str
    namespace: str
    """Empty for all."""
    name: str
    """The only object that is watched; empty for all."""
    events: queue.Queue[Object | None] = field(default_factory=queue.Queue[Object | None])


class KubeApi:
    """ServiceAccounts and ConfigMaps; every change goes to the watches that are open."""

    def __init__(self) -> None:
        """Begin empty."""
        self.url = ""
        self.requests: list[Request] = []
        self.forbidden: set[str] = set()
        """Collections that may be neither listed nor watched."""
        self.unavailable = False
        """Whether every request is answered with 503."""
        self.page_size = 2
        """Objects in a page of a list at most: so few that every list of three is read in pages."""
        self.hidden_from_watches: set[str] = set()
        """Names whose events are held back: an object that exists and that no watch has told of yet."""
        self.slow_reads: dict[str, float] = {}
        """Name → seconds that a read of it takes."""
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._watches: list[_Watch] = []
        self._pages: dict[str, tuple[str, list[Object]]] = {}
        """What is left of the lists that were begun, by their token."""
        self._tokens = itertools.count()
        self._version = 100
        self._oldest = 0
        self._changed = threading.Condition()

    # --- For those who control it -----------------------------------------------------------------------------------

    def put_service_account(self, namespace: str, name: str, annotations: dict[str, str] | None = None) -> None:
        """Create or replace a ServiceAccount."""
        metadata = {"annotations": annotations} if annotations else {}
        self._put("serviceaccounts", namespace, name, {"metadata": metadata})

    def put_config_map(self, namespace: str, name: str, data: dict[str, str]) -> None:
        """Create or replace a ConfigMap."""
        self._put("configmaps", namespace, name, {"metadata": {}, "data": data})

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object of a collection, ``serviceaccounts`` or ``configmaps``."""
        with self._changed:
            key = (kind, namespace, name)
            self._version += 1
            item = self._objects.pop(key)
            item["metadata"]["resourceVersion"] = str(self._version)
            self._tell(key, "DELETED", item)

    def end_watches(self) -> None:
        """End the watches that are open, as a server does from time to time."""
        with self._changed:
            for watch in self._watches:
                watch.events.put(None)

    def forget_history(self) -> None:
        """Make every version so far too old to watch from, and end the watches."""
        with self._changed:
            self._version += 1
            self._oldest = self._version
        self.end_watches()

    def wait_for_watch(self, kind: str, timeout: float) -> bool:
        """Return as soon as a collection is watched, and whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: any(watch.kind == kind for watch in self._watches), timeout)

    def gets_of(self, namespace: str, name: str) -> int:
        """Return how often one ServiceAccount was asked for."""
        return sum(r.path == f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}" for r in list(self.requests))

    def write_kubeconfig(self, path: Path, token: str = "t-1") -> Path:  # noqa: S107 - opens nothing
        """Write a kubeconfig for this server and return its path."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "webhook"}}],
            "clusters": [{"name": "lab", "cluster": {"server": self.url}}],
            "users": [{"name": "webhook", "user": {"token": token}}],
        }
        path.write_text(json.dumps(config))
        return path

    # --- For the request handlers -----------------------------------------------------------------------------------

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return one object."""
        with self._changed:
            return self._objects.get((kind, namespace, name))

    def list_page(self, kind: str, namespace: str, name: str, token: str) -> Object:
        """Return a page of a list: the first one, or the one that the token of the page before stands for.

        All pages show the state at the time of the first: an object that comes in between is for the watch to tell of.
        """
        with self._changed:
            if token:
                version, items = self._pages.pop(token)
            else:
                keys = [key for key in sorted(self._objects) if self._is_seen(key, kind, namespace, name)]
                version, items = str(self._version), [self._objects[key] for key in keys]
            metadata = {"resourceVersion": version}
            if len(items) > self.page_size:
                metadata["continue"] = f"page-{next(self._tokens)}"
                self._pages[metadata["continue"]] = (version, items[self.page_size :])
            page = items[: self.page_size]
            return {"apiVersion": "v1", "kind": f"{_KINDS[kind]}List", "metadata": metadata, "items": page}

    @contextmanager
    def watching(
        self, kind: str, namespace: str, name: str, version: int
    ) -> Generator[queue.Queue[Object | None], None, None]:
        """Give the events since a version, None after the last."""
        watch = _Watch(kind, namespace, name)
        with self._changed:
            if version < self._oldest:
                watch.events.put({"type": "ERROR", "object": _status(410, "Expired", "too old resource version")})
                watch.events.put(None)
            for key, item in self._objects.items():
                missed = int(item["metadata"]["resourceVersion"]) > version
                if missed and self._is_seen(key, kind, namespace, name):
                    watch.events.put({"type": "ADDED", "object": item})
            self._watches.append(watch)
            self._changed.notify_all()
        try:
            yield watch.events
        finally:
            with self._changed:
                self._watches = [other for other in self._watches if other is not watch]

    def _put(self, kind: str, namespace: str, name: str, content: Object) -> None:
        with self._changed:
            key = (kind, namespace, name)
            self._version += 1
            metadata = {"name": name, "namespace": namespace, "uid": f"{kind}-{namespace}-{name}"}
            metadata |= {"resourceVersion": str(self._version)} | content["metadata"]
            event = "MODIFIED" if key in self._objects else "ADDED"
            item = {"apiVersion": "v1", "kind": _KINDS[kind], **content, "metadata": metadata}
            self._objects[key] = item
            if name not in self.hidden_from_watches:
                self._tell(key, event, item)

    def _tell(self, key: tuple[str, str, str], event: str, item: Object) -> None:
        for watch in self._watches:
            if watch.kind == key[0] and watch.namespace in {"", key[1]} and watch.name in {"", key[2]}:
                # A copy: the event keeps the version that it is about.
                watch.events.put(json.loads(json.dumps({"type": event, "object": item})))

    def _is_seen(self, key: tuple[str, str, str], kind: str, namespace: str, name: str) -> bool:
        wanted = key[0] == kind and namespace in {"", key[1]} and name in {"", key[2]}
        return wanted and key[2] not in self.hidden_from_watches


def _status(code: int, reason: str, message: str) -> Object:
    head: Object = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure"}
    return head | {"code": code, "reason": reason, "message": message}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - nobody else serves with this class

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        api = self.server.api
        api.requests.append(Request(url.path, query, time.monotonic()))
        if api.unavailable:
            self._send(503, _status(503, "ServiceUnavailable", "the server is going away"))
            return
        match url.path.strip("/").split("/"):
            case ["api", "v1", "serviceaccounts" as kind] if "fieldSelector" not in query:
                self._collection(kind, "", query)
            case ["api", "v1", "namespaces", namespace, "configmaps" as kind]:
                self._collection(kind, namespace, query)
            case ["api", "v1", "namespaces", namespace, "serviceaccounts" as kind, name]:
                time.sleep(api.slow_reads.get(name, 0.0))
                item = api.find(kind, namespace, name)
                self._send(200, item) if item else self._send(404, _status(404, "NotFound", f"no {kind} {name!r}"))
            case _:
                self._send(404, _status(404, "NotFound", "this server does not know the path"))

    def _collection(self, kind: str, namespace: str, query: dict[str, str]) -> None:
        api = self.server.api
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        if kind in api.forbidden:
            self._send(403, _status(403, "Forbidden", f"{kind} is forbidden"))
        elif "sendInitialEvents" in query:
            # As servers without the feature: clients then list and watch.
            self._send(422, _status(422, "Invalid", "sendInitialEvents is forbidden for watch"))
        elif query.get("watch") in {"true", "1"}:
            self._watch(kind, namespace, name, int(query.get("resourceVersion") or "0"))
        else:
            self._send(200, api.list_page(kind, namespace, name, query.get("continue", "")))

    def _watch(self, kind: str, namespace: str, name: str, version: int) -> None:
        with self.server.api.watching(kind, namespace, name, version) as events:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                while (event := events.get()) is not None:
                    line = json.dumps(event).encode() + b"\n"
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                # The webhook went away, as it may at any time.
                self.close_connection = True

    def _send(self, status: int, content: Object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the requests are kept."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: KubeApi) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that went away; anything else would be our own fault and is printed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve_kube_api() -> Generator[KubeApi, None, None]:
    """Serve on a port of loopback that the kernel chose."""
    api = KubeApi()
    server = _Server(api)
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        api.end_watches()
        server.shutdown()
        thread.join()
        server.server_close()
