"""What earlier runs leave for later ones: how long each test takes, and which requirements are not steady.

Three files in one directory (``.podid/history``; CI keeps it between runs): ``durations.json`` with the last twenty
durations of each test, ``flakes.jsonl`` with a line for each run, and ``ceilings.jsonl`` with a line for each
measurement that has a ceiling. All keep legs of a matrix apart. Where no earlier run has told how long a file takes,
``suites/durations.yaml`` does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from harness.conformance.outcomes import EXECUTED
from harness.conformance.record import Run, TestRecord, gist, write_atomically
from harness.errors import UsageError

__all__ = [
    "DEFAULT",
    "Durations",
    "Steadiness",
    "last_outcomes",
    "note_measurement",
    "note_run",
    "read_durations",
    "read_flakes",
    "read_measurements",
    "runs_of",
]

DEFAULT = ".podid/history"
_DURATIONS, _FLAKES, _CEILINGS = "durations.json", "flakes.jsonl", "ceilings.jsonl"
_SCHEMA = "podid-durations/1"
_USUAL = "durations.yaml"
_LAST = 20
_EXECUTED = frozenset(outcome.value for outcome in EXECUTED)
_UNKNOWN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Durations:
    """How long the tests of one leg took in earlier runs."""

    seconds: Mapping[str, Sequence[float]]
    """Node ID → durations, oldest first."""
    usual: Mapping[str, float] = field(default_factory=dict[str, float])
    """File → how long it takes where nobody has measured, all its tests together."""
    waiting: Collection[str] = ()
    """Files that wait for most of their time."""

    def expected(self, nodes: Iterable[str]) -> dict[str, float]:
        """Return how long each test will probably take.

        One that nobody measured has its share of what its file usually takes, as if the file had no tests but these;
        where that is not known, it takes as long as the median one.
        """
        nodes = list(nodes)
        known = {node: median(seconds) for node, seconds in self.seconds.items() if seconds}
        otherwise = median(known.values()) if known else _UNKNOWN_SECONDS
        tests = Counter(node.partition("::")[0] for node in nodes)
        shares = {file: self.usual[file] / count for file, count in tests.items() if file in self.usual}
        return {node: known.get(node, shares.get(node.partition("::")[0], otherwise)) for node in nodes}


def read_durations(directory: Path, leg: str, suites: Path | None = None) -> Durations:
    """Read how long the tests of a leg take.

    Args:
        directory: The history.
        leg: The leg; of one that has not run yet no test is known.
        suites: Where it is written how long files usually take.

    Raises:
        UsageError: A file is damaged.
    """
    measured = _read_durations(directory / _DURATIONS).get(leg, {})
    usual, waiting = _read_usual(suites / _USUAL) if suites else ({}, ())
    return Durations(measured, usual, waiting)


def _read_usual(file: Path) -> tuple[dict[str, float], Collection[str]]:
    """Return how long files usually take, and which of them mostly wait."""
    if not file.exists():
        return {}, ()
    try:
        document = yaml.safe_load(file.read_text())
        usual = {str(name): float(seconds) for name, seconds in document["seconds"].items()}
        waiting = [str(name) for name in document.get("waiting", ())]
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if unknown := set(waiting) - usual.keys():
        raise UsageError(f"{file}: nothing says how long what waits takes: {', '.join(sorted(unknown))}")
    return usual, waiting


def _read_durations(file: Path) -> dict[str, dict[str, list[float]]]:
    try:
        data: Any = json.loads(file.read_text())
        if data["schema"] != _SCHEMA:
            raise UsageError(f"{file} is of version {data['schema']!r}; this podid reads {_SCHEMA}", hint=f"rm {file}")
        legs: dict[str, dict[str, list[float]]] = data["legs"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is damaged: {error}", hint=f"rm {file}") from error
    return legs


def note_run(directory: Path, run: Run) -> None:
    """Add a run to both files."""
    directory.mkdir(parents=True, exist_ok=True)
    legs = _read_durations(directory / _DURATIONS)
    mine = legs.setdefault(run.leg, {})
    for test in run.tests:
        if test.outcome in _EXECUTED:
            mine[test.node] = [*mine.get(test.node, []), round(test.seconds, 3)][-_LAST:]
    data = {"schema": _SCHEMA, "legs": legs}
    write_atomically(directory / _DURATIONS, json.dumps(data, indent=1, sort_keys=True) + "\n")
    with (directory / _FLAKES).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(_line(run), ensure_ascii=False) + "\n")


def _line(run: Run) -> dict[str, Any]:
    executed = [entry.id for entry in run.requirements if entry.outcome in _EXECUTED | {"error"}]
    unsteady = [test for test in run.tests if set(test.attempts) & {"failed", "error"}]
    series = [
        {"id": name, "test": test.node, "outcome": outcome, "attempts": test.attempts, "signatures": _signatures(test)}
        for test in unsteady
        for name, outcome in test.decisions.items()
        if outcome in {"flaky", "failed", "error"}
    ]
    facts = {"run": run.id, "time": run.started_at, "leg": run.leg, "commit": run.environment.get("commit", "")}
    return {**facts, "executed": executed, "series": series}


def _signatures(test: TestRecord) -> list[str]:
    """Return what each bad attempt said, in one line."""
    messages = [*(attempt.message for attempt in test.earlier), test.message]
    return [text[:200] for text in map(gist, messages) if text]


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How one requirement came out in its last runs on one leg."""

    id: str
    leg: str
    runs: int
    flaky: int
    failed: int
    errors: int
    """Runs in which the harness broke: no flakes, and counted apart from them."""
    last: str
    """When it was unsteady last."""
    signature: str

    @property
    def exceeds_budget(self) -> bool:
        """Whether it was flaky more often than a release may have it."""
        return self.flaky >= 2

    def row(self) -> tuple[str, ...]:
        """Return the cells of a table."""
        counts = (f"{count}/{self.runs}" for count in (self.flaky, self.failed, self.errors))
        return self.id, self.leg, *counts, self.last[:10], self.signature


