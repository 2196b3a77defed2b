"""Several runs make one report if they fit together; what does not fit is named, all of it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conformance_runs import make_run
from typer.testing import CliRunner

from harness.cli import app
from harness.conformance.compare import compare
from harness.conformance.history import read_durations
from harness.conformance.merge import merge
from harness.conformance.record import Fault, FrozenRecord, Run, ShardRecord, read_run
from harness.conformance.store import save
from harness.errors import UsageError


def part(name: str, outcomes: dict[str, str], **facts: Any) -> Run:
    """Return a run of a suite that decides some of AGT-1, WHK-1 and IAM-1; the others are another suite's."""
    return make_run(dict.fromkeys(("AGT-1", "WHK-1", "IAM-1"), "") | outcomes, facts={"id": name, **facts})


AGENT = part("agent", {"AGT-1": "passed"})
WEBHOOK = part("webhook", {"WHK-1": "passed"})


def test_the_verdict_is_that_of_the_union() -> None:
    whole = merge("m", [AGENT, WEBHOOK])

    assert (whole.verdict, whole.exit_code, whole.scope) == ("conformant", 0, "full")
    assert whole.line == "verdict: conformant (exit 0) — 2 of 3 MUST observed, 2 runs: 2 passed"
    assert {entry.id: entry.status for entry in whole.requirements} == {
        "AGT-1": "bound",
        "WHK-1": "bound",
        "IAM-1": "provisional",
    }
    assert [(each.id, each.line) for each in whole.parts] == [("agent", AGENT.line), ("webhook", WEBHOOK.line)]


@pytest.mark.parametrize(
    ("outcome", "facts", "verdict", "exit_code"),
    [
        ("failed", {}, "non-conformant", 1),
        ("error", {}, "incomplete", 3),
        ("could-not-run", {}, "incomplete", 2),
        ("expected-failure", {}, "non-conformant", 0),
        ("passed", {"interrupted": True}, "incomplete", 2),
        ("passed", {"partial": True}, "incomplete", 2),
        ("passed", {"faults": [Fault("collection", "no such module")]}, "incomplete", 3),
        ("passed", {"faults": [Fault("baseline", "AGT-1: passes")]}, "conformant", 1),
        ("passed", {"faults": [Fault("clean-up", "left")]}, "conformant", 0),
    ],
)
def test_one_bad_part_decides(outcome: str, facts: dict[str, Any], verdict: str, exit_code: int) -> None:
    bad = part("webhook", {"WHK-1": outcome}, **facts)

    whole = merge("m", [AGENT, bad])

    assert (whole.verdict, whole.exit_code) == (verdict, exit_code)
    assert whole.faults == bad.faults


def test_a_run_that_was_killed_leaves_the_whole_open() -> None:
    assert merge("m", [AGENT, replace(WEBHOOK, finished_at="")]).exit_code == 2


def test_a_merged_run_can_be_merged_and_compared() -> None:
    whole = merge("m2", [merge("m1", [AGENT, WEBHOOK]), part("aws", {"IAM-1": "passed"})])

    assert [each.id for each in whole.parts] == ["agent", "webhook", "aws"]
    assert whole.observed_musts == 3
    assert compare(whole, merge("m3", [AGENT, WEBHOOK])).exit_code == 1


def test_the_order_of_the_parts_changes_no_outcome() -> None:
    runs = [AGENT, part("webhook", {"WHK-1": "failed"}), part("aws", {"IAM-1": "passed"})]

    lines = {merge("m", order).line for order in itertools.permutations(runs)}

    assert len(lines) == 1


def shard(index: int, total: int, plan: str = "a", of: str = "full", **facts: Any) -> Run:
    name = ("AGT-1", "WHK-1", "IAM-1")[index - 1]
    return part(f"s{index}", {name: "passed"}, shard=ShardRecord(index, total, plan * 64, of), partial=True, **facts)


def test_all_shards_of_a_whole_are_a_whole() -> None:
    assert merge("m", [shard(1, 3), shard(2, 3), shard(3, 3)]).verdict == "conformant"
    assert merge("m", [shard(1, 2, of="partial"), shard(2, 2, of="partial")]).verdict == "incomplete"


def test_diagnostics_keep_apart() -> None:
    first, second = (
        replace(run, tests=[replace(test, diagnostics="diagnostics/test_x") for test in run.tests])
        for run in (AGENT, WEBHOOK)
    )

    whole = merge("m", [first, second])

    assert [test.diagnostics for test in whole.tests] == ["diagnostics/agent/test_x", "diagnostics/webhook/test_x"]


