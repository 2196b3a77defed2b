"""When a call to EKS Auth is tried again (AGT-714 to AGT-716)."""

from __future__ import annotations

import random

__all__ = ["RetryBudget", "retry_delay"]


def retry_delay(attempt: int) -> float:
    """Return the seconds to wait after failed attempt 1, 2, …: full jitter, below 0.4 (AGT-715)."""
    return random.random() * min(0.4, 0.1 * 2**attempt)  # noqa: S311 - spreading load is no cryptography


class RetryBudget:
    """Bounds retries of all calls together, so that a long outage is not met with three times the load (AGT-716)."""

    _CAPACITY = 500
    _COST = 5
    _COST_AFTER_TIMEOUT = 10

    def __init__(self) -> None:
        """Start full."""
        self._tokens = self._CAPACITY

    def spend(self, *, after_timeout: bool) -> int:
        """Pay for a retry; return the price, or 0 if it cannot be paid."""
        price = self._COST_AFTER_TIMEOUT if after_timeout else self._COST
        if price > self._tokens:
            return 0
        self._tokens -= price
        return price

    def refund(self, price: int) -> None:
        """Give back after a success: the price of the retry that led to it, or 1 after a clean one."""
        self._tokens = min(self._CAPACITY, self._tokens + (price or 1))
