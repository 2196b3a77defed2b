"""The two clocks everything with a deadline reads; tests inject their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clock"]


@dataclass(frozen=True, slots=True, eq=False)
class Clock:
    """A wall clock for instants that others set, and a monotonic one for intervals that we measure."""

    wall: Callable[[], float] = time.time
    """Seconds since the epoch; may step."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds since some start; never steps."""
