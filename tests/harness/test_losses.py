"""A program of the lab that ended is found, however it ended; a restart that the harness makes is none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import limits, wait
from harness.errors import HarnessFault
from harness.lab import Lab
from harness.lab.losses import Loss, Losses

STATUS: dict[str, dict[str, dict[str, Any]]] = {
    "aws": {"localstack": {"running": True, "exits": [], "starts": 1}},
    "one": {
        "etcd": {"running": True, "exits": [], "starts": 1},
        "kube-apiserver": {"running": True, "exits": [], "starts": 1},
    },
}


@pytest.fixture
def status() -> dict[str, dict[str, dict[str, Any]]]:
    return deepcopy(STATUS)


@pytest.fixture
def losses(status: dict[str, dict[str, dict[str, Any]]]) -> Losses:
    losses = Losses(lambda: status)
    losses.begin()
    return losses


def test_nothing_is_lost_while_everything_runs(losses: Losses) -> None:
    assert losses.found() == []
    assert losses.tell() is None


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"running": False, "exits": [-9], "starts": 1}, " (killed by SIGKILL)"),
        ({"running": True, "exits": [1], "starts": 2}, " (exit code 1)"),
        ({"running": True, "exits": [-70], "starts": 2}, " (killed by signal 70)"),
        ({"running": False, "exits": [], "starts": 1}, ""),
    ],
    ids=["not started again", "started again", "a signal without a name", "nobody knows how"],
)
def test_what_ended_is_told_with_how_it_did(
    losses: Losses, status: dict[str, dict[str, dict[str, Any]]], state: dict[str, Any], text: str
) -> None:
    status["aws"]["localstack"] = state

    assert losses.tell() == f"localstack of aws ended while the lab was in use{text}"
    assert losses.found() == [Loss("aws", "localstack", state["exits"])]


def test_second_end_that_looks_like_the_first_is_found(
    losses: Losses, status: dict[str, dict[str, dict[str, Any]]]
) -> None:
    """The supervisor forgets how a program ended that ran well for a while: how often it was started counts."""
    losses.expect_restart("one", "kube-apiserver")
    status["one"]["kube-apiserver"] = {"running": True, "exits": [-9], "starts": 2}
    assert losses.tell() is None

    status["one"]["kube-apiserver"] = {"running": True, "exits": [-9], "starts": 3}

    assert losses.tell() == "kube-apiserver of one ended while the lab was in use (killed by SIGKILL)"


def test_one_restart_is_expected_and_not_two(losses: Losses, status: dict[str, dict[str, dict[str, Any]]]) -> None:
    """An API server that starts, and ends by itself, and is started once more did not just begin anew."""
    losses.expect_restart("one", "kube-apiserver")
    status["one"]["kube-apiserver"] = {"running": True, "exits": [-9, 1], "starts": 3}

    assert losses.tell() == "kube-apiserver of one ended while the lab was in use (exit code 1)"


def test_restart_that_does_not_come_is_a_loss(losses: Losses, status: dict[str, dict[str, dict[str, Any]]]) -> None:
    losses.expect_restart("one", "kube-apiserver")
    status["one"]["kube-apiserver"]["running"] = False

    assert [loss.log for loss in losses.found()] == ["one/kube-apiserver"]


def test_what_joins_later_counts_from_then_on(losses: Losses, status: dict[str, dict[str, dict[str, Any]]]) -> None:
    """A second cluster may have had trouble while it started; what was noted of the first stays."""
    status["two"] = {"etcd": {"running": True, "exits": [1], "starts": 2}}
    losses.begin()
    assert losses.tell() is None

    status["one"]["etcd"]["starts"] = status["two"]["etcd"]["starts"] = 3

    assert [loss.log for loss in losses.found()] == ["one/etcd", "two/etcd"]


def test_cluster_that_is_gone_is_a_loss(losses: Losses, status: dict[str, dict[str, dict[str, Any]]]) -> None:
    del status["one"]

    assert [loss.log for loss in losses.found()] == ["one/etcd", "one/kube-apiserver"]


def test_supervisor_that_ended_is_named(losses: Losses, status: dict[str, dict[str, dict[str, Any]]]) -> None:
    """All that it started ends with it: whoever looks for the cause must not look there."""
    status["aws"] = {
        "init": {"running": False, "exits": []},
        "localstack": {"running": False, "exits": [], "starts": 1},
    }

    assert [loss.log for loss in losses.found()] == ["aws/init", "aws/localstack"]


def test_restart_where_nobody_counts_changes_nothing() -> None:
    """A node of kind is a container; what runs in it is the kubelet's."""
    losses = Losses(lambda: {"one": {"one-control-plane": {"running": True, "exits": []}}})
    losses.begin()

    losses.expect_restart("one", "kube-apiserver")
    losses.expect_restart("one", "one-control-plane")

    assert losses.tell() is None


