"""What a failure's diagnostics hold of a cluster, of AWS and of an agent: events, pods, logs, metrics, the last calls.

Collectors for :class:`harness.conformance.diagnostics.Diagnostics`; fixtures register them with what they bring up.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from harness.cloud.localstack.bootstrap import ADMINISTRATOR
from harness.conformance.diagnostics import Folder
from harness.conformance.recording import Evidence
from harness.kube import ApiException, Kube

__all__ = [
    "CANARY",
    "AgentOutput",
    "AwsCalls",
    "ClusterState",
    "EndedPrograms",
    "planted_canary",
    "why_it_does_not_run",
]

CANARY = "podid-canary"
"""Name of the objects that hold the canary."""
_REQUEST_SECONDS = 5
_LOG_BYTES = 1 << 20
_MOST_COLLECTED = 500
_MOST_SHOWN = 50
_SHOWN = ("at", "service", "operation", "method", "principal", "layer", "decisions", "status", "error_code")
_ERROR = re.compile(r"\b(?:error|fatal|panic)\b|^(?:\S+ )?E[0-9]{4} ", re.IGNORECASE)
_METRICS = {"eks-pod-identity-agent": 2705, "pod-identity-webhook": 9999}
"""Name of a pod's app → port of its metrics."""


class Journal(Protocol):
    """What is needed of the emulator's control route."""

    def journal(self, since: int = 0) -> list[dict[str, Any]]:
        """Return records of all requests from a number on, oldest first."""
        ...


class AwsCalls:
    """The calls to the lab's AWS since the test began, refused ones included; for evidence and for diagnostics."""

    name = "aws"

    def __init__(self, journal: Journal) -> None:
        """Keep the journal."""
        self._journal = journal
        self._next = 0

    def mark(self) -> None:
        """Count from here: a test begins."""
        if entries := self._journal.journal(self._next):
            self._next = int(entries[-1]["number"]) + 1

    def begin_anew(self) -> None:
        """Count from the first call: AWS has forgotten the earlier ones."""
        self._next = 0

    def evidence(self) -> Evidence:
        """Return the calls since the mark that the harness's own administrators did not make."""
        calls = [entry for entry in self._journal.journal(self._next) if not _is_administrator(entry)][-_MOST_SHOWN:]
        shown = [{name: entry[name] for name in _SHOWN if name in entry} for entry in calls]
        return Evidence("aws-calls", f"{len(shown)} calls to AWS during this test", shown)

    def collect(self, folder: Folder, since: datetime) -> None:
        """Write the calls since the mark, and apart from them those that were denied."""
        del since  # the emulator's clock may have been moved: its numbers count
        calls = self._journal.journal(self._next)[-_MOST_COLLECTED:]
        folder.data("aws/calls.json", calls)
        denied = [entry for entry in calls if int(entry["status"]) >= 400]
        folder.data("aws/denied.json", denied)
        if denied:
            last = denied[-1]
            call = f"{last.get('service', '')}:{last.get('operation') or last.get('method', '')}"
            answer = f"{last['status']} {last.get('error_code', '')}"
            folder.tell(f"last call that AWS refused: {call} as {last.get('principal') or 'nobody'} → {answer}")


def _is_administrator(entry: dict[str, Any]) -> bool:
    return str(entry.get("principal", "")).endswith(f":user/{ADMINISTRATOR}")


