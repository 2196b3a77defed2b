"""Which requirements and tests are asked for: ``--only`` and ``--level``.

An expression is one or more terms, all of which must hold: ``AGT-2*`` (or ``req:AGT-2*``), ``scenario:test_s3``,
``profile:core``, ``level:MUST``, each with globs, and with a leading ``!`` for the opposite. Of several expressions one
must hold; those that only say ``!`` take away from the others.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from harness.conformance.ledger import Ledger, Level, Requirement
from harness.conformance.record import read_run
from harness.errors import UsageError

__all__ = ["Selection", "select", "tests_to_rerun"]

_OF_REQUIREMENT: dict[str, Callable[[Requirement], str]] = {
    "req": lambda entry: entry.id,
    "profile": lambda entry: entry.profile,
    "level": lambda entry: entry.level,
}
_WORTH_ANOTHER = frozenset({"failed", "error", "could-not-run", "flaky"})
_KINDS = (*_OF_REQUIREMENT, "scenario")


@dataclass(frozen=True, slots=True)
class _Term:
    kind: str
    pattern: str
    is_wanted: bool

    def holds(self, entry: Requirement, file: str) -> bool:
        value = PurePath(file).stem if self.kind == "scenario" else _OF_REQUIREMENT[self.kind](entry)
        return fnmatchcase(value, self.pattern) is self.is_wanted


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for."""

    _wanted: tuple[tuple[_Term, ...], ...]
    _unwanted: tuple[tuple[_Term, ...], ...]
    _levels: tuple[Level, ...]

    def asks(self, entry: Requirement, file: str = "") -> bool:
        """Tell whether a requirement is asked for, as a test in some file decides it."""

        def holds(terms: Sequence[_Term]) -> bool:
            return all(term.holds(entry, file) for term in terms)

        wanted = any(map(holds, self._wanted)) if self._wanted else True
        return wanted and all(map(holds, self._unwanted)) and (not self._levels or entry.level in self._levels)


def select(ledger: Ledger, only: Sequence[str], levels: Sequence[Level], scenarios: Collection[str] = ()) -> Selection:
    """Return what is asked for; without arguments, everything.

    Args:
        ledger: All requirements.
        only: Expressions.
        levels: Levels to keep; empty keeps all.
        scenarios: Names of all scenarios: files of the suites without their ending.

    Raises:
        UsageError: A term is of no known kind, or matches nothing.
    """
    expressions = [tuple(_term(ledger, text, scenarios) for text in expression.split()) for expression in only]
    wanted = tuple(terms for terms in expressions if any(term.is_wanted for term in terms))
    unwanted = tuple(terms for terms in expressions if not any(term.is_wanted for term in terms))
    return Selection(wanted, unwanted, tuple(levels))


def tests_to_rerun(report: Path) -> set[str]:
    """Return the tests of an earlier run that did not pass at once.

    Raises:
        UsageError: There is none.
    """
    nodes = {test.node for test in read_run(report).tests if test.outcome in _WORTH_ANOTHER}
    if not nodes:
        raise UsageError(f"nothing to run again: every test of {report} passed or did not apply")
    return nodes


def _term(ledger: Ledger, text: str, scenarios: Collection[str]) -> _Term:
    kind, colon, pattern = text.removeprefix("!").rpartition(":")
    kind = kind if colon else "req"
    if kind not in _KINDS:
        raise UsageError(f"no kind of term {kind!r} in {text!r}", hint=f"one of {', '.join(_KINDS)}")
    known = set(scenarios) if kind == "scenario" else {_OF_REQUIREMENT[kind](entry) for entry in ledger.values()}
    if not any(fnmatchcase(value, pattern) for value in known):
        nearest = difflib.get_close_matches(pattern, known, n=3)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "see: podid list"
        name = "requirement" if kind == "req" else kind
        raise UsageError(f"no {name} matches {pattern!r}", hint=hint)
    return _Term(kind, pattern, not text.startswith("!"))
