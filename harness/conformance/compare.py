"""The regression gate: what changed between two runs, requirement by requirement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.conformance.record import ChangeRecord, RequirementRecord, Run, SinceRecord, gist
from harness.conformance.reports.markdown import cell, section

__all__ = ["Change", "Class", "Comparison", "classify", "compare", "since"]

ABSENT = ""
"""The outcome of a requirement that a run does not know or did not decide."""

_MET = {"passed", "flaky"}
_SKIPPED = {"error", "could-not-run", "not-applicable"}


class Class(Enum):
    """A kind of change; the value is what reports say."""

    REGRESSED = "newly failing"
    STILL_FAILING = "still failing"
    VANISHED = "vanished"
    BECAME_SKIPPED = "became skipped"
    FIXED = "newly passing"
    NEW = "new"


_RED = {Class.REGRESSED, Class.VANISHED, Class.BECAME_SKIPPED}


def classify(old: str, new: str) -> Class | None:
    """Return how an outcome changed, or None when it did not.

    Args:
        old: Outcome in the old run, or :data:`ABSENT`.
        new: Outcome in the new run, or :data:`ABSENT`.
    """
    if old == new:
        return Class.STILL_FAILING if new == "failed" else None
    if ABSENT in {old, new} or old == "not-applicable":
        return Class.VANISHED if new == ABSENT else Class.NEW
    if new in _SKIPPED:
        # From one way of not running to another nothing was lost, unless the requirement went out of scope.
        return None if old in _SKIPPED and new != "not-applicable" else Class.BECAME_SKIPPED
    if new in _MET:
        return None if old in _MET else Class.FIXED
    if new == "expected-failure" and old not in _MET:
        return None if old == "failed" else Class.NEW
    return Class.REGRESSED


@dataclass(frozen=True, slots=True)
class Change:
    """One requirement whose outcome changed, or which keeps failing."""

    kind: Class
    id: str
    level: str
    sentence: str
    old: str
    new: str
    why: str
    """Expected and observed, or the reason, as the new run has it."""
    links: tuple[str, ...] = ()
    """Where the old and the new page have the evidence; without a page, none."""

    @property
    def is_red(self) -> bool:
        """Whether it closes the gate: lost MUSTs do, and so does a new one that fails."""
        lost = self.kind in _RED or (self.kind is Class.NEW and self.new in {"failed", "error", "could-not-run"})
        return lost and self.level == "MUST"

    def row(self) -> tuple[str, ...]:
        """Return the cells of a Markdown table; what closes the gate is in bold."""
        name = f"**{self.id}**" if self.is_red else self.id
        outcome = f"{self.old or 'absent'} → {self.new or 'absent'}"
        evidence = " → ".join(f"[{'new' if number else 'old'}]({link})" for number, link in enumerate(self.links))
        return name, self.level, cell(self.sentence), outcome, cell(self.why), evidence


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed between two runs."""

    old: Run
    new: Run
    changes: tuple[Change, ...]
    incomparable: tuple[str, ...]
    """Why the comparison cannot give all-clear; empty when it can."""
    objections: tuple[str, ...] = ()
    """What else stands against a release, when one is to be decided on."""

    @property
    def exit_code(self) -> int:
        """1 when something is red, else 2 when the runs do not allow an all-clear, else 0."""
        if self.objections or any(change.is_red for change in self.changes):
            return 1
        return 2 if self.incomparable else 0

    def line(self) -> str:
        """Say the result in one line."""
        counter = Counter(change.kind for change in self.changes)
        parts = [f"{counter[kind]} {kind.value}" for kind in Class if counter[kind]]
        parts += [f"{len(self.objections)} against the release"] if self.objections else []
        counts = ", ".join(parts) or "no change"
        return f"compare: {counts} (exit {self.exit_code}) — {self.old.id} → {self.new.id}"

    def text(self) -> str:
        """Return the comparison for a terminal."""
        lines = [
            f"{change.kind.value:15} {change.id} ({change.level}): {change.old or 'absent'} → {change.new or 'absent'}"
            f"{'' if change.is_red else '  [no gate]'}\n    {change.sentence}"
            + (f"\n    {change.why}" if change.why else "")
            + (f"\n    see {' and '.join(change.links)}" if change.links else "")
            for change in self.changes
        ]
        lines += [f"against the release: {objection}" for objection in self.objections]
        return "\n".join([*lines, *(f"not comparable: {reason}" for reason in self.incomparable), self.line()])

    def markdown(self) -> str:
        """Return the comparison for a pull request."""
        sign = {0: "✅", 1: "❌", 2: "⚠️"}[self.exit_code]
        parts = [f"## {sign} {self.line()}", *(f"Not comparable: {reason}." for reason in self.incomparable)]
        rows = [(cell(objection),) for objection in self.objections]
        parts.append(section("Against the release", ("what",), rows, 200))
        for kind in Class:
            rows = [change.row() for change in self.changes if change.kind is kind]
            parts.append(
                section(kind.value.capitalize(), ("ID", "", "requirement", "outcome", "why", "evidence"), rows, 200)
            )
        return "\n\n".join(part for part in parts if part) + "\n"

    def data(self) -> dict[str, Any]:
        """Return the comparison as JSON data."""
        changes = [
            {"class": change.kind.value, "red": change.is_red, "id": change.id, "level": change.level}
            | {"sentence": change.sentence, "old": change.old, "new": change.new, "why": change.why}
            | {"evidence": list(change.links)}
            for change in self.changes
        ]
        runs = {"old": self.old.id, "new": self.new.id, "exit_code": self.exit_code}
        reasons = {"not_comparable": list(self.incomparable), "against_release": list(self.objections)}
        return {**runs, **reasons, "changes": changes}


