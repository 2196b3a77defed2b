"""What a run says on the screen at its end, above the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.conformance.ledger import Kind, Ledger
from harness.conformance.pace import rough
from harness.conformance.record import Run, gist
from harness.conformance.results import Phase
from harness.conformance.verdict import ExitCode

__all__ = ["obstacles", "plan", "repeated", "shortcomings", "tell_failure"]


def plan(
    bindings: Mapping[str, tuple[str, ...]], ledger: Ledger, kind: Kind, known: Mapping[str, float], seconds: float
) -> list[str]:
    """Return what a run would do: its tests in their order, what each decides and how long it took so far.

    Args:
        bindings: Node ID → requirement IDs, in the order in which they would run.
        ledger: All requirements.
        kind: Kind of the subject.
        known: Node ID → how long it usually takes, of those that ran before.
        seconds: How long all would take.
    """
    lines: list[str] = []
    for node, identifiers in bindings.items():
        lines.append(f"{node}  {rough(known[node])}" if node in known else node)
        applies = any(kind in ledger[name].applies_to for name in identifiers)
        lines.append(f"    {' '.join(identifiers)}{'' if applies else '  (does not apply to this subject)'}")
    decided = {name for identifiers in bindings.values() for name in identifiers}
    musts = sum(ledger[name].level == "MUST" for name in decided)
    lines.append(f"{len(bindings)} tests decide {len(decided)} requirements, {musts} of them MUST")
    new = f", guessing for {len(bindings) - len(known)} that never ran" if len(known) < len(bindings) else ""
    lines.append(
        f"expected to take {rough(seconds)}{new}" if known else "nobody knows how long: no earlier run has them"
    )
    return lines


def obstacles(found: Mapping[str, str]) -> list[str]:
    """Return which tests could not run, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for node, why in found.items():
        reasons.setdefault(why, []).append(node)
    return [f"{len(nodes)} could not run: {why}" for why, nodes in reasons.items()] or ["all of it could run"]


def shortcomings(run: Run) -> list[str]:
    """Return the requirements that are not met, how many did not run and why, and the harness's own faults."""
    lines = [_part(run)] if run.scope == "partial" else []
    for entry in run.requirements:
        if entry.outcome not in {"", "passed"}:
            why = f"  [{entry.reason.kind}]" if entry.reason else ""
            lines.append(f"{entry.outcome:14} {entry.id}  {entry.sentence}{why}")
    for outcome in ("could-not-run", "not-applicable"):
        reasons = [entry.reason for entry in run.requirements if entry.outcome == outcome]
        kinds = Counter(reason.kind if reason else "subject" for reason in reasons)
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        lines.append(f"{outcome}: {len(reasons)}{f' ({told})' if told else ''}")
    lines += [f"{fault.where}: {fault.message.strip().splitlines()[-1][:300]}" for fault in run.faults]
    return lines


def _part(run: Run) -> str:
    decided = sum(bool(entry.outcome) for entry in run.requirements)
    applicable = sum(entry.status in {"bound", "provisional"} for entry in run.requirements)
    is_fine = run.verdict == "incomplete" and set(run.counts) <= {"passed", "flaky", "not-applicable"}
    option = "; with --partial it would end with 0" if is_fine and run.exit_code == ExitCode.INCOMPLETE else ""
    return f"PARTIAL RUN: {decided} of {applicable} requirements, no conformance verdict{option}"


def tell_failure(terminal: Any, phase: Phase, diagnostics: str) -> None:
    """Say at once why a test failed; its whole text comes at the end, when many others stand between.

    Args:
        terminal: pytest's terminal reporter.
        phase: What failed.
        diagnostics: Where what was collected lies; counts only if something was.
    """
    broken = [check["requirement"] for check in phase["checks"] if not check["holds"]]
    terminal.ensure_newline()
    terminal.line(f"  {' '.join(broken or phase['requirements'])}: {gist(phase['message'])[:300]}")
    if phase["diagnostics"]:
        terminal.line(f"  diagnostics: {diagnostics}")


def repeated(run: Run) -> list[str]:
    """Return how often each test passed that ran several times, and in which ways it failed."""
    lines: list[str] = []
    for test in run.tests:
        passed = test.attempts.count("passed")
        lines.append(f"passed {passed} of {len(test.attempts)}: {test.node}")
        messages = [*(attempt.message for attempt in test.earlier), test.message]
        ways = Counter(text[:200] for text in map(gist, messages) if text)
        lines += [f"    {count} x {way}" for way, count in ways.most_common()]
    return lines
