"""The directory of one run: its record, the reports made of it, and the proof that it holds no secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.conformance import canary as canaries
from harness.conformance.artifacts import PUBLISH, publish, write_manifest
from harness.conformance.events import FILE_NAME as EVENTS
from harness.conformance.events import replay
from harness.conformance.record import FILE_NAME, Fault, Run, read_run, schema, write_atomically
from harness.conformance.reports import write_reports
from harness.conformance.sizes import fitting
from harness.errors import HarnessFault

__all__ = ["finish", "rewrite", "save", "seal"]


def save(directory: Path, run: Run, *, check: bool = True) -> Run:
    """Write the record alone, and return it as written: one that would be too large loses evidence.

    Args:
        directory: The run's directory.
        run: The record.
        check: Whether to hold it against its schema first.

    Raises:
        HarnessFault: It cannot be written or does not follow its schema.
    """
    written, text = fitting(FILE_NAME, run, lambda lighter: lighter.as_json(check=check))
    try:
        write_atomically(directory / FILE_NAME, text)
    except OSError as error:
        raise HarnessFault(f"{directory / FILE_NAME} cannot be written: {error}") from error
    return written


def finish(directory: Path, build: Callable[[list[Fault]], Run], canary: str, *, reports: bool = True) -> Run:
    """Write the record and all reports, look for the canary, and return the record as written.

    Only a directory in which nothing was found gets a part that may be published.

    Args:
        directory: The run's directory.
        build: Makes the record, given faults that came up at the end.
        canary: This run's canary.
        reports: Whether to; else the record stands alone, and its schema is left to who reads it.

    Raises:
        HarnessFault: The record cannot be written.
    """

    def write(run: Run) -> tuple[Run, list[str]]:
        written = save(directory, run, check=reports)
        return written, write_reports(directory, written) if reports else []

    run, complaints = write(build([]))
    found = _withhold(directory, canary)
    if faults := [*(Fault("reports", text) for text in complaints), *found]:
        run, _ = write(_without(build(faults), canary))
    if reports:
        seal(directory, may_leave=not found)
    return run


def rewrite(directory: Path) -> list[str]:
    """Write a run's reports again, and return what went wrong; of a run that was killed, also its record."""
    if not (directory / FILE_NAME).exists() and (directory / EVENTS).exists():
        save(directory, replay(directory))
    complaints = write_reports(directory, read_run(directory))
    seal(directory, may_leave=(directory / PUBLISH).is_dir())
    return complaints


def seal(directory: Path, *, may_leave: bool) -> None:
    """Put the record's schema beside it, list what there is, and make the part that may leave the machine.

    Args:
        directory: The run's.
        may_leave: Whether it was searched for secrets, and none was found.
    """
    write_atomically(directory / "run.schema.json", json.dumps(schema(), indent=1) + "\n")
    if may_leave:
        publish(directory)
    else:
        write_manifest(directory)


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
