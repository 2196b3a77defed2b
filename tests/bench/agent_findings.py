"""What the bench of the agent decides: requirements that only a comparison with another agent shows.

No suite decides them, since no test fails on wall time; the ledger says so of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AT_RATE_P99",
    "CONNECTIONS",
    "LIMIT",
    "ONE_CORE_START",
    "SLOWEST_POD",
    "Finding",
    "Row",
    "at_limit",
    "findings",
    "hits",
    "processor_at_limit",
]

CONNECTIONS = (1, 16, 256)
LIMIT = 1000
"""Requests a second that both agents let through (AGT-242)."""

ONE_CORE_START = "start to first 200, one core"
AT_RATE_P99 = "900/s, p99"
SLOWEST_POD = "500 pods start, slowest pod"

_NEARLY = 0.99
"""Of the rate that was asked for: the last answer comes after the last question."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured."""

    name: str
    unit: str
    values: Mapping[str, float]
    """By contender."""
    target: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours to the peer's."""
        if len(self.values) < 2 or not self.values["peer"]:
            return None
        return self.values["ours"] / self.values["peer"]


def hits(connections: int) -> str:
    """Name the row of hits a second over so many connections."""
    return f"hits, {connections} connections"


def at_limit(connections: int) -> str:
    """Name the row of answers a second at the rate limit."""
    return f"at {LIMIT}/s, {connections} connections"


def processor_at_limit(connections: int) -> str:
    """Name the row of what these cost."""
    return f"{at_limit(connections)}, processor per 1,000 hits"


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement, and whether it is met."""

    id: str
    level: Literal["MUST", "SHOULD"]
    is_met: bool | None
    """None if there was nobody to compare with."""
    why: str

    @property
    def is_fatal(self) -> bool:
        """Whether the bench ends with an error for it."""
        return self.level == "MUST" and self.is_met is False

    def __str__(self) -> str:
        word = {True: "met", False: "NOT MET", None: "undecided"}[self.is_met]
        return f"{self.id:9} {self.level:7} {word:10} {self.why}"


def findings(rows: Sequence[Row]) -> list[Finding]:
    """Decide AGT-1101, AGT-1102, AGT-1105 and AGT-1107."""
    by_name = {row.name: row for row in rows}
    start = by_name[ONE_CORE_START].values["ours"]
    return [
        _no_more("AGT-1101", "MUST", by_name[AT_RATE_P99]),
        _throughput(by_name),
        Finding("AGT-1105", "SHOULD", start <= 1000, f"{ONE_CORE_START}: {start:.0f} ms"),
        _no_more("AGT-1107", "SHOULD", by_name[SLOWEST_POD]),
    ]


def _no_more(identifier: str, level: Literal["MUST", "SHOULD"], row: Row) -> Finding:
    if row.ratio is None:
        return Finding(identifier, level, None, f"{row.name}: give --peer-command")
    return Finding(identifier, level, row.ratio <= 1, f"{row.name}: {row.ratio:.2f} of the other agent's")


def _throughput(rows: Mapping[str, Row]) -> Finding:
    met: list[bool] = []
    told: list[str] = []
    for connections in CONNECTIONS:
        more, less = rows[hits(connections)].ratio, rows[processor_at_limit(connections)].ratio
        if more is None or less is None:
            return Finding("AGT-1102", "MUST", None, "hits a second: give --peer-command")
        is_reached = all(rate >= _NEARLY * LIMIT for rate in rows[at_limit(connections)].values.values())
        met.append(more > 1 or (is_reached and less < 1))
        told.append(f"{connections} connections: {more:.2f}, {less:.2f}")
    why = f"hits a second, and processor at {LIMIT}/s, to the other agent's; {'; '.join(told)}"
    return Finding("AGT-1102", "MUST", all(met), why)