def compare(old: Run, new: Run, objections: Iterable[str] = (), pages: tuple[str, str] | None = None) -> Comparison:
    """Compare two runs of the suites.

    Args:
        old: The run that was good enough.
        new: The one to judge.
        objections: What else stands against a release.
        pages: Addresses of both runs' pages, for links to the evidence.
    """
    before, after = ({entry.id: entry for entry in run.requirements} for run in (old, new))
    names = [*after, *(name for name in before if name not in after)]
    changes = [_change(name, before.get(name), after.get(name), new, pages) for name in names]
    order = list(Class)
    found = sorted((change for change in changes if change), key=lambda change: (order.index(change.kind), change.id))
    return Comparison(old, new, tuple(found), tuple(_obstacles(old, new)), tuple(objections))


def since(old: Run, new: Run) -> SinceRecord:
    """Return what changed since an earlier run; what the new one left out on purpose is no change."""
    changes = compare(old, new).changes
    kept = [change for change in changes if new.scope == "full" or change.kind is not Class.VANISHED]
    entries = [ChangeRecord(change.kind.value, change.id, change.level, change.old, change.new) for change in kept]
    return SinceRecord(old.id, old.line, entries)


def _change(
    name: str,
    old: RequirementRecord | None,
    new: RequirementRecord | None,
    run: Run,
    pages: tuple[str, str] | None,
) -> Change | None:
    before, after = (entry.outcome if entry else ABSENT for entry in (old, new))
    kind = classify(before, after)
    entry = new or old
    if kind is None or entry is None:
        return None
    # Somebody who lowers a level must not open the gate with it.
    level = "MUST" if "MUST" in {item.level for item in (old, new) if item} else entry.level
    known = zip(pages or (), (old, new), strict=False)
    links = tuple(f"{page}#{name}" for page, item in known if item and item.outcome)
    return Change(kind, name, level, entry.sentence, before, after, _why(new, run) if new else "", links)


def _why(entry: RequirementRecord, run: Run) -> str:
    if entry.outcome in {"", "passed"}:
        return ""
    tests = [test for test in run.tests if test.node in entry.tests]
    checks = [check for test in tests for check in test.checks if check.requirement == entry.id and not check.holds]
    if checks:
        return "; ".join(f"expected {check.expected!r}, observed {check.observed!r}" for check in checks)[:2000]
    if entry.reason:
        return f"{entry.reason.kind}: {entry.reason.detail}"
    return next((text for text in (gist(test.message) for test in tests) if text), "")


def _legs(run: Run) -> set[str]:
    """Return the legs of a run; a merged one has several."""
    return {leg for leg in run.leg.split(", ") if leg}


def _obstacles(old: Run, new: Run) -> Iterable[str]:
    for name, run in (("OLD", old), ("NEW", new)):
        if run.scope == "partial":
            yield f"{name} is a run of a part of the suites"
        elif run.interrupted or not run.finished_at:
            yield f"{name} was interrupted"
    if missing := sorted(_legs(old) - _legs(new)):
        yield f"NEW lacks {', '.join(missing)} among its legs"
    profiles = [run.settings["profile"].value for run in (old, new) if "profile" in run.settings]
    if len(set(profiles)) > 1:
        yield f"OLD was judged by profile {profiles[0]}, NEW by {profiles[1]}"
    if old.frozen != new.frozen:
        yield "OLD and NEW are held to different frozen sets"
    if new.verdict == "incomplete" and new.scope == "full":
        yield "NEW's verdict is incomplete"
