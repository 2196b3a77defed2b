"""From the outcomes of requirements to one word and one exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.conformance.ledger import Kind, Ledger
from harness.conformance.outcomes import EXECUTED, Outcome, worst

__all__ = ["ExitCode", "Verdict", "Word", "judge"]

Word = Literal["conformant", "non-conformant", "incomplete"]


class ExitCode:
    """Exit codes of a run."""

    CONFORMANT = 0
    NON_CONFORMANT = 1
    INCOMPLETE = 2
    HARNESS_ERROR = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says about the subject."""

    word: Word
    exit_code: int
    outcomes: Mapping[str, Outcome]
    """Requirement ID → outcome, for every requirement that a selected test decides."""
    observed: int = 0
    """MUSTs about which something was observed."""
    musts: int = 0
    """MUSTs that bind this subject and can be tested."""
    provisional: tuple[str, ...] = field(default=())
    """IDs that no test decides yet, or that are on trial; outside the verdict."""

    def counts(self) -> str:
        """Return the counts in words, such as ``41 passed, 1 failed``."""
        counter = Counter(self.outcomes.values())
        return ", ".join(f"{counter[outcome]} {outcome.value}" for outcome in reversed(Outcome) if counter[outcome])


def judge(
    results: Iterable[tuple[str, Outcome]],
    ledger: Ledger,
    *,
    partial: bool,
    accepts_part: bool = False,
    kind: Kind = "ours",
    bound: Collection[str] | None = None,
    outside: Collection[str] = (),
    faults: bool = False,
    stale: bool = False,
    interrupted: bool = False,
    leaked: bool = False,
) -> Verdict:
    """Judge a run.

    Args:
        results: (requirement ID, outcome) of every selected test and requirement it decides.
        ledger: Levels: only a MUST makes the verdict worse.
        partial: Whether only a part of the suites was selected; then the run is never conformant.
        accepts_part: Whether exit code 0 is right all the same when all of the part is fine.
        kind: Kind of the subject.
        bound: IDs that some test decides, selected or not; those of the results by default.
        outside: IDs that the release whose frozen set was asked for does not know.
        faults: Whether the harness broke outside of any test, so that something may be missing.
        stale: Whether the baseline expects a failure that no longer happens, or has expired.
        interrupted: Whether a person or a signal ended the run, or less was executed than a floor says.
        leaked: Whether a file held a secret: whatever the suites said, there is no report to rely on (HRN-SEC-03).
    """
    outcomes: dict[str, Outcome] = {}
    for identifier, outcome in results:
        outcomes[identifier] = worst((outcome, outcomes.get(identifier, Outcome.NOT_APPLICABLE)))
    bound = set(outcomes) if bound is None else bound
    testable = [
        entry
        for entry in ledger.values()
        if kind in entry.applies_to
        and entry.subject != "harness"
        and not (entry.untestable or entry.withdrawn or entry.id in outside)
    ]
    musts = [entry.id for entry in testable if entry.level == "MUST"]
    provisional = tuple(entry.id for entry in testable if entry.id not in bound or entry.provisional)
    judged = {
        name: outcome
        for name, outcome in outcomes.items()
        if ledger[name].level == "MUST"
        and ledger[name].subject != "harness"
        and name not in outside
        and not ledger[name].provisional
        and outcome is not Outcome.NOT_APPLICABLE
    }
    observed = sum(outcome in EXECUTED for outcome in judged.values())
    found = set(judged.values())
    if interrupted:
        found.add(Outcome.NOT_RUN)
    # A part may be without a MUST, but not without anything.
    is_empty = not found and not (partial and EXECUTED & set(outcomes.values()))
    word, exit_code = _judge(found, partial=partial, faults=faults, stale=stale, is_empty=is_empty)
    if exit_code == ExitCode.CONFORMANT and partial and not accepts_part:
        exit_code = ExitCode.INCOMPLETE
    if leaked:
        exit_code = ExitCode.HARNESS_ERROR
    return Verdict(word, exit_code, outcomes, observed, len(musts), provisional)


def _judge(musts: set[Outcome], *, partial: bool, faults: bool, stale: bool, is_empty: bool) -> tuple[Word, int]:
    contradicted = bool(musts & {Outcome.FAILED, Outcome.EXPECTED_FAILURE})
    is_whole = not musts & {Outcome.ERROR, Outcome.NOT_RUN} and bool(musts) and not partial and not faults
    word: Word = "non-conformant" if contradicted else "conformant" if is_whole else "incomplete"
    if faults and Outcome.FAILED not in musts:
        return word, ExitCode.HARNESS_ERROR
    if Outcome.FAILED in musts or stale:
        return word, ExitCode.NON_CONFORMANT
    if Outcome.ERROR in musts or is_empty:
        return word, ExitCode.HARNESS_ERROR
    if Outcome.NOT_RUN in musts:
        return word, ExitCode.INCOMPLETE
    # Left: all well; or a part was asked for and is well; or every failure is one that the baseline knows.
    return word, ExitCode.CONFORMANT
