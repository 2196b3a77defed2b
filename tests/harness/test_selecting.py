"""What of the suites runs, and how often: driven through pytest itself on small suites."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_suites import BOTH_PASS, CONFTEST, FIRST_FAILS, HEADER, directory, latest, make_suite, record, run, the_test

from harness.conformance.binding import case_name
from harness.conformance.frozen import freeze
from harness.conformance.ledger import read_ledger
from harness.conformance.merge import merge
from harness.conformance.record import read_run

pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    return make_suite(pytester, monkeypatch)


# --- Selecting ------------------------------------------------------------------------------------------------------

TWO_TESTS = '@requirement("AGT-1")\ndef test_a(): pass\n@requirement("AGT-3")\ndef test_b(): pass\n'


@pytest.mark.parametrize("arguments", [["-k", "test_a"], ["--only=AGT-1"], ["--only=!AGT-3"], ["--level=MUST"]])
def test_a_selection_is_never_conformant(suite: pytest.Pytester, arguments: list[str]) -> None:
    result = run(suite, TWO_TESTS, "--partial", *arguments)

    assert (result.ret, "a part of the suites" in result.outlines[-1]) == (0, True)
    assert "PARTIAL RUN: 1 of 3 requirements, no conformance verdict" in result.outlines
    assert result.outlines[-1].startswith("verdict: incomplete")
    assert the_test(suite).name == "test_a"


def test_a_part_that_nobody_asked_for_is_incomplete(suite: pytest.Pytester) -> None:
    result = run(suite, TWO_TESTS, "--only=AGT-1")

    assert result.ret == 2
    result.stdout.fnmatch_lines(["PARTIAL RUN: 1 of 3 requirements, *; with --partial it would end with 0"])


@pytest.mark.parametrize("argument", ["--only=AGT-1", "-k=test_a"])
def test_what_a_selection_leaves_out_is_not_provisional(suite: pytest.Pytester, argument: str) -> None:
    run(suite, TWO_TESTS, argument)

    assert [entry.id for entry in record(suite).requirements if entry.status == "provisional"] == ["AGT-2"]


def test_an_unknown_requirement_is_refused_with_the_nearest(suite: pytest.Pytester) -> None:
    result = run(suite, BOTH_PASS, "--only=AGT-22")

    assert result.ret == 3
    assert "did you mean AGT-2" in result.stdout.str() + result.stderr.str()
    assert not (suite.path / "reports").exists()


def test_an_unknown_subject_is_refused(suite: pytest.Pytester) -> None:
    result = run(suite, BOTH_PASS, "--subject=upstraem")

    assert result.ret == 3
    assert "no subject 'upstraem'" in result.stdout.str() + result.stderr.str()


def test_an_empty_selection_is_refused(suite: pytest.Pytester) -> None:
    assert run(suite, TWO_TESTS, "--only=AGT-2").ret == 3


def test_a_dry_run_says_what_would_be_decided_and_does_nothing(suite: pytest.Pytester) -> None:
    result = run(suite, FIRST_FAILS, "--dry-run")

    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_it.py::test_a", "    AGT-1", "1 tests decide 1 requirements, 1 of them MUST"])
    assert not (suite.path / "reports").exists()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("def test_a(): pass\n", "*test_a: decides no requirement*"),
        ('@requirement("AGT-9")\ndef test_a(): pass\n', "*test_a: unknown requirement AGT-9*"),
    ],
)
def test_a_test_without_a_known_requirement_is_not_collected(suite: pytest.Pytester, body: str, fault: str) -> None:
    result = run(suite, body)

    assert result.ret == 3
    result.stdout.fnmatch_lines([fault])


def test_a_withdrawn_requirement_is_decided_by_no_test(suite: pytest.Pytester) -> None:
    ledger = suite.path / "suites" / "requirements" / "a.yaml"
    ledger.write_text(ledger.read_text().replace("id: AGT-1,", "id: AGT-1, withdrawn: {in: 0.2.0, reason: wrong},"))

    result = run(suite, FIRST_FAILS)

    assert result.ret == 3
    result.stdout.fnmatch_lines(["*test_a: requirement AGT-1 is withdrawn in 0.2.0: wrong*"])


def test_a_scenario_can_be_asked_for(suite: pytest.Pytester) -> None:
    (suite.path / "suites" / "test_other.py").write_text(HEADER + '@requirement("AGT-1")\ndef test_o(): pass\n')

    assert run(suite, TWO_TESTS, "--only=scenario:test_ot* AGT-*", "--partial").ret == 0
    assert the_test(suite).name == "test_o"


# --- Features -------------------------------------------------------------------------------------------------------


@pytest.fixture
def features(suite: pytest.Pytester) -> pytest.Pytester:
    file = suite.path / "suites" / "requirements" / "a.yaml"
    lines = file.read_text().splitlines()
    changed = [line.replace("core", "irsa") if "AGT-2" in line else line for line in lines]
    file.write_text("\n".join(changed))
    return suite


def test_a_test_of_two_features_is_not_collected(features: pytest.Pytester) -> None:
    result = run(features, '@requirement("AGT-1", "AGT-2")\ndef test_a(): pass\n')

    assert result.ret == 3
    result.stdout.fnmatch_lines(["*test_a: decides requirements of core and irsa; give each its own test*"])


def test_without_a_feature_its_requirements_could_not_run(features: pytest.Pytester) -> None:
    body = '@requirement("AGT-1")\ndef test_a(): pass\n@requirement("AGT-2")\ndef test_b(): assert 0\n'

    result = run(features, body, "--without-feature=irsa")

    assert result.ret == 2
    first, second = record(features).tests
    assert (first.outcome, second.outcome) == ("passed", "could-not-run")
    assert second.reason is not None
    assert second.reason.kind == "narrowed"
    assert (
        "| irsa | optional | no | not looked for | 1 could-not-run |"
        in (directory(features) / "summary.md").read_text()
    )


def test_a_feature_that_there_is_not_is_refused(features: pytest.Pytester) -> None:
    result = run(features, TWO_TESTS, "--without-feature=ipv6")

    assert result.ret == 3
    assert "no feature 'ipv6'" in result.stdout.str() + result.stderr.str()


# --- Order ----------------------------------------------------------------------------------------------------------


def test_workers_begin_with_the_file_that_takes_longest(suite: pytest.Pytester, tmp_path: Path) -> None:
    """Not with the one of most tests: what runs last shall not keep everybody waiting."""
    (suite.path / "suites" / "test_slow.py").write_text(HEADER + '@requirement("AGT-2")\ndef test_slow(): pass\n')
    seconds = {"suites/test_slow.py::test_slow": [50.0], "suites/test_it.py::test_a": [1.0]}
    content = {"schema": "podid-durations/1", "legs": {"ours": seconds}}
    (tmp_path / "durations.json").write_text(json.dumps(content))

    run(suite, TWO_TESTS, f"--history={tmp_path}", "-pxdist", "-n1", "--dist=loadfile")

    begun = sorted(record(suite).tests, key=lambda test: test.started_at)
    assert [test.name for test in begun] == ["test_slow", "test_a", "test_b"]


# --- Names of cases -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (["server", "-c"], "server_,_c~"),
        ({"aud": ["a"]}, "aud_:_a~"),
        (b'{"aud":[]}', "aud_:~"),
        ("x" * 101, f"{'x' * 40}~"),
        ("short", None),
        (5, None),
        (len, None),
        (object(), None),
    ],
    ids=["list", "dict", "bytes", "long text", "text", "number", "function", "nameless object"],
)
def test_a_case_is_named_by_its_value(value: object, name: str | None) -> None:
    found = case_name(value)

    assert (found is None) is (name is None)
    assert found is None or found[:-4] == name


def test_values_that_look_alike_have_names_of_their_own() -> None:
    assert case_name(["a b"]) != case_name(["a", "b"])


def test_names_are_the_same_in_every_process() -> None:
    """Each process of pytest-xdist has its own order of sets."""
    program = (
        "from harness.conformance.binding import case_name; print(case_name([{'a', 'b', 'c', 'd'}, {'k': {'x', 'y'}}]))"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(names) == 1


def test_a_case_without_a_name_of_its_own_is_refused(suite: pytest.Pytester) -> None:
    body = '@pytest.mark.parametrize("thing", [object()])\n@requirement("AGT-1")\ndef test_a(thing): pass\n'

    result = run(suite, body)

    assert result.ret == 3
    result.stdout.fnmatch_lines(["*case 'thing0' is named by its position; name it with ids=*"])


# --- What did not pass before ---------------------------------------------------------------------------------------


def test_what_did_not_pass_runs_again_and_nothing_else(suite: pytest.Pytester) -> None:
    body = FIRST_FAILS + '@requirement("AGT-2")\ndef test_b(): pass\n'
    body += '@requirement("AGT-3")\ndef test_c(): could_not_run("prerequisite", "no second account")\n'
    run(suite, body)
    before = directory(suite)

    run(suite, body.replace("1 == 2", "1 == 1"), f"--rerun-failed={before}")

    assert [test.name for test in latest(suite).tests] == ["test_a", "test_c"]
    assert latest(suite).scope == "partial"


def test_a_clean_report_leaves_nothing_to_run_again(suite: pytest.Pytester) -> None:
    run(suite, BOTH_PASS)

    result = run(suite, BOTH_PASS, f"--rerun-failed={directory(suite)}")

    assert result.ret == 3
    assert "nothing to run again" in result.stdout.str() + result.stderr.str()


# --- Shards ---------------------------------------------------------------------------------------------------------


def test_shards_together_are_the_whole(suite: pytest.Pytester) -> None:
    for name, identifier in (("b", "AGT-2"), ("c", "AGT-3")):
        text = f'{HEADER}@requirement("{identifier}")\ndef test_{name}(): pass\n'
        (suite.path / "suites" / f"test_{name}.py").write_text(text)
    body = '@requirement("AGT-1")\ndef test_a(): pass\n'

    for index in (1, 2):
        result = run(suite, body, f"--shard={index}/2", f"--report-dir=reports/{index}")
        assert (result.ret, f"shard {index}/2, a part of the suites" in result.outlines[-1]) == (0, True)
    runs = [read_run(found) for found in sorted((suite.path / "reports").glob("*/*"))]

    assert [len(each.tests) for each in runs] == [2, 1]
    assert merge("m", runs).verdict == "conformant"


def test_an_empty_shard_is_refused(suite: pytest.Pytester) -> None:
    assert run(suite, BOTH_PASS, "--shard=2/2").ret == 3


def test_a_dry_run_says_how_long_it_will_take(suite: pytest.Pytester) -> None:
    run(suite, BOTH_PASS, "--dry-run").stdout.fnmatch_lines(["nobody knows how long: no earlier run has them"])
    run(suite, BOTH_PASS)

    body = BOTH_PASS + '@requirement("WHK-1")\ndef test_new(): pass\n'
    result = run(suite, body, "--dry-run")

    result.stdout.fnmatch_lines(
        [
            "*test_it.py::test_a  0 s",
            "*test_it.py::test_new",
            "    WHK-1  (does not apply to this subject)",
            "expected to take 0 s, guessing for 1 that never ran",
        ]
    )


def test_earlier_runs_tell_how_long_is_left(suite: pytest.Pytester) -> None:
    run(suite, TWO_TESTS).stdout.fnmatch_lines(["2 tests, ETA unknown: no earlier run has them"])

    result = run(suite, TWO_TESTS, "-v")

    result.stdout.fnmatch_lines(["2 tests, 0 s as earlier runs took, until *", "*::test_a PASSED 0.0 s, 0 s left *"])


def test_a_mutant_leaves_no_history(suite: pytest.Pytester) -> None:
    run(suite, BOTH_PASS, "--subject=mutant:x")

    assert not (suite.path / ".podid").exists()


# --- More than one attempt ------------------------------------------------------------------------------------------

FLAKY = """
SET_UPS = []

