"""Ceilings: the most that a subject may use of something, as requirements (HRN-RES-02)."""

from __future__ import annotations

from pathlib import Path

from harness.conformance.history import note_measurement, read_measurements
from harness.conformance.ledger import Ledger
from harness.conformance.recording import Evidence, check
from harness.errors import UsageError

__all__ = ["Ceilings"]


class Ceilings:
    """What the ledger allows, and what earlier runs of the same leg measured."""

    def __init__(self, ledger: Ledger, history: Path, leg: str) -> None:
        """Keep where values are.

        Args:
            ledger: Has the ceilings.
            history: Directory of what earlier runs left.
            leg: Which runs compare with each other.
        """
        self._ledger = ledger
        self._history = history
        self._leg = leg

    def hold(self, name: str, observed: float) -> None:
        """Check a measurement against its ceiling; show how far away it is, and what earlier runs measured.

        Raises:
            UsageError: The requirement has no ceiling.
        """
        ceiling = self._ledger[name].ceiling
        if ceiling is None:
            raise UsageError(f"{name} has no ceiling in the ledger")
        observed = round(observed, 2)
        earlier = read_measurements(self._history, self._leg, name)
        margin = f": margin {1 - observed / ceiling.most:.0%}" if ceiling.most else ""
        lines = [
            f"{observed:g} of {ceiling.most:g} {ceiling.unit}{margin}",
            f"earlier runs, oldest first: {', '.join(f'{value:g}' for value in earlier) or 'none'}",
        ]
        check(
            name,
            what=ceiling.metric,
            expected=f"at most {ceiling.most:g} {ceiling.unit}",
            observed=observed,
            holds=observed <= ceiling.most,
            evidence=[Evidence("text", f"{ceiling.metric} and its ceiling", "\n".join(lines))],
        )
        note_measurement(self._history, self._leg, name, observed)
