"""The pytest plugin: binds tests to requirements, records what they say, and ends a run with a verdict and reports.

It works in one process and under pytest-xdist: the process that runs a test puts what it said on the test's report
(``report.podid``), and the process that the person started collects the reports.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness.conformance import canary as canaries
from harness.conformance import fixtures, hooks, store
from harness.conformance.attempts import Attempts
from harness.conformance.baseline import Baseline, read_baseline
from harness.conformance.binding import bind, case_name, choose, files_in_turn, share
from harness.conformance.ceilings import Ceilings
from harness.conformance.cleanup import CleanUp
from harness.conformance.compare import since
from harness.conformance.diagnostics import Diagnostics
from harness.conformance.events import EventLog
from harness.conformance.features import Features, read_features
from harness.conformance.floors import asked, read_floors, shortfalls
from harness.conformance.frozen import FrozenSet, read_frozen
from harness.conformance.ground import Ground
from harness.conformance.history import Durations, note_run, read_durations
from harness.conformance.hooks import Plan
from harness.conformance.interruption import Interruption
from harness.conformance.issued import Issued, new_marker
from harness.conformance.ledger import Ledger, kind_of, read_ledger
from harness.conformance.observer import Observer
from harness.conformance.options import Options
from harness.conformance.outcomes import Outcome, Reason
from harness.conformance.pace import Pace
from harness.conformance.record import Fault, FrozenRecord, Run, Setting, new_run_id, read_run
from harness.conformance.redaction import Redactor
from harness.conformance.results import Phase, Results, RunFacts
from harness.conformance.search import Search, prove_search
from harness.conformance.selection import Selection, select, tests_to_rerun
from harness.conformance.summary import obstacles, plan, repeated, shortcomings, tell_failure
from harness.conformance.verdict import ExitCode
from harness.conformance.workers import report, take_over
from harness.errors import PodidError, UsageError

__all__ = ["RESULT_FILE_VARIABLE", "Plugin"]

RESULT_FILE_VARIABLE = "PODID_RESULT_FILE"
"""Environment variable that names a file for the result; then the caller prints the verdict."""


class Plugin:
    """Collects what the tests of one run say about requirements; active for tests below the suites' directory."""

    def __init__(self, suites: Path) -> None:
        """Keep the directory of the suites, with ``requirements/`` in it."""
        self._suites = suites
        self._ledger = Ledger([])
        self._baseline = Baseline()
        self._frozen: FrozenSet | None = None
        self._selection = Selection((), (), ())
        self._failed_before: set[str] | None = None
        self._durations = Durations({})
        self._redactor = Redactor()
        self._facts = RunFacts("", 0.0, [], "ours")
        self._environment: dict[str, str] = {}
        self._directory = Path()
        self._canary = ""
        self._active = self._names_cases = False
        self._session: pytest.Session | None = None
        self._finished: Run | None = None
        self._events: EventLog | None = None
        """In the process that the person started, unless a record alone is wanted."""
        self._noted_environment: dict[str, str] = {}
        self._earlier: Run | None = None
        """What ``--against`` names."""
        self._floors: dict[str, int] = {}
        self._interruption = Interruption(lambda: f"what was seen until then is in {_short(self._directory)}")
        self.results = Results()
        self.diagnostics = Diagnostics(self._redactor)
        self._ground = Ground()
        self._features = Features({}, (), ())
        self._plan = Plan(())
        self._issued = Issued(new_marker())

    # --- The session ------------------------------------------------------------------------------------------------

    def pytest_configure(self, config: pytest.Config) -> None:
        """Read ledger and baseline, if the suites are meant; ends the run when they are invalid."""
        config.pluginmanager.add_hookspecs(hooks)
        config.pluginmanager.register(fixtures, "podid-fixtures")
        config.stash[fixtures.DIAGNOSTICS] = self.diagnostics
        config.stash[fixtures.GROUND] = self._ground
        config.stash[fixtures.ISSUED] = self._issued
        config.stash[fixtures.ENVIRONMENT] = self._environment
        self._names_cases = any(self._is_suite(config, name) for name in config.args)
        self._active = self._names_cases and not config.option.collectonly
        if not self._active:
            return
        try:
            self._options = Options.of(config)
            self._ledger = read_ledger(self._suites / "requirements")
            self._read(config.rootpath)
            history = config.rootpath / self._options.history
            config.stash[fixtures.CEILINGS] = Ceilings(self._ledger, history, self._options.leg)
        except PodidError as error:
            _leave(str(error))
        if self._options.retries or self._options.repeat > 1:
            attempts = Attempts(retries=self._options.retries, repeat=self._options.repeat)
            config.pluginmanager.register(attempts, "podid-attempts")
        if not hasattr(config, "workerinput") and not self._options.dry_run:
            # The workers know a better order than by number of tests.
            config.option.loadscopereorder = False
            workers = len(getattr(config.option, "tx", None) or ["this process"])
            config.pluginmanager.register(Pace(self._durations, workers / self._options.repeat), "podid-pace")

    def _read(self, root: Path) -> None:
        """Read the files that the options name."""
        options = self._options
        scenarios = {file.stem for file in self._suites.rglob("test_*.py")}
        self._selection = select(self._ledger, options.only, options.level, scenarios)
        subject = Path(options.subject_file or self._suites / "subjects" / f"{kind_of(options.subject)}.yaml")
        self._features = read_features(self._suites, options.profile, subject, self._ledger, options.without_feature)
        self._durations = read_durations(root / options.history, options.leg, self._suites)
        if options.subject == "ours" and options.repeat == 1:
            arguments = [root / argument for argument in options.paths]
            ignored = [root / path for path in options.ignored]
            self._floors = asked(read_floors(self._suites), arguments, ignored, root)
        if options.baseline:
            self._baseline = read_baseline(Path(options.baseline), self._ledger, datetime.now(UTC).date())
        if options.frozen:
            self._frozen = read_frozen(self._suites / "requirements" / "frozen", options.frozen)
            if complaints := self._frozen.complaints(self._ledger):
                raise UsageError("the ledger is not what was frozen:\n  " + "\n  ".join(complaints))
        if options.against:
            self._earlier = read_run(Path(options.against))
        if options.rerun_failed:
            self._failed_before = tests_to_rerun(Path(options.rerun_failed))

    def _is_suite(self, config: pytest.Config, argument: str) -> bool:
        path = (config.invocation_params.dir / argument.partition("::")[0]).resolve()
        return path.is_relative_to(self._suites) or self._suites.is_relative_to(path)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Make the run's directory, unless nothing is to run."""
        config = session.config
        self._session = session
        if not self._active or self._options.dry_run:
            return
        started = time.time()
        is_worker = (told := getattr(config, "workerinput", {}).get("podid")) is not None
        if is_worker:
            self._directory, self._issued.marker = Path(told["directory"]), told["marker"]
        else:
            self._interruption.watch()
            name = new_run_id(datetime.fromtimestamp(started, UTC))
            self._directory = config.rootpath / self._options.report_dir / name
            self._directory.mkdir(mode=0o700, parents=True)
            self._canary = os.environ[canaries.VARIABLE] = canaries.new()
        argv = [self._redactor.text(argument) for argument in config.invocation_params.args]
        self._environment |= {"podid": metadata.version("podid"), "python": sys.version.split()[0]}
        self._facts = RunFacts(self._directory.name, started, argv, self._options.subject, self._environment)
        self._facts.leg = self._options.leg
        self._facts.is_repeated = self._options.repeat > 1
        self._facts.accepts_part = self._options.partial
        self._facts.settings = {
            name: Setting(self._redactor.text(setting.value), setting.source)
            for name, setting in self._options.settings.items()
        }
        if self._frozen:
            self._facts.frozen = FrozenRecord(self._frozen.release, self._frozen.sha256)
            self._facts.outside = frozenset(self._ledger.keys() - self._frozen.digests.keys())
        if self._canary:
            self._facts.specimen = self._redactor.data(canaries.specimen(self._canary))
        if not self._options.record_only and not is_worker:
            self._events = EventLog(self._directory)
            self._events.begin(self._facts, self._ledger, self._baseline)
        observer = Observer(
            self.results.bindings,
            self._ledger,
            self._redactor,
            diagnostics=self.diagnostics,
            ground=self._ground,
            directory=self._directory,
            kind=self._facts.kind,
            features=self._features,
        )
        config.pluginmanager.register(observer, "podid-observer")
        self._clean_up = CleanUp(self._suites, keeps_failed=self._options.keep_failed)
        config.pluginmanager.register(self._clean_up, "podid-clean-up")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a pytest-xdist worker the run's directory and marker."""
        node.workerinput["podid"] = {"directory": str(self._directory), "marker": self._issued.marker}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a pytest-xdist worker knows besides its tests."""
        told: dict[str, Any] | None = getattr(node, "workeroutput", {}).get("podid")
        if told is not None:
            take_over(told, self.results, self._facts, self._issued)

    # --- Collection -------------------------------------------------------------------------------------------------

    def pytest_make_parametrize_id(self, val: object) -> str | None:
        """Name a case by its value, not by its position."""
        return case_name(val) if self._names_cases else None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Bind every test of the suites, before pytest's own options leave some out; then leave out what ours do."""
        if not self._active:
            yield
            return
        bindings, faults = bind(items, self._suites, self._ledger)
        if faults:
            for fault in faults:
                self._fault("collection", fault)
            _leave("\n".join(faults))
        self.results.bound = {name for identifiers in bindings.values() for name in identifiers}
        self._facts.partial = self._options.is_narrowed
        yield
        nodes = [item.nodeid for item in items if item.nodeid in bindings]
        chosen = choose(bindings, nodes, self._ledger, self._selection, self._failed_before)
        if shard := self._options.shard:
            is_partial = self._facts.partial or len(chosen) < len(nodes)
            chosen, self._facts.shard = share(chosen, shard, self._durations, is_partial=is_partial)
            # A share is a part, also when there is only one.
            self._facts.partial = True
        left_out = [item for item in items if item.nodeid in bindings and item.nodeid not in chosen]
        if left_out:
            items[:] = [item for item in items if item not in left_out]
            config.hook.pytest_deselected(items=left_out)
        for item in items:
            if item.nodeid in bindings:
                self.results.bindings[item.nodeid] = bindings[item.nodeid]
                self.results.behaviours[item.nodeid] = _behaviour(item)
        # Under pytest-xdist all workers collect the same, and the process that the person started collects nothing.
        worker = getattr(config, "workerinput", {}).get("workerid", "")
        if worker:
            files = files_in_turn([item.nodeid for item in items], self._durations)
            items.sort(key=lambda item: files.index(item.nodeid.partition("::")[0]))
        events = EventLog(self._directory) if worker == "gw0" and not self._options.record_only else self._events
        if events and not self._options.dry_run:
            events.collected(self.results, self._facts)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note that a file could not be collected: nobody knows what it would have said."""
        if self._active and report.failed:
            self._fault("collection", f"{report.nodeid}: {report.longreprtext}"[:20_000])

    def _fault(self, where: str, text: str) -> None:
        """Note something that went wrong in the harness itself."""
        fault = Fault(where, self._redactor.text(text))
        self._facts.faults.append(fault)
        if self._events:
            self._events.note("fault", **asdict(fault))

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        """Note that a part was left out."""
        self._facts.narrowed |= {item.nodeid.partition("::")[0] for item in items}
        self._facts.partial = self._facts.partial or bool(self._facts.narrowed)

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run nothing in a dry run."""
        return True if self._active and self._options.dry_run and not session.testsfailed else None

    # --- Tests ------------------------------------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of a phase, wherever it ran."""
        if not self._active:
            return
        phase: Phase | None = vars(report).get("podid")
        if phase is None:
            if report.failed and report.when not in {"setup", "call", "teardown"}:
                self._worker_crashed(report)
            return
        self._add(report.nodeid, phase)
        if phase["when"] == "teardown" and report.failed:
            self._fault("clean-up", f"{report.nodeid}: {phase['message'] or phase['reason']}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, Any] | None:
        """Show a test that lacked something as that: pytest, which knows exceptions only, would say that it failed."""
        phase: Phase | None = vars(report).get("podid")
        if not (phase and report.failed and phase["outcome"] == Outcome.NOT_RUN.value):
            return None
        return "could not run", "c", ("COULD NOT RUN", {"yellow": True})

    def _add(self, node: str, phase: Phase) -> None:
        self.results.add(node, phase)
        terminal: Any = self._session and self._session.config.pluginmanager.get_plugin("terminalreporter")
        if phase["message"] and terminal and terminal.verbosity >= 0 and self._canary:
            tell_failure(terminal, phase, _short(self._directory / phase["diagnostics"]))
        if self._events:
            if self._environment != self._noted_environment:
                self._noted_environment = dict(self._environment)
                self._events.note("environment", facts=self._noted_environment)
            self._events.phase(node, phase)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """With ``--fail-fast`` stop after the first MUST that is not met."""
        if not (self._active and self._options.fail_fast and self.results.has_finished(nodeid)):
            return
        lost = [name for name in self.results.failed(nodeid) if self._ledger[name].level == "MUST"]
        if lost and self._session:
            reason = f"--fail-fast: {', '.join(sorted(lost))} is not met in {nodeid}"
            # Under pytest-xdist its own session says when to stop.
            (self._session.config.pluginmanager.get_plugin("dsession") or self._session).shouldstop = reason

    def _worker_crashed(self, report: pytest.TestReport) -> None:
        message = self._redactor.text(report.longreprtext)
        crash = {"when": "call", "outcome": "error", "reason": ["worker-crashed", message], "message": message}
        empty: dict[str, Any] = {"worker": "", "checks": [], "evidence": [], "unfinished": [], "diagnostics": ""}
        empty |= {"requirements": [], "resources": {}}
        self._add(report.nodeid, Phase(**crash, started=time.time(), seconds=0.0, **empty))  # pyright: ignore[reportArgumentType]

    # --- The end ----------------------------------------------------------------------------------------------------

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note that a person or a signal ended the run."""
        if not excinfo.errisinstance(KeyboardInterrupt):
            return
        if excinfo.type is not KeyboardInterrupt:
            # What pytest and pytest-xdist raise when they were told to stop is one of its kinds.
            self._facts.not_started = Reason("fail-fast", str(excinfo.value))
        else:
            self._facts.interrupted = True
            self._facts.not_started = Reason("interrupted", "the run was interrupted before this test ended")

    def pytest_internalerror(self, excrepr: object) -> None:
        """Note that pytest or a plugin broke."""
        self._fault("set-up", str(excrepr)[-20_000:])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write record and reports, and replace pytest's exit code by the verdict's."""
        if not self._active:
            return
        if self._options.dry_run:
            empty = not self.results.bindings or bool(self._facts.faults)
            # Whoever asks quietly wants to know what is bound, not what it would take.
            self._plan = self._make_plan(session) if session.config.option.verbose >= 0 and not empty else Plan(())
            code = ExitCode.INCOMPLETE if self._plan.obstacles else 0
            session.exitstatus = ExitCode.HARNESS_ERROR if empty else code
            return
        if session.shouldfail or session.shouldstop:
            self._facts.not_started = Reason("fail-fast", str(session.shouldfail or session.shouldstop))
        if kept := self._clean_up.kept:
            self._environment["kept"] = "; ".join(kept)
        self._facts.redactions += self._redactor.counts
        # Under pytest-xdist the workers look, and tell what they saw.
        self._facts.features = self._features.records(self._ledger) | self._facts.features
        self._facts.faults += [Fault("diagnostics", text) for text in self.diagnostics.faults]
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output["podid"] = report(self.results, self._facts, self._issued)
            return
        try:
            self._facts.searched = prove_search()
            search = Search(self._canary, self._issued.marker, self._issued.secrets)
            reports = not self._options.record_only
            self._finished = store.finish(self._directory, self._finish, search, reports=reports)
            session.exitstatus = self._finished.exit_code
            # A mutant's times and failures say nothing about later runs, and shards must not change what they are
            # divided by while others still run: `podid merge` notes them.
            if not self._options.subject.startswith("mutant:") and not self._options.shard:
                note_run(session.config.rootpath / self._options.history, self._finished)
        except (PodidError, OSError) as error:
            print(f"podid: {error}", file=sys.stderr)
            session.exitstatus = ExitCode.HARNESS_ERROR

    def _make_plan(self, session: pytest.Session) -> Plan:
        told: list[Plan] = session.config.hook.pytest_podid_plan(config=session.config, items=session.items)
        features = {
            node: {self._ledger[name].profile for name in names} for node, names in self.results.bindings.items()
        }
        narrowed = {node: self._features.expected(names) for node, names in features.items()}
        obstacles = {node: why for plan in told for node, why in plan.obstacles.items()}
        obstacles |= {node: why for node, why in narrowed.items() if why}
        return Plan([line for plan in told for line in plan.lines], obstacles)

    def _finish(self, faults: list[Fault]) -> Run:
        self._facts.faults += faults
        finished = time.time()
        run = self.results.run(self._facts, self._ledger, self._baseline, finished)
        # A run that was stopped says so, and not that something is missing.
        is_whole = not (self._facts.interrupted or self._facts.not_started.kind == "fail-fast")
        missing = shortfalls(self._floors, self._facts.narrowed, run.tests) if is_whole else []
        if new := [fault for fault in (Fault("floor", text) for text in missing) if fault not in self._facts.faults]:
            self._facts.faults += new
            run = self.results.run(self._facts, self._ledger, self._baseline, finished)
        return replace(run, since=since(self._earlier, run)) if self._earlier else run

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List the requirements that are not met, or, in a dry run, what would be decided."""
        lines: Sequence[str] = ()
        if self._active and self._options.dry_run:
            terminalreporter.section("what would run")
            expected = self._durations.expected(self.results.bindings)
            known = {node: expected[node] for node in expected if node in self._durations.seconds}
            lines = [
                *plan(self.results.bindings, self._ledger, self._facts.kind, known, sum(expected.values())),
                *self._plan.lines,
                *obstacles(self._plan.obstacles),
            ]
        elif self._finished:
            terminalreporter.section("what is not met, and what did not run")
            lines = [*(repeated(self._finished) if self._facts.is_repeated else ()), *shortcomings(self._finished)]
        for line in lines:
            terminalreporter.line(line)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Hand the result to the caller, or print the verdict as the last line."""
        self._interruption.stop_watching()
        os.environ.pop(canaries.VARIABLE, None)
        run = self._finished
        if run is None:
            return
        page = self._directory / "index.html"
        line = f"{run.line} — {_short(page if page.exists() else self._directory)}"
        failed = [test.node for test in run.tests if test.outcome in {"failed", "error"}]
        if file := os.environ.get(RESULT_FILE_VARIABLE):
            result = {"exit_code": run.exit_code, "line": line, "failed": failed, "report": str(self._directory)}
            Path(file).write_text(json.dumps(result))
        else:
            print(line)


def _leave(text: str) -> NoReturn:
    pytest.exit(text, returncode=ExitCode.HARNESS_ERROR)


def _behaviour(item: pytest.Item) -> str:
    documentation = inspect.getdoc(getattr(item, "function", None)) or ""
    return " ".join(documentation.partition("\n\n")[0].split())


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