def test_engine_that_does_not_answer_is_a_loss() -> None:
    def no_answer() -> Any:
        raise HarnessFault("no engine answers")

    assert Losses(no_answer).tell() == "no engine answers"


# --- The supervisor -------------------------------------------------------------------------------------------------

_PROGRAM = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace

file, parent = Path(sys.argv[1]), os.getppid()
file.with_suffix(".new").write_text(str(os.getpid()))
file.with_suffix(".new").replace(file)
while os.getppid() == parent:
    time.sleep(0.1)
"""
_SUPERVISOR = """
import sys
from pathlib import Path
from types import SimpleNamespace
from harness.cluster.native.init import Program, supervise

directory, program = Path(sys.argv[1]), sys.argv[2]
argv = [sys.executable, "-c", program, str(directory / "pid")]
supervise([Program({"name": "waiting", "argv": argv, "environment": {}}, directory)], directory / "status.json")
"""


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Path]:
    """The directory of a supervisor of one program, which writes down its PID and waits for its parent's end."""
    with subprocess.Popen([sys.executable, "-c", _SUPERVISOR, str(tmp_path), _PROGRAM]) as process:
        yield tmp_path
        process.kill()


def test_supervisor_counts_starts(supervised: Path) -> None:
    """A program that is killed is started again; the status says how it ended and how often it was started."""
    pid_file, status_file = supervised / "pid", supervised / "status.json"
    killed = ""
    for starts in (1, 2, 3):
        pid = wait.until(
            lambda: pid_file.read_text() if pid_file.exists() else "",
            lambda pid, killed=killed: pid not in {"", killed},
            what=f"start {starts}",
            timeout=limits.PROCESS_START,
        )
        expected = {"running": True, "exits": [-signal.SIGKILL] * (starts - 1), "starts": starts}
        wait.until(
            lambda: json.loads(status_file.read_text()),
            lambda status, expected=expected: status == {"waiting": expected},
            what=f"a status of {expected}",
            timeout=limits.PROCESS_START,
        )
        os.kill(int(pid), signal.SIGKILL)
        killed = pid


@pytest.mark.parametrize(
    ("answer", "is_remembered"),
    [
        ({"clusters": ["pod-identity-lab", "pod-identity-lab-2"]}, True),
        ({"clusters": ["pod-identity-lab"]}, True),
        ({"clusters": []}, False),
        (HarnessFault("the AWS emulator did not answer"), True),
    ],
)
def test_aws_that_began_anew_has_forgotten_the_lab(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, list[str]] | HarnessFault, *, is_remembered: bool
) -> None:
    """One that does not answer says nothing of what it knows."""

    def ready() -> dict[str, list[str]]:
        if isinstance(answer, HarnessFault):
            raise answer
        return answer

    lab, cluster = Lab("forgotten"), SimpleNamespace(spec=SimpleNamespace(name="pod-identity-lab"))
    monkeypatch.setattr(lab, "provider", lambda _: SimpleNamespace(clusters=lambda: [cluster]))
    monkeypatch.setattr(lab, "control", lambda: SimpleNamespace(ready=ready))

    assert lab.is_remembered is is_remembered
