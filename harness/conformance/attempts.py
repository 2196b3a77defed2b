"""Running a test more than once: again after it failed (``--retries``), or again and again (``--repeat``).

Every attempt has phases, checks and evidence of its own in the record; nothing of a failed one gets lost.
"""

from __future__ import annotations

from typing import Any

import pytest
from _pytest.runner import runtestprotocol  # the one pytest itself runs tests with; it has no public name

from harness.conformance.recording import Recorder, recording

__all__ = ["Attempts"]

_RETRIED = "retried"


class Attempts:
    """Stands in for the way in which pytest runs a test of the suites."""

    def __init__(self, *, retries: int = 0, repeat: int = 1) -> None:
        """Keep how often.

        Args:
            retries: How often a test that failed is tried again, until it does not fail.
            repeat: How often every test runs, whatever it says.
        """
        self._retries = retries
        self._repeat = repeat
        self._left = 0
        """Retries that the running test still has."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a test as often as asked."""
        recorder = recording.current
        if recorder is None or recorder.node != item.nodeid:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for number in range(1, self._repeat + 1):
            self._left = self._retries
            # None: everything that the test stood on is taken down, as before a retry.
            while self._attempt(item, recorder, nextitem if number == self._repeat else None):
                self._left -= 1
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _attempt(self, item: pytest.Item, recorder: Recorder, nextitem: pytest.Item | None) -> bool:
        """Run a test once, and return whether it is to be tried again."""
        recorder.restart()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        again = self._tries_again(recorder)
        for report in reports:
            if again and report.failed and report.when != "teardown":
                # Not a failure of the run yet; the record has it as an attempt.
                vars(report)["outcome"] = _RETRIED
            item.ihook.pytest_runtest_logreport(report=report)
        return again

    def _tries_again(self, recorder: Recorder) -> bool:
        return self._left > 0 and recorder.has_failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Before a further attempt take down everything that the test stood on, whatever its scope."""
        if recording.current and self._tries_again(recording.current):
            item.session._setupstate.teardown_exact(None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - no public way

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, Any] | None:
        """Show an attempt that was not the last one."""
        is_retried = vars(report)["outcome"] == _RETRIED
        return (_RETRIED, "R", ("RETRIED", {"yellow": True})) if is_retried else None