def read_flakes(directory: Path, legs: Collection[str] = ()) -> list[Steadiness]:
    """Return the requirements that were not steady in their last twenty runs, the flakiest first.

    Args:
        directory: The history.
        legs: Legs to look at; all by default.

    Raises:
        UsageError: The file is damaged.
    """
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in _lines(directory / _FLAKES):
        for name in line["executed"] if not legs or line["leg"] in legs else ():
            runs.setdefault((line["leg"], name), []).append(line)
    found = [_steadiness(name, leg, lines[-_LAST:]) for (leg, name), lines in runs.items()]
    unsteady = [entry for entry in found if entry.last]
    return sorted(unsteady, key=lambda entry: (-entry.flaky, -entry.failed, -entry.errors, entry.id, entry.leg))


def last_outcomes(directory: Path) -> dict[str, str]:
    """Return requirement ID → what its last run said and when, such as ``passed 2026-11-26``."""
    found: dict[str, str] = {}
    for line in _lines(directory / _FLAKES):
        unsteady = {series["id"]: series["outcome"] for series in line["series"]}
        found |= {name: f"{unsteady.get(name, 'passed')} {line['time'][:10]}" for name in line["executed"]}
    return found


def runs_of(directory: Path, last: int) -> dict[str, list[bool]]:
    """Return requirement ID → whether each of its last runs, on any leg, was steady and good."""
    found: dict[str, list[bool]] = {}
    for line in _lines(directory / _FLAKES):
        unsteady = {series["id"] for series in line["series"]}
        for name in line["executed"]:
            found[name] = [*found.get(name, []), name not in unsteady][-last:]
    return found


def read_measurements(directory: Path, leg: str, name: str) -> list[float]:
    """Return the last twenty measurements of a requirement on a leg, oldest first.

    Raises:
        UsageError: The file is damaged.
    """
    lines = _lines(directory / _CEILINGS)
    return [line["observed"] for line in lines if (line["leg"], line["id"]) == (leg, name)][-_LAST:]


def note_measurement(directory: Path, leg: str, name: str, observed: float) -> None:
    """Add a measurement; at once, and not with the run at its end, since the process that measures may be a worker."""
    directory.mkdir(parents=True, exist_ok=True)
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "leg": leg, "id": name, "observed": observed}
    with (directory / _CEILINGS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    except ValueError as error:
        raise UsageError(f"{file} is damaged: {error}", hint=f"rm {file}") from error


def _steadiness(name: str, leg: str, lines: Sequence[dict[str, Any]]) -> Steadiness:
    counts = {"flaky": 0, "failed": 0, "error": 0}
    last, signature = "", ""
    for line in lines:
        mine = [series for series in line["series"] if series["id"] == name]
        for outcome in {series["outcome"] for series in mine}:
            counts[outcome] += 1
        if mine:
            last, signature = line["time"], next((text for series in mine for text in series["signatures"]), "")
    return Steadiness(name, leg, len(lines), counts["flaky"], counts["failed"], counts["error"], last, signature)
