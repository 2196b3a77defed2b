"""What the tests of a run said so far, and the run's record made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypedDict, cast

from harness.conformance.baseline import Baseline
from harness.conformance.ledger import Kind, Ledger
from harness.conformance.outcomes import Outcome, Reason, worst
from harness.conformance.record import CheckRecord, EvidenceRecord, Fault, RequirementRecord, Run, TestRecord
from harness.conformance.verdict import Verdict, judge

__all__ = ["Phase", "Results", "RunFacts", "decide", "instant"]


class Phase(TypedDict):
    """What one phase of one test left; plain data, because pytest-xdist carries it between processes."""

    when: str
    outcome: str
    reason: list[str] | None
    message: str
    started: float
    """Seconds since the epoch."""
    seconds: float
    worker: str
    checks: list[dict[str, Any]]
    evidence: list[dict[str, Any]]
    unfinished: list[str]
    """IDs for which the test's source has more checks than were reached."""
    diagnostics: str


_NOT_STARTED = Reason("not-started", "the run ended before this test began")


@dataclass(slots=True)
class RunFacts:
    """What a run knows about itself apart from its tests."""

    id: str
    started: float
    argv: list[str]
    subject: str
    environment: dict[str, str] = field(default_factory=dict[str, str])
    partial: bool = False
    interrupted: bool = False
    faults: list[Fault] = field(default_factory=list[Fault])
    redactions: Counter[str] = field(default_factory=Counter[str])
    specimen: Any = None
    not_started: Reason = _NOT_STARTED

    @property
    def kind(self) -> Kind:
        """Kind of the subject; a mutant is one of ours."""
        return "upstream" if self.subject == "upstream" else "ours"


