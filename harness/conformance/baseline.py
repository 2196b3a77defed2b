"""The baseline: failures that are known, each with a reason, an issue and a date on which it stops to count.

Strict both ways: an entry whose requirement passes is stale, and one whose requirement fails in another way does not
count. Either makes the run red until somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

from harness.conformance.ledger import Ledger
from harness.conformance.outcomes import EXECUTED, Outcome
from harness.errors import UsageError

__all__ = ["Baseline", "Expectation", "read_baseline"]

_LONGEST_DAYS = 90


@dataclass(frozen=True, slots=True)
class Expectation:
    """One known failure."""

    id: str
    signature: str
    """Text that stands in the failure's message."""
    reason: str
    issue: str
    """URL."""
    expires: date

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Expectation:
        """Build one of JSON data, in which a date is a text."""
        members: dict[str, Any] = {**data, "expires": date.fromisoformat(data["expires"])}
        return cls(**members)


class Baseline:
    """The known failures of one subject."""

    def __init__(self, expectations: Iterable[Expectation] = ()) -> None:
        """Index entries by ID; the caller made sure that IDs are unique."""
        self._by_id = {entry.id: entry for entry in expectations}

    def __iter__(self) -> Iterator[Expectation]:
        return iter(self._by_id.values())

    def apply(self, identifier: str, outcome: Outcome, message: str) -> Outcome:
        """Return the outcome of one test for a requirement, with the baseline in mind.

        Args:
            identifier: The requirement.
            outcome: What the test said.
            message: The failure's text.
        """
        entry = self._by_id.get(identifier)
        known = entry is not None and outcome is Outcome.FAILED and entry.signature in message
        return Outcome.EXPECTED_FAILURE if known else outcome

    def unused(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """Return the entries about whose requirement a run says neither that it holds nor that it fails.

        Args:
            outcomes: Requirement ID → outcome, after :meth:`apply`.
        """
        found = {name: outcomes.get(name) for name in self._by_id}
        silent = {name: outcome for name, outcome in found.items() if outcome not in EXECUTED}
        return [f"{name}: {outcome.value if outcome else 'not selected'}" for name, outcome in silent.items()]

    def complaints(self, outcomes: Mapping[str, Outcome], today: date) -> list[str]:
        """Return what is stale or has expired.

        Args:
            outcomes: Requirement ID → outcome, after :meth:`apply`.
            today: Today's date.
        """
        texts: list[str] = []
        for name, entry in self._by_id.items():
            if entry.expires < today:
                texts.append(f"{name}: the expectation expired on {entry.expires}; see {entry.issue}")
            if outcomes.get(name) in {Outcome.PASSED, Outcome.FLAKY}:
                texts.append(f"{name}: passes, but the baseline expects it to fail; delete its entry")
        return texts


def read_baseline(file: Path, ledger: Ledger, today: date) -> Baseline:
    """Read ``suites/baselines/<subject>.yaml``.

    Raises:
        UsageError: Lists every fault found.
    """
    try:
        entries: list[Any] = yaml.safe_load(file.read_text())["expected_failures"] or []
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"the baseline {file} cannot be read: {error}") from error
    names = {field.name for field in fields(Expectation)}
    faults: list[str] = []
    seen: set[str] = set()
    for entry in entries:
        name = entry.get("id", entry)
        faults += [f"{name}: missing {field}" for field in sorted(names) if not entry.get(field)]
        faults += [f"{name}: unknown field {field}" for field in sorted(set(entry) - names)]
        expires = entry.get("expires")
        if expires and not isinstance(expires, date):
            faults.append(f"{name}: expires must be a date like 2026-12-31")
        elif expires and expires > today + timedelta(days=_LONGEST_DAYS):
            faults.append(f"{name}: expires more than {_LONGEST_DAYS} days ahead")
        if name not in ledger:
            faults.append(f"{name}: no such requirement")
        if name in seen:
            faults.append(f"{name}: listed twice")
        seen.add(name)
    if faults:
        raise UsageError(f"the baseline {file} is invalid:\n  " + "\n  ".join(faults))
    return Baseline(Expectation(**entry) for entry in entries)
