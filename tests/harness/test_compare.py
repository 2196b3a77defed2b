"""The regression gate: each pair of outcomes falls into one class, and losing a MUST is red."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from conformance_runs import make_run

from harness.conformance.compare import Class, classify, compare, since
from harness.conformance.outcomes import Outcome
from harness.conformance.record import Run, Setting
from harness.conformance.reports import html, markdown

OUTCOMES = ["passed", "flaky", "expected-failure", "failed", "error", "could-not-run", "not-applicable", ""]
R, F, N, G, S, K = Class.REGRESSED, Class.FIXED, Class.NEW, Class.VANISHED, Class.BECAME_SKIPPED, Class.STILL_FAILING
TABLE = {
    "passed":           [None, None, R, R, S, S, S, G],
    "flaky":            [None, None, R, R, S, S, S, G],
    "expected-failure": [F, F, None, R, S, S, S, G],
    "failed":           [F, F, None, K, S, S, S, G],
    "error":            [F, F, N, R, None, None, S, G],
    "could-not-run":    [F, F, N, R, None, None, S, G],
    "not-applicable":   [N, N, N, N, N, N, None, G],
    "":                 [N, N, N, N, N, N, N, None],
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), list(itertools.product(OUTCOMES, OUTCOMES)))
def test_each_pair_of_outcomes_falls_into_one_class(old: str, new: str) -> None:
    assert classify(old, new) is TABLE[old][OUTCOMES.index(new)]


def test_the_table_knows_every_outcome() -> None:
    assert {outcome.value for outcome in Outcome} == set(OUTCOMES) - {""}


ALL = {"AGT-1": "passed", "AGT-2": "passed", "AGT-3": "failed"}


def test_a_run_compared_with_itself_has_nothing_new() -> None:
    run = make_run({"AGT-1": "passed", "AGT-2": "passed"})

    comparison = compare(run, run)

    assert (comparison.changes, comparison.exit_code) == ((), 0)
    assert comparison.line().startswith("compare: no change (exit 0)")


def test_what_still_fails_is_named_and_does_not_close_the_gate() -> None:
    comparison = compare(make_run(ALL), make_run(ALL))

    assert [(change.kind, change.id) for change in comparison.changes] == [(K, "AGT-3")]
    assert comparison.exit_code == 0


@pytest.mark.parametrize(("outcome", "kind"), [("failed", R), ("could-not-run", S), ("error", S), ("", G)], ids=str)
def test_losing_a_must_is_red(outcome: str, kind: Class) -> None:
    comparison = compare(
        make_run({"AGT-1": "passed", "AGT-2": "passed"}), make_run({"AGT-1": "passed", "AGT-2": outcome})
    )

    (change,) = comparison.changes
    assert (change.id, change.kind, change.is_red, comparison.exit_code) == ("AGT-2", kind, True, 1)


def test_a_requirement_that_left_the_ledger_is_red() -> None:
    comparison = compare(make_run(ALL), make_run({"AGT-1": "passed", "AGT-3": "failed"}))

    assert [(change.kind, change.id) for change in comparison.changes if change.is_red] == [(G, "AGT-2")]


def test_losing_a_should_is_told_and_not_red() -> None:
    old, new = (
        make_run({"AGT-1": "passed", "AGT-2": outcome}, levels={"AGT-2": "SHOULD"}) for outcome in ("passed", "failed")
    )

    assert [(change.is_red, change.kind) for change in compare(old, new).changes] == [(False, R)]
    assert compare(old, new).exit_code == 0


def test_lowering_a_level_does_not_open_the_gate() -> None:
    new = make_run({"AGT-1": "passed", "AGT-2": "failed"}, levels={"AGT-2": "MAY"})

    assert compare(make_run({"AGT-1": "passed", "AGT-2": "passed"}), new).exit_code == 1


def test_swapping_the_runs_turns_a_regression_into_a_repair() -> None:
    good, bad = make_run({"AGT-1": "passed"}), make_run({"AGT-1": "failed"})

    assert [change.kind for change in compare(good, bad).changes] == [R]
    assert [change.kind for change in compare(bad, good).changes] == [F]


@pytest.mark.parametrize("facts", [{"partial": True}, {"interrupted": True}])
def test_half_a_run_never_gives_the_all_clear(facts: dict[str, Any]) -> None:
    whole, half = make_run({"AGT-1": "passed"}), make_run({"AGT-1": "passed"}, facts=facts)

    assert (compare(whole, half).exit_code, compare(half, whole).exit_code) == (2, 2)
    assert compare(whole, replace(half, requirements=[])).exit_code == 1


def test_all_three_forms_say_what_was_expected_and_observed() -> None:
    check = {"requirement": "AGT-1", "what": "", "expected": 200, "observed": "5|00", "holds": False, "evidence": []}
    comparison = compare(make_run({"AGT-1": "passed"}), make_run({"AGT-1": "failed"}, checks=[check]))

    assert "expected 200, observed '5|00'" in comparison.text()
    assert (
        "| **AGT-1** | MUST | AGT-1 holds. | passed → failed | expected 200, observed '5\\|00' |"
        in comparison.markdown()
    )
    assert comparison.data()["changes"][0]["why"] == "expected 200, observed '5|00'"


# --- What a comparison says besides ---------------------------------------------------------------------------------


def test_changes_link_the_evidence_of_both_runs() -> None:
    old, new = make_run({"AGT-1": "passed"}), make_run({"AGT-1": "failed", "AGT-2": "failed"})

    comparison = compare(old, new, pages=("old/index.html", "new/index.html"))

    links = {change.id: change.links for change in comparison.changes}
    assert links == {"AGT-1": ("old/index.html#AGT-1", "new/index.html#AGT-1"), "AGT-2": ("new/index.html#AGT-2",)}
    assert "see old/index.html#AGT-1 and new/index.html#AGT-1" in comparison.text()
    assert "[old](old/index.html#AGT-1) → [new](new/index.html#AGT-1)" in comparison.markdown()


def test_another_profile_allows_no_all_clear() -> None:
    run = make_run({"AGT-1": "passed"})
    old, new, same = (replace(run, settings={"profile": Setting(name, "cli")}) for name in ("irsa", "mine", "mine"))

    assert compare(old, new).incomparable == ("OLD was judged by profile irsa, NEW by mine",)
    assert compare(new, same).exit_code == 0


def test_a_missing_leg_allows_no_all_clear() -> None:
    old, new = (make_run({"AGT-1": "passed"}, facts={"leg": leg}) for leg in ("v1.33, v1.34", "v1.34"))

    assert compare(old, new).exit_code == 2
    assert compare(old, new).incomparable == ("NEW lacks v1.33 among its legs",)
    assert compare(new, old).exit_code == 0


def test_what_changed_since_an_earlier_run_stands_in_record_and_summary() -> None:
    old = make_run({"AGT-1": "passed", "AGT-2": "passed", "AGT-3": "passed"})
    new = make_run({"AGT-1": "failed", "AGT-2": "", "AGT-3": "passed"}, facts={"partial": True})

    run = replace(new, since=since(old, new))

    assert Run.from_data(json.loads(run.as_json())) == run
    text = markdown.render(run)
    assert "### Since run-1\n\n| change | ID |  | outcome |" in text
    assert "| newly failing | AGT-1 | MUST | passed → failed |" in text
    assert "vanished" not in text, "a part of the suites leaves out on purpose"
    page = html.render(run)
    assert '<td>newly failing<td><a href="#AGT-1">AGT-1</a><td>MUST<td>passed → failed</tr>' in page


def test_nothing_changed_is_said_too() -> None:
    run = make_run({"AGT-1": "passed"})

    assert "### Since run-1\n\nNothing changed." in markdown.render(replace(run, since=since(run, run)))
