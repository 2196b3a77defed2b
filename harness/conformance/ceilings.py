"""Ceilings: the most that a subject may use of something, as requirements (HRN-RES-02)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.conformance.ledger import Ledger
from harness.conformance.recording import Evidence, check
from harness.errors import UsageError

__all__ = ["Ceilings"]

_FILE = "ceilings.jsonl"
_SHOWN = 10


class Ceilings:
    """What the ledger allows, and what earlier runs of the same leg measured."""

    def __init__(self, ledger: Ledger, history: Path, leg: str) -> None:
        """Keep where values are.

        Args:
            ledger: Has the ceilings.
            history: Directory; ``ceilings.jsonl`` in it gets a line for each measurement.
            leg: Which runs compare with each other.
        """
        self._ledger = ledger
        self._file = history / _FILE
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
        earlier = self._earlier(name)
        lines = [
            f"{observed:g} of {ceiling.most:g} {ceiling.unit}: {1 - observed / ceiling.most:.0%} below the ceiling",
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
        self._note(name, observed)

    def _earlier(self, name: str) -> list[float]:
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
        mine = [float(entry["observed"]) for entry in entries if (entry["leg"], entry["id"]) == (self._leg, name)]
        return mine[-_SHOWN:]

    def _note(self, name: str, observed: float) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"time": now, "leg": self._leg, "id": name, "observed": observed}) + "\n")
