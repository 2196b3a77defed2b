"""Runs the scenarios with each of their policies changed in one place, on a lab (docs/mutants.md).

The scenarios run from a copy of the checkout, in which one policy at a time is another one; they know nothing of it.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from harness.conformance.record import FILE_NAME, Run, read_run, write_atomically
from harness.errors import HarnessFault, UsageError
from harness.kill_matrix import Matrix, Row, judge_control
from harness.lab.paths import CHECKOUT
from harness.policy_mutations import PolicyMutation, mutate

__all__ = ["EQUIVALENT", "choose_policies", "run_policy_mutants", "users", "why_none_failed"]

_ONE_AUDIENCE = "IAM's provider takes no other audience there; test_portability.py has one that does"
EQUIVALENT: Mapping[str, str] = {
    "external-secrets/irsa-trust: the statement without StringEquals aud": _ONE_AUDIENCE,
    "migration/irsa-trust: the statement without StringEquals aud": _ONE_AUDIENCE,
    "migration/mixed-irsa-trust: the statement without StringEquals aud": _ONE_AUDIENCE,
    "s3/trust-ec2-only: the statement turned into Deny": "it is there to be refused",
    "s3/trust-without-tag-session: the statement turned into Deny": "it is there to be refused",
}
"""Changes that change nothing, and why."""
_REFUSED = "AWS refuses it"
_CLIENT_ERROR = re.compile(r"An error occurred \(\w+\) when calling the \w+ operation")
"""What boto3 says when AWS refuses an administrator's call; a pod's refusals fail tests, and are no errors."""
_TIMEOUT = 900
"""Seconds for the scenarios of one policy; they take one or two minutes, and more where a wait runs to its limit."""


def choose_policies(patterns: Sequence[str], fixtures: Path = CHECKOUT / "fixtures") -> list[PolicyMutation]:
    """Return the changes of the policies whose names match a pattern; without patterns, all.

    Args:
        patterns: Globs such as ``abac/*``; what they do not end themselves, ``*`` does.
        fixtures: Directory with the policies, one directory for each scenario.

    Raises:
        UsageError: A pattern matches none.
    """
    files = sorted(fixtures.glob("*/*.json"))
    found = [each for file in files for each in mutate(str(file.relative_to(fixtures)), file.read_text())]
    found = [each for each in found if each.name not in EQUIVALENT]
    for pattern in patterns:
        if not any(_matches(each, pattern) for each in found):
            raise UsageError(f"no policy {pattern!r}", hint="list them with: podid mutants --policies --list")
    return [each for each in found if not patterns or any(_matches(each, pattern) for pattern in patterns)]


def _matches(mutation: PolicyMutation, pattern: str) -> bool:
    return fnmatchcase(mutation.name, f"{pattern.removesuffix('*')}*")


