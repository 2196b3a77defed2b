"""One record of several runs: the suites of one subject, or the shards of one suite.

Runs are put together only if they are about the same thing: one subject, one ledger, one frozen set, each test once,
each plan of shards whole. Everything that does not fit is named at once.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from harness.conformance.record import FeatureRecord, PartRecord, Run, TestRecord
from harness.conformance.results import RunFacts, ledger_of, record_of
from harness.errors import UsageError

__all__ = ["bring_diagnostics", "merge"]

_LISTED = 5


def merge(identifier: str, runs: Sequence[Run]) -> Run:
    """Return the record of all runs together; the verdict is judged anew over the union.

    Args:
        identifier: ID of the merged run.
        runs: Their records.

    Raises:
        UsageError: They do not fit together; says everything that keeps them apart.
    """
    if obstacles := list(_obstacles(runs)):
        raise UsageError("these runs make no one report:\n  " + "\n  ".join(obstacles))
    first = runs[0]
    facts = RunFacts(
        id=identifier,
        started=min(_seconds(run.started_at) for run in runs),
        argv=["podid", "merge", *(run.id for run in runs)],
        subject=first.subject,
        environment=_environment(runs),
        partial=any((run.shard.of if run.shard else run.scope) == "partial" for run in runs),
        interrupted=any(run.interrupted or not run.finished_at for run in runs),
        faults=list(dict.fromkeys(fault for run in runs for fault in run.faults)),
        redactions=sum((Counter(run.redactions) for run in runs), Counter[str]()),
        specimen={run.id: run.specimen for run in runs},
        leg=", ".join(sorted({run.leg for run in runs})),
        parts=[part for run in runs for part in run.parts or [PartRecord(run.id, run.argv, run.line)]],
        frozen=first.frozen,
        features=_features(runs),
        outside=frozenset(entry.id for entry in first.requirements if entry.status == "later"),
    )
    bound = {entry.id for run in runs for entry in run.requirements if entry.status == "bound"}
    finished = max(_seconds(run.finished_at or run.started_at) for run in runs)
    tests = [_moved(test, run) for run in runs for test in run.tests]
    return record_of(facts, tests, ledger_of(first), bound, finished)


def _features(runs: Sequence[Run]) -> dict[str, FeatureRecord]:
    """Return what is known of each feature, of the run that looked for it if one did."""
    known = [(name, found) for run in runs for name, found in run.detected_features.items()]
    return dict(sorted(known, key=lambda entry: entry[1].detected is not None))


def bring_diagnostics(sources: Mapping[str, Path], directory: Path) -> None:
    """Copy the diagnostics of all runs to where the merged record's tests say that they are.

    Args:
        sources: Run ID → the run's directory.
        directory: The merged run's.
    """
    for identifier, source in sources.items():
        if (source / "diagnostics").is_dir():
            shutil.copytree(source / "diagnostics", directory / "diagnostics" / identifier)


def _moved(test: TestRecord, run: Run) -> TestRecord:
    """Return a test whose diagnostics are in its run's own folder: two runs may have used the same name."""

    def path(told: str) -> str:
        return f"diagnostics/{run.id}/{told.removeprefix('diagnostics/')}" if told else ""

    earlier = [replace(attempt, diagnostics=path(attempt.diagnostics)) for attempt in test.earlier]
    return replace(test, diagnostics=path(test.diagnostics), earlier=earlier)


def _obstacles(runs: Sequence[Run]) -> Iterable[str]:
    first = runs[0]
    for run in runs[1:]:
        if run.subject != first.subject:
            yield f"{run.id} judges subject {run.subject!r}, {first.id} judges {first.subject!r}"
        if run.frozen != first.frozen:
            told = [entry.frozen.release if entry.frozen else "none" for entry in (run, first)]
            yield f"{run.id} holds it to the frozen set {told[0]}, {first.id} to {told[1]}"
        if changed := _differing(first, run):
            yield f"{run.id} has another ledger than {first.id}: {_listed(changed)}"
    # Facts that say what was under test; of somebody else's programs a run knows how they are called.
    for name in ("agent", "webhook") if first.subject == "upstream" else ("sources",):
        values = {run.environment[name]: run.id for run in runs if name in run.environment}
        if len(values) > 1:
            yield f"not one {name}: " + ", ".join(f"{value} in {identifier}" for value, identifier in values.items())
    yield from _doubles(runs)
    yield from _missing_shards(runs)


def _doubles(runs: Sequence[Run]) -> Iterable[str]:
    for name, count in Counter(run.id for run in runs).items():
        if count > 1:
            yield f"{name} is given {count} times"
    holders: dict[str, list[str]] = {}
    for run in runs:
        for test in run.tests:
            holders.setdefault(test.node, []).append(run.id)
    shared: dict[tuple[str, ...], list[str]] = {}
    for node, names in holders.items():
        if len(set(names)) > 1:
            shared.setdefault(tuple(dict.fromkeys(names)), []).append(node)
    for names, nodes in shared.items():
        yield f"{' and '.join(names)} ran the same tests: {_listed(nodes)}"


def _missing_shards(runs: Sequence[Run]) -> Iterable[str]:
    plans: dict[tuple[int, str], list[int]] = {}
    for run in runs:
        if run.shard:
            plans.setdefault((run.shard.total, run.shard.plan), []).append(run.shard.index)
    for (total, plan), found in plans.items():
        if missing := [f"{index}/{total}" for index in range(1, total + 1) if index not in found]:
            yield f"of shards {plan[:8]} there is no {', '.join(missing)}"
        for index, count in Counter(found).items():
            if count > 1:
                yield f"of shards {plan[:8]} there is {index}/{total} {count} times"


def _differing(one: Run, other: Run) -> list[str]:
    """Return IDs that two runs do not understand in the same way."""
    ours, theirs = ledger_of(one), ledger_of(other)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def _environment(runs: Sequence[Run]) -> dict[str, str]:
    values: dict[str, list[str]] = {}
    for run in runs:
        for name, value in run.environment.items():
            if value not in (known := values.setdefault(name, [])):
                known.append(value)
    return {name: "; ".join(known) for name, known in values.items()}


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
