"""What a mutant is, and the list of them all."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from harness.errors import UsageError

__all__ = ["SHARED_TEST", "WHOLE_POD", "Mutant", "Suite", "all_mutants", "find", "mutant", "override"]

Suite = Literal["agent", "webhook"]
SUITES: tuple[Suite, ...] = ("agent", "webhook")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A subject with one deliberate fault."""

    name: str
    """Begins with the suite's name."""
    fault: str
    """What it does wrong, in one sentence."""
    insert: Callable[[], None]
    """Puts the fault into the subject, which is then started; a trivial subject runs here to its end."""
    must_kill: tuple[str, ...] = ()
    """IDs of the requirements that must find it out."""
    may_kill: Mapping[str, str] = field(default_factory=dict[str, str])
    """Requirements that fail as a consequence, as IDs or globs, and why."""
    source: str = ""
    """Where a released agent or webhook had this fault."""
    meets: Mapping[str, str] | None = None
    """For a trivial subject, which must meet nothing else: MUSTs that it meets, as IDs or globs, and why."""

    @property
    def suite(self) -> Suite:
        """The suite that judges it."""
        return "agent" if self.name.startswith("agent-") else "webhook"

    @property
    def is_trivial(self) -> bool:
        """Whether it is no agent and no webhook at all, so that nearly every MUST must fail."""
        return self.meets is not None

    def may_fail(self, identifier: str) -> bool:
        """Whether a requirement may fail with it."""
        return self.is_trivial or any(fnmatchcase(identifier, name) for name in (*self.must_kill, *self.may_kill))

    def may_pass(self, identifier: str) -> bool:
        """Whether a trivial subject may meet a requirement."""
        return any(fnmatchcase(identifier, name) for name in self.meets or ())


SHARED_TEST = "the same tests show it"
"""The usual reason for a requirement in ``may_kill``."""
WHOLE_POD = "tests of one thing compare the whole pod"
"""Another, for webhooks."""
_ALL: dict[str, Mutant] = {}


def mutant(
    name: str,
    *must_kill: str,
    may_kill: Mapping[str, str] | None = None,
    source: str = "",
    meets: Mapping[str, str] | None = None,
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function as a mutant; its docstring says what is wrong.

    Args:
        name: What ``--subject mutant:…`` calls it.
        must_kill: See :class:`Mutant`, like the rest.
        may_kill: Likewise.
        source: Likewise.
        meets: Likewise.
    """

    def register(insert: Callable[[], None]) -> Callable[[], None]:
        fault = " ".join((inspect.getdoc(insert) or "").split())
        if name in _ALL or not name.startswith(SUITES) or not fault or not (must_kill or meets is not None):
            raise ValueError(f"{name}: a name that is free, a docstring, and what must kill it are needed")
        _ALL[name] = Mutant(name, fault, insert, must_kill, dict(may_kill or {}), source, meets)
        return insert

    return register


def override(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put ``make(original)`` in the place of a member of a module or class of the subject."""
    setattr(owner, name, make(getattr(owner, name)))


def all_mutants() -> Sequence[Mutant]:
    """Return every mutant there is."""
    for file in _modules():
        _import(file)
    return tuple(_ALL.values())


def _modules() -> list[Path]:
    here = Path(__file__).parent
    return [here / "trivial.py", *sorted(here.glob("*/*.py"))]


def _import(file: Path) -> None:
    names = file.relative_to(Path(__file__).parent).with_suffix("").parts
    importlib.import_module(".".join((__package__ or "", *names)))


def find(name: str) -> Mutant:
    """Return a mutant by name.

    Raises:
        UsageError: There is none of that name.
    """
    # Only the module that has it: others import what it does not need, and a run of the suite starts it many times.
    for file in _modules():
        if file.stem == "trivial" or f'"{name}"' in file.read_text():
            _import(file)
        if name in _ALL:
            return _ALL[name]
    raise UsageError(f"no mutant {name!r}", hint="list them with: podid mutants --list")
