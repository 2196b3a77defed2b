"""Waiting: returns the good reading, stops early, ends with what was last seen."""

from __future__ import annotations

import pytest

from harness import wait


def test_the_first_good_reading_is_returned() -> None:
    assert wait.until(iter([0, 0, 7]).__next__, what="seven", timeout=5) == 7


def test_several_good_readings_in_a_row_can_be_asked_for() -> None:
    values = iter([1, 0, 1, 1, 5])

    wait.until(values.__next__, what="two in a row", timeout=5, successes=2)

    assert next(values) == 5


def test_the_end_says_what_was_wanted_and_what_was_seen() -> None:
    with pytest.raises(wait.Timeout, match=r"waited 0 s for the moon; last seen: 'cheese'\nlook up"):
        wait.until(lambda: "cheese", lambda _: False, what="the moon", timeout=0.1, hint="look up")


def test_a_terminal_reading_ends_the_wait_at_once() -> None:
    with pytest.raises(wait.Timeout, match="gave up waiting for a pod: it crashed"):
        wait.until(lambda: "x", lambda _: False, what="a pod", timeout=60, stop=lambda _: "it crashed")


def test_only_the_named_exceptions_count_as_not_yet() -> None:
    def refuse() -> None:
        raise ConnectionError("refused")

    with pytest.raises(wait.Timeout, match="last seen: ConnectionError: refused"):
        wait.until(refuse, what="a server", timeout=0.1, transient=(ConnectionError,))
    with pytest.raises(ConnectionError):
        wait.until(refuse, what="a server", timeout=0.1)