@pytest.fixture(scope="session")
def state():
    SET_UPS.append("state")
    return len(SET_UPS)

@requirement("AGT-1", "AGT-2")
def test_a(state):
    attach(Evidence("text", f"state {state}", "seen"))
    check("AGT-1", expected="good", observed="bad" if state < GOOD else "good")
    check("AGT-2", expected=1, observed=1)
"""


@pytest.mark.parametrize(
    ("good", "outcome", "attempts", "code"),
    [(1, "passed", ["passed"], 0), (2, "flaky", ["failed", "passed"], 0), (9, "failed", ["failed"] * 3, 1)],
)
def test_a_retry_rebuilds_everything_and_is_never_hidden(
    suite: pytest.Pytester, good: int, outcome: str, attempts: list[str], code: int
) -> None:
    result = run(suite, FLAKY.replace("GOOD", str(good)), "--retries=2")

    test = the_test(suite)
    assert (result.ret, test.decisions, test.attempts) == (code, {"AGT-1": outcome, "AGT-2": "passed"}, attempts)
    seen = [entry.title for attempt in [*test.earlier, test] for entry in attempt.evidence]
    assert seen == [f"state {number}" for number in range(1, len(attempts) + 1)]
    assert [attempt.checks[0].observed for attempt in test.earlier] == ["bad"] * (len(attempts) - 1)
    assert all('observed: "bad"' in attempt.message for attempt in test.earlier)


def test_without_the_option_nothing_is_tried_again(suite: pytest.Pytester) -> None:
    assert run(suite, FLAKY.replace("GOOD", "2")).ret == 1
    assert the_test(suite).attempts == ["failed"]


BREAKS = """
TRIES = []

