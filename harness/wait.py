"""Waiting for a condition: back-off, an early stop, and an ending that says what was last seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

from harness.errors import HarnessFault

__all__ = ["Timeout", "until"]

T = TypeVar("T")


class Timeout(HarnessFault):
    """A wait that ended without its condition; the text has what was wanted and what was last seen."""


def until(
    read: Callable[[], T],
    ready: Callable[[T], bool] = bool,
    *,
    what: str,
    timeout: float,
    stop: Callable[[T], str | None] = lambda _: None,
    successes: int = 1,
    transient: tuple[type[Exception], ...] = (),
    hint: str = "",
) -> T:
    """Read until the value is ready, ``successes`` times in a row, and return the last value.

    Args:
        read: Takes one reading; must be quick compared with ``timeout``.
        ready: Tells whether a reading is good. Default: truth.
        what: What is waited for, as the end of "waited for …".
        timeout: Seconds until :class:`Timeout`.
        stop: Returns a reason as soon as a reading shows that waiting is pointless, else None.
        successes: Good readings in a row that are wanted.
        transient: Exceptions of ``read`` that count as "not yet".
        hint: What a person can do when the wait fails.

    Raises:
        Timeout: The time is over, or ``stop`` gave a reason.
    """
    started = time.monotonic()
    seen = "nothing"
    streak = 0

    def attempt() -> T:
        nonlocal seen, streak
        try:
            value = read()
        except transient as error:
            seen, streak = f"{type(error).__name__}: {error}", 0
            raise tenacity.TryAgain from error
        seen = repr(value)
        if reason := stop(value):
            raise Timeout(f"gave up waiting for {what}: {reason}", hint=hint)
        streak = streak + 1 if ready(value) else 0
        if streak < successes:
            raise tenacity.TryAgain
        return value

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_delay(timeout),
        wait=tenacity.wait_exponential(multiplier=0.05, max=0.5),
        retry=tenacity.retry_if_exception_type(tenacity.TryAgain),
    )
    try:
        return retrying(attempt)
    except tenacity.RetryError as error:
        elapsed = time.monotonic() - started
        raise Timeout(f"waited {elapsed:.0f} s for {what}; last seen: {seen[:2000]}", hint=hint) from error
