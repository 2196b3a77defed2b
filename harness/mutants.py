"""Runs the suites on every mutant, and on the originals for comparison (docs/mutants.md).

All runs are forks of one process that has imported the suites: an import takes longer than most runs.
"""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import pytest

from harness.conformance.ledger import Ledger, read_ledger
from harness.conformance.outcomes import Outcome, worst
from harness.conformance.record import FILE_NAME, read_run, write_atomically
from harness.conformance.store import rewrite
from harness.errors import UsageError
from harness.kill_matrix import Matrix, Row, judge_control, judge_mutant, unguarded
from harness.lab.paths import CHECKOUT
from harness.runner import collect_bindings
from harness.subject.mutants.catalogue import SUITES, Mutant, Suite, all_mutants

__all__ = ["choose", "run_mutants"]

UNGUARDED = Path(__file__).parent / "subject" / "mutants" / "unguarded.txt"
_TIMEOUT = 300.0
"""Seconds for one run; a run takes a few."""
_GRACE = 10.0
"""Seconds for a run that is told to end to end its subjects."""
_FORKS: Final = multiprocessing.get_context("fork")

Bindings = Mapping[str, Sequence[str]]
"""Node ID → requirement IDs."""


@dataclass(slots=True)
class _Subject:
    """Something to run tests on, and what they have said so far."""

    name: str
    options: Sequence[str]
    directory: Path
    judge: Callable[[_Subject], Row]
    waiting: list[Sequence[str]]
    """Arguments of the runs that are to come."""
    wanted: frozenset[str] = frozenset()
    """Requirements after whose failure a run may end."""
    running: int = 0
    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    lengths: dict[str, float] = field(default_factory=dict[str, float])
    """Requirement ID → seconds of its tests."""
    seconds: float = 0.0
    note: str = ""

    def words(self) -> dict[str, str]:
        """Return the outcomes as the record spells them."""
        return {name: outcome.value for name, outcome in self.outcomes.items()}


@dataclass(frozen=True, slots=True)
class _Run:
    subject: _Subject
    process: BaseProcess
    directory: Path
    started: float


def choose(patterns: Sequence[str], *, trivial: bool) -> list[Mutant]:
    """Return the mutants of these names or globs.

    Args:
        patterns: Names or globs; without any, all.
        trivial: Whether all means those as well that meet a whole suite and wait for most of it.

    Raises:
        UsageError: A pattern matches none.
    """
    mutants = all_mutants()
    for pattern in patterns:
        if not any(fnmatchcase(mutant.name, pattern) for mutant in mutants):
            raise UsageError(f"no mutant {pattern!r}", hint="list them with: podid mutants --list")
    if not patterns:
        return [mutant for mutant in mutants if trivial or not mutant.is_trivial]
    return [mutant for mutant in mutants if any(fnmatchcase(mutant.name, pattern) for pattern in patterns)]


def run_mutants(
    mutants: Sequence[Mutant],
    directory: Path,
    *,
    full: bool = False,
    jobs: int = 2,
    tell: Callable[[str], object] = print,
) -> Matrix:
    """Run mutants and their originals, and write the matrix down.

    Args:
        mutants: Which.
        directory: For the matrix, and the evidence of what is not as declared; made.
        full: Whether every mutant meets its whole suite, so that failures nobody expects are found.
        jobs: Runs at a time.
        tell: Gets a line for each subject when it is done.
    """
    bindings = collect_bindings(CHECKOUT / "suites", SUITES)
    # The forks share what there is, and need not look through it for garbage.
    gc.freeze()
    musts = _musts(bindings)
    directory.mkdir(parents=True)
    subjects = [_mutant(mutant, bindings, musts, directory, full=full) for mutant in mutants]
    for suite in SUITES:
        own = [mutant for mutant in mutants if mutant.suite == suite and not mutant.is_trivial]
        if own:
            subjects.insert(0, _control(suite, own, bindings, directory, full=full))
    rows: list[Row] = []
    for subject in _run_all(subjects, jobs):
        row = subject.judge(subject)
        rows.append(row)
        found = " ".join(row.killed_by[:6]) + (f" … ({len(row.killed_by)})" if len(row.killed_by) > 6 else "")
        tell(f"{row.state:11} {row.name:32} {row.seconds:5.1f} s  {found}")
        if row.is_good:
            shutil.rmtree(subject.directory, ignore_errors=True)
        else:
            for record in subject.directory.glob(f"*/*/{FILE_NAME}"):
                rewrite(record.parent)
    order = [subject.name for subject in subjects]
    matrix = _matrix(sorted(rows, key=lambda row: order.index(row.name)), musts)
    write_atomically(directory / "kill-matrix.json", matrix.as_json())
    write_atomically(directory / "kill-matrix.md", matrix.as_markdown())
    sentences = {name: entry.sentence for name, entry in _ledger().items()}
    write_atomically(directory / "kill-matrix.html", matrix.as_html(sentences))
    return matrix


