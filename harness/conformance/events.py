"""What happens in a run, line by line as it happens: ``events.jsonl``.

A run that is killed leaves this file alone, and :func:`replay` makes its record from it. Everything that is noted has
been through the redactor before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.conformance.baseline import Baseline, Expectation
from harness.conformance.ledger import Ledger, Requirement
from harness.conformance.outcomes import Reason
from harness.conformance.record import Fault, FrozenRecord, Run, ShardRecord
from harness.conformance.results import Phase, Results, RunFacts
from harness.errors import UsageError

__all__ = ["FILE_NAME", "EventLog", "replay"]

FILE_NAME = "events.jsonl"
_SCHEMA = "podid-events/1"
_LIMIT_BYTES = 50 << 20
_KILLED = Reason("interrupted", "the run was killed before this test ended")
_PLAIN_FACTS = ("id", "started", "argv", "subject", "environment", "leg", "is_repeated", "specimen")


class EventLog:
    """Appends to the events of a run; each line is with the kernel when :meth:`note` returns."""

    def __init__(self, directory: Path, limit_bytes: int = _LIMIT_BYTES) -> None:
        """Begin, or go on, in a run's directory.

        Args:
            directory: The run's.
            limit_bytes: From this size on phases are written without their evidence.
        """
        self.file = directory / FILE_NAME
        self._limit = limit_bytes

    def begin(self, facts: RunFacts, ledger: Ledger, baseline: Baseline) -> None:
        """Note what the run stands on: a record made of the events must not depend on files that may change."""
        self.note(
            "run",
            schema=_SCHEMA,
            facts={name: getattr(facts, name) for name in _PLAIN_FACTS},
            frozen=asdict(facts.frozen) if facts.frozen else None,
            outside=sorted(facts.outside),
            ledger=[asdict(entry) for entry in ledger.values()],
            baseline=[asdict(entry) | {"expires": entry.expires.isoformat()} for entry in baseline],
        )

    def collected(self, results: Results, facts: RunFacts) -> None:
        """Note what is to run."""
        self.note(
            "collected",
            bindings={name: list(identifiers) for name, identifiers in results.bindings.items()},
            behaviours=results.behaviours,
            bound=sorted(results.bound),
            partial=facts.partial,
            shard=asdict(facts.shard) if facts.shard else None,
        )

    def phase(self, node: str, phase: Phase) -> None:
        """Note the end of a phase of a test."""
        kept: Mapping[str, Any] = phase
        if self.file.stat().st_size > self._limit:
            kept = {**phase, "evidence": [], "checks": [entry | {"evidence": []} for entry in phase["checks"]]}
        self.note("phase", test=node, **kept)

    def note(self, event: str, **members: Any) -> None:
        """Append one event."""
        line = json.dumps({"event": event, **members}, ensure_ascii=False) + "\n"
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def replay(directory: Path) -> Run:
    """Return the record of a run that left no other than its events.

    Raises:
        UsageError: There are none, or they are damaged.
    """
    file = directory / FILE_NAME
    try:
        events = list(_read(file))
        if not events or events[0]["event"] != "run" or events[0]["schema"] != _SCHEMA:
            raise UsageError(f"{file} does not begin like the events of a run of version {_SCHEMA}")
        return _replay(events)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"no run's events at {file}: {error}") from error


def _read(file: Path) -> Iterator[dict[str, Any]]:
    lines = file.read_text().splitlines(keepends=True)
    for line in lines:
        # The last line of a run that was killed may be half a line.
        if line.endswith("\n"):
            yield json.loads(line)


def _replay(events: list[dict[str, Any]]) -> Run:
    first, *others = events
    facts = RunFacts(**first["facts"], interrupted=True, not_started=_KILLED)
    facts.frozen = FrozenRecord(**first["frozen"]) if first["frozen"] else None
    facts.outside = frozenset(first["outside"])
    entries: list[dict[str, Any]] = [entry | {"applies_to": tuple(entry["applies_to"])} for entry in first["ledger"]]
    ledger = Ledger(Requirement(**entry) for entry in entries)
    baseline = Baseline(Expectation.from_data(entry) for entry in first["baseline"])
    results = Results()
    for event in others:
        match event.pop("event"):
            case "collected":
                results.bindings |= {name: tuple(identifiers) for name, identifiers in event["bindings"].items()}
                results.behaviours |= event["behaviours"]
                results.bound |= set(event["bound"])
                facts.partial = facts.partial or event["partial"]
                facts.shard = ShardRecord(**event["shard"]) if event["shard"] else None
            case "environment":
                facts.environment |= event["facts"]
            case "fault":
                facts.faults.append(Fault(**event))
            case "phase":
                node: str = event.pop("test")
                results.add(node, Phase(**event))  # pyright: ignore[reportArgumentType]
            case _:
                pass
    return results.run(facts, ledger, baseline, None)
