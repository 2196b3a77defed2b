"""Runs for tests of what is made of them: built through the same door as real ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.conformance.baseline import Baseline
from harness.conformance.ledger import Ledger, Level, Requirement
from harness.conformance.outcomes import Reason
from harness.conformance.record import Fault, Run
from harness.conformance.results import Phase, Results, RunFacts

START = 1_700_000_000.0


def requirement(name: str, level: Level = "MUST", **members: Any) -> Requirement:
    fields: dict[str, Any] = {
        "sentence": f"{name} holds.",
        "source": "https://example.org/spec",
        "applies_to": ("ours",),
    }
    return Requirement(name, level, **fields | {"profile": "core", "observe": "unit"} | members)


def phase(when: str, outcome: str = "passed", **members: Any) -> Phase:
    empty: dict[str, Any] = {"reason": None, "message": "", "started": START, "seconds": 0.5, "worker": ""}
    lists: dict[str, Any] = {
        "checks": [],
        "evidence": [],
        "unfinished": [],
        "diagnostics": "",
        "resources": {},
        "requirements": [],
    }
    return Phase(when=when, outcome=outcome, **empty | lists | members)  # type: ignore[typeddict-item]


def make_run(outcomes: Mapping[str, str], *, levels: Mapping[str, Level] | None = None, **members: Any) -> Run:
    """Return a run in which one test decides each requirement.

    Args:
        outcomes: Requirement ID → outcome; ``""`` for a requirement that no test decides.
        levels: Requirement ID → level; MUST by default.
        members: Members of the phase that decides, ``facts`` of the run, and ``members`` of the requirements.
    """
    facts = RunFacts("run-1", START, ["suites"], "ours")
    for name, value in members.pop("facts", {}).items():
        setattr(facts, name, value)
    texts = members.pop("members", {})
    ledger = Ledger(requirement(name, (levels or {}).get(name, "MUST"), **texts) for name in outcomes)
    results = Results()
    results.bound = {name for name, outcome in outcomes.items() if outcome}
    for name in results.bound:
        node = f"suites/test_a.py::test_{name.lower()}"
        results.bindings[node] = (name,)
        reason = {"could-not-run": ["prerequisite", "nothing here"], "error": ["body", "KeyError: 'x'"]}
        results.add(node, phase("setup"))
        decided = {"reason": reason.get(outcomes[name])} | members
        results.add(node, phase("call", outcomes[name], **decided))
        results.add(node, phase("teardown", checks=members.get("checks", []), evidence=members.get("evidence", [])))
    return results.run(facts, ledger, Baseline(), START + 10)


def fault(message: str) -> dict[str, Any]:
    return {"faults": [Fault("set-up", message)], "not_started": Reason("interrupted", "the run was interrupted")}
