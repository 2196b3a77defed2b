"""Floors: how many requirements a whole run of a folder or a file of the suites must have executed, at least.

They are committed beside the suites (``floors.yaml``). A file that is deleted, or whose tests are no longer collected,
would otherwise leave a run that is conformant about less and less.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from harness.conformance.outcomes import EXECUTED
from harness.conformance.record import TestRecord
from harness.errors import UsageError

__all__ = ["FILE_NAME", "asked", "read_floors", "shortfalls"]

FILE_NAME = "floors.yaml"
_EXECUTED = frozenset(outcome.value for outcome in EXECUTED)


def read_floors(suites: Path) -> dict[str, int]:
    """Return path → floor, paths relative to the checkout; none if the suites have no such file.

    Raises:
        UsageError: The file is damaged.
    """
    file = suites / FILE_NAME
    if not file.exists():
        return {}
    try:
        floors: dict[str, Any] = yaml.safe_load(file.read_text())["floors"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if faults := [name for name, floor in floors.items() if not isinstance(floor, int) or floor < 1]:
        raise UsageError(f"{file}: no floor is {', '.join(faults)}", hint="give each path a number from 1 up")
    return floors


def asked(
    floors: Mapping[str, int], arguments: Iterable[Path], ignored: Collection[Path], root: Path
) -> dict[str, int]:
    """Return the floors of what a run was asked for whole, before any of its tests are deselected.

    Args:
        floors: All floors.
        arguments: Folders and files that pytest was given, absolute.
        ignored: Those it was told to pass over, absolute.
        root: What the floors' paths are relative to.
    """

    def is_asked(path: Path) -> bool:
        return any(map(path.is_relative_to, given)) and not any(map(path.is_relative_to, ignored))

    given = list(arguments)
    return {name: floor for name, floor in floors.items() if is_asked(root / name)}


def shortfalls(floors: Mapping[str, int], narrowed: Collection[str], tests: Iterable[TestRecord]) -> list[str]:
    """Return what stayed below its floor.

    Args:
        floors: Those of what was asked for.
        narrowed: Files of which tests were left out on purpose; no floor of theirs counts, nor of a folder above.
        tests: What ran.
    """
    executed: dict[str, set[str]] = {name: set() for name in floors}
    for test in tests:
        decided = {name for name, outcome in test.decisions.items() if outcome in _EXECUTED}
        for name in floors:
            if _covers(name, test.file):
                executed[name] |= decided
    return [
        f"{name}: {len(executed[name])} requirements executed, at least {floor} expected (suites/{FILE_NAME})"
        for name, floor in floors.items()
        if len(executed[name]) < floor and not any(_covers(name, file) for file in narrowed)
    ]


def _covers(name: str, file: str) -> bool:
    return PurePosixPath(file).is_relative_to(name)