def _matrix(rows: Sequence[Row], musts: Iterable[str]) -> Matrix:
    now = unguarded(all_mutants(), set(musts))
    committed = set(UNGUARDED.read_text().split())
    return Matrix(rows, sorted(now), sorted(now - committed), sorted(committed - now))


def _musts(bindings: Bindings) -> set[str]:
    """Return the MUSTs on our agent and webhook that a test outside a cluster decides."""
    ledger = _ledger()
    bound = {name for node, names in bindings.items() if node.startswith(_folders()) for name in names}
    return {name for name in bound if ledger[name].level == "MUST" and "ours" in ledger[name].applies_to}


def _ledger() -> Ledger:
    return read_ledger(CHECKOUT / "suites" / "requirements")


def _folders() -> tuple[str, ...]:
    return tuple(f"suites/{suite}/" for suite in SUITES)


def _files(suite: Suite, bindings: Bindings, wanted: Iterable[str] | None) -> list[str]:
    """Return the files of a suite with tests that decide one of these requirements, or all."""
    asked = None if wanted is None else set(wanted)
    nodes = (node for node, names in bindings.items() if asked is None or asked & set(names))
    return sorted({node.partition("::")[0] for node in nodes if node.startswith(f"suites/{suite}/")})


def _only(names: Iterable[str]) -> list[str]:
    return [f"--only={name}" for name in sorted(set(names))]


def _mutant(mutant: Mutant, bindings: Bindings, musts: set[str], directory: Path, *, full: bool) -> _Subject:
    suite = mutant.suite
    own = {name for name in musts if name in _decided(suite, bindings)}

    def judge(subject: _Subject) -> Row:
        return judge_mutant(mutant, subject.words(), own, seconds=subject.seconds, note=subject.note)

    if full or mutant.is_trivial:
        runs: list[Sequence[str]] = [[file] for file in _files(suite, bindings, None)]
    else:
        # What may fail as well is no proof, so its tests are left to --full.
        runs = [[*_files(suite, bindings, mutant.must_kill), *_only(mutant.must_kill)]]
    options = [f"--subject=mutant:{mutant.name}"]
    wanted = frozenset(() if full else mutant.must_kill)
    return _Subject(mutant.name, options, directory / mutant.name, judge, runs, wanted)


def _control(suite: Suite, mutants: Sequence[Mutant], bindings: Bindings, directory: Path, *, full: bool) -> _Subject:
    name = f"{suite} (original)"
    wanted = {name for mutant in mutants for name in mutant.must_kill}

    def judge(subject: _Subject) -> Row:
        return judge_control(name, subject.words(), wanted, seconds=subject.seconds, note=subject.note)

    # A machine under load makes some test late now and then; a fault of the original fails both times.
    only = ["--retries=1", *([] if full else _only(wanted))]
    runs = [[file, *only] for file in _files(suite, bindings, None if full else wanted)]
    return _Subject(name, [], directory / f"{suite}-original", judge, [*runs])


def _decided(suite: Suite, bindings: Bindings) -> set[str]:
    return {name for node, names in bindings.items() if node.startswith(f"suites/{suite}/") for name in names}


# --- Running ---------------------------------------------------------------------------------------------------------


