"""What a run says, from the outcomes of its tests."""

from __future__ import annotations

import pytest

from harness.conformance.ledger import Ledger, Level, Requirement
from harness.conformance.verdict import Outcome, judge

FAILED, ERROR, NOT_RUN, PASSED = Outcome.FAILED, Outcome.ERROR, Outcome.NOT_RUN, Outcome.PASSED


def ledger(**levels: Level) -> Ledger:
    return Ledger(Requirement(name, level, "sentence", "source") for name, level in levels.items())


@pytest.mark.parametrize(
    ("outcomes", "word", "exit_code"),
    [
        ([PASSED, PASSED], "conformant", 0),
        ([PASSED, FAILED], "non-conformant", 1),
        ([ERROR, FAILED], "non-conformant", 1),
        ([PASSED, ERROR], "incomplete", 3),
        ([PASSED, NOT_RUN], "incomplete", 2),
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


def test_a_part_of_the_suites_is_never_conformant() -> None:
    verdict = judge([("A", PASSED)], ledger(A="MUST"), partial=True)

    assert (verdict.word, verdict.exit_code) == ("incomplete", 0)


def test_nothing_executed_is_never_fine() -> None:
    assert judge([], ledger(A="MUST"), partial=False).exit_code == 3
