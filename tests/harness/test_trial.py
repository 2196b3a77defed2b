"""New requirements on trial: outside of the verdict, until they were steady for long enough."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from small_suites import FIELDS, make_suite, record, run
from typer.testing import CliRunner

from harness.cli import app
from harness.conformance.ledger import Ledger, read_ledger
from harness.conformance.merge import merge
from harness.conformance.trial import overdue, ripe

pytest_plugins = ["pytester"]

TODAY = date(2026, 11, 26)
TESTS = """
@requirement("AGT-1")
def test_a(): pass

@requirement("AGT-2")
def test_b(): assert 0
"""


def write_ledger(directory: Path, since: date) -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / "a.yaml"
    file.write_text(
        f"requirements:\n- {{id: AGT-1, level: MUST, sentence: It holds., {FIELDS}}}\n"
        f"- {{id: AGT-2, level: MUST, sentence: New., {FIELDS}, provisional: '{since}'}}\n"
    )
    return file


def ledger(tmp_path: Path, days: int) -> Ledger:
    write_ledger(tmp_path / "requirements", TODAY - timedelta(days=days))
    return read_ledger(tmp_path / "requirements")


def write_history(directory: Path, *steady: bool) -> Path:
    series = {True: [], False: [{"id": "AGT-2", "outcome": "flaky"}]}
    lines = [json.dumps({"executed": ["AGT-1", "AGT-2"], "series": series[was_steady]}) for was_steady in steady]
    directory.mkdir(exist_ok=True)
    (directory / "flakes.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def test_a_requirement_on_trial_runs_and_does_not_count(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = make_suite(pytester, monkeypatch)
    write_ledger(suite.path / "suites" / "requirements", TODAY)

    result = run(suite, TESTS)

    made = record(suite)
    seen = {entry.id: (entry.outcome, entry.status) for entry in made.requirements}
    assert seen == {"AGT-1": ("passed", "bound"), "AGT-2": ("failed", "provisional")}
    assert (result.ret, made.verdict) == (0, "conformant")
    assert (merge("m", [made]).exit_code, merge("m", [made]).requirements[1].status) == (0, "provisional")


@pytest.mark.parametrize(
    ("days", "steady", "may_count"),
    [
        (14, [True] * 20, True),
        (13, [True] * 20, False),
        (14, [True] * 19, False),
        (14, [False] + [True] * 19, False),
        (30, [False] + [True] * 20, True),
    ],
)
def test_it_may_count_after_two_weeks_and_twenty_steady_runs(
    tmp_path: Path, days: int, steady: list[bool], *, may_count: bool
) -> None:
    history = write_history(tmp_path / "history", *steady)

    assert ripe(ledger(tmp_path, days), history, TODAY) == (["AGT-2"] if may_count else [])


@pytest.mark.parametrize(("days", "is_overdue"), [(60, False), (61, True)])
def test_a_trial_ends_after_sixty_days(tmp_path: Path, days: int, *, is_overdue: bool) -> None:
    told = overdue(ledger(tmp_path, days), TODAY)

    assert [line.startswith("AGT-2 is provisional since 2026-09-26") for line in told] == [True] * is_overdue


def test_the_check_of_the_ledger_ends_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.report_commands.REQUIREMENTS", tmp_path)
    monkeypatch.setattr("harness.report_commands.FROZEN", tmp_path / "frozen")
    today = datetime.now(UTC).date()
    history = write_history(tmp_path / "history", *[True] * 20)

    write_ledger(tmp_path, today - timedelta(days=61))
    late = CliRunner().invoke(app, ["ledger", "check"])
    write_ledger(tmp_path, today - timedelta(days=20))
    good = CliRunner().invoke(app, ["ledger", "check", f"--history={history}"])

    assert "AGT-2 is provisional since" in str(late.exception)
    assert good.stdout.startswith("AGT-2 was steady for long enough")


def test_a_day_is_a_day(tmp_path: Path) -> None:
    file = write_ledger(tmp_path, TODAY)
    file.write_text(file.read_text().replace("2026-11-26", "soon"))

    with pytest.raises(Exception, match="provisional must be a day in quotes"):
        read_ledger(tmp_path)
