"""Dividing scenarios among several runs by how long they take: ``--shard I/N``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import UsageError

__all__ = ["Shard", "digest", "divide", "parse_shard"]


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several runs that share the work."""

    index: int
    total: int


def parse_shard(text: str) -> Shard | None:
    """Read ``I/N``; None for an empty text.

    Raises:
        UsageError: It is not of that form, or I is not one of 1 to N.
    """
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,3})/([0-9]{1,3})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"no shard {text!r}", hint="give I/N with I from 1 to N, such as --shard 2/3")
    return Shard(int(match[1]), int(match[2]))


def divide(seconds: Mapping[str, float], total: int) -> list[set[str]]:
    """Divide tests so that all shards take about as long; the tests of one file stay together.

    The longest file goes first, each to the shard that has least so far. The same durations give the same division,
    whatever the order of the tests.

    Args:
        seconds: Node ID → how long it takes.
        total: Number of shards.
    """
    files: dict[str, dict[str, float]] = {}
    for node in sorted(seconds):
        files.setdefault(node.partition("::")[0], {})[node] = seconds[node]
    shards: list[set[str]] = [set() for _ in range(total)]
    loads = [0.0] * total
    for nodes in sorted(files.values(), key=lambda nodes: (-sum(nodes.values()), min(nodes))):
        least = loads.index(min(loads))
        shards[least] |= set(nodes)
        loads[least] += sum(nodes.values())
    return shards


def digest(shards: list[set[str]]) -> str:
    """Return what tells one division from another."""
    return hashlib.sha256(json.dumps([sorted(nodes) for nodes in shards]).encode()).hexdigest()
