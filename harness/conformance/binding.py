"""Which requirements each collected test decides, and which tests are to run."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.conformance.history import Durations
from harness.conformance.ledger import Ledger
from harness.conformance.record import ShardRecord
from harness.conformance.selection import Selection
from harness.conformance.shards import Shard, digest, divide

__all__ = ["bind", "case_name", "choose", "files_in_turn", "share"]

_NAMED_BY_PYTEST = (int, float, type(None))
_LONGEST_NAME = 40
_LONGEST_OF_PYTEST = 100
"""From here on pytest names a text by its position."""


def bind(items: Iterable[pytest.Item], suites: Path, ledger: Ledger) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return node ID → requirement IDs, and faults: tests of no, of unknown, or of two features' requirements.

    The latter would leave one feature undecided where the other is missing.

    Args:
        items: What pytest collected; tests outside of the suites are none of ours.
        suites: Directory of the suites.
        ledger: All requirements.
    """
    faults: list[str] = []
    bindings: dict[str, tuple[str, ...]] = {}
    for item in items:
        if not item.path.is_relative_to(suites):
            continue
        identifiers = tuple(str(name) for mark in item.iter_markers("requirement") for name in mark.args)
        if not identifiers:
            faults.append(f"{item.nodeid}: decides no requirement; add @requirement(…)")
        for name in identifiers:
            if name not in ledger:
                faults.append(f"{item.nodeid}: unknown requirement {name}")
            elif ledger[name].withdrawn:
                faults.append(f"{item.nodeid}: requirement {name} is withdrawn in {ledger[name].withdrawn}")
        features = sorted({ledger[name].profile for name in identifiers if name in ledger})
        if len(features) > 1:
            faults.append(f"{item.nodeid}: decides requirements of {' and '.join(features)}; give each its own test")
        if fault := _key_fault(item):
            faults.append(f"{item.nodeid}: {fault}")
        bindings[item.nodeid] = identifiers
    return bindings, faults


def _key_fault(item: pytest.Item) -> str:
    """Return what is wrong with the name of a test's case: names must outlive that cases are added and reordered."""
    call: Any = getattr(item, "callspec", None)
    if call is None:
        return ""
    if "[" in call.id or "]" in call.id:
        return "brackets in the name of a case; give it another with ids="
    # What pytest calls a value that has no name of its own: the argument's name and the position.
    counted = [part for part in call.id.split("-") if any(re.fullmatch(rf"{name}\d+", part) for name in call.params)]
    return f"case {counted[0]!r} is named by its position; name it with ids=" if counted else ""


def case_name(value: object) -> str | None:
    """Return a name for a case that was given none: its value, in letters that need no quotes; None if pytest has one.

    What is lost of the value stands in the name as four hex digits, so that two values do not share a name.
    """
    if isinstance(value, str | bytes):
        text = value if isinstance(value, str) else value.decode("latin-1")
        if not set("[]") & set(text) and len(text) <= _LONGEST_OF_PYTEST:
            return None
    elif isinstance(value, list | tuple | dict | set | frozenset):
        text = _text(value)  # pyright: ignore[reportUnknownArgumentType]
    else:
        text = repr(value)
        if isinstance(value, _NAMED_BY_PYTEST) or callable(value):
            return None
    # Addresses are others in every process.
    if not text or " at 0x" in text:
        return None
    kept = re.sub(r"[^A-Za-z0-9_.,:/=+*]+", "_", text).strip("_")[:_LONGEST_NAME]
    return f"{kept}~{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:4]}"


def _text(value: Any) -> str:
    """Return a value as text, the same in every process: a set has another order in each."""
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_text, value))) + "}"  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, dict):
        members: dict[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return "{" + ", ".join(f"{_text(name)}: {_text(entry)}" for name, entry in members.items()) + "}"
    return repr(value)


def choose(
    bindings: Mapping[str, tuple[str, ...]],
    nodes: Iterable[str],
    ledger: Ledger,
    selection: Selection,
    failed_before: Collection[str] | None,
) -> set[str]:
    """Return the tests that are asked for.

    Args:
        bindings: Node ID → requirement IDs.
        nodes: The tests that pytest's own options leave over.
        ledger: All requirements.
        selection: What is asked for.
        failed_before: Tests of an earlier run to run again; None for any.
    """
    return {
        node
        for node in nodes
        if any(selection.asks(ledger[name], node.partition("::")[0]) for name in bindings[node])
        and (failed_before is None or node in failed_before)
    }


def files_in_turn(nodes: Iterable[str], durations: Durations) -> list[str]:
    """Return the files of tests in the order in which labs side by side take them.

    Those that take longest come first: whoever runs the last one then is not long alone. One that mostly waits and one
    that mostly works come by turns: the processors have something to do, and not too much at a time.
    """
    total = defaultdict[str, float](float)
    for node, seconds in durations.expected(nodes).items():
        total[node.partition("::")[0]] += seconds
    longest = sorted(total, key=lambda file: -total[file])
    waiting = [file for file in longest if file in durations.waiting]
    working = [file for file in longest if file not in durations.waiting]
    return [file for pair in itertools.zip_longest(waiting, working) for file in pair if file]


def share(
    chosen: Collection[str], shard: Shard, durations: Durations, *, is_partial: bool
) -> tuple[set[str], ShardRecord]:
    """Return the tests of one share, and what tells it from others.

    Args:
        chosen: The tests of all shares.
        shard: Which one.
        durations: How long tests take.
        is_partial: Whether something was left out before the division.
    """
    shares = divide(durations.expected(chosen), shard.total)
    record = ShardRecord(shard.index, shard.total, digest(shares), "partial" if is_partial else "full")
    return shares[shard.index - 1], record