def instant(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decide(
    identifiers: Iterable[str], body: Outcome, checks: Sequence[CheckRecord], unfinished: Iterable[str] = ()
) -> dict[str, Outcome]:
    """Return what one test says about each of its requirements.

    A requirement with checks takes the worst of them; one without, or one whose checks were not all reached, takes the
    outcome of the test's body. A bad end of the body never gets lost: if every requirement has its checks, it is all
    requirements' that did not fail already.

    Args:
        identifiers: Requirements that the test names.
        body: How the test's body ended, failed checks left aside.
        checks: What it recorded.
        unfinished: Requirements for which it has more checks than it reached.
    """
    failed = {entry.requirement for entry in checks if not entry.holds}
    checked = {entry.requirement for entry in checks} - set(unfinished)
    if body is not Outcome.PASSED and checked >= set(identifiers) - failed:
        checked.clear()
    return {
        name: Outcome.FAILED if name in failed else Outcome.PASSED if name in checked else body for name in identifiers
    }


class Results:
    """Collects phases as they end; in the controlling process, whatever process ran the test."""

    def __init__(self) -> None:
        """Begin empty."""
        self.bindings: dict[str, tuple[str, ...]] = {}
        """Node ID → requirement IDs, of the selected tests."""
        self.behaviours: dict[str, str] = {}
        self.bound: set[str] = set()
        """IDs that any collected test decides, selected or not."""
        self._attempts: dict[str, list[list[Phase]]] = {}

    def add(self, node: str, phase: Phase) -> None:
        """Take note of a phase; a further set-up of the same test is a further attempt."""
        attempts = self._attempts.setdefault(node, [])
        if not attempts or phase["when"] == "setup":
            attempts.append([])
        attempts[-1].append(phase)

    def has_finished(self, node: str) -> bool:
        """Tell whether a test came to an end."""
        return node in self._attempts

    def failed(self, node: str) -> set[str]:
        """Return what a test that came to an end says is not met."""
        decisions = _attempt(self.bindings[node], self._attempts[node][-1], _NOT_STARTED).decisions
        return {name for name, outcome in decisions.items() if outcome is Outcome.FAILED}

    def run(self, facts: RunFacts, ledger: Ledger, baseline: Baseline, finished: float | None) -> Run:
        """Return the record of the run as it is now.

        Args:
            facts: What is known apart from the tests.
            ledger: All requirements.
            baseline: The known failures.
            finished: When the run ended, or None while it goes on.
        """
        tests = [self._test(node, facts, ledger, baseline) for node in self.bindings]
        verdict, complaints = self.judge(tests, facts, ledger, baseline)
        faults = [*facts.faults, *(Fault("baseline", text) for text in complaints)]
        return Run(
            id=facts.id,
            started_at=instant(facts.started),
            finished_at=instant(finished) if finished else "",
            interrupted=facts.interrupted,
            argv=facts.argv,
            subject=facts.subject,
            environment=dict(sorted(facts.environment.items())),
            scope="partial" if facts.partial else "full",
            verdict=verdict.word,
            exit_code=verdict.exit_code,
            line=_line(verdict, facts),
            counts={
                outcome.value: count for outcome in Outcome if (count := Counter(verdict.outcomes.values())[outcome])
            },
            observed_musts=verdict.observed,
            musts=verdict.musts,
            requirements=_requirements(ledger, verdict, tests, facts.kind),
            tests=tests,
            faults=faults,
            redactions=dict(sorted(facts.redactions.items())),
            specimen=facts.specimen,
        )

    def judge(
        self, tests: Iterable[TestRecord], facts: RunFacts, ledger: Ledger, baseline: Baseline
    ) -> tuple[Verdict, list[str]]:
        """Return the verdict, and what is wrong with the baseline."""
        pairs = [(name, Outcome(outcome)) for test in tests for name, outcome in test.decisions.items()]
        said: dict[str, list[Outcome]] = {}
        for name, outcome in pairs:
            said.setdefault(name, []).append(outcome)
        decided = {name: worst(outcomes) for name, outcomes in said.items()}
        today = datetime.fromtimestamp(facts.started, UTC).date()
        complaints = baseline.complaints(decided, today)
        broken = any(fault.where in {"collection", "set-up", "canary", "reports"} for fault in facts.faults)
        verdict = judge(
            pairs,
            ledger,
            partial=facts.partial,
            interrupted=facts.interrupted,
            kind=facts.kind,
            bound=self.bound,
            faults=broken,
            stale=bool(complaints),
        )
        return verdict, complaints

    def _test(self, node: str, facts: RunFacts, ledger: Ledger, baseline: Baseline) -> TestRecord:
        identifiers = self.bindings[node]
        attempts = [_attempt(identifiers, phases, facts.not_started) for phases in self._attempts.get(node, [])]
        if not attempts:
            attempts = [_Attempt(dict.fromkeys(identifiers, Outcome.NOT_RUN), facts.not_started)]
        last = attempts[-1]
        decisions = {name: _retried([attempt.decisions[name] for attempt in attempts]) for name in identifiers}
        decisions = {name: baseline.apply(name, outcome, last.message) for name, outcome in decisions.items()}
        for name in identifiers:
            if facts.kind not in ledger[name].applies_to:
                decisions[name] = Outcome.NOT_APPLICABLE
        return TestRecord(
            node=node,
            behaviour=self.behaviours.get(node, ""),
            requirements=list(identifiers),
            outcome=worst(decisions.values()).value,
            decisions={name: outcome.value for name, outcome in decisions.items()},
            reason=last.reason,
            message=last.message,
            attempts=[worst(attempt.decisions.values()).value for attempt in attempts],
            started_at=instant(last.phases[0]["started"]) if last.phases else "",
            durations={phase["when"]: round(phase["seconds"], 3) for phase in last.phases},
            worker=last.phases[0]["worker"] if last.phases else "",
            checks=last.checks,
            evidence=[EvidenceRecord(**entry) for entry in last.final("evidence")],
            diagnostics=next((phase["diagnostics"] for phase in last.phases if phase["diagnostics"]), ""),
        )


@dataclass(slots=True)
class _Attempt:
    decisions: dict[str, Outcome]
    reason: Reason | None = None
    message: str = ""
    phases: list[Phase] = field(default_factory=list[Phase])
    checks: list[CheckRecord] = field(default_factory=list[CheckRecord])

    def final(self, member: str) -> list[dict[str, Any]]:
        """Return a member of the last phase, which has all that the earlier ones had."""
        return cast("Mapping[str, Any]", self.phases[-1])[member] if self.phases else []


def _attempt(identifiers: Sequence[str], phases: list[Phase], not_started: Reason) -> _Attempt:
    """Read one attempt: the body's phase decides, or the set-up when there was no body; the clean-up never does."""
    deciding = [phase for phase in phases if phase["when"] != "teardown"][-1]
    outcome = Outcome(deciding["outcome"])
    reason = Reason(*deciding["reason"]) if deciding["reason"] else None
    if deciding["when"] == "setup" and outcome is Outcome.PASSED:
        # Set-up is over and the body has not ended: it is running now, or it never will.
        outcome, reason = Outcome.NOT_RUN, not_started
    checks = [CheckRecord(**entry) for entry in phases[-1]["checks"]]
    decisions = decide(identifiers, outcome, checks, deciding["unfinished"])
    return _Attempt(decisions, reason, deciding["message"], phases, checks)


def _retried(outcomes: Sequence[Outcome]) -> Outcome:
    *earlier, last = outcomes
    return Outcome.FLAKY if last is Outcome.PASSED and Outcome.FAILED in earlier else last


def _requirements(ledger: Ledger, verdict: Verdict, tests: Iterable[TestRecord], kind: Kind) -> list[RequirementRecord]:
    deciding: dict[str, list[TestRecord]] = {}
    for test in tests:
        for name in test.requirements:
            deciding.setdefault(name, []).append(test)
    provisional = set(verdict.provisional)
    records: list[RequirementRecord] = []
    for entry in ledger.values():
        outcome = verdict.outcomes.get(entry.id)
        mine = deciding.get(entry.id, [])
        records.append(
            RequirementRecord(
                id=entry.id,
                area=entry.area,
                level=entry.level,
                sentence=entry.sentence,
                source=entry.source,
                applies_to=list(entry.applies_to),
                profile=entry.profile,
                observe=entry.observe,
                untestable=entry.untestable,
                status=_status(
                    (bool(entry.untestable), "untestable"),
                    (kind not in entry.applies_to, "foreign"),
                    (entry.id in provisional, "provisional"),
                ),
                outcome=outcome.value if outcome else "",
                reason=next(
                    (t.reason for t in mine if t.reason and outcome and t.decisions[entry.id] == outcome.value), None
                ),
                tests=[test.node for test in mine],
            )
        )
    return records


def _status(*cases: tuple[bool, str]) -> str:
    return next((status for applies, status in cases if applies), "bound")


def _line(verdict: Verdict, facts: RunFacts) -> str:
    scope = "a part of the suites" if facts.partial else "all suites"
    observed = f"{verdict.observed} of {verdict.musts} MUST observed"
    return (
        f"verdict: {verdict.word} (exit {verdict.exit_code}) — {observed}, {scope}: {verdict.counts() or 'nothing ran'}"
    )
