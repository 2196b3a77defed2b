"""The directory of one run: its record, the reports made of it, and the proof that it holds no secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.conformance import canary as canaries
from harness.conformance.record import FILE_NAME, Fault, Run, read_run, write_atomically
from harness.conformance.reports import write_reports
from harness.errors import HarnessFault

__all__ = ["finish", "rewrite", "save"]


def save(directory: Path, run: Run, *, check: bool = True) -> None:
    """Write the record alone; a run that is killed leaves the last one saved.

    Args:
        directory: The run's directory.
        run: The record.
        check: Whether to hold it against its schema first.

    Raises:
        HarnessFault: It cannot be written or does not follow its schema.
    """
    try:
        write_atomically(directory / FILE_NAME, run.as_json(check=check))
    except OSError as error:
        raise HarnessFault(f"{directory / FILE_NAME} cannot be written: {error}") from error


def finish(directory: Path, build: Callable[[list[Fault]], Run], canary: str, *, reports: bool = True) -> Run:
    """Write the record and all reports, look for the canary, and return the record as written.

    Args:
        directory: The run's directory.
        build: Makes the record, given faults that came up at the end.
        canary: This run's canary.
        reports: Whether to; else the record stands alone, and its schema is left to who reads it.

    Raises:
        HarnessFault: The record cannot be written.
    """

    def write(run: Run) -> list[str]:
        save(directory, run, check=reports)
        return write_reports(directory, run) if reports else []

    run = build([])
    faults = [Fault("reports", text) for text in write(run)]
    faults += _withhold(directory, canary)
    if faults:
        run = _without(build(faults), canary)
        write(run)
    return run


def rewrite(directory: Path) -> list[str]:
    """Write a run's reports again, and return what went wrong."""
    return write_reports(directory, read_run(directory))


def _withhold(directory: Path, canary: str) -> list[Fault]:
    """Delete every artifact that has the canary: where the canary stands, a real secret would."""
    faults: list[Fault] = []
    for file, encoding in list(canaries.scan(directory, canary)):
        file.unlink()
        faults.append(Fault("canary", f"{file.relative_to(directory)} held the canary ({encoding}) and was deleted"))
    return faults


def _without(run: Run, canary: str) -> Run:
    """Return a record without the canary: the tests' texts in which it stands are withheld whole."""

    def clean(value: Any) -> bool:
        return canaries.find(repr(value).encode(), canary) is None

    tests = [
        test
        if clean(test)
        else replace(test, message="withheld: it held the canary", checks=[], evidence=[], reason=None)
        for test in run.tests
    ]
    requirements = [entry if clean(entry.reason) else replace(entry, reason=None) for entry in run.requirements]
    faults = [entry if clean(entry) else Fault(entry.where, "withheld: it held the canary") for entry in run.faults]
    changed = replace(run, tests=tests, requirements=requirements, faults=faults)
    if not clean(changed.specimen):
        changed = replace(changed, specimen="withheld: it held the canary")
    return changed