@pytest.fixture(scope="module")
def state():
    TRIES.append("state")
    if len(TRIES) < 2: raise KeyError("set-up")

@requirement("AGT-1")
def test_a(state):
    if len(TRIES) < GOOD: raise KeyError("body")
"""


@pytest.mark.parametrize(
    ("good", "attempts", "code"), [(3, ["error", "error", "passed"], 0), (9, ["error", "error", "error"], 3)]
)
def test_errors_of_the_harness_are_tried_again_too(
    suite: pytest.Pytester, good: int, attempts: list[str], code: int
) -> None:
    result = run(suite, BREAKS.replace("GOOD", str(good)), "--retries=2")

    test = the_test(suite)
    assert (result.ret, test.attempts) == (code, attempts)
    assert test.decisions == {"AGT-1": "flaky" if good == len(attempts) else "error"}


def test_both_attempts_of_a_flake_stand_on_the_page_and_in_the_history(suite: pytest.Pytester) -> None:
    result = run(suite, FLAKY.replace("GOOD", "2"), "--retries=1", "-v")

    result.stdout.fnmatch_lines(["*::test_a RETRIED*", "*::test_a PASSED*", "flaky          AGT-1  *"])
    page = (directory(suite) / "index.html").read_text()
    assert "attempts: failed, passed" in page
    assert "attempt 1</span>failed" in page
    line = json.loads((suite.path / ".podid" / "history" / "flakes.jsonl").read_text())
    assert [(entry["id"], entry["attempts"]) for entry in line["series"]] == [("AGT-1", ["failed", "passed"])]


def test_a_repeated_test_passes_only_if_it_always_does(suite: pytest.Pytester) -> None:
    body = """
