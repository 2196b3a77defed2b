"""Waiting for a condition: back-off, an early stop, and an ending that says what was wanted and what was seen.

``PODID_TIMEOUT_SCALE`` multiplies every time limit, for machines that are slow; it never changes how long
:func:`never` looks.
"""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from harness.errors import HarnessFault, UsageError
from harness.limits import Limit

__all__ = ["SCALE_VARIABLE", "Clock", "Stopped", "Timeout", "never", "scale", "until"]

T = TypeVar("T")

SCALE_VARIABLE = "PODID_TIMEOUT_SCALE"
_FIRST_SECONDS, _GROWTH, _LONGEST_SECONDS = 0.05, 2.0, 0.5
_SHORTEST_SIGHT = 3
"""Good readings without which nobody can say that something did not happen."""
_CHANGES = 10


@dataclass(frozen=True, slots=True)
class Clock:
    """Monotonic time, and letting it pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


_CLOCK = Clock()


class Timeout(HarnessFault):
    """A wait that ended without its condition; the text has what was wanted and what was last seen."""


class Stopped(Timeout):
    """A wait that ended early: what was seen shows that waiting is pointless."""


def scale() -> float:
    """Return what time limits are multiplied by.

    Raises:
        UsageError: The variable holds no number above 0.
    """
    text = os.environ.get(SCALE_VARIABLE) or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(f"{SCALE_VARIABLE}={text!r} is no number above 0")
    return factor


class _Seen:
    """What was read so far, for the text at the end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.now()
        self._changes: deque[tuple[float, str]] = deque(maxlen=_CHANGES)
        self.last = "nothing"
        self.ignored = ""
        self.reads = 0
        self.longest_streak = 0

    def note(self, text: str, streak: int) -> None:
        self.reads += 1
        self.longest_streak = max(self.longest_streak, streak)
        if text != self.last:
            self.last = text
            self._changes.append((self.elapsed, text))

    @property
    def elapsed(self) -> float:
        return self._clock.now() - self._started

    def text(self, successes: int) -> str:
        lines = [f"last seen: {self.last[:2000]}"]
        if successes > 1:
            lines.append(f"good readings in a row: {self.longest_streak} of {successes}")
        if self.ignored and self.ignored != self.last:
            lines.append(f"last trouble: {self.ignored[:500]}")
        if len(self._changes) > 1:
            lines.append(f"{self.reads} readings; it changed:")
            lines += [f"  {at:6.1f} s  {text[:200]}" for at, text in self._changes]
        return "\n".join(lines)


def until(
    read: Callable[[], T],
    ready: Callable[[T], bool] = bool,
    *,
    what: str,
    timeout: Limit,
    stop: Callable[[T], str | None] = lambda _: None,
    successes: int = 1,
    transient: tuple[type[Exception], ...] = (),
    hint: str = "",
    clock: Clock = _CLOCK,
) -> T:
    """Read until the value is ready, ``successes`` times in a row, and return the last value.

    The first readings follow each other quickly, since most of what is waited for takes less than a second; the last
    one is taken when the time is over.

    Args:
        read: Takes one reading; must be quick compared with ``timeout``.
        ready: Tells whether a reading is good. Default: truth.
        what: What is waited for, as the end of "waited for …".
        timeout: When :class:`Timeout` comes, before :func:`scale`; one of :mod:`harness.limits`.
        stop: Returns a reason as soon as a reading shows that waiting is pointless, else None.
        successes: Good readings in a row that are wanted.
        transient: Exceptions of ``read`` that count as "not yet".
        hint: What a person can do when the wait fails.
        clock: The time.

    Raises:
        Timeout: The time is over.
        Stopped: ``stop`` gave a reason.
    """
    limit = timeout.allowed * scale()
    seen = _Seen(clock)
    streak = 0

    def attempt() -> T:
        nonlocal streak
        try:
            value = read()
        except transient as error:
            streak = 0
            seen.ignored = f"{type(error).__name__}: {error}"
            seen.note(seen.ignored, streak)
            raise tenacity.TryAgain from error
        streak = streak + 1 if ready(value) else 0
        seen.note(repr(value), streak)
        if reason := stop(value):
            raise Stopped(f"gave up waiting for {what}: {reason}", hint=hint)
        if streak < successes:
            raise tenacity.TryAgain
        return value

    def pause(state: tenacity.RetryCallState) -> float:
        longest = min(_LONGEST_SECONDS, _FIRST_SECONDS * _GROWTH ** min(state.attempt_number - 1, 10))
        jittered = longest * random.uniform(0.8, 1.2)  # noqa: S311 - no secret, only out of step with others
        return max(0.0, min(jittered, limit - seen.elapsed))

    retrying = tenacity.Retrying(
        stop=lambda _: seen.elapsed >= limit,
        wait=pause,
        retry=tenacity.retry_if_exception_type(tenacity.TryAgain),
        sleep=clock.sleep,
    )
    try:
        return retrying(attempt)
    except tenacity.RetryError as error:
        text = f"waited {seen.elapsed:.0f} s for {what} (limit {timeout}); {seen.text(successes)}"
        raise Timeout(text, hint=hint) from error


def never(
    read: Callable[[], T],
    bad: Callable[[T], bool] = bool,
    *,
    what: str,
    during: Limit,
    clock: Clock = _CLOCK,
) -> T:
    """Look for a while, see that something does not happen, and return the last reading.

    Args:
        read: Takes one reading.
        bad: Tells whether a reading is what must not happen. Default: truth.
        what: What must not happen, as the end of "saw …".
        during: How long to look; the scale of time limits does not change it.
        clock: The time.

    Raises:
        AssertionError: It happened.
        HarnessFault: Less than three readings fit into the time, so that nobody can say.
    """
    started, reads = clock.now(), 0
    while True:
        value = read()
        reads += 1
        elapsed = clock.now() - started
        if bad(value):
            raise AssertionError(f"saw {what} after {elapsed:.1f} s: {value!r}"[:2000])
        if elapsed >= during.seconds:
            break
        clock.sleep(min(_LONGEST_SECONDS, during.seconds - elapsed))
    if reads < _SHORTEST_SIGHT:
        raise HarnessFault(f"only {reads} readings in {during.seconds:g} s: nobody can say that there was not {what}")
    return value
