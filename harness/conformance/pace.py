"""How long the tests that are left will take, told while they run."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from harness.conformance.history import Durations

__all__ = ["Pace", "rough"]


class Pace:
    """A plugin of the controlling process: tells the expected end at the start, and after each test what is left."""

    def __init__(self, durations: Durations, at_a_time: float) -> None:
        """Keep what is known from earlier runs, and how many tests run at a time."""
        self._durations = durations
        self._at_a_time = at_a_time
        self._left: dict[str, float] = {}
        self._is_running = False

    def line(self) -> str:
        """Say what is ahead."""
        known = len(self._left.keys() & self._durations.seconds.keys())
        count = f"{len(self._left)} tests"
        if not known:
            usual = f"usually {rough(self.seconds())} at most" if self._is_foreseen() else "ETA unknown"
            return f"{count}, {usual}: no earlier run has them"
        unknown = f" ({len(self._left) - known} of them are new)" if known < len(self._left) else ""
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + self.seconds()))
        return f"{count}{unknown}, {rough(self.seconds())} as earlier runs took, until {end}"

    def seconds(self) -> float:
        """Return how long what is left will take."""
        return sum(self._left.values()) / self._at_a_time

    def _is_foreseen(self) -> bool:
        return all(node.partition("::")[0] in self._durations.usual for node in self._left)

    def expect(self, nodes: Iterable[str]) -> None:
        """Take note of what is to run."""
        self._left = self._durations.expected(nodes)
        self._is_running = True

    def pytest_report_collectionfinish(self, items: list[pytest.Item]) -> str:
        """Say what is ahead, under pytest's count of tests."""
        self.expect(item.nodeid for item in items)
        return self.line()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Say what is ahead, when the first worker knows."""
        if not self._is_running:
            self.expect(ids)
            node.config.get_terminal_writer().line(f"\n{self.line()}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a test off that is over."""
        if report.when == "teardown":
            self._left.pop(report.nodeid, None)

    def pytest_sessionfinish(self) -> None:
        """Say no more: pytest asks for the same words again in its summary."""
        self._is_running = False

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Generator[None, Any, Any]:
        """Add to a test's outcome how long it took and what is left."""
        category, letter, word = yield
        known = self._left.keys() & self._durations.seconds.keys()
        if not self._is_running or not word or not known:
            return category, letter, word
        text, markup = word if isinstance(word, tuple) else (word, {})  # pyright: ignore[reportUnknownVariableType]
        left = max(0.0, self.seconds() - self._left.get(report.nodeid, 0.0) / self._at_a_time)
        return category, letter, (f"{text} {report.duration:.1f} s, {rough(left)} left", markup)


def rough(seconds: float) -> str:
    """Return an estimate as people say it."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
