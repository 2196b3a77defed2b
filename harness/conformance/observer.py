"""The part of the plugin that stands beside a running test: it records what the test says and why it failed.

Under pytest-xdist it works in the workers; what it notes travels on the test's report.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import textwrap
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.conformance.diagnostics import Depth, Diagnostics
from harness.conformance.features import Features
from harness.conformance.ground import Ground
from harness.conformance.ledger import Kind, Ledger
from harness.conformance.outcomes import Outcome, Reason, not_applicable, outcome_of
from harness.conformance.recording import Check, Recorder, recording
from harness.conformance.redaction import Redactor
from harness.conformance.results import Phase
from harness.errors import HarnessFault, MissingFeature, NotReady

__all__ = ["Observer"]

_LONGEST_MESSAGE = 20_000
# One broken thing fails many tests; after a few, nothing new is to be seen.
_MOST_ALIKE = 5


class ChecksFailed(pytest.fail.Exception):
    """The body of a test came to its end, but some of its checks failed."""


class Observer:
    """Hooks around each test of the suites."""

    def __init__(
        self,
        bindings: Mapping[str, tuple[str, ...]],
        ledger: Ledger,
        redactor: Redactor,
        *,
        diagnostics: Diagnostics,
        ground: Ground,
        directory: Path,
        kind: Kind,
        features: Features,
    ) -> None:
        """Keep what the hooks need.

        Args:
            bindings: Node ID → requirement IDs; filled during collection.
            ledger: All requirements.
            redactor: Takes secrets out of what is noted.
            diagnostics: What to ask when a test fails.
            ground: What to ask before it counts what a test says.
            directory: The run's directory.
            kind: Kind of the subject.
            features: Decides whether tests of a feature run.
        """
        self._bindings = bindings
        self._ledger = ledger
        self._redactor = redactor
        self._diagnostics = diagnostics
        self._ground = ground
        self._directory = directory
        self._kind = kind
        self._features = features
        self._alike: Counter[tuple[Path, type, str]] = Counter()
        """Scenario and failure → how often."""
        self._is_loss_known = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Give the test a recorder for all of its phases."""
        identifiers = self._bindings.get(item.nodeid)
        if identifiers is None:
            return (yield)
        with recording(Recorder(item.nodeid, identifiers)):
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Leave out a test of requirements none of which binds this kind of subject, and end one without ground."""
        if item.nodeid in self._bindings and (reason := self._ground.lost()):
            raise HarnessFault(reason)
        asked = [self._ledger[name] for name in self._bindings.get(item.nodeid, ())]
        if asked and not any(self._kind in entry.applies_to for entry in asked):
            not_applicable("subject", f"{', '.join(entry.id for entry in asked)} does not bind a subject of this kind")
        detect = item.ihook.pytest_podid_detect
        self._features.require({entry.profile for entry in asked}, lambda name: detect(item=item, feature=name))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Fail a test whose body ended well when a check of it failed."""
        yield
        recorder = recording.current
        if recorder and recorder.node == item.nodeid and (failures := recorder.failures()):
            raise ChecksFailed("\n".join(failures), pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put what a phase says on its report, and the requirements' sentences under a failure."""
        report = yield
        recorder = recording.current
        if item.nodeid not in self._bindings or recorder is None:
            return report
        directory = ""
        lost = self._ground.lost() if report.failed or call.when == "call" else None
        if report.failed or (lost and not self._is_loss_known):
            directory = self._collect(item, call, report.longreprtext or str(lost), lost)
        if report.failed:
            self._explain(report, recorder.requirements, directory)
        vars(report)["podid"] = self._phase(item, call, report, recorder, lost) | {"diagnostics": directory}
        return report

    def _phase(
        self,
        item: pytest.Item,
        call: pytest.CallInfo[None],
        report: pytest.TestReport,
        recorder: Recorder,
        lost: str | None,
    ) -> Phase:
        error = call.excinfo.value if call.excinfo else None
        outcome, reason = outcome_of(None if isinstance(error, ChecksFailed) else error, in_body=call.when == "call")
        if isinstance(error, NotReady) and error.requirement in recorder.requirements:
            recorder.checks.append(Check(error.requirement, "ready", "ready", str(error), holds=False, evidence=()))
        if isinstance(error, MissingFeature):
            for name in recorder.requirements:
                recorder.checks.append(Check(name, error.feature, "present", str(error), holds=False, evidence=()))
        if call.when == "call" and lost:
            outcome, reason = Outcome.ERROR, Reason("lab", lost)
            recorder.checks.clear()
        if call.when in {"setup", "call"}:
            recorder.has_failed = outcome in {Outcome.FAILED, Outcome.ERROR} or not all(
                entry.holds for entry in recorder.checks
            )
        reached = [entry.requirement for entry in recorder.checks]
        written = _checks_of(item) if outcome is not Outcome.PASSED else []
        data = self._redactor.data
        return Phase(
            when=str(call.when),
            requirements=list(recorder.requirements),
            outcome=outcome.value,
            reason=[reason.kind, self._redactor.text(reason.detail)] if reason else None,
            message=self._redactor.text(report.longreprtext)[-_LONGEST_MESSAGE:] if report.failed else "",
            started=call.start,
            seconds=call.duration,
            worker=os.environ.get("PYTEST_XDIST_WORKER", ""),
            checks=data([asdict(entry) | {"evidence": list(entry.evidence)} for entry in recorder.checks]),
            evidence=data([asdict(entry) for entry in recorder.evidence]),
            unfinished=[name for name in recorder.requirements if written.count(name) > reached.count(name)],
            diagnostics="",
            resources=recorder.resources,
        )

    def _collect(self, item: pytest.Item, call: pytest.CallInfo[None], text: str, lost: str | None) -> str:
        """Look into what is alive, while it is; return the directory relative to the run's."""
        error = call.excinfo.value if call.excinfo else None
        first_line, _, _ = str(error).partition("\n")
        alike = (item.path, type(error), first_line)
        self._alike[alike] += 1
        depth: Depth = "events" if call.when == "teardown" else "all"
        if self._alike[alike] > _MOST_ALIKE or (lost and self._is_loss_known):
            depth = "text"
        self._is_loss_known = bool(lost)
        name = "".join(char if char.isalnum() or char in "-_." else "-" for char in item.nodeid.rpartition("::")[2])
        # An earlier attempt at the test has a directory of its own.
        names = itertools.chain([name[:80]], (f"{name[:80]}-{number}" for number in itertools.count(2)))
        relative = next(path for path in map("diagnostics/{}".format, names) if not (self._directory / path).exists())
        told = f"{item.nodeid}, {call.when}\n\n{text}\n"
        began = datetime.fromtimestamp(call.start, UTC)
        found = self._diagnostics.collect(self._directory / relative, began, told, depth)
        return relative if found else ""

    def _explain(self, report: pytest.TestReport, identifiers: tuple[str, ...], directory: str) -> None:
        """Say what was broken and where to look, and keep secrets off the screen."""
        lines = [f"{name} ({self._ledger[name].level}): {self._ledger[name].sentence}" for name in identifiers]
        report.sections.insert(0, ("requirements that this test decides", "\n".join(lines)))
        if directory:
            telling = [*self._diagnostics.telling, str(self._directory / directory)]
            report.sections.append(("diagnostics", "\n".join(telling)))
        report.sections = [(title, self._redactor.text(text)) for title, text in report.sections]
        text = report.longreprtext
        if (redacted := self._redactor.text(text)) != text:
            report.longrepr = redacted


def _checks_of(item: pytest.Item) -> list[str]:
    """Return the ID of every ``check("ID", …)`` in a test's source, so that one that was not reached is noticed."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(item, "function"))))  # noqa: B009 - the type has none
    return [
        str(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "check"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]