def _run_all(subjects: Sequence[_Subject], jobs: int) -> Iterable[_Subject]:
    """Run everything, and give each subject when the last of its runs is over."""
    running: list[_Run] = []
    try:
        while running or any(subject.waiting for subject in subjects):
            while len(running) < jobs and (subject := _next(subjects)):
                running.append(_start(subject))
            connection.wait([run.process.sentinel for run in running], timeout=1)
            for run in [run for run in running if _is_over(run)]:
                running.remove(run)
                _read(run)
                if not run.subject.waiting and not run.subject.running:
                    yield run.subject
    finally:
        for run in running:
            _stop(run.process)


def _next(subjects: Sequence[_Subject]) -> _Subject | None:
    """Return who is next: the originals, then the mutant whose tests took them longest, so that no job waits long."""
    lengths = {name: seconds for subject in subjects for name, seconds in subject.lengths.items()}

    def length(subject: _Subject) -> float:
        return sum(lengths.get(name, 0.0) for name in subject.wanted) if subject.wanted else math.inf

    return max((subject for subject in subjects if subject.waiting), key=length, default=None)


def _start(subject: _Subject) -> _Run:
    directory = subject.directory / str(len(subject.waiting))
    directory.mkdir(parents=True)
    arguments = [*subject.waiting.pop(0), *subject.options, f"--report-dir={directory}"]
    process = _FORKS.Process(target=_pytest, args=(arguments, subject.wanted, directory / "output.txt"))
    process.start()
    subject.running += 1
    return _Run(subject, process, directory, time.monotonic())


class _Enough:
    """Ends a run when all that must fail has failed: no further failure would prove more."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._left = set(wanted)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> bool | None:
        # Not with session.shouldstop: that ends in a traceback which takes half a second to print.
        return None if self._left else True

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        plugin = self._session.config.pluginmanager.get_plugin("podid-conformance")
        self._left -= plugin.results.failed(nodeid) if plugin else set()


def _pytest(arguments: Sequence[str], wanted: Iterable[str], output: Path) -> None:
    """Run pytest in a fork of its own."""
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(CHECKOUT)
    # Forks would choose the same ports at the same time.
    random.seed()
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "--record-only"]
    # They look for garbage at the end, a quarter of a second each time.
    options += ["-p", "no:unraisableexception", "-p", "no:threadexception"]
    os._exit(pytest.main([*options, *arguments], plugins=[_Enough(wanted)] if wanted else []))


def _is_over(run: _Run) -> bool:
    if run.process.is_alive() and time.monotonic() - run.started > _TIMEOUT:
        run.subject.note = f"a run was ended after {_TIMEOUT:g} s"
        _stop(run.process)
    return not run.process.is_alive()


def _stop(process: BaseProcess) -> None:
    """End a run, and let it end the subjects that it has started; one that does not is ended with them."""
    process.terminate()
    process.join(_GRACE)
    if process.is_alive():
        for subject in _children(process.pid or 0):
            # Each leads a process group of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(subject, signal.SIGKILL)
        process.kill()
        process.join()


def _children(pid: int) -> list[int]:
    """Return the processes that any thread of a process has started."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [child for child in map(int, file.read_text().split()) if os.getpgid(child) == child]
    return found


def _read(run: _Run) -> None:
    """Add what a run said; of a requirement in several files, the worst."""
    subject = run.subject
    subject.running -= 1
    subject.seconds += time.monotonic() - run.started
    found = sorted(run.directory.glob("*/run.json"))
    if not found:
        subject.note = subject.note or f"pytest left no record: {run.directory / 'output.txt'}"
        return
    record = read_run(found[0], check=False)
    for entry in record.requirements:
        if entry.outcome:
            before = [subject.outcomes[entry.id]] if entry.id in subject.outcomes else []
            subject.outcomes[entry.id] = worst([Outcome(entry.outcome), *before])
    if not subject.wanted:
        for test in record.tests:
            for name in test.requirements:
                subject.lengths[name] = subject.lengths.get(name, 0.0) + test.seconds
