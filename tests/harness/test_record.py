"""A run's record: what is written follows its schema and can be read again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from conformance_runs import START, make_run, phase, requirement

from harness.conformance.baseline import Baseline
from harness.conformance.ledger import Ledger
from harness.conformance.outcomes import Outcome
from harness.conformance.record import CheckRecord, Fault, gist, new_run_id, read_run, schema, write_atomically
from harness.conformance.results import Results, RunFacts, decide
from harness.conformance.store import rewrite, save
from harness.errors import HarnessFault, UsageError

RUN = make_run({"AGT-1": "passed", "AGT-2": "could-not-run", "WHK-1": ""}, facts={"faults": [Fault("clean-up", "x")]})


def test_runs_that_start_in_the_same_second_have_directories_of_their_own() -> None:
    identifiers = {new_run_id(datetime(2026, 11, 29, 4, 50, 42, tzinfo=UTC)) for _ in range(10)}

    assert len(identifiers) > 1
    assert all(identifier.startswith("20261129-045042-") for identifier in identifiers)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    save(tmp_path, RUN)

    assert read_run(tmp_path) == read_run(tmp_path / "run.json") == RUN


def test_reports_are_written_again_from_the_record_with_the_same_bytes(tmp_path: Path) -> None:
    save(tmp_path, RUN)
    assert rewrite(tmp_path) == []
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    rewrite(tmp_path)

    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert len(before) == 7


def test_a_record_that_breaks_its_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(HarnessFault, match=r"\$\.verdict: 'splendid'"):
        save(tmp_path, replace(RUN, verdict="splendid"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema": "podid-run/2.0"}, "of version 'podid-run/2.0'; this podid reads podid-run/1.3"),
        ({"exit_code": 7}, r"does not follow its schema: \$\.exit_code"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_foreign_record_is_refused(tmp_path: Path, change: dict[str, object], text: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps(json.loads(RUN.as_json()) | change))

    with pytest.raises(UsageError, match=text):
        read_run(tmp_path)


def test_a_later_minor_version_is_read(tmp_path: Path) -> None:
    data = json.loads(RUN.as_json()) | {"schema": "podid-run/1.7", "later": 1}
    data["tests"][0]["later"] = {"too": 1}
    (tmp_path / "run.json").write_text(json.dumps(data))

    assert replace(read_run(tmp_path), schema=RUN.schema) == RUN


def test_an_earlier_minor_version_is_read(tmp_path: Path) -> None:
    data = json.loads(RUN.as_json()) | {"schema": "podid-run/1.0"}
    for name in ("leg", "scenarios", "shard", "parts", "frozen"):
        del data[name]
    for test in data["tests"]:
        del test["earlier"], test["resources"]
    for entry in data["requirements"]:
        del entry["withdrawn"]
    (tmp_path / "run.json").write_text(json.dumps(data))

    assert read_run(tmp_path).line == RUN.line


def test_a_directory_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run's record at"):
        read_run(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "old")

    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "file", "new \ud800")

    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("attempts", "retried", "repeated"),
    [
        ("failed passed", "flaky", "failed"),
        ("failed failed passed", "flaky", "failed"),
        ("failed failed", "failed", "failed"),
        ("failed error", "failed", "failed"),
        ("error passed", "flaky", "error"),
        ("failed could-not-run", "failed", "failed"),
        ("passed passed", "passed", "passed"),
    ],
)
def test_a_failure_never_gets_lost_in_a_further_attempt(attempts: str, retried: str, repeated: str) -> None:
    results = Results()
    results.bindings["t"] = ("AGT-1",)
    for attempt in attempts.split():
        message = "E   assert 1" if attempt == "failed" else ""
        for each in (phase("setup"), phase("call", attempt, message=message), phase("teardown")):
            results.add("t", each)

    for is_repeated, outcome in ((False, retried), (True, repeated)):
        facts = RunFacts("r", START, [], "ours", is_repeated=is_repeated)
        (test,) = results.run(facts, Ledger([requirement("AGT-1")]), Baseline(), None).tests

        assert (test.outcome, test.attempts) == (outcome, attempts.split())
        assert [earlier.outcome for earlier in test.earlier] == attempts.split()[:-1]
        assert (test.earlier[0].message == "E   assert 1") is ("failed" in attempts)


CAUSE = "The above exception was the direct cause of the following exception:"


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "def t():\n>   assert a == 2\nE   assert 1 == 2\nE    +  where 1 = f()\n\nt.py:3: AssertionError",
            "assert 1 == 2",
        ),
        ("AGT-1\n  expected: 1\n  observed: 2", "observed: 2"),
        (f"E   TimeoutExpired: 8 s\n\n{CAUSE}\n\nE   SubjectFault: it hangs", "SubjectFault: it hangs"),
        (" ", ""),
    ],
)
def test_a_failure_s_text_has_a_gist(message: str, line: str) -> None:
    assert gist(message) == line


def test_a_test_is_run_again_where_it_stands() -> None:
    on_a_lab, alone = (
        replace(RUN.tests[0], node=node) for node in ("suites/test_s3.py::t", "suites/agent/t.py::a[x y]")
    )

    assert on_a_lab.again == "python3 -m nox -s e2e -- --keep --partial suites/test_s3.py::t"
    assert alone.again == "uv run pytest --partial 'suites/agent/t.py::a[x y]'"


def held(name: str, *, holds: bool = True) -> CheckRecord:
    return CheckRecord(name, "", 1, 1 if holds else 2, holds)


@pytest.mark.parametrize(
    ("body", "checks", "unfinished", "decisions"),
    [
        ("passed", [], [], "passed passed"),
        ("failed", [], [], "failed failed"),
        ("passed", [held("A", holds=False)], [], "failed passed"),
        ("passed", [held("A"), held("A", holds=False), held("B")], [], "failed passed"),
        ("error", [held("A")], [], "passed error"),
        ("error", [held("A"), held("B")], [], "error error"),
        ("failed", [held("A", holds=False), held("B")], [], "failed failed"),
        ("failed", [held("A"), held("B")], ["B"], "passed failed"),
        ("could-not-run", [held("A")], [], "passed could-not-run"),
    ],
)
def test_checks_decide_and_the_body_decides_the_rest(
    body: str, checks: list[CheckRecord], unfinished: list[str], decisions: str
) -> None:
    found = decide("AB", Outcome(body), checks, unfinished)

    assert " ".join(outcome.value for outcome in found.values()) == decisions
