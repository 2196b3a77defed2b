"""Which provider a lab stands on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

import pytest

from harness.cluster.base import ClusterSpec
from harness.conformance.verdict import ExitCode
from harness.errors import MissingPrerequisite, UsageError
from harness.lab import provider
from harness.lab.lab import Lab
from harness.lab.provider import Finding, choose, find_kind, parse_request
from harness.progress import Progress

KIND = Finding(is_usable=True, reason="Docker 28.0 answers and has kindest/node:v1.34.11")
NO_KIND = Finding(is_usable=False, reason="no Docker engine answers")
NATIVE = Finding(is_usable=True, reason="Linux, root")
NO_NATIVE = Finding(is_usable=False, reason="not root")


@pytest.mark.parametrize("native", [NATIVE, NO_NATIVE])
def test_kind_is_preferred_where_it_works(native: Finding) -> None:
    assert choose(KIND, native).line == "provider kind: Docker 28.0 answers and has kindest/node:v1.34.11"


def test_native_is_taken_without_an_engine_and_says_why() -> None:
    assert choose(NO_KIND, NATIVE).line == "provider native: Linux, root; kind not: no Docker engine answers"


def test_a_machine_for_neither_is_told_both_ways_out() -> None:
    with pytest.raises(MissingPrerequisite) as error:
        choose(NO_KIND, NO_NATIVE)

    assert "kind: no Docker engine answers" in str(error.value)
    assert "native: not root" in str(error.value)
    assert "start a Docker engine" in error.value.hint
    assert "run on Linux as root" in error.value.hint


def test_an_engine_that_does_not_answer_is_found_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "client_problem", lambda: "")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")

    finding = find_kind()

    assert not finding.is_usable
    assert "no Docker engine answers" in finding.reason


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no provider 'minikube'"):
        parse_request("minikube")


def test_removing_a_lab_of_an_engine_that_does_not_answer_forgets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its containers are still there: the record of them must not go first."""
    lab = _lab_of_an_engine_that_is_gone(tmp_path, monkeypatch)

    with pytest.raises(MissingPrerequisite, match="no Docker engine answers"):
        lab.down()

    assert lab.exists


@pytest.mark.parametrize("provider", ["native", "auto"])
def test_a_lab_of_an_engine_that_does_not_answer_keeps_its_name(
    provider: Literal["native", "auto"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raised anew elsewhere, nobody would know any more of what comes back with the engine."""
    lab = _lab_of_an_engine_that_is_gone(tmp_path, monkeypatch)

    with pytest.raises(MissingPrerequisite, match="lab 'gone' stands on kind: no Docker engine answers") as raised:
        lab.up([ClusterSpec()], Progress(), provider)

    assert "another lab: set PODID_LAB" in raised.value.hint
    assert lab.provider_name == "kind"


def test_a_run_says_once_that_the_engine_of_its_lab_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _lab_of_an_engine_that_is_gone(tmp_path, monkeypatch)
    command = ["podid", "run", "--lab=gone", "--provider=native", f"--report-dir={tmp_path}"]

    ended = subprocess.run([*command, "suites/test_abac.py"], capture_output=True, text=True, check=False)

    assert ended.returncode == ExitCode.INCOMPLETE, ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert (ended.stdout + ended.stderr).count("stands on kind: no Docker engine answers") == 1


def _lab_of_an_engine_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("PODID_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    lab = Lab("gone")
    lab.paths.directory.mkdir(parents=True)
    lab.paths.description.write_text('{"provider": "kind"}')
    return lab
