"""What stands against a release, beside what was lost since the last one: ``podid compare --release R``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.conformance.frozen import FrozenSet
from harness.conformance.history import Steadiness
from harness.conformance.record import Run
from harness.conformance.results import ledger_of

__all__ = ["objections"]


def objections(run: Run, frozen: FrozenSet, unsteady: Sequence[Steadiness]) -> Iterable[str]:
    """Return everything that keeps a release back.

    Args:
        run: The run of the candidate, best one merged from all suites.
        frozen: What the release is held to.
        unsteady: Requirements that were not steady in their last runs.
    """
    if run.verdict != "conformant":
        yield f"the verdict is {run.verdict}"
    entries = {entry.id: entry for entry in run.requirements}
    unbound = [name for name in frozen.digests if name not in entries or not entries[name].tests]
    if unbound:
        yield f"no test of this run decides {len(unbound)} of release {frozen.release}: {', '.join(sorted(unbound))}"
    yield from frozen.complaints(ledger_of(run))
    yield from (f"the baseline is not in order: {fault.message}" for fault in run.faults if fault.where == "baseline")
    for entry in unsteady:
        if entry.exceeds_budget and entry.id in entries and entries[entry.id].level == "MUST":
            yield f"{entry.id} was flaky in {entry.flaky} of its last {entry.runs} runs on {entry.leg}"
