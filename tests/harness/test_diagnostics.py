"""What is collected when a test fails: bounded in size and time, without secrets, and never in the test's way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import collectors
from harness.collectors import AwsCalls, ClusterState, EndedPrograms, why_it_does_not_run
from harness.conformance.diagnostics import Diagnostics, Folder
from harness.conformance.redaction import Redactor
from harness.kube import ApiException, Kube
from harness.lab.losses import Loss

NOW = datetime(2026, 11, 25, tzinfo=UTC)
TOKEN = "IQoJb3JpZ2luX2VjEJr0123456789abcdef"


class Looker:
    name = "looker"

    def __init__(self, collect: Callable[[Folder], None]) -> None:
        self._collect = collect

    def collect(self, folder: Folder, since: datetime) -> None:
        assert since == NOW
        self._collect(folder)


def collected(tmp_path: Path, *lookers: Callable[[Folder], None], seconds: float = 5) -> Diagnostics:
    diagnostics = Diagnostics(Redactor(), seconds=seconds)
    for looker in lookers:
        diagnostics.register(Looker(looker))
    diagnostics.collect(tmp_path / "d", NOW)
    return diagnostics


def test_without_collectors_nothing_is_made(tmp_path: Path) -> None:
    assert Diagnostics(Redactor()).collect(tmp_path / "d", NOW) is False
    assert not (tmp_path / "d").exists()


def test_one_that_breaks_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    def breaks(_folder: Folder) -> None:
        raise ApiException(status=503, reason=f"down, {TOKEN}")

    diagnostics = collected(tmp_path, breaks, lambda folder: folder.text("a/b.txt", "here"))

    assert (tmp_path / "d" / "a" / "b.txt").read_text() == "here"
    (fault,) = diagnostics.faults
    assert fault.startswith("looker: ApiException: (503)")
    assert TOKEN not in fault


def test_one_that_hangs_is_left_behind(tmp_path: Path) -> None:
    release = threading.Event()

    diagnostics = collected(tmp_path, lambda _: cast("None", release.wait()), seconds=0.01)

    release.set()
    assert diagnostics.faults == ["looker: cut off after 0 s"]


def test_a_collector_that_is_gone_is_not_asked(tmp_path: Path) -> None:
    diagnostics = Diagnostics(Redactor())
    looker = Looker(lambda folder: folder.text("a", "b"))
    diagnostics.register(looker)
    diagnostics.unregister(looker)

    assert diagnostics.collect(tmp_path / "d", NOW) is False


def test_long_files_keep_both_ends_and_say_what_is_missing(tmp_path: Path) -> None:
    folder = Folder(tmp_path, Redactor())

    folder.text("log", "first\n" + "x\n" * (1 << 20) + "last\n")

    text = (tmp_path / "log").read_text()
    assert len(text) < (1 << 20) + 100
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert "bytes left out" in text


def test_one_failure_has_a_limit(tmp_path: Path) -> None:
    folder = Folder(tmp_path, Redactor(), limit_bytes=100)

    folder.text("one", "x" * 90)
    folder.text("two", "x" * 90)

    assert (tmp_path / "two").read_text().startswith("left out: the diagnostics of this failure have reached 100 bytes")


def test_secrets_are_removed_from_texts_and_data(tmp_path: Path) -> None:
    folder = Folder(tmp_path, Redactor())

    folder.text("a", f"AWS_SESSION_TOKEN={TOKEN}")
    folder.data("b", {"secretAccessKey": "abc", "at": NOW})

    assert TOKEN not in (tmp_path / "a").read_text()
    assert json.loads((tmp_path / "b").read_text())["secretAccessKey"].startswith("«aws-secret:")


# --- The lab --------------------------------------------------------------------------------------------------------


def test_log_of_a_program_that_ended_is_kept(tmp_path: Path) -> None:
    """The lab's logs go with the lab: how a program ended and its last words stay, without secrets."""
    log = tmp_path / "localstack.log"
    log.write_text(f"long ago\n{'x' * (2 << 20)}\nAWS_SESSION_TOKEN={TOKEN}\nout of memory\n")
    ended = [Loss("aws", "localstack", [-9]), Loss("one", "etcd", [])]
    looker = EndedPrograms(lambda: ended, lambda: {"aws/localstack": log, "one/kubelet": tmp_path})
    folder = Folder(tmp_path / "d", Redactor())

    looker.collect(folder, NOW)

    kept = (tmp_path / "d" / "lab" / "aws" / "localstack.log").read_text()
    assert kept.endswith("\nout of memory\n")
    assert "long ago" not in kept
    assert TOKEN not in kept
    assert (tmp_path / "d" / "lab" / "ended.txt").read_text().splitlines() == [
        "localstack of aws ended while the lab was in use (killed by SIGKILL)",
        "etcd of one ended while the lab was in use",
    ]
    assert folder.telling[1] == "last line of aws/localstack: out of memory"


