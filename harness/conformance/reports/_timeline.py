"""The run's timeline: a bar for each test, in seconds since the start; a line for each, or for each file if many."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from harness.conformance.record import WORST_FIRST, Run, TestRecord

__all__ = ["Bar", "Lane", "Timeline", "timeline_of"]

# Nothing runs between the runs that a merged record was made of.
_LONGEST_IDLE = 60.0
_MOST_LANES = 100
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600)


@dataclass(frozen=True, slots=True)
class Bar:
    """One test; positions and lengths in per cent of the run."""

    test: TestRecord
    left: float
    setup: float
    call: float
    teardown: float


@dataclass(frozen=True, slots=True)
class Lane:
    """A line of the timeline: one test, or all tests of a file when there are many."""

    name: str
    bars: list[Bar]

    @property
    def first(self) -> TestRecord:
        """Its first test."""
        return self.bars[0].test

    @property
    def outcome(self) -> str:
        """The worst of its tests."""
        return min((bar.test.outcome for bar in self.bars), key=WORST_FIRST.index)

    @property
    def seconds(self) -> float:
        """How long its tests took together."""
        return sum(bar.test.seconds for bar in self.bars)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The whole run."""

    seconds: float
    lanes: list[Lane]
    ticks: list[tuple[float, float]]
    """(per cent, seconds)."""


def timeline_of(run: Run) -> Timeline:
    """Return the timeline; without lanes if no test started."""
    started = [test for test in run.tests if test.started_at]
    if not started:
        return Timeline(0, [], [])
    begins = _begins(started)
    whole = max(begins[test.node] + test.seconds for test in started) or 1.0
    lanes: dict[str, list[Bar]] = {}
    for test in sorted(started, key=lambda test: begins[test.node]):
        spans = (begins[test.node], *(test.durations.get(name, 0) for name in ("setup", "call", "teardown")))
        bar = Bar(test, *(round(100 * seconds / whole, 3) for seconds in spans))
        lanes.setdefault(test.node if len(started) <= _MOST_LANES else test.file, []).append(bar)
    step = next((step for step in _STEPS if whole / step <= 8), _STEPS[-1])
    ticks = [(100 * number * step / whole, number * step) for number in range(int(whole / step) + 1)]
    named = [Lane(key.removeprefix(f"{bars[0].test.file}::"), bars) for key, bars in lanes.items()]
    return Timeline(whole, named, ticks)


def _begins(started: list[TestRecord]) -> dict[str, float]:
    """Return when each test began, in seconds since the first one did; long idle times are left out."""
    moments = {test.node: datetime.fromisoformat(test.started_at).timestamp() for test in started}
    begins: dict[str, float] = {}
    busy_until = min(moments.values())
    left_out = busy_until
    for test in sorted(started, key=lambda test: moments[test.node]):
        if (idle := moments[test.node] - busy_until) > _LONGEST_IDLE:
            left_out += idle
        begins[test.node] = moments[test.node] - left_out
        busy_until = max(busy_until, moments[test.node] + test.seconds)
    return begins
