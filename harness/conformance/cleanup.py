"""Clean-up of fixtures: each step has its time, and what a failed scenario made can be kept (HRN-CLN-03, HRN-CLN-04).

pytest goes on with the next fixture whatever becomes of one, so a step that overruns is told and passed over.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from harness import limits, wait
from harness.errors import HarnessFault

__all__ = ["CleanUp"]

_SHORTEST = 0.5
"""Seconds that a step gets when the time for all is over: most things go at once."""


class CleanUp:
    """Stands around the end of every fixture."""

    def __init__(
        self,
        suites: Path,
        *,
        keeps_failed: bool,
        step: float = limits.CLEANUP_STEP.seconds,
        total: float = limits.CLEANUP_TOTAL.seconds,
    ) -> None:
        """Begin.

        Args:
            suites: Only fixtures defined below this directory are kept: others are the harness's own tools.
            keeps_failed: Whether to keep what the fixtures of a scenario made in which a test failed.
            step: Seconds for one fixture.
            total: Seconds for all that end together.
        """
        self._suites = suites
        self._keeps_failed = keeps_failed
        self._step = step
        self._total = total
        self._until = 0.0
        self._failed: set[Path] = set()
        """Scenarios in which a test failed."""
        self.kept: list[str] = []
        """What was not cleaned up on purpose."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None]:
        """Set the time for all fixtures that end now."""
        self._until = time.monotonic() + self._total * wait.scale()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note whose scenario failed, before anything of it ends."""
        report = yield
        if report.failed and report.when != "teardown":
            self._failed.add(item.path)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Stand around what a generator fixture does at its end, which pytest hands to ``addfinalizer``."""
        add = request.addfinalizer
        name = f"{fixturedef.argname} of {request.node.nodeid or 'the session'}"

        def add_step(finalizer: Callable[[], object]) -> None:
            add(lambda: self._end(name, finalizer, self._is_kept(fixturedef, request)))

        vars(request)["addfinalizer"] = add_step
        try:
            return (yield)
        finally:
            del vars(request)["addfinalizer"]

    def _is_kept(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> bool:
        defined = Path(getattr(fixturedef.func, "__code__").co_filename)  # noqa: B009 - the type has none
        has_failed = getattr(request.node, "path", None) in self._failed
        return self._keeps_failed and has_failed and defined.is_relative_to(self._suites)

    def _end(self, name: str, finalizer: Callable[[], object], is_kept: bool) -> None:
        if is_kept:
            self.kept.append(name)
            # Whoever frees a generator runs its clean-up, so this one must live to the very end of the process.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(finalizer))
            return
        seconds = min(self._step * wait.scale(), max(_SHORTEST, self._until - time.monotonic()))
        with _limit(seconds, f"{name} was not cleaned up within {seconds:.0f} s, and is left behind"):
            finalizer()


@contextmanager
def _limit(seconds: float, told: str) -> Generator[None]:
    """Raise in the main thread when the time is over; pytest-timeout's guard goes on afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise HarnessFault(told, hint="the next run removes leftovers; so does: podid down")

    before = signal.signal(signal.SIGALRM, over)
    started = time.monotonic()
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, max(0.01, left - (time.monotonic() - started)) if left else 0)
        signal.signal(signal.SIGALRM, before)
