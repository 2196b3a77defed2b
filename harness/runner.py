"""Runs the suites with pytest in a process of their own, and says how to go on after it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.conformance.plugin import RESULT_FILE_VARIABLE
from harness.conformance.verdict import ExitCode
from harness.lab.paths import CHECKOUT

__all__ = ["Result", "how_to_continue", "podid_command", "run_suites"]

DEFAULT_LAB = "podid"
_OUTPUT = ("-v", "--override-ini=console_output_style=count", "--durations=5")


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of the suites said."""

    exit_code: int
    line: str
    """The verdict in one line."""
    failed: tuple[str, ...]
    """Node IDs of the tests that did not pass."""


def run_suites(lab: str, clusters: Sequence[str], arguments: Sequence[str]) -> Result:
    """Run pytest on the suites against a lab that is up.

    Args:
        lab: Name of the lab.
        clusters: Clusters to run on.
        arguments: Further arguments for pytest; paths among them replace the default, all suites.
    """
    options = [f"--lab={lab}", *(f"--cluster={name}" for name in clusters)]
    paths = [] if any(argument.startswith("suites") for argument in arguments) else ["suites"]
    with tempfile.TemporaryDirectory(prefix="podid-") as directory:
        file = Path(directory) / "result.json"
        environment = os.environ | {RESULT_FILE_VARIABLE: str(file)}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *_OUTPUT, *options, *arguments, *paths],
            cwd=CHECKOUT,
            env=environment,
            check=False,
        )
        if file.exists():
            data = json.loads(file.read_text())
            return Result(data["exit_code"], data["line"], tuple(data["failed"]))
    line = f"verdict: incomplete (exit {ExitCode.HARNESS_ERROR}) — pytest ended with {done.returncode} before any test"
    return Result(ExitCode.HARNESS_ERROR, line, ())


def how_to_continue(result: Result, lab: str, *, kept: bool) -> list[str]:
    """Return the lines that a person can paste: run a failed test again, enter the lab, remove it."""
    lines: list[str] = []
    if result.failed:
        option = "" if lab == DEFAULT_LAB else f"--lab {lab} "
        lines.append(f"again:  python3 -m nox -s e2e -- --keep {option}{shlex.quote(result.failed[0])}")
    if kept:
        lines += [f"enter:  {podid_command(lab)} exports", f"remove: {podid_command(lab)} down"]
    return lines


def podid_command(lab: str) -> str:
    """Return how to call ``podid`` for a lab from the checkout."""
    return "uv run podid" if lab == DEFAULT_LAB else f"PODID_LAB={shlex.quote(lab)} uv run podid"
