"""Mutants: what counts as killed, what the matrix says, and that each mutant is one small deviation."""

from __future__ import annotations

import ast
import inspect
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from harness import limits, mutants, wait
from harness.conformance.ledger import read_ledger
from harness.errors import UsageError
from harness.kill_matrix import Matrix, judge_control, judge_mutant, unguarded
from harness.mutants import UNGUARDED, choose
from harness.subject.mutants.catalogue import Mutant, all_mutants, find

ROOT = Path(__file__).parents[2]
LEDGER = read_ledger(ROOT / "suites" / "requirements")
MUTANT = Mutant(
    "agent-x", "It is broken.", lambda: None, ("AGT-1", "AGT-2"), {"AGT-3": "as well", "AGT-4*": "likewise"}
)
TRIVIAL = Mutant("agent-y", "It does nothing.", lambda: None, meets={"AGT-8*": "read in files"})
ALL = {mutant.name: mutant for mutant in all_mutants()}


def test_what_must_fail_and_does_is_killed() -> None:
    row = judge_mutant(MUTANT, {"AGT-1": "failed", "AGT-2": "failed", "AGT-3": "passed"}, ())

    assert (row.state, row.killed_by, row.missing, row.surplus) == ("killed", ("AGT-1", "AGT-2"), (), ())


def test_failures_that_are_declared_do_no_harm() -> None:
    row = judge_mutant(MUTANT, dict.fromkeys(("AGT-1", "AGT-2", "AGT-3", "AGT-41"), "failed"), ())

    assert row.state == "killed"


@pytest.mark.parametrize("outcome", ["passed", "error", "could-not-run", "not-applicable", "flaky"])
def test_only_failed_kills(outcome: str) -> None:
    row = judge_mutant(MUTANT, {"AGT-1": "failed", "AGT-2": outcome}, ())

    assert (row.state, row.missing) == ("survived", (f"AGT-2 ({outcome})",))


def test_a_run_without_a_record_kills_nothing() -> None:
    row = judge_mutant(MUTANT, {}, (), note="a run was ended after 300 s")

    assert (row.state, row.missing) == ("survived", ("AGT-1 (not run)", "AGT-2 (not run)"))


def test_a_failure_that_nobody_expects_is_over_killing() -> None:
    row = judge_mutant(MUTANT, dict.fromkeys(("AGT-1", "AGT-2", "AGT-5"), "failed"), ())

    assert (row.state, row.surplus) == ("over-killed", ("AGT-5",))


def test_a_trivial_subject_meets_no_must_but_the_listed() -> None:
    musts = {"AGT-1", "AGT-2", "AGT-80"}
    failed = {"AGT-1": "failed", "AGT-2": "failed", "AGT-80": "passed", "AGT-3": "passed"}

    assert judge_mutant(TRIVIAL, failed, musts).state == "killed"
    met = judge_mutant(TRIVIAL, failed | {"AGT-2": "passed"}, musts)
    assert (met.state, met.missing) == ("survived", ("AGT-2 (passed)",))
    assert judge_mutant(TRIVIAL, failed | {"AGT-2": "error"}, musts).state == "survived"
    assert judge_mutant(TRIVIAL, failed | {"AGT-2": "not-applicable"}, musts).state == "killed"
    assert judge_mutant(TRIVIAL, {}, musts).state == "survived"


def test_the_original_must_pass_what_kills() -> None:
    assert judge_control("agent", {"AGT-1": "passed", "AGT-2": "passed"}, ["AGT-1"]).state == "fine"
    assert judge_control("agent", {"AGT-1": "passed", "AGT-2": "failed"}, ["AGT-1"]).missing == ("AGT-2 (failed)",)
    assert judge_control("agent", {"AGT-1": "error"}, ["AGT-1"]).state == "broken"
    assert judge_control("agent", {}, ["AGT-1"]).missing == ("AGT-1 (not run)",)


def test_what_no_mutant_breaks_is_unguarded() -> None:
    assert unguarded([MUTANT, TRIVIAL], {"AGT-1", "AGT-3", "AGT-9"}) == {"AGT-3", "AGT-9"}


def test_the_matrix_says_what_is_not_as_declared() -> None:
    killed = judge_mutant(MUTANT, {"AGT-1": "failed", "AGT-2": "failed"}, ())
    saved = replace(judge_mutant(MUTANT, {"AGT-1": "failed", "AGT-2": "error"}, ()), name="agent-z")
    fine = judge_control("agent (original)", {"AGT-1": "passed"}, ["AGT-1"])

    good, bad = Matrix([fine, killed], ["AGT-9"]), Matrix([fine, killed, saved], ["AGT-9"])

    assert (good.exit_code, good.line) == (0, "mutants: 1 of 1 killed, 1 MUST unguarded (exit 0)")
    assert (bad.exit_code, bad.line) == (1, "mutants: 1 of 2 killed, 1 MUST unguarded (exit 1); survived agent-z")
    assert bad.complaints() == ["- **agent-z** survived", "  - did not fail: AGT-2 (error)"]
    assert "| AGT-1 | agent-x agent-z |" in bad.as_markdown()
    assert json.loads(bad.as_json())["subjects"]["agent-z"]["state"] == "survived"


