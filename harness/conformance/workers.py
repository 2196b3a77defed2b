"""What a worker of pytest-xdist tells, at its end, the process that the person started; phases travel by themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from harness.conformance.issued import Issued
from harness.conformance.record import Fault, FeatureRecord, ShardRecord
from harness.conformance.results import Results, RunFacts

__all__ = ["report", "take_over"]


def report(results: Results, facts: RunFacts, issued: Issued) -> dict[str, Any]:
    """Return plain data for the way between the processes."""
    return {
        "bindings": {name: list(identifiers) for name, identifiers in results.bindings.items()},
        "behaviours": results.behaviours,
        "bound": sorted(results.bound),
        "partial": facts.partial,
        "narrowed": sorted(facts.narrowed),
        "shard": asdict(facts.shard) if facts.shard else None,
        "environment": facts.environment,
        "redactions": dict(facts.redactions),
        "faults": [asdict(fault) for fault in facts.faults],
        "features": {name: asdict(found) for name, found in facts.features.items() if found.detected is not None},
        "issued": issued.secrets,
    }


def take_over(told: dict[str, Any], results: Results, facts: RunFacts, issued: Issued) -> None:
    """Add what a worker told."""
    results.bindings |= {name: tuple(identifiers) for name, identifiers in told["bindings"].items()}
    results.behaviours |= told["behaviours"]
    results.bound |= set(told["bound"])
    facts.partial = facts.partial or told["partial"]
    facts.narrowed |= set(told["narrowed"])
    facts.shard = ShardRecord(**told["shard"]) if told["shard"] else None
    facts.environment |= told["environment"]
    facts.redactions.update(told["redactions"])
    facts.faults += [Fault(**fault) for fault in told["faults"]]
    facts.features |= {name: FeatureRecord(**found) for name, found in told["features"].items()}
    issued.add(told["issued"])