def users(policy: str, suites: Path = CHECKOUT / "suites") -> list[str]:
    """Return what runs the policy of a scenario: tests that name it, else files in which something else names it.

    Args:
        policy: Path below ``fixtures/``; its directory names the scenario.
        suites: Directory of the suites.
    """
    scenario, _, name = policy.removesuffix(".json").partition("/")
    chosen: list[str] = []
    for file in sorted(suites.glob(f"test_{scenario.replace('-', '_')}*.py")):
        nodes = [node for node in ast.parse(file.read_text()).body if _names(node, name)]
        tests = [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        whole = f"{suites.name}/{file.name}"
        chosen += [f"{whole}::{test}" for test in tests] if len(tests) == len(nodes) else [whole]
    return chosen


def _names(node: ast.stmt, policy: str) -> bool:
    texts = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
    return any(text in {policy, f"{policy}.json"} for text in texts)


def run_policy_mutants(
    mutations: Sequence[PolicyMutation], lab: str, directory: Path, tell: Callable[[str], object]
) -> Matrix:
    """Run the scenarios with each change, and without any first, and write the matrix down.

    Args:
        mutations: Which.
        lab: Name of a lab that is up.
        directory: For the matrix, and the output of what was not killed; made.
        tell: Gets a line for each run.

    Raises:
        HarnessFault: With their own policies the scenarios said nothing.
    """
    directory.mkdir(parents=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="podid-") as place:
        copy = Path(place) / "checkout"
        shutil.copytree(CHECKOUT, copy, ignore=_unneeded)
        for row in _run_all(mutations, lab, copy, directory):
            rows.append(row)
            found = " ".join(row.killed_by[:6]) + (f" … ({len(row.killed_by)})" if len(row.killed_by) > 6 else "")
            tell(f"[{len(rows)}/{len(mutations) + 1}] {row.state:8} {row.name}  {row.seconds:.0f} s  {found}{row.note}")
            matrix = Matrix(rows, ())
            # Hours of runs are not lost with the last one.
            write_atomically(directory / "policy-matrix.json", matrix.as_json())
            write_atomically(directory / "policy-matrix.md", matrix.as_markdown())
    return Matrix(rows, ())


def _unneeded(directory: str, names: list[str]) -> set[str]:
    of_runs = {"reports"} if directory == str(CHECKOUT) else set[str]()
    return {name for name in names if name.startswith(".") or name == "__pycache__" or name in of_runs}


def _run_all(mutations: Sequence[PolicyMutation], lab: str, copy: Path, directory: Path) -> Iterator[Row]:
    wanted = sorted({test for mutation in mutations for test in users(mutation.file)})
    began = time.monotonic()
    outcomes, note = _run(wanted, lab, copy, directory / "original", stop=False)
    if not outcomes:
        raise HarnessFault(f"the scenarios did not run with their own policies: {note}")
    yield judge_control("scenarios (original)", outcomes, (), seconds=time.monotonic() - began, note=note)
    for number, mutation in enumerate(mutations, 1):
        place = directory / f"{number:03}"
        policy = copy / "fixtures" / mutation.file
        original = policy.read_text()
        policy.write_text(mutation.text)
        began = time.monotonic()
        outcomes, note = _run(users(mutation.file), lab, copy, place, stop=True)
        policy.write_text(original)
        yield _judge(mutation, outcomes, time.monotonic() - began, note)


def _judge(mutation: PolicyMutation, outcomes: Mapping[str, str], seconds: float, note: str) -> Row:
    killed_by = tuple(sorted(name for name, outcome in outcomes.items() if outcome == "failed"))
    fault = f"fixtures/{mutation.file}: {mutation.change}"
    # EKS does not take an association whose role nobody there may assume, so that a scenario does not even begin.
    state = "killed" if killed_by or note.startswith(_REFUSED) else "survived"
    return Row(mutation.name, fault, state, killed_by, seconds=seconds, judged=len(outcomes), note=note)


def _run(tests: Sequence[str], lab: str, copy: Path, place: Path, *, stop: bool) -> tuple[Mapping[str, str], str]:
    """Run tests from a copy of the checkout; return requirement ID → outcome, and why none of them failed."""
    place.mkdir()
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "--record-only", "--partial", "--reuse=force"]
    options += [f"--lab={lab}", f"--report-dir={place}", *(["-x"] if stop else [])]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    # What the copy compiles is of no use to anybody.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    with (place / "output.txt").open("wb") as output:
        try:
            subprocess.run(
                command, cwd=copy, env=environment, stdout=output, stderr=output, timeout=_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return {}, f"it was ended after {_TIMEOUT} s"
    found = sorted(place.glob(f"*/{FILE_NAME}"))
    if not found:
        return {}, f"pytest left no record: {place / 'output.txt'}"
    run = read_run(found[0], check=False)
    return {each.id: each.outcome for each in run.requirements if each.outcome}, why_none_failed(run)


def why_none_failed(run: Run) -> str:
    """Say what a run came to in which requirements erred and none failed; empty for any other."""
    outcomes = [each.outcome for each in run.requirements]
    erred = sorted(each.id for each in run.requirements if each.outcome == "error")
    if "failed" in outcomes or not erred:
        return ""
    refusals = [_CLIENT_ERROR.search(test.message) for test in run.tests if test.outcome == "error"]
    told = next((refusal.group() for refusal in refusals if refusal), "")
    return f"{_REFUSED}: {told}" if told else f"errors only, which kill nothing: {' '.join(erred)}"
