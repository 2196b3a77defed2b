"""What earlier runs leave: durations, shards made of them, an estimate, and who is not steady."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conformance_runs import make_run
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli import app
from harness.conformance.binding import files_in_turn
from harness.conformance.frozen import FrozenSet
from harness.conformance.history import Durations, Steadiness, note_run, read_durations, read_flakes
from harness.conformance.pace import Pace, rough
from harness.conformance.record import Fault, Run
from harness.conformance.release import objections
from harness.conformance.shards import Shard, digest, divide, parse_shard
from harness.errors import UsageError

SUITES = Path(__file__).parents[2] / "suites"


def run(number: int, outcome: str = "passed", *, leg: str = "ours", attempts: str = "") -> Run:
    made = make_run(
        {"AGT-1": outcome, "AGT-2": "passed"},
        facts={"id": f"r{number}", "leg": leg},
        message="a\nE   502\nt.py:1: AssertionError",
    )
    for test in made.tests:
        if attempts and test.requirements == ["AGT-1"]:
            test.attempts[:] = attempts.split()
    return made


# --- Durations ------------------------------------------------------------------------------------------------------


def test_the_median_of_the_last_twenty_counts_for_each_leg(tmp_path: Path) -> None:
    for number in range(25):
        note_run(tmp_path, run(number))
    note_run(tmp_path, run(99, leg="kind"))

    durations = read_durations(tmp_path, "ours")

    node = "suites/test_a.py::test_agt-1"
    assert len(durations.seconds[node]) == 20
    assert durations.expected([node]) == {node: 1.5}
    assert len(read_durations(tmp_path, "kind").seconds[node]) == 1
    assert read_durations(tmp_path, "other").seconds == {}


def test_what_did_not_run_has_no_duration(tmp_path: Path) -> None:
    note_run(tmp_path, run(1, "could-not-run"))

    assert list(read_durations(tmp_path, "ours").seconds) == ["suites/test_a.py::test_agt-2"]


def test_a_test_that_nobody_measured_takes_as_long_as_the_median_one() -> None:
    durations = Durations({"a": [1.0], "b": [2.0, 4.0], "c": [50.0]})

    assert durations.expected(["b", "new"]) == {"b": 3.0, "new": 3.0}
    assert Durations({}).expected(["new"]) == {"new": 1.0}


def test_a_file_that_no_run_has_told_about_takes_what_the_suites_say(tmp_path: Path) -> None:
    (tmp_path / "durations.yaml").write_text("seconds: {a.py: 30, b.py: 5}")
    note_run(tmp_path, run(1))

    durations = read_durations(tmp_path, "ours", tmp_path)

    assert durations.expected(["a.py::x", "a.py::y", "b.py::z"]) == {"a.py::x": 15.0, "a.py::y": 15.0, "b.py::z": 5.0}
    assert files_in_turn(["b.py::z", "a.py::x"], durations) == ["a.py", "b.py"]


def test_labs_side_by_side_begin_with_what_takes_longest_and_never_all_wait() -> None:
    usual = {"short.py": 5.0, "long.py": 90.0, "sleepy.py": 40.0, "drowsy.py": 60.0, "middling.py": 30.0}
    durations = Durations({}, usual, ["sleepy.py", "drowsy.py"])

    turns = files_in_turn([f"{file}::x" for file in usual], durations)

    assert turns == ["drowsy.py", "long.py", "sleepy.py", "middling.py", "short.py"]


def test_the_suites_say_of_each_file_of_scenarios_how_long_it_takes() -> None:
    usual = read_durations(Path("nowhere"), "ours", SUITES).usual

    assert usual.keys() == {f"suites/{file.name}" for file in SUITES.glob("test_*.py")}


@pytest.mark.parametrize(
    "text", ["{", "seconds: 3", "[]", "seconds: {a.py: long}", "{seconds: {a.py: 1}, waiting: [b.py]}"]
)
def test_durations_of_the_suites_that_cannot_be_read_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "durations.yaml").write_text(text)

    with pytest.raises(UsageError, match=r"durations\.yaml"):
        read_durations(tmp_path, "ours", tmp_path)


@pytest.mark.parametrize("text", ["{", '{"schema": "podid-durations/2", "legs": {}}', "[]", '{"schema": "x"}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "durations.json").write_text(text)

    with pytest.raises(UsageError, match=r"durations\.json"):
        read_durations(tmp_path, "ours")


# --- Shards ---------------------------------------------------------------------------------------------------------

DURATIONS = st.dictionaries(
    st.builds("f{}.py::t{}".format, st.integers(0, 6), st.integers(0, 9)), st.floats(0, 1e3), max_size=40
)


@given(DURATIONS, st.integers(1, 8), st.randoms())
def test_shards_leave_nothing_out_and_share_nothing(seconds: dict[str, float], total: int, random: object) -> None:
    shards = divide(seconds, total)
    shuffled = list(seconds.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert sorted(node for nodes in shards for node in nodes) == sorted(seconds)
    assert divide(dict(shuffled), total) == shards
    homes = {(node.partition("::")[0], number) for number, nodes in enumerate(shards) for node in nodes}
    assert len(homes) == len({file for file, _ in homes})


def test_the_longest_scenario_has_a_shard_of_its_own() -> None:
    seconds = {"a.py::1": 50.0, "b.py::1": 20.0, "b.py::2": 5.0, "c.py::1": 20.0, "d.py::1": 4.0}

    assert divide(seconds, 2) == [{"a.py::1"}, {"b.py::1", "b.py::2", "c.py::1", "d.py::1"}]
    assert digest(divide(seconds, 2)) != digest(divide(seconds, 3))


def test_a_shard_is_one_of_several() -> None:
    assert (parse_shard(""), parse_shard("2/3")) == (None, Shard(2, 3))
    for text in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3"):
        with pytest.raises(UsageError, match="no shard"):
            parse_shard(text)


# --- The estimate ---------------------------------------------------------------------------------------------------


def test_the_estimate_says_how_long_and_what_is_new() -> None:
    pace = Pace(Durations({"a": [60.0], "b": [120.0], "c": [60.0]}), at_a_time=2)

    pace.expect(["a", "b", "new"])

    assert pace.seconds() == 120
    assert pace.line().startswith("3 tests (1 of them are new), 2 min as earlier runs took, until ")


def test_without_history_nothing_is_promised() -> None:
    pace = Pace(Durations({}), at_a_time=1)
    pace.expect(["a"])

    assert pace.line() == "1 tests, ETA unknown: no earlier run has them"
    assert (rough(89.4), rough(90)) == ("89 s", "2 min")


def test_a_first_run_is_told_what_is_usual() -> None:
    pace = Pace(Durations({}, {"a.py": 600.0}), at_a_time=2)
    pace.expect(["a.py::x", "a.py::y"])

    assert pace.line() == "2 tests, usually 5 min at most: no earlier run has them"


# --- Who is not steady ----------------------------------------------------------------------------------------------


def test_flakes_failures_and_errors_of_the_harness_are_counted_apart(tmp_path: Path) -> None:
    for number, outcome in enumerate(["flaky", "passed", "failed", "error", "flaky"]):
        bad = {"flaky": "failed passed", "passed": "passed"}.get(outcome, outcome)
        note_run(tmp_path, run(number, outcome, attempts=bad))
    note_run(tmp_path, run(9, leg="kind"))

    (found,) = read_flakes(tmp_path)

    assert (found.id, found.leg, found.runs) == ("AGT-1", "ours", 5)
    assert (found.flaky, found.failed, found.errors, found.signature) == (2, 1, 1, "502")
    assert found.exceeds_budget
    assert read_flakes(tmp_path, ["kind"]) == []


def test_only_the_last_twenty_runs_count(tmp_path: Path) -> None:
    for number in range(2):
        note_run(tmp_path, run(number, "flaky", attempts="failed passed"))
    for number in range(19):
        note_run(tmp_path, run(number))

    (found,) = read_flakes(tmp_path)

    assert (found.flaky, found.runs, found.exceeds_budget) == (1, 20, False)


def test_a_run_is_one_line(tmp_path: Path) -> None:
    note_run(tmp_path, run(1, "flaky", attempts="failed passed"))

    line = json.loads((tmp_path / "flakes.jsonl").read_text())
    assert (line["run"], line["leg"], line["executed"]) == ("r1", "ours", ["AGT-1", "AGT-2"])
    (series,) = line["series"]
    assert (series["id"], series["outcome"], series["attempts"]) == ("AGT-1", "flaky", ["failed", "passed"])


def test_podid_flakes_prints_rates(tmp_path: Path) -> None:
    note_run(tmp_path, run(1, "flaky", attempts="failed passed"))
    note_run(tmp_path, run(2))

    result = CliRunner().invoke(app, ["flakes", "--history", str(tmp_path)])
    data = CliRunner().invoke(app, ["flakes", "--history", str(tmp_path), "--json"])

    assert result.stdout.splitlines()[1].split()[:5] == ["AGT-1", "ours", "1/2", "0/2", "0/2"]
    assert json.loads(data.stdout)[0]["flaky"] == 1


# --- The gate of a release ------------------------------------------------------------------------------------------

FROZEN = FrozenSet("0.1.0", {})


def unsteady(flaky: int, name: str = "AGT-1") -> Steadiness:
    return Steadiness(name, "ours", 20, flaky, 0, 0, "2026", "")


@pytest.mark.parametrize(
    ("candidate", "frozen", "flakes", "text"),
    [
        (run(1, "failed"), FROZEN, [], "the verdict is non-conformant"),
        (run(1), FrozenSet("0.1.0", {"AGT-7": "x"}), [], "no test of this run decides 1 of release 0.1.0: AGT-7"),
        (run(1), FrozenSet("0.1.0", {"AGT-1": "x"}), [], "AGT-1: level, sentence, profile or applies_to is not what"),
        (run(1), FROZEN, [unsteady(2)], "AGT-1 was flaky in 2 of its last 20 runs on ours"),
    ],
)
def test_what_stands_against_a_release(candidate: Run, frozen: FrozenSet, flakes: list[Steadiness], text: str) -> None:
    assert text in "\n".join(objections(candidate, frozen, flakes))


def test_a_baseline_that_is_not_in_order_stands_against_a_release() -> None:
    candidate = make_run({"AGT-1": "passed"}, facts={"faults": [Fault("baseline", "AGT-1: passes")]})

    assert list(objections(candidate, FROZEN, [])) == ["the baseline is not in order: AGT-1: passes"]


def test_one_flake_or_one_of_another_requirement_does_not() -> None:
    assert list(objections(run(1), FROZEN, [unsteady(1), unsteady(5, "WHK-9")])) == []
