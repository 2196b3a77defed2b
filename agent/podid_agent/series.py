"""Counters, gauges and histograms that cost a request next to nothing; :mod:`podid_agent.exposition` shows them.

prometheus_client's own ones take locks, which one event loop has no use for, and a tenth of the time until the first
answer to import: here it is imported when somebody scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Literal, TypeVar

__all__ = ["Distribution", "Family", "Series"]


class Series:
    """One number: a counter, or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self) -> None:
        """Count one more."""
        self.value += 1

    def dec(self) -> None:
        """Count one less."""
        self.value -= 1

    def set(self, value: float) -> None:
        """Take a value."""
        self.value = value


class Distribution:
    """One histogram."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Of each bound what it is the least bound of; at last what is over all of them."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


T = TypeVar("T", Series, Distribution)


class Family(Generic[T]):
    """All series of one name."""

    def __init__(
        self,
        kind: Literal["counter", "gauge", "histogram"],
        name: str,
        meaning: str,
        label_names: Sequence[str],
        create: Callable[[], T],
    ) -> None:
        self.kind = kind
        self.name = name
        self.meaning = meaning
        self.label_names = label_names
        self._create = create
        self._series: dict[tuple[str, ...], T] = {}

    @property
    def series(self) -> Mapping[tuple[str, ...], T]:
        """The series by their label values."""
        return self._series

    def labels(self, *values: str) -> T:
        """Return the series of label values, a new one if need be."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = self._create()
        return found