OTHER_LEDGER = make_run({"AGT-1": "", "WHK-1": "passed", "IAM-1": ""}, levels={"IAM-1": "MAY"}, facts={"id": "other"})


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        ([AGENT, AGENT], "agent is given 2 times"),
        (
            [AGENT, part("again", {"AGT-1": "failed"})],
            "agent and again ran the same tests: suites/test_a.py::test_agt-1",
        ),
        ([AGENT, part("up", {"WHK-1": "passed"}, subject="upstream")], "up judges subject 'upstream', agent judges"),
        ([AGENT, OTHER_LEDGER], "other has another ledger than agent: IAM-1"),
        (
            [AGENT, replace(WEBHOOK, frozen=FrozenRecord("1", "a" * 64))],
            "webhook holds it to the frozen set 1, agent to",
        ),
        ([shard(1, 3), shard(3, 3)], "of shards aaaaaaaa there is no 2/3"),
        ([shard(1, 2), shard(2, 2, "b")], "of shards aaaaaaaa there is no 2/2"),
        (
            [
                part("x", {"AGT-1": "passed"}, environment={"sources": "a"}),
                replace(WEBHOOK, environment={"sources": "b"}),
            ],
            "not one sources: a in x, b in webhook",
        ),
    ],
)
def test_what_does_not_fit_is_refused(runs: list[Run], text: str) -> None:
    with pytest.raises(UsageError) as error:
        merge("m", runs)

    assert text in str(error.value)


def test_everything_that_does_not_fit_is_named_at_once() -> None:
    with pytest.raises(UsageError) as error:
        merge("m", [AGENT, replace(OTHER_LEDGER, subject="upstream"), AGENT])

    assert len(str(error.value).splitlines()) == 4


# --- podid merge ----------------------------------------------------------------------------------------------------


def saved(directory: Path, run: Run) -> str:
    (directory / run.id).mkdir(parents=True)
    save(directory / run.id, run)
    return str(directory / run.id)


def test_merge_writes_every_report_and_ends_with_the_verdict_s_exit_code(tmp_path: Path) -> None:
    bad = part("webhook", {"WHK-1": "failed"})
    bad = replace(bad, tests=[replace(test, diagnostics="diagnostics/test_w") for test in bad.tests])
    directories = [saved(tmp_path, AGENT), saved(tmp_path, bad)]
    (tmp_path / "webhook" / "diagnostics" / "test_w").mkdir(parents=True)
    (tmp_path / "webhook" / "diagnostics" / "test_w" / "log.txt").write_text("why")

    result = CliRunner().invoke(app, ["merge", *directories, "--report-dir", str(tmp_path / "out")])

    (made,) = (tmp_path / "out").iterdir()
    assert (result.exit_code, result.stdout.strip()) == (1, f"{read_run(made).line} — {made / 'index.html'}")
    expected = {"run.json", "index.html", "junit.xml", "summary.md", "badge.svg", "diagnostics"} | {
        "run.schema.json",
        "manifest.json",
    }
    assert {file.name for file in made.iterdir()} == expected
    (failed,) = (test for test in read_run(made).tests if test.outcome == "failed")
    assert (made / failed.diagnostics / "log.txt").read_text() == "why"
    for report in ("index.html", "summary.md"):
        assert "agent" in (made / report).read_text()


def test_shards_enter_the_history_when_they_are_merged(tmp_path: Path) -> None:
    directories = [saved(tmp_path, run) for run in (shard(1, 2), shard(2, 2), part("aws", {"IAM-1": "passed"}))]
    options = [f"--report-dir={tmp_path / 'out'}", f"--history={tmp_path / 'history'}"]

    assert CliRunner().invoke(app, ["merge", *directories, *options]).exit_code == 0

    noted = read_durations(tmp_path / "history", "")
    assert sorted(noted.seconds) == ["suites/test_a.py::test_agt-1", "suites/test_a.py::test_whk-1"]


def test_merge_refuses_and_makes_nothing(tmp_path: Path) -> None:
    directory = saved(tmp_path, AGENT)

    result = CliRunner().invoke(app, ["merge", directory, directory, "--report-dir", str(tmp_path / "out")])

    assert isinstance(result.exception, UsageError)
    assert not (tmp_path / "out").exists()