def test_lab_that_runs_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "d", Redactor())

    EndedPrograms(list, lambda: pytest.fail("nobody needs the logs")).collect(folder, NOW)

    assert folder.written == 0


# --- AWS ------------------------------------------------------------------------------------------------------------


class FakeJournal:
    def __init__(self, *principals: str) -> None:
        self.entries = [call(number, principal) for number, principal in enumerate(principals, 1)]

    def journal(self, since: int = 0) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["number"] >= since]


def call(number: int, principal: str, status: int = 200) -> dict[str, Any]:
    return {"number": number, "service": "s3", "operation": "GetObject", "principal": principal, "status": status}


ADMINISTRATOR = "arn:aws:iam::123456789012:user/administrator"
POD = "arn:aws:sts::123456789012:assumed-role/reader/eks-pod"


def test_evidence_has_the_calls_since_the_test_began_without_the_harness_s_own() -> None:
    journal = FakeJournal(POD, POD)
    calls = AwsCalls(journal)
    calls.mark()
    journal.entries += [call(3, ADMINISTRATOR), call(4, POD)]

    evidence = calls.evidence()

    assert evidence.title == "1 calls to AWS during this test"
    assert evidence.content == [{"service": "s3", "operation": "GetObject", "principal": POD, "status": 200}]


def test_diagnostics_have_all_calls_and_those_that_were_denied(tmp_path: Path) -> None:
    journal = FakeJournal(ADMINISTRATOR, POD)
    journal.entries.append(call(3, POD, status=403))

    AwsCalls(journal).collect(Folder(tmp_path, Redactor()), NOW)

    calls, denied = (json.loads((tmp_path / "aws" / name).read_text()) for name in ("calls.json", "denied.json"))
    assert [entry["number"] for entry in calls] == [1, 2, 3]
    assert [entry["number"] for entry in denied] == [3]


# --- A cluster ------------------------------------------------------------------------------------------------------


class FakeCore:
    """An API server with an agent's pod that restarted once; rejects what it does not know by not having it."""

    def list_event_for_all_namespaces(self, **_options: Any) -> Any:
        about = {"namespace": "demo", "kind": "Pod", "name": "s3-test"}
        return listed(
            {"metadata": {}, "lastTimestamp": "2", "reason": "Killing", "message": "later", "involvedObject": about},
            {"metadata": {}, "lastTimestamp": "1", "reason": "Started", "message": "first", "involvedObject": about},
        )

    def list_node(self, **_options: Any) -> Any:
        return listed({"metadata": {"name": "node-0", "managedFields": ["long"]}})

    def list_pod_for_all_namespaces(self, **_options: Any) -> Any:
        status = {"containerStatuses": [{"name": "agent", "restartCount": 1}]}
        return listed({"metadata": {"name": "eks-pod-identity-agent-x", "namespace": "kube-system"}, "status": status})

    def read_namespaced_pod_log(self, name: str, namespace: str, *, previous: bool, **options: Any) -> str:
        assert (name, namespace, options["container"]) == ("eks-pod-identity-agent-x", "kube-system", "agent")
        if previous:
            raise ApiException(status=400, reason="previous terminated container not found")
        return f"request with {TOKEN}\n"

    def connect_get_namespaced_pod_proxy_with_path(self, name: str, namespace: str, path: str, **_options: Any) -> str:
        return f"{name} in {namespace}: {path}"


def listed(*items: dict[str, Any]) -> Any:
    return SimpleNamespace(data=json.dumps({"items": items}))


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    kube = cast("Kube", SimpleNamespace(core=FakeCore()))
    ClusterState("lab", kube).collect(Folder(tmp_path, Redactor()), NOW)
    return tmp_path / "lab"


def test_events_stand_in_the_order_of_time(dump: Path) -> None:
    lines = (dump / "events.txt").read_text().splitlines()

    assert [line.rpartition("  ")[2] for line in lines] == ["first", "later"]
    assert "demo/Pod/s3-test" in lines[0]