def test_the_page_of_the_matrix_is_offline_and_escaped() -> None:
    row = replace(judge_mutant(MUTANT, {"AGT-1": "failed", "AGT-2": "failed"}, ()), fault="It says <b>.")

    page = Matrix([row], ["AGT-9"]).as_html({"AGT-1": 'One & "only".'})

    assert "<h1>1 of 1 killed</h1>" in page
    assert "It says &lt;b&gt;." in page
    assert 'title="One &amp; &#34;only&#34;."' in page
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!#|kill-matrix\.|data:)[^"]*"', page) == []


def test_a_requirement_that_lost_its_guard_closes_the_gate() -> None:
    matrix = Matrix([judge_control("agent", {"AGT-1": "passed"}, ["AGT-1"])], ["AGT-9"], ["AGT-9"])

    assert matrix.exit_code == 1
    assert "newly unguarded: AGT-9" in matrix.line


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_mutant_names_requirements_that_there_are(name: str) -> None:
    mutant = ALL[name]

    assert {identifier for identifier in mutant.must_kill if identifier not in LEDGER} == set()
    assert {identifier for identifier in mutant.may_kill if "*" not in identifier and identifier not in LEDGER} == set()
    assert {LEDGER[identifier].subject for identifier in mutant.must_kill} <= {mutant.suite}
    assert not set(mutant.must_kill) & set(mutant.may_kill)
    assert all((mutant.may_kill | (mutant.meets or {})).values())


@pytest.mark.parametrize("name", sorted(name for name in ALL if not ALL[name].is_trivial))
def test_a_mutant_is_small(name: str) -> None:
    (function,) = ast.parse(inspect.getsource(ALL[name].insert)).body

    assert isinstance(function, ast.FunctionDef)
    assert (function.end_lineno or 0) - function.lineno < 20


def test_names_and_globs_choose_mutants() -> None:
    assert [mutant.name for mutant in choose(["agent-no-cache", "webhook-uid-*"], trivial=False)] == [
        "agent-no-cache",
        "webhook-uid-lost",
    ]
    assert {mutant.suite for mutant in choose([], trivial=False)} == {"agent", "webhook"}
    assert not any(mutant.is_trivial for mutant in choose([], trivial=False))
    assert len(choose([], trivial=True)) == len(ALL)
    with pytest.raises(UsageError, match="no mutant 'agent-nope'"):
        choose(["agent-nope"], trivial=True)
    with pytest.raises(UsageError, match="no mutant 'nope'"):
        find("nope")


def test_the_unguarded_are_listed_once_in_order() -> None:
    listed = UNGUARDED.read_text().split()

    assert listed == sorted(set(listed))
    assert {name for name in listed if name not in LEDGER} == set()
    assert not set(listed) & {name for mutant in ALL.values() for name in mutant.must_kill}


def test_a_mutant_starts_as_the_original_does() -> None:
    command = [sys.executable, "-m", "harness.subject.mutants", "agent-no-cache", "version"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stdout.startswith("EKS Pod Identity Agent version")) == (0, True)


def test_the_runner_finds_a_mutant_out_and_exits_0(tmp_path: Path) -> None:
    podid = Path(sys.executable).with_name("podid")
    command = [podid, "mutants", "agent-bearer-accepted", f"--report-dir={tmp_path}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PODID_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    (directory,) = tmp_path.iterdir()
    subjects = json.loads((directory / "kill-matrix.json").read_text())["subjects"]
    assert {name: row["state"] for name, row in subjects.items()} == {
        "agent (original)": "fine",
        "agent-bearer-accepted": "killed",
    }
    assert "AGT-222" in subjects["agent-bearer-accepted"]["killed_by"]


def stubborn(answers: Connection) -> None:
    """A run that does not end when it is told to, with a subject in a session of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subject = subprocess.Popen(["sleep", "60"], start_new_session=True)
    answers.send(subject.pid)
    subject.wait()
    time.sleep(60)


def test_a_run_that_does_not_end_leaves_no_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "_GRACE", 0.2)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=stubborn, args=(theirs,))
    process.start()
    subject = ours.recv()

    mutants._stop(process)

    assert not process.is_alive()
    wait.until(lambda: _is_gone(subject), what="the subject to be gone", timeout=limits.PROCESS_END)


def _is_gone(pid: int) -> bool:
    try:
        # What nobody has waited for yet is gone all the same.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