RUNS = []

@pytest.fixture(scope="module")
def scenario(): return "scenario"

@pytest.fixture
def number(scenario):
    RUNS.append(scenario)
    return len(RUNS)

@requirement("AGT-1")
def test_a(number): assert number != 2
"""

    result = run(suite, body, "--repeat=3")

    assert result.ret == 1
    assert the_test(suite).attempts == ["passed", "failed", "passed"]
    result.stdout.fnmatch_lines(["passed 2 of 3: suites/test_it.py::test_a", "    1 x *assert 2 != 2*"])


def test_retries_and_repeats_exclude_each_other(suite: pytest.Pytester) -> None:
    assert run(suite, BOTH_PASS, "--retries=1", "--repeat=2").ret == 3


# --- What a release was held to -------------------------------------------------------------------------------------


@pytest.fixture
def release(suite: pytest.Pytester) -> str:
    """A release that was held to AGT-1 alone."""
    requirements = suite.path / "suites" / "requirements"
    freeze(requirements / "frozen", "0.1.0", read_ledger(requirements), {"AGT-1"})
    return "--frozen=0.1.0"


def test_a_frozen_set_leaves_later_requirements_outside_of_the_verdict(suite: pytest.Pytester, release: str) -> None:
    body = '@requirement("AGT-1")\ndef test_a(): pass\n@requirement("AGT-2")\ndef test_b(): assert False\n'

    result = run(suite, body, release)

    assert result.ret == 0
    assert result.outlines[-1].startswith("verdict: conformant (exit 0) — 1 of 1 MUST of release 0.1.0 observed")
    assert record(suite).frozen is not None
    assert [(entry.status, entry.outcome) for entry in record(suite).requirements[:2]] == [
        ("bound", "passed"),
        ("later", "failed"),
    ]


def test_a_ledger_that_changed_what_was_frozen_judges_nothing(suite: pytest.Pytester, release: str) -> None:
    ledger = suite.path / "suites" / "requirements" / "a.yaml"
    ledger.write_text(ledger.read_text().replace("The first thing holds", "Nothing holds"))

    result = run(suite, BOTH_PASS, release)

    assert result.ret == 3
    assert "AGT-1: level, sentence, profile" in result.stdout.str() + result.stderr.str()


PLAN = """
from harness.conformance.hooks import Plan

@pytest.hookimpl(optionalhook=True)
def pytest_podid_plan(config, items):
    return Plan(["clusters: one"], {item.nodeid: "no root: run as root" for item in items if "test_a" in item.nodeid})
"""


def test_a_dry_run_says_what_tests_stand_on_and_which_could_not_run(suite: pytest.Pytester) -> None:
    suite.makeconftest(CONFTEST + PLAN)

    body = '@requirement("AGT-1")\ndef test_a(): pass\n@requirement("AGT-2")\ndef test_b(): pass\n'
    result = run(suite, body, "--dry-run")

    assert result.ret == 2
    result.stdout.fnmatch_lines(["clusters: one", "1 could not run: no root: run as root"])
    assert not (suite.path / "reports").exists()


def test_a_dry_run_knows_what_options_leave_out(features: pytest.Pytester) -> None:
    body = '@requirement("AGT-1")\ndef test_a(): pass\n@requirement("AGT-2")\ndef test_b(): pass\n'

    result = run(features, body, "--dry-run", "--without-feature=irsa")

    assert result.ret == 2
    result.stdout.fnmatch_lines(["1 could not run: --without-feature irsa"])
