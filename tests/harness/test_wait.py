"""Waiting: returns the good reading, stops early, ends with what was last seen."""

from __future__ import annotations

import pytest

from harness import limits, wait
from harness.errors import HarnessFault, UsageError
from harness.limits import Limit

FIVE, SHORT = Limit("FIVE", 5), Limit("SHORT", 0.1)


def test_the_first_good_reading_is_returned() -> None:
    assert wait.until(iter([0, 0, 7]).__next__, what="seven", timeout=FIVE) == 7


def test_several_good_readings_in_a_row_can_be_asked_for() -> None:
    values = iter([1, 0, 1, 1, 5])

    wait.until(values.__next__, what="two in a row", timeout=FIVE, successes=2)

    assert next(values) == 5


def test_the_end_says_what_was_wanted_and_what_was_seen() -> None:
    with pytest.raises(
        wait.Timeout, match=r"waited 0 s for the moon \(limit SHORT, 0.1 s\); last seen: 'cheese'\nlook up"
    ):
        wait.until(lambda: "cheese", lambda _: False, what="the moon", timeout=SHORT, hint="look up")


def test_a_terminal_reading_ends_the_wait_at_once() -> None:
    with pytest.raises(wait.Timeout, match="gave up waiting for a pod: it crashed"):
        wait.until(lambda: "x", lambda _: False, what="a pod", timeout=limits.POD_READY, stop=lambda _: "it crashed")


def test_only_the_named_exceptions_count_as_not_yet() -> None:
    def refuse() -> None:
        raise ConnectionError("refused")

    with pytest.raises(wait.Timeout, match="last seen: ConnectionError: refused"):
        wait.until(refuse, what="a server", timeout=SHORT, transient=(ConnectionError,))
    with pytest.raises(ConnectionError):
        wait.until(refuse, what="a server", timeout=SHORT)


# --- Time that passes by itself -------------------------------------------------------------------------------------


class FakeClock:
    """Sleeping takes no time, and is counted."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    @property
    def clock(self) -> wait.Clock:
        return wait.Clock(lambda: self.time, self.sleep)


def test_the_end_says_what_changed_and_what_went_wrong() -> None:
    readings = iter(["pending", OSError("refused"), "ready", "pending"])

    def read() -> str:
        value = next(readings, "pending")
        if isinstance(value, OSError):
            raise value
        return value

    with pytest.raises(wait.Timeout) as error:
        wait.until(
            read,
            "ready".__eq__,
            what="a pod",
            timeout=Limit("THREE", 3),
            successes=2,
            transient=(OSError,),
            clock=FakeClock().clock,
        )

    lines = str(error.value).splitlines()
    assert lines[:3] == [
        "waited 3 s for a pod (limit THREE, 3 s); last seen: 'pending'",
        "good readings in a row: 1 of 2",
        "last trouble: OSError: refused",
    ]
    assert [line.split(maxsplit=2)[2] for line in lines[4:]] == [
        "'pending'",
        "OSError: refused",
        "'ready'",
        "'pending'",
    ]


def test_readings_become_rarer_and_the_last_is_taken_at_the_end() -> None:
    fake, moments = FakeClock(), list[float]()

    def read() -> bool:
        moments.append(fake.time)
        return False

    with pytest.raises(wait.Timeout):
        wait.until(read, what="nothing", timeout=FIVE, clock=fake.clock)

    assert fake.slept[0] == pytest.approx(0.05, rel=0.21)
    assert max(fake.slept) <= 0.6
    assert moments[-1] == pytest.approx(5)
    assert len(moments) < 25


def test_time_limits_can_be_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODID_TIMEOUT_SCALE", "3")

    with pytest.raises(wait.Timeout, match="waited 15 s"):
        wait.until(lambda: False, what="nothing", timeout=FIVE, clock=FakeClock().clock)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_a_scale_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PODID_TIMEOUT_SCALE", text)

    with pytest.raises(UsageError, match="no number above 0"):
        wait.until(lambda: True, what="nothing", timeout=FIVE)


def test_what_never_happens_is_looked_for_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODID_TIMEOUT_SCALE", "3")
    fake = FakeClock()

    assert wait.never(lambda: 0, what="a restart", during=FIVE, clock=fake.clock) == 0
    assert fake.time == pytest.approx(5)


def test_what_happens_all_the_same_is_a_failure() -> None:
    with pytest.raises(AssertionError, match=r"saw a restart after 0\.5 s: 1"):
        wait.never(iter([0, 1]).__next__, what="a restart", during=FIVE, clock=FakeClock().clock)


def test_too_short_a_look_says_nothing() -> None:
    with pytest.raises(HarnessFault, match="only 2 readings"):
        wait.never(lambda: 0, what="a restart", during=Limit("BRIEF", 0.3), clock=FakeClock().clock)
