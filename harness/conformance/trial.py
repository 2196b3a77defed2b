"""New requirements on trial: run and reported, outside of the verdict, until they proved steady (HRN-FLK-04)."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from harness.conformance.history import runs_of
from harness.conformance.ledger import Ledger

__all__ = ["overdue", "ripe"]

_SHORTEST, _LONGEST = timedelta(days=14), timedelta(days=60)
_RUNS = 20


def ripe(ledger: Ledger, history: Path, today: date) -> list[str]:
    """Return the IDs that may count: on trial for two weeks, and steady in their last twenty runs.

    Args:
        ledger: All requirements.
        history: Directory of what earlier runs said.
        today: The day.
    """
    runs = runs_of(history, _RUNS)
    return [
        name
        for name, since in _on_trial(ledger).items()
        if today - since >= _SHORTEST and len(runs.get(name, [])) == _RUNS and all(runs[name])
    ]


def overdue(ledger: Ledger, today: date) -> list[str]:
    """Return what is wrong with trials that go on for too long."""
    return [
        f"{name} is provisional since {since}, more than {_LONGEST.days} days: make it steady, or withdraw it"
        for name, since in _on_trial(ledger).items()
        if today - since > _LONGEST
    ]


def _on_trial(ledger: Ledger) -> dict[str, date]:
    return {entry.id: date.fromisoformat(entry.provisional) for entry in ledger.values() if entry.provisional}
