"""A run's directory as a whole: its events, the limits of its files, the manifest, and what may leave the machine."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conformance_runs import make_run
from small_suites import BOTH_PASS, FIRST_FAILS, HEADER, directory, make_suite, record, run

from harness.conformance import artifacts
from harness.conformance.events import EventLog, replay
from harness.conformance.floors import read_floors
from harness.conformance.record import Run
from harness.conformance.sizes import fitting
from harness.conformance.store import rewrite
from harness.errors import HarnessFault, UsageError

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    return make_suite(pytester, monkeypatch)


def events(suite: pytest.Pytester) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory(suite) / "events.jsonl").read_text().splitlines()]


# --- Events ---------------------------------------------------------------------------------------------------------


def test_events_tell_what_happened_as_it_happens(suite: pytest.Pytester) -> None:
    run(suite, FIRST_FAILS)

    told = [(event["event"], event.get("when")) for event in events(suite) if event["event"] != "environment"]
    assert told == [("run", None), ("collected", None)] + [("phase", w) for w in ("setup", "call", "teardown")]


@pytest.mark.parametrize("workers", [[], ["-pxdist", "-n2"]], ids=["one process", "pytest-xdist"])
def test_a_record_can_be_made_of_the_events_alone(suite: pytest.Pytester, workers: list[str]) -> None:
    run(suite, FIRST_FAILS + '@requirement("AGT-2")\ndef test_b(): check("AGT-2", expected=1, observed=1)\n', *workers)

    told, again = record(suite), replay(directory(suite))

    assert {entry.id: entry.outcome for entry in again.requirements} == {
        entry.id: entry.outcome for entry in told.requirements
    }
    assert sorted(again.tests, key=lambda t: t.node) == sorted(told.tests, key=lambda t: t.node)
    assert (again.counts, again.specimen, again.argv) == (told.counts, told.specimen, told.argv)


def test_half_a_line_at_the_end_is_passed_over(suite: pytest.Pytester) -> None:
    run(suite, FIRST_FAILS)
    file = directory(suite) / "events.jsonl"
    file.write_text(file.read_text()[:-20])

    assert replay(directory(suite)).tests[0].outcome == "failed"


def test_what_are_no_events_is_said(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"event": "run", "schema": "podid-events/2"}\n')

    with pytest.raises(UsageError, match="podid-events/1"):
        replay(tmp_path)


def test_beyond_their_limit_events_lose_their_evidence(tmp_path: Path) -> None:
    log = EventLog(tmp_path, limit_bytes=10)
    log.note("environment", facts={"podid": "0.1.0"})
    phase: Any = {"when": "call", "checks": [{"holds": True, "evidence": [0]}], "evidence": [{"kind": "text"}]}

    log.phase("a::b", phase)

    last = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert (last["evidence"], last["checks"]) == ([], [{"holds": True, "evidence": []}])


# --- Limits ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def large() -> Run:
    evidence = [{"kind": "text", "title": "seen", "content": "x" * 50_000}]
    return make_run({"AGT-1": "passed", "AGT-2": "passed", "AGT-3": "failed"}, evidence=evidence, message="m" * 9000)


@pytest.mark.parametrize(
    ("limit", "passed", "failed"),
    [(1 << 20, 50_000, 50_000), (100_000, 2_050, 50_000), (82_000, 60, 50_000), (20_000, 60, 60)],
)
def test_evidence_goes_in_steps_and_says_so(large: Run, limit: int, passed: int, failed: int) -> None:
    kept, text = fitting("run.json", large, Run.as_json, limit)

    lengths = {test.outcome: len(test.evidence[0].content) for test in kept.tests}
    assert lengths == {"passed": pytest.approx(passed, abs=30), "failed": pytest.approx(failed, abs=30)}
    assert len(text.encode()) <= limit
    assert ("left out: run.json has at most" in text) is (limit < 1 << 20)


def test_a_file_that_cannot_be_made_to_fit_is_a_fault(large: Run) -> None:
    with pytest.raises(HarnessFault, match=r"run\.json would have \d+ KiB without any evidence, and may have 1 KiB"):
        fitting("run.json", large, Run.as_json, 1024)


# --- Manifest and publish/ ------------------------------------------------------------------------------------------


def test_the_manifest_lists_every_file(suite: pytest.Pytester) -> None:
    run(suite, BOTH_PASS)
    made = directory(suite)

    files = {entry["path"]: entry for entry in json.loads((made / "manifest.json").read_text())["files"]}

    assert {name: entry["kind"] for name, entry in files.items()} == {
        "events.jsonl": "events",
        "index.html": "page",
        "badge.svg": "badge",
        "junit.xml": "junit",
        "run.json": "record",
        "run.schema.json": "schema",
        "summary.md": "summary",
    }
    for name, entry in files.items():
        content = (made / name).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_what_may_leave_is_the_same_again(suite: pytest.Pytester) -> None:
    run(suite, BOTH_PASS)
    made = directory(suite)
    rewrite(made)

    published = {path.name: path.read_bytes() for path in (made / "publish").iterdir()}
    assert published == {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}


def test_too_much_leaves_the_largest_diagnostics_behind(tmp_path: Path) -> None:
    (tmp_path / "diagnostics" / "t").mkdir(parents=True)
    for name, size in (("run.json", 900), ("diagnostics/t/large", 600), ("diagnostics/t/small", 50)):
        (tmp_path / name).write_text("x" * size)

    artifacts.publish(tmp_path, limit_bytes=1000)

    assert not (tmp_path / "publish" / "diagnostics" / "t" / "large").exists()
    assert (tmp_path / "publish" / "diagnostics" / "t" / "small").exists()
    files = json.loads((tmp_path / "publish" / "manifest.json").read_text())["files"]
    assert [entry["path"] for entry in files if entry.get("left_out")] == ["diagnostics/t/large"]


# --- The end of a run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [[], ["-pxdist", "-n1"]], ids=["one process", "pytest-xdist"])
def test_fail_fast_stops_after_the_first_must(suite: pytest.Pytester, workers: list[str]) -> None:
    body = '@requirement("AGT-3")\ndef test_should(): assert 0\n' + FIRST_FAILS
    # pytest-xdist gives a worker two tests at a time.
    body += "".join(f'@requirement("AGT-2")\ndef test_{n}(): assert 0, "never runs"\n' for n in range(4))

    result = run(suite, body, "--fail-fast", *workers)

    assert result.ret == 1
    outcomes = [test.outcome for test in record(suite).tests]
    assert outcomes[:2] == ["failed", "failed"]
    assert outcomes[-1] == "could-not-run"
    reason = record(suite).tests[-1].reason
    assert reason is not None
    assert reason.kind == "fail-fast"
    assert "AGT-1 is not met" in reason.detail
    assert not record(suite).interrupted


STUBBORN = """
import os, signal, threading, time

