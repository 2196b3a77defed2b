"""The pytest plugin: binds tests to requirements, names them in failures, and ends a run with a verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import wait
from harness.conformance.ledger import Ledger, read_ledger
from harness.conformance.verdict import ExitCode, Outcome, Verdict, judge
from harness.errors import SubjectFault

__all__ = ["RESULT_FILE_VARIABLE", "Plugin"]

RESULT_FILE_VARIABLE = "PODID_RESULT_FILE"
"""Environment variable that names a file for the result; then the caller prints the verdict."""


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
        self._collection_failed = False

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Check every suite test's binding.

        Ends the run with a list of all tests without a requirement and of all unknown IDs at once.
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
            self._bindings.clear()
            pytest.exit("\n".join(faults), returncode=ExitCode.HARNESS_ERROR)
        self._partial = bool(config.getoption("keyword") or config.getoption("markexpr")) or any(
            "::" in argument or argument.endswith(".py") for argument in config.args
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note that a file could not be collected: nobody knows what it would have said."""
        self._collection_failed = self._collection_failed or report.failed

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        """Note that a part was left out."""
        self._partial = self._partial or any(True for _ in items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn a phase's result into an outcome, and put the requirements' sentences under a failure."""
        report = yield
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
        """List the requirements that are not met."""
        bad = {name: outcome for name, outcome in self._judge().outcomes.items() if outcome is not Outcome.PASSED}
        if not bad or terminalreporter.config.option.collectonly:
            return
        terminalreporter.section("requirements that are not met")
        for name, outcome in sorted(bad.items()):
            terminalreporter.line(f"{outcome.value:14} {name}  {self._ledger[name].sentence}")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Hand the result to the caller, or print the verdict as the last line."""
        if not self._bindings or config.option.collectonly:
            return
        verdict = self._judge()
        scope = "a part of the suites" if self._partial else "all suites"
        line = (
            f"verdict: {verdict.word} (exit {verdict.exit_code}) — "
            f"{len(verdict.outcomes)} requirements, {scope}: {verdict.counts()}"
        )
        failed = [node for node, outcome in self._outcomes.items() if outcome in {Outcome.FAILED, Outcome.ERROR}]
        if file := os.environ.get(RESULT_FILE_VARIABLE):
            Path(file).write_text(json.dumps({"exit_code": verdict.exit_code, "line": line, "failed": failed}))
        else:
            print(line)

    def _judge(self) -> Verdict:
        results = [
            (identifier, self._outcomes.get(node, Outcome.NOT_RUN))
            for node, identifiers in self._bindings.items()
            for identifier in identifiers
        ]
        verdict = judge(results, self._ledger, partial=self._partial)
        if self._collection_failed:
            return replace(verdict, word="incomplete", exit_code=ExitCode.HARNESS_ERROR)
        return verdict


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
        return (
            Outcome.FAILED if in_body and call.excinfo and call.excinfo.errisinstance(about_subject) else Outcome.ERROR
        )
    return Outcome.PASSED if report.when == "call" else None
