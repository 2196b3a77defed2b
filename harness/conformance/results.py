"""What the tests of a run said so far, and the run's record made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypedDict, cast

from harness.conformance.baseline import Baseline
from harness.conformance.ledger import Kind, Ledger, Level, Requirement, kind_of
from harness.conformance.outcomes import Outcome, Reason, worst
from harness.conformance.record import (
    AttemptRecord,
    CheckRecord,
    EvidenceRecord,
    Fault,
    FeatureRecord,
    FrozenRecord,
    PartRecord,
    RequirementRecord,
    Run,
    ScenarioRecord,
    Setting,
    ShardRecord,
    TestRecord,
    Use,
)
from harness.conformance.usage import total_use
from harness.conformance.verdict import Verdict, judge

__all__ = ["Phase", "Results", "RunFacts", "decide", "instant", "ledger_of", "record_of"]


class Phase(TypedDict):
    """What one phase of one test left; plain data, because pytest-xdist carries it between processes."""

    when: str
    requirements: list[str]
    """What its test decides."""
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
    resources: Use
    """What agent and webhook used until now."""


# Faults that leave open what the run would have said.
_BREAKING = frozenset({"collection", "set-up", "secret", "reports"})
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
    leg: str = ""
    is_repeated: bool = False
    """Whether every test runs several times; then one bad attempt counts, whatever the others say."""
    shard: ShardRecord | None = None
    parts: list[PartRecord] = field(default_factory=list[PartRecord])
    frozen: FrozenRecord | None = None
    outside: frozenset[str] = frozenset()
    """IDs that the frozen set does not have."""
    accepts_part: bool = False
    """Whether a part of the suites is enough for exit code 0."""
    settings: dict[str, Setting] = field(default_factory=dict[str, Setting])
    features: dict[str, FeatureRecord] = field(default_factory=dict[str, FeatureRecord])
    searched: list[str] = field(default_factory=list[str])
    narrowed: set[str] = field(default_factory=set[str])
    """Files of which some tests were left out."""
    unused_expectations: list[str] = field(default_factory=list[str])

    @property
    def kind(self) -> Kind:
        """Kind of the subject; a mutant is one of ours."""
        return kind_of(self.subject)


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
        # Under pytest-xdist what a worker has collected is told at its end only.
        self.bindings.setdefault(node, tuple(phase["requirements"]))
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
        today = datetime.fromtimestamp(facts.started, UTC).date()
        decided = _decided(tests)
        complaints = [Fault("baseline", text) for text in baseline.complaints(decided, today)]
        told = replace(facts, faults=[*facts.faults, *complaints], unused_expectations=baseline.unused(decided))
        return record_of(told, tests, ledger, self.bound, finished)

    def _test(self, node: str, facts: RunFacts, ledger: Ledger, baseline: Baseline) -> TestRecord:
        identifiers = self.bindings[node]
        attempts = [_attempt(identifiers, phases, facts.not_started) for phases in self._attempts.get(node, [])]
        if not attempts:
            attempts = [_Attempt(dict.fromkeys(identifiers, Outcome.NOT_RUN), facts.not_started)]
        *earlier, last = attempts
        combined = worst if facts.is_repeated else _retried
        decisions = {name: combined([attempt.decisions[name] for attempt in attempts]) for name in identifiers}
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
            attempts=[attempt.outcome for attempt in attempts],
            started_at=last.started_at,
            durations={phase["when"]: round(phase["seconds"], 3) for phase in last.phases},
            worker=last.phases[0]["worker"] if last.phases else "",
            checks=last.checks,
            evidence=last.evidence,
            diagnostics=last.diagnostics,
            earlier=[attempt.record() for attempt in earlier],
            resources=last.phases[-1]["resources"] if last.phases else {},
        )


@dataclass(slots=True)
class _Attempt:
    decisions: dict[str, Outcome]
    reason: Reason | None = None
    message: str = ""
    phases: list[Phase] = field(default_factory=list[Phase])
    checks: list[CheckRecord] = field(default_factory=list[CheckRecord])

    @property
    def outcome(self) -> str:
        """The worst that it says."""
        return worst(self.decisions.values()).value

    @property
    def started_at(self) -> str:
        """When; empty when it never started."""
        return instant(self.phases[0]["started"]) if self.phases else ""

    @property
    def evidence(self) -> list[EvidenceRecord]:
        """What it saw; the last phase has all that the earlier ones had."""
        return [EvidenceRecord(**entry) for entry in self.phases[-1]["evidence"]] if self.phases else []

    @property
    def diagnostics(self) -> str:
        """Directory of what was collected."""
        return next((phase["diagnostics"] for phase in self.phases if phase["diagnostics"]), "")

    def record(self) -> AttemptRecord:
        """Return what is kept of it when another one follows."""
        seen = (self.checks, self.evidence, self.diagnostics)
        return AttemptRecord(self.outcome, self.started_at, self.reason, self.message, *seen)


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
    """Return what a test says that was tried again until it did not fail: a failure never gets lost."""
    if outcomes[-1] is Outcome.PASSED:
        return Outcome.FLAKY if {Outcome.FAILED, Outcome.ERROR} & set(outcomes) else Outcome.PASSED
    return worst(outcomes)


def _decided(tests: Iterable[TestRecord]) -> dict[str, Outcome]:
    """Return requirement ID → the worst that any test says about it."""
    found: dict[str, list[Outcome]] = {}
    for test in tests:
        for name, outcome in test.decisions.items():
            found.setdefault(name, []).append(Outcome(outcome))
    return {name: worst(outcomes) for name, outcomes in found.items()}


def record_of(
    facts: RunFacts, tests: list[TestRecord], ledger: Ledger, bound: Collection[str], finished: float | None
) -> Run:
    """Return the record of a run, or of several together, from its tests.

    Args:
        facts: What is known apart from the tests.
        tests: The tests, selected ones only.
        ledger: All requirements.
        bound: IDs that some test decides, selected or not.
        finished: When the run ended, or None while it goes on.
    """
    verdict = judge(
        _decided(tests).items(),
        ledger,
        partial=facts.partial,
        accepts_part=facts.accepts_part,
        interrupted=facts.interrupted or any(fault.where == "floor" for fault in facts.faults),
        kind=facts.kind,
        bound=bound,
        outside=facts.outside,
        faults=any(fault.where in _BREAKING for fault in facts.faults),
        stale=any(fault.where == "baseline" for fault in facts.faults),
        leaked=any(fault.where == "secret" for fault in facts.faults),
    )
    counter = Counter(verdict.outcomes.values())
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
        counts={outcome.value: counter[outcome] for outcome in Outcome if counter[outcome]},
        observed_musts=verdict.observed,
        musts=verdict.musts,
        requirements=_requirements(ledger, verdict, tests, facts),
        tests=tests,
        faults=facts.faults,
        redactions=dict(sorted(facts.redactions.items())),
        specimen=facts.specimen,
        leg=facts.leg,
        scenarios=_scenarios(tests),
        shard=facts.shard,
        parts=facts.parts,
        frozen=facts.frozen,
        settings=facts.settings,
        detected_features=facts.features,
        searched=facts.searched,
        unused_expectations=facts.unused_expectations,
    )


def _scenarios(tests: Iterable[TestRecord]) -> list[ScenarioRecord]:
    """Return the files of the suites: how long each took, and the most that agent and webhook used in it."""
    files: dict[str, list[TestRecord]] = {}
    for test in tests:
        files.setdefault(test.file, []).append(test)
    return [
        ScenarioRecord(name, round(sum(test.seconds for test in mine), 3), total_use(test.resources for test in mine))
        for name, mine in sorted(files.items())
    ]


def _requirements(
    ledger: Ledger, verdict: Verdict, tests: Iterable[TestRecord], facts: RunFacts
) -> list[RequirementRecord]:
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
                    (bool(entry.withdrawn), "withdrawn"),
                    (bool(entry.untestable), "untestable"),
                    (facts.kind not in entry.applies_to, "foreign"),
                    (entry.id in facts.outside, "later"),
                    (entry.id in provisional, "provisional"),
                ),
                outcome=outcome.value if outcome else "",
                reason=next(
                    (t.reason for t in mine if t.reason and outcome and t.decisions[entry.id] == outcome.value), None
                ),
                tests=[test.node for test in mine],
                withdrawn=entry.withdrawn,
            )
        )
    return records


def ledger_of(run: Run) -> Ledger:
    """Return the ledger as a record has it."""
    return Ledger(
        Requirement(
            id=entry.id,
            level=cast("Level", entry.level),
            sentence=entry.sentence,
            source=entry.source,
            applies_to=cast("tuple[Kind, ...]", tuple(entry.applies_to)),
            profile=entry.profile,
            observe=entry.observe,
            untestable=entry.untestable,
            provisional="on trial" if entry.status == "provisional" and entry.outcome else "",
            withdrawn=entry.withdrawn,
        )
        for entry in run.requirements
    )


def _status(*cases: tuple[bool, str]) -> str:
    return next((status for applies, status in cases if applies), "bound")


def _line(verdict: Verdict, facts: RunFacts) -> str:
    scope = "all suites"
    if facts.parts:
        scope = f"{len(facts.parts)} runs{', a part of the suites' if facts.partial else ''}"
    elif facts.shard:
        scope = f"shard {facts.shard.index}/{facts.shard.total}, a part of the suites"
    elif facts.partial:
        scope = "a part of the suites"
    release = f" of release {facts.frozen.release}" if facts.frozen else ""
    observed = f"{verdict.observed} of {verdict.musts} MUST{release} observed"
    return (
        f"verdict: {verdict.word} (exit {verdict.exit_code}) — {observed}, {scope}: {verdict.counts() or 'nothing ran'}"
    )
