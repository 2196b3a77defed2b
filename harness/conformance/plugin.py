"""The pytest plugin: binds tests to requirements, names them in failures, and ends a run with a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from harness import wait
from harness.conformance.ledger import Ledger, read_ledger
from harness.conformance.verdict import Outcome, Verdict, judge
from harness.errors import SubjectFault

__all__ = ["Plugin"]


class Plugin:
    """Collects what the tests of one run say about requirements; active for tests below the suites' directory."""

    def __init__(self, suites: Path) -> None:
        """Read the ledger.

        Args:
            suites: Directory of the suites, with ``requirements/`` in it.

        Raises:
            UsageError: The ledger is invalid.
        """
        self._suites = suites
        self._ledger: Ledger = read_ledger(suites / "requirements")
        self._bindings: dict[str, tuple[str, ...]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._partial = False

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Check every suite test's binding.

        Raises:
            pytest.UsageError: Lists all tests without a requirement and all unknown IDs at once.
        """
        faults: list[str] = []
        for item in items:
            if not item.path.is_relative_to(self._suites):
                continue
            identifiers = tuple(str(name) for mark in item.iter_markers("requirement") for name in mark.args)
            if not identifiers:
                faults.append(f"{item.nodeid}: decides no requirement; add @requirement(…)")
            faults += [f"{item.nodeid}: unknown requirement {name}" for name in identifiers if name not in self._ledger]
            self._bindings[item.nodeid] = identifiers
        if faults:
            raise pytest.UsageError("\n".join(faults))
        self._partial = bool(config.getoption("keyword") or config.getoption("markexpr")) or any(
            "::" in argument or argument.endswith(".py") for argument in config.args
        )

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        """Note that a part was left out."""
        self._partial = self._partial or any(True for _ in items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Turn a phase's result into an outcome, and put the requirements' sentences under a failure."""
        report: pytest.TestReport = yield
        identifiers = self._bindings.get(item.nodeid)
        if identifiers is None:
            return report
        outcome = _outcome_of(report, call)
        if outcome is not None and self._outcomes.get(item.nodeid) is not Outcome.FAILED:
            self._outcomes[item.nodeid] = outcome
        if report.failed:
            lines = [f"{name} ({self._ledger[name].level}): {self._ledger[name].sentence}" for name in identifiers]
            report.sections.insert(0, ("requirements that this test decides", "\n".join(lines)))
        return report

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Replace pytest's exit code by the verdict's."""
        if self._bindings and not session.config.option.collectonly:
            session.exitstatus = self._judge().exit_code

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the requirements that are not met, and the verdict as the last line."""
        if not self._bindings or terminalreporter.config.option.collectonly:
            return
        verdict = self._judge()
        bad = {name: outcome for name, outcome in verdict.outcomes.items() if outcome is not Outcome.PASSED}
        if bad:
            terminalreporter.section("requirements that are not met")
        for name, outcome in sorted(bad.items()):
            terminalreporter.line(f"{outcome.value:14} {name}  {self._ledger[name].sentence}")

    def summary(self) -> tuple[int, str]:
        """Return the exit code and the run's last line."""
        verdict = self._judge()
        scope = "part of the suites" if self._partial else "all suites"
        total = len(verdict.outcomes)
        line = f"verdict: {verdict.word} (exit {verdict.exit_code}) — {total} requirements in {scope}: {verdict.counts()}"
        return verdict.exit_code, line

    def _judge(self) -> Verdict:
        results = [
            (identifier, self._outcomes.get(node, Outcome.NOT_RUN))
            for node, identifiers in self._bindings.items()
            for identifier in identifiers
        ]
        return judge(results, self._ledger, partial=self._partial)


def _outcome_of(report: pytest.TestReport, call: pytest.CallInfo[None]) -> Outcome | None:
    """Return what one phase of a test says, or None when it says nothing.

    In the body, an assertion, a wait that ran out and a subject's fault speak about the subject. Everything else, and
    everything in set-up, is the harness's own trouble. A failed clean-up never changes what was decided.
    """
    if report.when == "teardown":
        return None
    if report.skipped:
        return Outcome.NOT_RUN
    if report.failed:
        about_subject = (AssertionError, wait.Timeout, SubjectFault, pytest.fail.Exception)
        in_body = report.when == "call"
        return Outcome.FAILED if in_body and call.excinfo and call.excinfo.errisinstance(about_subject) else Outcome.ERROR
    return Outcome.PASSED if report.when == "call" else None
