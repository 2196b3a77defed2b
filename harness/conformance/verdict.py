"""From the outcomes of tests to outcomes of requirements, and from those to one word and one exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from harness.conformance.ledger import Ledger

__all__ = ["ExitCode", "Outcome", "Verdict", "judge"]


class Outcome(Enum):
    """What a test says about its requirements, from bad to good: a requirement takes the worst of its tests."""

    FAILED = "failed"
    """The subject contradicted the requirement."""
    ERROR = "error"
    """The harness broke; says nothing about the subject."""
    NOT_RUN = "could-not-run"
    """Collected, but never executed."""
    PASSED = "passed"


_WORST_FIRST = list(Outcome)


class ExitCode:
    """Exit codes of a run."""

    CONFORMANT = 0
    NON_CONFORMANT = 1
    INCOMPLETE = 2
    HARNESS_ERROR = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says about the subject."""

    word: str
    exit_code: int
    outcomes: Mapping[str, Outcome]
    """Requirement ID → outcome, for every requirement that a selected test decides."""

    def counts(self) -> str:
        """Return the counts in words, such as ``41 passed, 1 failed``."""
        counter = Counter(self.outcomes.values())
        return ", ".join(
            f"{counter[outcome]} {outcome.value}" for outcome in reversed(_WORST_FIRST) if counter[outcome]
        )


def judge(results: Iterable[tuple[str, Outcome]], ledger: Ledger, *, partial: bool) -> Verdict:
    """Judge a run.

    Args:
        results: (requirement ID, outcome) of every test and requirement it is bound to.
        ledger: Levels: only a MUST makes the verdict worse.
        partial: Whether only a part of the suites was selected; then the run is never conformant.
    """
    outcomes: dict[str, Outcome] = {}
    for identifier, outcome in results:
        worst = min(outcome, outcomes.get(identifier, Outcome.PASSED), key=_WORST_FIRST.index)
        outcomes[identifier] = worst
    musts = {outcome for identifier, outcome in outcomes.items() if ledger[identifier].level == "MUST"}
    if Outcome.FAILED in musts:
        return Verdict("non-conformant", ExitCode.NON_CONFORMANT, outcomes)
    if Outcome.ERROR in musts or not musts:
        return Verdict("incomplete", ExitCode.HARNESS_ERROR, outcomes)
    if Outcome.NOT_RUN in musts:
        return Verdict("incomplete", ExitCode.INCOMPLETE, outcomes)
    if partial:
        # Everything that was asked for is fine, but it was not asked for everything.
        return Verdict("incomplete", ExitCode.CONFORMANT, outcomes)
    return Verdict("conformant", ExitCode.CONFORMANT, outcomes)