@pytest.fixture(scope="session")
def lab():
    yield
    print("clean-up begins", flush=True)
    {second}
    time.sleep(30)

@requirement("AGT-1")
def test_a(lab):
    os.kill(os.getpid(), signal.{first})
    time.sleep(30)
"""


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_one_signal_ends_a_run_in_order(suite: pytest.Pytester, first: str) -> None:
    body = STUBBORN.format(first=first, second="return")
    (suite.path / "suites" / "test_it.py").write_text(HEADER + body)

    result = suite.runpytest_subprocess("suites", timeout=60)

    assert result.ret == 2
    assert "clean-up begins" in result.stdout.str()
    assert record(suite).interrupted


@pytest.mark.parametrize(("second", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_second_signal_ends_it_at_once_and_says_what_is_left(suite: pytest.Pytester, second: str, code: int) -> None:
    body = STUBBORN.format(first="SIGINT", second=f"os.kill(os.getpid(), signal.{second})")
    (suite.path / "suites" / "test_it.py").write_text(HEADER + body)

    command = [sys.executable, "-m", "pytest", "suites", "-p", "no:cacheprovider", "-s"]
    done = subprocess.run(command, cwd=suite.path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == code
    assert f"podid: stopped at once; what was seen until then is in reports/{directory(suite).name}" in done.stderr
    assert replay(directory(suite)).interrupted
    assert signal.Signals[second] in {signal.SIGINT, signal.SIGTERM}


def test_the_record_says_where_each_option_comes_from(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODID_LEG", "v1.34")
    monkeypatch.setenv("PODID_FAIL_FAST", "1")

    run(suite, BOTH_PASS, "--level=MUST", "--partial")

    found = {name: (setting.value, setting.source) for name, setting in record(suite).settings.items()}
    assert found["leg"] == ("v1.34", "env")
    assert found["fail-fast"] == ("True", "env")
    assert found["level"] == ("MUST", "cli")
    assert found["retries"] == ("0", "default")
    assert record(suite).leg == "v1.34"


# --- Floors ---------------------------------------------------------------------------------------------------------


WITH_THIRD = BOTH_PASS + '@requirement("AGT-3")\ndef test_c(): pass\n'


@pytest.fixture
def floors(suite: pytest.Pytester) -> Path:
    file = suite.path / "suites" / "floors.yaml"
    file.write_text("floors: {suites/test_it.py: 2, suites/test_gone.py: 1}\n")
    return file


def test_a_suite_that_lost_a_file_is_incomplete(suite: pytest.Pytester, floors: Path) -> None:
    assert floors.exists()

    result = run(suite, BOTH_PASS)

    assert result.ret == 2
    assert [(fault.where, fault.message.partition(" (")[0]) for fault in record(suite).faults] == [
        ("floor", "suites/test_gone.py: 0 requirements executed, at least 1 expected")
    ]


@pytest.mark.parametrize(
    ("body", "arguments", "code"),
    [
        (BOTH_PASS, ["--ignore=suites/test_gone.py"], 0),
        (WITH_THIRD, ["--only=AGT-1", "--partial", "--ignore=suites/test_gone.py"], 0),
        (BOTH_PASS.replace(', "AGT-2"', ""), ["--ignore=suites/test_gone.py"], 2),
        (WITH_THIRD, ["--level=SHOULD", "--partial"], 2),
        (FIRST_FAILS, [], 1),
    ],
    ids=["whole", "a part of the file", "too little", "another file is missing", "a violation counts first"],
)
def test_a_floor_counts_for_what_was_asked_for_whole(
    suite: pytest.Pytester, floors: Path, body: str, arguments: list[str], code: int
) -> None:
    assert floors.exists()

    assert run(suite, body, *arguments).ret == code


def test_the_floors_of_this_checkout_name_what_there_is() -> None:
    root = Path(__file__).parents[2]

    floors = read_floors(root / "suites")

    assert [name for name in floors if not (root / name).exists()] == []
    assert set(map(str, (root / "suites").glob("test_*.py"))) >= {str(root / n) for n in floors if n.endswith(".py")}