def test_every_container_s_log_is_kept_and_that_of_its_former_life(dump: Path) -> None:
    logs = dump / "logs" / "kube-system"

    assert (logs / "eks-pod-identity-agent-x.agent.log").read_text().startswith("request with «session-token:")
    former = (logs / "eks-pod-identity-agent-x.agent.previous.log").read_text()
    assert "previous terminated container not found" in former


def test_the_agent_s_metrics_are_read_through_the_api_server(dump: Path) -> None:
    text = (dump / "metrics" / "eks-pod-identity-agent-x.txt").read_text()

    assert text == "eks-pod-identity-agent-x:2705 in kube-system: metrics"


def test_what_nobody_reads_is_left_out(dump: Path) -> None:
    assert "managedFields" not in (dump / "nodes.json").read_text()


# --- What is said at once -------------------------------------------------------------------------------------------


class Teller:
    name = "teller"

    def collect(self, folder: Folder, since: datetime) -> None:
        assert since == NOW
        folder.text("all.txt", "everything")
        for number in range(20):
            folder.tell(f"line {number}\n  AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12")

    def collect_events(self, folder: Folder) -> None:
        folder.text("events.txt", "what happened")


def test_ten_telling_lines_are_kept_for_the_screen_without_secrets(tmp_path: Path) -> None:
    diagnostics = Diagnostics(Redactor())
    diagnostics.register(Teller())

    assert diagnostics.collect(tmp_path / "d", NOW, "it failed")

    assert len(diagnostics.telling) == 10
    assert diagnostics.telling[0].startswith("line 0 AWS_SECRET_ACCESS_KEY=«")
    assert {file.name for file in (tmp_path / "d").iterdir()} == {"what.md", "all.txt"}


def test_after_a_clean_up_only_events_are_of_interest(tmp_path: Path) -> None:
    diagnostics = Diagnostics(Redactor())
    diagnostics.register(Teller())

    assert diagnostics.collect(tmp_path / "d", NOW, "left", "events")

    assert {file.name: file.read_text() for file in (tmp_path / "d").iterdir()} == {
        "what.md": "left",
        "events.txt": "what happened",
    }


def test_a_failure_has_a_minute_whatever_the_number_of_collectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.conformance.diagnostics._FAILURE_SECONDS", 0.0)
    diagnostics = Diagnostics(Redactor())
    diagnostics.register(Teller())

    diagnostics.collect(tmp_path / "d", NOW, "it failed")

    assert [file.name for file in (tmp_path / "d").iterdir()] == ["what.md"]
    assert diagnostics.faults == ["teller: not asked, the 0 s of this failure were over"]


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ('a\n{"level":"error","msg":"no"}\nb\n', '{"level":"error","msg":"no"}'),
        ("I1126 fine\nE1126 10:00:00 bad\n", "E1126 10:00:00 bad"),
        ("all is well\n", ""),
        ("", ""),
    ],
    ids=["JSON", "klog", "no error", "empty"],
)
def test_the_last_error_of_a_log_is_found(log: str, line: str) -> None:
    assert collectors._last_error(log) == line


@pytest.mark.parametrize(
    ("state", "last", "why"),
    [
        ({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, 127, "CrashLoopBackOff, exit code 127"),
        ({"terminated": {"reason": "Error", "exitCode": 1}}, None, "exit code 1"),
        ({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, None, "ErrImagePull, no such image"),
        ({"running": {}}, 1, ""),
        ({"terminated": {"reason": "Completed", "exitCode": 0}}, None, ""),
        ({"waiting": {"reason": "PodInitializing"}}, None, ""),
    ],
)
def test_a_container_that_does_not_run_says_why(state: dict[str, Any], last: int | None, why: str) -> None:
    before = {"terminated": {"exitCode": last}} if last is not None else {}

    assert why_it_does_not_run({"state": state, "lastState": before}) == why


def test_the_last_refusal_is_told(tmp_path: Path) -> None:
    entries = [
        {"number": 0, "service": "s3", "operation": "GetObject", "status": 403, "error_code": "AccessDenied"},
        {"number": 1, "service": "s3", "operation": "ListBuckets", "status": 200, "principal": "arn:x"},
    ]
    journal: Any = type("Journal", (), {"journal": lambda *_: entries})()
    folder = Folder(tmp_path, Redactor())

    AwsCalls(journal).collect(folder, NOW)

    assert folder.telling == ["last call that AWS refused: s3:GetObject as nobody → 403 AccessDenied"]
