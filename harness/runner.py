"""Runs the suites with pytest in a process of their own, and says how to go on after it."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

from harness.conformance.plugin import RESULT_FILE_VARIABLE
from harness.conformance.verdict import ExitCode
from harness.errors import HarnessFault, MissingPrerequisite, PodidError, UsageError
from harness.lab.paths import CHECKOUT

__all__ = [
    "SETUP_FAULT_VARIABLE",
    "Abandoned",
    "Result",
    "chosen_files",
    "collect_bindings",
    "how_to_continue",
    "nodes_wanted",
    "podid_command",
    "raise_setup_fault",
    "require_paths",
    "run_suites",
    "run_to_its_end",
]

DEFAULT_LAB = "podid"
SETUP_FAULT_VARIABLE = "PODID_SETUP_FAULT"
"""Environment variable that tells the suites why there is no lab, so that the record and the reports say it."""
_OUTPUT = ("-v", "--override-ini=console_output_style=count", "--durations=5")
_OUTPUT_WITHOUT_LAB = ("-q", "--tb=no", "-rN")
"""Every test would tell the same fault, which whoever could not raise the lab tells once."""


class Abandoned(BaseException):
    """A second signal: whoever sent it does not want to wait for the end of anything."""

    def __init__(self, number: int) -> None:
        """Keep the signal."""
        self.number = number
        super().__init__(number)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of the suites said."""

    exit_code: int
    line: str
    """The verdict in one line."""
    failed: tuple[str, ...]
    """Node IDs of the tests that did not pass."""


def run_suites(lab: str, clusters: Sequence[str], arguments: Sequence[str], fault: PodidError | None = None) -> Result:
    """Run pytest on the scenarios against a lab that is up.

    Args:
        lab: Name of the lab.
        clusters: Clusters to run on.
        arguments: Further arguments for pytest; paths among them replace the default, all scenarios.
        fault: Why the lab is not up; then nothing is executed, and the reports say why.
    """
    options = [f"--lab={lab}", *(f"--cluster={name}" for name in clusters)]
    options += ["--assert=plain"] if "--dry-run" in arguments else []
    paths = [] if _paths(arguments) else _scenarios(CHECKOUT / "suites")
    with tempfile.TemporaryDirectory(prefix="podid-") as directory:
        file = Path(directory) / "result.json"
        environment = os.environ | {RESULT_FILE_VARIABLE: str(file)}
        if fault:
            told = {"exit_code": fault.exit_code, "text": str(fault), "kind": getattr(fault, "kind", "")}
            environment[SETUP_FAULT_VARIABLE] = json.dumps(told)
        command = [
            sys.executable,
            "-m",
            "pytest",
            *(_OUTPUT_WITHOUT_LAB if fault else _OUTPUT),
            *options,
            *arguments,
            *paths,
        ]
        code = run_to_its_end(command, environment, CHECKOUT)
        if file.exists():
            data = json.loads(file.read_text())
            return Result(data["exit_code"], data["line"], tuple(data["failed"]))
    if "--dry-run" in arguments:
        return Result(code, f"dry run (exit {code}): nothing was executed", ())
    line = f"verdict: incomplete (exit {ExitCode.HARNESS_ERROR}) — pytest ended with {code} before any test"
    return Result(ExitCode.HARNESS_ERROR, line, ())


def require_paths(arguments: Sequence[str]) -> None:
    """Return if all paths of suites among pytest's arguments are there.

    Raises:
        UsageError: One is not.
    """
    for path in _paths(arguments):
        if not (CHECKOUT / path).exists():
            known = [str(file.relative_to(CHECKOUT)) for file in (CHECKOUT / "suites").rglob("test_*.py")]
            near = difflib.get_close_matches(path, known, n=1)
            raise UsageError(f"there is no {path}", hint=f"did you mean {near[0]}?" if near else "see: podid list")


def chosen_files(arguments: Sequence[str]) -> list[Path]:
    """Return the files of scenarios that pytest's arguments choose; without paths among them, all."""
    chosen = [CHECKOUT / path for path in _paths(arguments)]
    places = chosen or [CHECKOUT / "suites"]
    return [file for place in places for file in (place.glob("test_*.py") if place.is_dir() else [place])]


