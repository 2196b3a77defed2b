"""Which requirement found out which mutant: judging the runs of mutants, and writing the matrix down.

Pure: runs come in as outcomes by requirement.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal

from harness.conformance.reports import html
from harness.subject.mutants.catalogue import Mutant

__all__ = ["Matrix", "Row", "State", "judge_control", "judge_mutant", "unguarded"]

State = Literal["killed", "survived", "over-killed", "fine", "broken"]
"""Of a mutant one of the first three; of the reference, whether it is fine or broken."""
_KILLS = "failed"
_GOOD: tuple[State, ...] = ("killed", "fine")


@dataclass(frozen=True, slots=True)
class Row:
    """What the suite said about one subject."""

    name: str
    fault: str
    state: State
    killed_by: tuple[str, ...]
    """IDs that failed."""
    missing: tuple[str, ...] = ()
    """IDs that should have failed, with what they came out as; of the reference, what should have passed."""
    surplus: tuple[str, ...] = ()
    """IDs that failed although nobody expects them to."""
    source: str = ""
    seconds: float = 0.0
    judged: int = 0
    """Requirements about which the run said something."""
    note: str = ""
    """Why there are no outcomes, if so."""
    is_trivial: bool = False

    @property
    def is_good(self) -> bool:
        """Whether it is as it should be."""
        return self.state in _GOOD


def judge_mutant(
    mutant: Mutant, outcomes: Mapping[str, str], musts: Collection[str], *, seconds: float = 0.0, note: str = ""
) -> Row:
    """Judge the run of a mutant: only what failed kills, so an error or a time-out saves it.

    Args:
        mutant: What was run.
        outcomes: Requirement ID → outcome.
        musts: IDs of the requirements that are MUSTs.
        seconds: How long it took.
        note: Why there are no outcomes.
    """
    killed_by = tuple(sorted(name for name, outcome in outcomes.items() if outcome == _KILLS))
    wanted = mutant.must_kill
    if mutant.is_trivial:
        applicable = {name for name in outcomes if outcomes[name] != "not-applicable"}
        wanted = tuple(sorted(name for name in applicable & set(musts) if not mutant.may_pass(name)))
    missing = tuple(f"{name} ({outcomes.get(name) or 'not run'})" for name in wanted if outcomes.get(name) != _KILLS)
    surplus = tuple(name for name in killed_by if not mutant.may_fail(name))
    survived = bool(missing) or not killed_by
    state: State = "survived" if survived else "over-killed" if surplus else "killed"
    facts = (mutant.source, seconds, len(outcomes), note, mutant.is_trivial)
    return Row(mutant.name, mutant.fault, state, killed_by, missing, surplus, *facts)


def judge_control(
    name: str, outcomes: Mapping[str, str], wanted: Collection[str], *, seconds: float = 0.0, note: str = ""
) -> Row:
    """Judge the run of the reference: whatever kills a mutant must let the original live.

    Args:
        name: Which reference.
        outcomes: Requirement ID → outcome.
        wanted: IDs that must have passed.
        seconds: How long it took.
        note: Why there are no outcomes.
    """
    failed = tuple(sorted(name for name, outcome in outcomes.items() if outcome == _KILLS))
    missing = tuple(
        f"{name} ({outcomes.get(name) or 'not run'})"
        for name in sorted({*wanted, *failed})
        if outcomes.get(name) not in {"passed", "flaky", "not-applicable"}
    )
    state: State = "broken" if missing else "fine"
    if flaky := [name for name in sorted(outcomes) if outcomes[name] == "flaky"]:
        note = note or f"passed at the second attempt only: {' '.join(flaky)}"
    return Row(name, "The original, without a fault.", state, failed, missing, (), "", seconds, len(outcomes), note)


def unguarded(mutants: Sequence[Mutant], musts: Collection[str]) -> set[str]:
    """Return the MUSTs that no mutant proves able to fail; trivial subjects prove too little to count."""
    return set(musts) - {name for mutant in mutants for name in mutant.must_kill}


@dataclass(frozen=True, slots=True)
class Matrix:
    """All rows of a run."""

    rows: Sequence[Row]
    """The references first."""
    unguarded: Sequence[str]
    """MUSTs that no mutant must be killed by."""
    newly_unguarded: Sequence[str] = field(default=())
    """Those among them that the committed list does not have."""
    guarded_now: Sequence[str] = field(default=())
    """Those that the committed list need not have any more."""

    @property
    def exit_code(self) -> int:
        """0 if all is as it should be, else 1."""
        return 0 if all(row.is_good for row in self.rows) and not self.newly_unguarded else 1

    @property
    def mutants(self) -> Sequence[Row]:
        """All but the originals."""
        return [row for row in self.rows if row.state not in {"fine", "broken"}]

    @property
    def killed(self) -> int:
        """How many mutants were found out as declared."""
        return sum(row.is_good for row in self.mutants)

    @property
    def by_requirement(self) -> Mapping[str, Sequence[str]]:
        """Requirement ID → what it found out; trivial subjects aside, which fail nearly everywhere."""
        pairs = sorted((name, row.name) for row in self.rows if not row.is_trivial for name in row.killed_by)
        return {name: [subject for _, subject in group] for name, group in groupby(pairs, itemgetter(0))}

    @property
    def line(self) -> str:
        """The result in one line."""
        bad = [
            f"{state} {', '.join(names)}"
            for state in ("survived", "over-killed", "broken")
            if (names := self._of(state))
        ]
        if self.newly_unguarded:
            bad.append(f"newly unguarded: {', '.join(self.newly_unguarded)}")
        text = (
            f"mutants: {self.killed} of {len(self.mutants)} killed,"
            f" {len(self.unguarded)} MUST unguarded (exit {self.exit_code})"
        )
        return "; ".join([text, *bad])

    def _of(self, state: str) -> list[str]:
        return [row.name for row in self.rows if row.state == state]

    def as_json(self) -> str:
        """Return the matrix for programs."""
        rows = {
            row.name: {
                "state": row.state,
                "fault": row.fault,
                "killed_by": row.killed_by,
                "missing": row.missing,
                "surplus": row.surplus,
                "source": row.source,
                "judged": row.judged,
                "seconds": round(row.seconds, 1),
                "note": row.note,
            }
            for row in self.rows
        }
        data = {"schema": "podid-mutants/1.0", "line": self.line, "exit_code": self.exit_code, "subjects": rows}
        return json.dumps(data | {"unguarded": list(self.unguarded)}, indent=1) + "\n"

    def as_markdown(self) -> str:
        """Return the matrix for people: by subject, by requirement, and what is unguarded."""
        lines = [
            "# Kill matrix",
            "",
            self.line,
            "",
            "| subject | | found out by | seconds | fault |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row in self.rows:
            found = " ".join(row.killed_by[:12]) + (f" … ({len(row.killed_by)})" if len(row.killed_by) > 12 else "")
            lines.append(f"| {row.name} | {row.state} | {found} | {row.seconds:.1f} | {row.fault} {row.source} |")
        lines += [*self._bad_lines(), "", "## By requirement", "", "| requirement | kills |", "| --- | --- |"]
        lines += [f"| {name} | {' '.join(killed)} |" for name, killed in self.by_requirement.items()]
        lines += ["", f"## Unguarded: {len(self.unguarded)} MUST", "", " ".join(self.unguarded), ""]
        return "\n".join(lines)

    def as_html(self, sentences: Mapping[str, str]) -> str:
        """Return the matrix as one offline page that looks like a run's.

        Args:
            sentences: Requirement ID → what it says.
        """
        template = html.environment(Path(__file__).parent).get_template("kill_matrix.html.jinja")
        return template.render(matrix=self, sentences=sentences, style=html.style())

    def _bad_lines(self) -> list[str]:
        lines: list[str] = []
        for row in self.rows:
            if row.is_good:
                continue
            lines.append(f"- **{row.name}** {row.state}{': ' + row.note if row.note else ''}")
            lines += [f"  - did not fail: {', '.join(row.missing)}"] if row.missing and row.state == "survived" else []
            lines += [f"  - did not pass: {', '.join(row.missing)}"] if row.state == "broken" else []
            lines += [f"  - failed unexpectedly: {', '.join(row.surplus)}"] if row.surplus else []
        return ["", "## Not as declared", "", *lines] if lines else []

    def complaints(self) -> list[str]:
        """Return what is not as declared, a line each."""
        return [line for line in self._bad_lines() if line.startswith(("-", "  -"))]