class ClusterState:
    """Collects events, pods, nodes, logs and metrics of a cluster; in system namespaces and wherever a pod is."""

    def __init__(self, name: str, kube: Kube, selector: str = "") -> None:
        """Keep the client.

        Args:
            name: The cluster's name; its files go into a directory of that name.
            kube: An administrator.
            selector: Labels of the pods that may be looked at; all of them, unless the cluster is somebody else's.
        """
        self.name = name
        self._selector = {"label_selector": selector} if selector else {}
        self._core: Any = kube.core

    def collect(self, folder: Folder, since: datetime) -> None:
        """Write what the cluster looks like; what it does not answer is noted in the place of the answer."""
        del since  # what led to a failure is often older than the test
        self.collect_events(folder)
        folder.data(f"{self.name}/nodes.json", self._list("list_node"))
        pods = self._list("list_pod_for_all_namespaces", **self._selector)
        folder.data(f"{self.name}/pods.json", pods)
        for pod in pods:
            self._collect_pod(folder, pod)

    def collect_events(self, folder: Folder) -> None:
        """Write what happened in the cluster; of somebody else's, where this run's pods are."""
        events = self._list("list_event_for_all_namespaces")
        if self._selector:
            pods = self._list("list_pod_for_all_namespaces", **self._selector)
            own = {pod["metadata"]["namespace"] for pod in pods}
            events = [event for event in events if event["metadata"]["namespace"] in own]
        folder.text(f"{self.name}/events.txt", "\n".join(map(_event, sorted(events, key=_last_seen))) + "\n")

    def _collect_pod(self, folder: Folder, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        app = next((app for app in _METRICS if name.startswith(app)), None)
        state = pod.get("status", {})
        for status in state.get("initContainerStatuses", []) + state.get("containerStatuses", []):
            container = status["name"]
            for previous in (False, True) if status.get("restartCount") else (False,):
                suffix = ".previous" if previous else ""
                file = f"{self.name}/logs/{namespace}/{name}.{container}{suffix}.log"
                log = self._log(name, namespace, container, previous=previous)
                folder.text(file, log)
                if app and not previous and (why := why_it_does_not_run(status)):
                    folder.tell(f"{name}: container {container} does not run: {why}; it said: {_last_line(log)}")
                elif app and (error := _last_error(log)):
                    folder.tell(f"{name}{suffix}: {error}")
        if app:
            read = self._core.connect_get_namespaced_pod_proxy_with_path
            port = f"{name}:{_METRICS[app]}"
            text = _asked(lambda: read(port, namespace, "metrics", _request_timeout=_REQUEST_SECONDS))
            folder.text(f"{self.name}/metrics/{name}.txt", text)

    def _list(self, method: str, **selector: str) -> list[dict[str, Any]]:
        response = getattr(self._core, method)(**selector, _preload_content=False, _request_timeout=_REQUEST_SECONDS)
        items: list[dict[str, Any]] = json.loads(response.data)["items"]
        for item in items:
            item["metadata"].pop("managedFields", None)
        return items

    def _log(self, name: str, namespace: str, container: str, *, previous: bool) -> str:
        return _asked(
            lambda: self._core.read_namespaced_pod_log(
                name,
                namespace,
                container=container,
                previous=previous,
                timestamps=True,
                tail_lines=5000,
                limit_bytes=_LOG_BYTES,
                _request_timeout=_REQUEST_SECONDS,
            )
        )


def _asked(ask: Any) -> str:
    """Return an answer as text; a refusal is an answer too: a container may have no log yet, or no longer."""
    try:
        return str(ask())
    except ApiException as error:
        return f"the API server answered: {error}\n"


def why_it_does_not_run(status: dict[str, Any]) -> str:
    """Return why a container does not run, empty when it does, has done its work, or is still being made.

    Args:
        status: The container's, as the API server tells it.
    """
    state: dict[str, Any] = status.get("state") or {}
    waiting: dict[str, Any] = state.get("waiting") or {}
    before: dict[str, Any] = status.get("lastState") or {}
    ended: dict[str, Any] = state.get("terminated") or before.get("terminated") or {}
    if "running" in state or waiting.get("reason") in {"ContainerCreating", "PodInitializing"}:
        return ""
    code = ended.get("exitCode", 0)
    parts = [waiting.get("reason", ""), f"exit code {code}" if code else "", "" if code else waiting.get("message", "")]
    return ", ".join(part for part in parts if part)


def _last_line(log: str) -> str:
    return next((line for line in reversed(log.splitlines()) if line.strip()), "nothing")


def _last_error(log: str) -> str:
    """Return the last line of a log that is of an error; agents and webhooks write JSON, klog's lines or Go's."""
    lines = reversed(log.splitlines())
    return next((line for line in lines if _ERROR.search(line)), "")


def _last_seen(event: dict[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _event(event: dict[str, Any]) -> str:
    about = event.get("involvedObject", {})
    words: Iterable[str] = (
        _last_seen(event),
        event.get("type", ""),
        f"{about.get('namespace', '')}/{about.get('kind', '')}/{about.get('name', '')}",
        event.get("reason", ""),
        event.get("message", ""),
    )
    return "  ".join(str(word) for word in words)


class Ended(Protocol):
    """What is needed of a program of the lab that ended."""

    @property
    def log(self) -> str:
        """Name of its log."""
        ...


class EndedPrograms:
    """Keeps how programs of the lab ended, and the end of their logs: these go with the lab."""

    name = "lab"

    def __init__(self, found: Callable[[], Sequence[Ended]], logs: Callable[[], Mapping[str, Path]]) -> None:
        """Keep where to look.

        Args:
            found: Returns which programs ended; its text says how.
            logs: Returns the lab's logs by name.
        """
        self._found = found
        self._logs = logs

    def collect(self, folder: Folder, since: datetime) -> None:
        """Write what ended, if anything did."""
        del since  # it may have ended long before anybody noticed
        if not (ended := self._found()):
            return
        folder.text("lab/ended.txt", "".join(f"{program}\n" for program in ended))
        logs = self._logs()
        for program in ended:
            folder.tell(str(program))
            if file := logs.get(program.log):
                text = _end_of(file)
                folder.text(f"lab/{program.log}.log", text)
                folder.tell(f"last line of {program.log}: {text.rstrip().rpartition(chr(10))[2]}")


def _end_of(file: Path) -> str:
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - _LOG_BYTES))
        return log.read().decode(errors="replace")


@contextlib.contextmanager
def planted_canary(kube: Kube, canary: str) -> Generator[None]:
    """Keep the canary where collectors look: in a Secret, and in a variable of a pod that never starts (HRN-SEC-02)."""
    metadata = {"name": CANARY, "namespace": "default"}
    container = {
        "name": "canary",
        "image": "amazon/aws-cli:latest",
        "env": [{"name": "PODID_CANARY", "value": canary}],
    }
    gated = {"schedulingGates": [{"name": "podid.dev/canary"}], "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": gated}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"canary": canary}}
    # Of an earlier run that was killed; a pod's variables cannot be changed.
    kube.delete(pod)
    kube.apply([secret, pod])
    try:
        yield
    finally:
        kube.delete(pod)
        kube.delete(secret)


class AgentOutput:
    """What an agent that the agent's suite started has written."""

    def __init__(self, port: int, stdout: Path, stderr: Path) -> None:
        """Name it by its port: a test may have several."""
        self.name = f"agent-{port}"
        self._files = {"stdout": stdout, "stderr": stderr}

    def collect(self, folder: Folder, since: datetime) -> None:
        """Write both streams; the lines have times of their own."""
        del since
        for stream, file in self._files.items():
            text = file.read_text(errors="replace")
            folder.text(f"{self.name}/{stream}", text)
            if error := _last_error(text):
                folder.tell(f"{self.name}: {error}")
