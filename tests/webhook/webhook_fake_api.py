"""A small API server for the webhook's watches: two collections, pages, watches, and 404 for everything else."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]


class FakeApi:
    """Objects by path of their collection; every change goes to the watches that are open."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.forbidden: set[str] = set()
        self.hidden_from_watches: set[str] = set()
        """Names whose events are held back: an object that exists and that no watch has told of yet."""
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._watches: list[tuple[str, str, queue.Queue[Object | None]]] = []
        self._version = 100
        self._oldest = 0
        self._lock = threading.Condition()
        self.url = ""

    def put(self, kind: str, namespace: str, name: str, **content: Any) -> None:
        with self._lock:
            key = (kind, namespace, name)
            self._version += 1
            metadata = {"name": name, "namespace": namespace, "resourceVersion": str(self._version)}
            metadata |= content.pop("metadata", {})
            event = "MODIFIED" if key in self._objects else "ADDED"
            self._objects[key] = {"metadata": metadata, **content}
            if name not in self.hidden_from_watches:
                self._tell(key, event)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        with self._lock:
            key = (kind, namespace, name)
            self._version += 1
            self._objects[key]["metadata"]["resourceVersion"] = str(self._version)
            self._tell(key, "DELETED")
            del self._objects[key]

    def forget_history(self) -> None:
        """Make every version so far too old to watch from, and end the watches."""
        with self._lock:
            self._oldest = self._version + 1
            self._version += 1
        self.end_watches()

    def end_watches(self) -> None:
        with self._lock:
            for _, _, events in self._watches:
                events.put(None)

    def wait_for_watch(self, kind: str) -> None:
        with self._lock:
            assert self._lock.wait_for(lambda: any(watch[0] == kind for watch in self._watches), timeout=60)

    def _tell(self, key: tuple[str, str, str], event: str) -> None:
        for kind, selector, events in self._watches:
            if kind == key[0] and selector in {"", key[2]}:
                events.put({"type": event, "object": self._objects[key]})

    def listed(self, kind: str, selector: str, start: int, limit: int) -> Object:
        with self._lock:
            names = [key for key in sorted(self._objects) if key[0] == kind and selector in {"", key[2]}]
            names = [key for key in names if key[2] not in self.hidden_from_watches]
            page = names[start : start + limit]
            metadata = {"resourceVersion": str(self._version)}
            if start + limit < len(names):
                metadata["continue"] = str(start + limit)
            return {"metadata": metadata, "items": [self._objects[key] for key in page]}

    def found(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._objects.get((kind, namespace, name))

    @contextmanager
    def watching(self, kind: str, selector: str, version: int) -> Iterator["queue.Queue[Object | None]"]:
        events: queue.Queue[Object | None] = queue.Queue()
        with self._lock:
            if version < self._oldest:
                events.put({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})
                events.put(None)
            for key, item in self._objects.items():
                missed = int(item["metadata"]["resourceVersion"]) > version
                if missed and key[0] == kind and selector in {"", key[2]} and key[2] not in self.hidden_from_watches:
                    events.put({"type": "ADDED", "object": item})
            self._watches.append((kind, selector, events))
            self._lock.notify_all()
        try:
            yield events
        finally:
            with self._lock:
                self._watches = [watch for watch in self._watches if watch[2] is not events]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        api = self.server.api
        api.requests.append(self.path)
        match url.path.strip("/").split("/"):
            case ["api", "v1", "serviceaccounts" as kind] if not query.get("fieldSelector"):
                self._collection(kind, query)
            case ["api", "v1", "namespaces", _, "configmaps" as kind] if query.get("fieldSelector"):
                self._collection(kind, query)
            case ["api", "v1", "namespaces", namespace, "serviceaccounts" as kind, name]:
                item = api.found(kind, namespace, name)
                self._send(200 if item else 404, item or {"message": "not found"})
            case _:
                self._send(404, {"message": "the fake does not know this"})

    def _collection(self, kind: str, query: dict[str, str]) -> None:
        api = self.server.api
        selector = query.get("fieldSelector", "").removeprefix("metadata.name=")
        if kind in api.forbidden:
            self._send(403, {"message": "forbidden"})
        elif query.get("watch") == "true":
            self._watch(kind, selector, int(query["resourceVersion"]))
        else:
            # Pages of two at most, so that every list of three is read in pages.
            limit = min(int(query.get("limit", "2")), 2)
            self._send(200, api.listed(kind, selector, int(query.get("continue", "0")), limit))

    def _watch(self, kind: str, selector: str, version: int) -> None:
        with self.server.api.watching(kind, selector, version) as events:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while (event := events.get()) is not None:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, content: Object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: FakeApi) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api


@contextmanager
def serve_fake_api() -> Iterator[FakeApi]:
    api = FakeApi()
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
