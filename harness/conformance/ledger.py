"""The ledger: every requirement with its level, sentence and source, read from ``suites/requirements/*.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from harness.errors import UsageError

__all__ = ["Ledger", "Level", "Requirement", "read_ledger"]

Level = Literal["MUST", "SHOULD", "MAY"]

# Usable in shells, anchors and pytest -k.
_IDENTIFIER = re.compile(r"[A-Z][A-Z0-9]{1,9}(-[A-Z0-9]{1,16}){1,5}")
_FIELDS = {"id", "level", "sentence", "source"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement on the subject or on the lab's AWS."""

    id: str
    level: Level
    sentence: str
    source: str
    """Where it comes from: a document or source file a reader can open."""


class Ledger(Mapping[str, Requirement]):
    """All requirements by ID."""

    def __init__(self, requirements: Iterable[Requirement]) -> None:
        """Index requirements by ID; the caller made sure that IDs are unique."""
        self._by_id = {requirement.id: requirement for requirement in requirements}

    def __getitem__(self, identifier: str) -> Requirement:
        return self._by_id[identifier]

    def __iter__(self) -> Any:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)


def read_ledger(directory: Path) -> Ledger:
    """Read and check every ``*.yaml`` file of a directory.

    Raises:
        UsageError: Lists every fault found, with its file and ID.
    """
    requirements: list[Requirement] = []
    faults: list[str] = []
    seen: dict[str, str] = {}
    for file in sorted(directory.glob("*.yaml")):
        try:
            entries: list[dict[str, Any]] = yaml.safe_load(file.read_text())["requirements"]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            faults.append(f"{file.name}: {' '.join(str(error).split())}")
            continue
        for entry in entries:
            identifier = str(entry.get("id", ""))
            faults += [f"{file.name}: {identifier or entry}: {fault}" for fault in _faults(entry)]
            if identifier in seen:
                faults.append(f"{file.name}: {identifier}: also in {seen[identifier]}")
            seen[identifier] = file.name
            if not faults:
                requirements.append(Requirement(**entry))
    if faults:
        raise UsageError("the requirement ledger is invalid:\n  " + "\n  ".join(faults))
    return Ledger(requirements)


def _faults(entry: dict[str, Any]) -> list[str]:
    faults = [f"missing {name}" for name in sorted(_FIELDS - set(entry))]
    faults += [f"unknown field {name}" for name in sorted(set(entry) - _FIELDS)]
    if "id" in entry and not _IDENTIFIER.fullmatch(str(entry["id"])):
        faults.append("not an ID of the form AREA-NAME")
    if "level" in entry and entry["level"] not in get_args(Level):
        faults.append(f"level {entry['level']!r} is none of {', '.join(get_args(Level))}")
    return faults
