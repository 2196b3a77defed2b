"""A token bucket (AGT-242 for requests, AGT-460 for renewals)."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["TokenBucket"]


class TokenBucket:
    """Lets through ``rate`` events per second, and ``burst`` at once after a rest."""

    __slots__ = ("_available", "_burst", "_filled_at", "_monotonic", "_rate")

    def __init__(self, rate: float, burst: int, monotonic: Callable[[], float]) -> None:
        """Start full."""
        self._rate = rate
        self._burst = float(burst)
        self._available = float(burst)
        self._monotonic = monotonic
        self._filled_at = monotonic()

    def take(self) -> bool:
        """Take one event out of the bucket; False if there is none."""
        now = self._monotonic()
        available = self._available + (now - self._filled_at) * self._rate
        available = min(available, self._burst)
        self._filled_at = now
        is_allowed = available >= 1
        self._available = available - is_allowed
        return is_allowed
