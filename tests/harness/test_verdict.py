"""What a run says, from the outcomes of its tests."""

from __future__ import annotations

import pytest
from conformance_runs import requirement

from harness.conformance.ledger import Ledger, Level
from harness.conformance.outcomes import Outcome
from harness.conformance.verdict import judge

FAILED, ERROR, NOT_RUN, KNOWN, FLAKY, PASSED, NOT_APPLICABLE = Outcome


def ledger(**levels: Level) -> Ledger:
    return Ledger(requirement(name, level) for name, level in levels.items())


@pytest.mark.parametrize(
    ("outcomes", "word", "exit_code"),
    [
        ([PASSED, PASSED], "conformant", 0),
        ([PASSED, FLAKY], "conformant", 0),
        ([PASSED, NOT_APPLICABLE], "conformant", 0),
        ([PASSED, FAILED], "non-conformant", 1),
        ([ERROR, FAILED], "non-conformant", 1),
        ([PASSED, KNOWN], "non-conformant", 0),
        ([ERROR, KNOWN], "non-conformant", 3),
        ([PASSED, ERROR], "incomplete", 3),
        ([PASSED, NOT_RUN], "incomplete", 2),
        ([NOT_RUN, NOT_RUN], "incomplete", 2),
        ([NOT_APPLICABLE, NOT_APPLICABLE], "incomplete", 3),
    ],
)
def test_the_worst_outcome_of_a_must_decides(outcomes: list[Outcome], word: str, exit_code: int) -> None:
    verdict = judge(zip("AB", outcomes, strict=True), ledger(A="MUST", B="MUST"), partial=False)

    assert (verdict.word, verdict.exit_code) == (word, exit_code)


def test_a_requirement_takes_the_worst_of_its_tests() -> None:
    verdict = judge([("A", PASSED), ("A", FAILED), ("A", PASSED)], ledger(A="MUST"), partial=False)

    assert verdict.outcomes == {"A": FAILED}


def test_a_should_is_counted_and_does_not_decide() -> None:
    verdict = judge([("A", PASSED), ("B", FAILED)], ledger(A="MUST", B="SHOULD"), partial=False)

    assert (verdict.word, verdict.counts()) == ("conformant", "1 passed, 1 failed")


@pytest.mark.parametrize(("accepts_part", "exit_code"), [(False, 2), (True, 0)])
def test_a_part_of_the_suites_is_never_conformant(accepts_part: bool, exit_code: int) -> None:
    verdict = judge([("A", PASSED)], ledger(A="MUST"), partial=True, accepts_part=accepts_part)

    assert (verdict.word, verdict.exit_code) == ("incomplete", exit_code)


def test_a_part_in_which_a_must_fails_is_non_conformant_however_it_was_asked_for() -> None:
    verdict = judge([("A", FAILED)], ledger(A="MUST"), partial=True, accepts_part=True)

    assert (verdict.word, verdict.exit_code) == ("non-conformant", 1)


def test_an_interrupted_run_is_incomplete_even_if_all_that_ran_is_well() -> None:
    verdict = judge([("A", PASSED)], ledger(A="MUST"), partial=False, interrupted=True)

    assert (verdict.word, verdict.exit_code) == ("incomplete", 2)


def test_nothing_executed_is_never_fine() -> None:
    assert judge([], ledger(A="MUST"), partial=False).exit_code == 3


def test_a_part_may_be_without_a_must() -> None:
    verdict = judge([("A", PASSED)], ledger(A="SHOULD"), partial=True, accepts_part=True)

    assert (verdict.word, verdict.exit_code) == ("incomplete", 0)
    assert judge([("A", NOT_RUN)], ledger(A="SHOULD"), partial=True, accepts_part=True).exit_code == 3
    assert judge([("A", PASSED)], ledger(A="SHOULD"), partial=False).exit_code == 3


def test_a_fault_outside_of_tests_leaves_the_verdict_open_but_not_a_violation() -> None:
    passed, failed = (judge([("A", o)], ledger(A="MUST"), partial=False, faults=True) for o in (PASSED, FAILED))

    assert (passed.word, passed.exit_code) == ("incomplete", 3)
    assert (failed.word, failed.exit_code) == ("non-conformant", 1)


def test_a_stale_baseline_is_red() -> None:
    assert judge([("A", PASSED)], ledger(A="MUST"), partial=False, stale=True).exit_code == 1


def test_what_nothing_decides_is_provisional_unless_it_is_untestable_or_another_s() -> None:
    entries = [requirement("A"), requirement("B"), requirement("C", untestable="no clock to move")]
    all_of_them = Ledger([*entries, requirement("D", applies_to=("upstream",))])

    verdict = judge([("A", PASSED)], all_of_them, partial=False)

    assert (verdict.word, verdict.observed, verdict.musts, verdict.provisional) == ("conformant", 1, 2, ("B",))