def nodes_wanted(arguments: Sequence[str]) -> int:
    """Return how many nodes the scenarios that pytest's arguments choose need.

    Two only where one asks for the fixture ``last_node``: every node takes its time to get its images.
    """
    return 2 if any(file.exists() and "last_node" in file.read_text() for file in chosen_files(arguments)) else 1


def _paths(arguments: Sequence[str]) -> list[str]:
    """Return the files and folders of suites among pytest's arguments; a baseline, an option's value, is none."""
    named = (argument.partition("::")[0] for argument in arguments if argument.startswith("suites"))
    return [path for path in named if Path(path).suffix in {"", ".py"}]


def _scenarios(suites: Path) -> list[str]:
    """Return arguments that choose what needs a lab: the files directly in ``suites/``; its folders need none.

    Files by name would be a part of the suites for the plugin, and a part is never conformant.
    """
    folders = sorted({file.parent for file in suites.glob("*/test_*.py")})
    return [suites.name, *(f"--ignore={folder.relative_to(suites.parent)}" for folder in folders)]


def run_to_its_end(command: Sequence[str], environment: dict[str, str], directory: Path) -> int:
    """Run a program to its end, and let it have its end: an interruption reaches it once, and it is waited for.

    ``subprocess.run`` would kill it a quarter of a second after a Ctrl-C, in the middle of its clean-up and reports.

    Raises:
        Abandoned: A second interruption; the program was killed.
    """
    with subprocess.Popen(command, cwd=directory, env=environment) as process:
        received: list[int] = []

        def forward(number: int, _frame: FrameType | None) -> None:
            received.append(number)
            if len(received) > 1:
                # Nothing is worth waiting for any more.
                process.kill()
                raise Abandoned(number)
            # A terminal sends Ctrl-C to the program as well, for which two would be one too many.
            if number == signal.SIGTERM or not sys.stdin.isatty():
                process.send_signal(signal.SIGINT)

        before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def raise_setup_fault() -> None:
    """Raise what kept the lab from coming up, if the caller told so; for the fixture that would raise the lab.

    Raises:
        MissingPrerequisite: The machine lacks something.
        HarnessFault: The lab did not start.
    """
    if told := os.environ.get(SETUP_FAULT_VARIABLE):
        fault = json.loads(told)
        if fault["exit_code"] == ExitCode.INCOMPLETE:
            raise MissingPrerequisite(fault["text"], kind=fault["kind"])
        raise HarnessFault(fault["text"])


def collect_bindings(suites: Path, folders: Sequence[str] = (), *, is_last: bool = False) -> dict[str, tuple[str, ...]]:
    """Return node ID → requirement IDs of tests, as pytest collects them; runs nothing.

    Args:
        suites: Directory of the suites.
        folders: Suites that are wanted; without any, all.
        is_last: Whether this process runs no test afterwards; then it need not prepare assertions, which takes most of
            the time.

    Raises:
        HarnessFault: The suites cannot be collected.
    """
    found: dict[str, tuple[str, ...]] = {}

    class Reader:
        @staticmethod
        def pytest_collection_finish(session: pytest.Session) -> None:
            plugin = session.config.pluginmanager.get_plugin("podid-conformance")
            found.update(plugin.results.bindings if plugin else {})

    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), contextlib.chdir(suites.parent):
        paths = [str(suites / folder) for folder in folders] or [str(suites)]
        options = ["--dry-run", "-q", *(["--assert=plain"] if is_last else [])]
        code = pytest.main([*paths, *options], plugins=[Reader()])
    if code != ExitCode.CONFORMANT:
        raise HarnessFault(f"the suites cannot be collected:\n{output.getvalue().strip()}")
    return found


def how_to_continue(result: Result, lab: str, *, kept: bool) -> list[str]:
    """Return the lines that a person can paste: run a failed test again, enter the lab, remove it."""
    lines: list[str] = []
    if result.failed:
        option = "" if lab == DEFAULT_LAB else f"--lab {lab} "
        lines.append(f"again:  python3 -m nox -s e2e -- --keep --partial {option}{shlex.quote(result.failed[0])}")
    if kept:
        lines += [f"enter:  {podid_command(lab)} exports", f"remove: {podid_command(lab)} down"]
    return lines


def podid_command(lab: str) -> str:
    """Return how to call ``podid`` for a lab from the checkout."""
    return "uv run podid" if lab == DEFAULT_LAB else f"PODID_LAB={shlex.quote(lab)} uv run podid"
