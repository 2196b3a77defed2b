"""The directory of one run: its record, the reports made of it, and the proof that it holds no secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.conformance.artifacts import PUBLISH, publish, write_manifest
from harness.conformance.events import FILE_NAME as EVENTS
from harness.conformance.events import replay
from harness.conformance.record import FILE_NAME, Fault, Run, read_run, schema, write_atomically
from harness.conformance.reports import write_reports
from harness.conformance.search import Search
from harness.conformance.sizes import fitting
from harness.errors import HarnessFault

__all__ = ["finish", "rewrite", "save", "seal"]

_WITHHELD = "withheld: it held a secret"


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


def finish(directory: Path, build: Callable[[list[Fault]], Run], search: Search, *, reports: bool = True) -> Run:
    """Write the record and all reports, look for secrets, and return the record as written.

    Only a directory in which nothing was found gets a part that may be published.

    Args:
        directory: The run's directory.
        build: Makes the record, given faults that came up at the end.
        search: Knows this run's secrets.
        reports: Whether to; else the record stands alone, and its schema is left to who reads it.

    Raises:
        HarnessFault: The record cannot be written.
    """

    def write(run: Run) -> tuple[Run, list[str]]:
        written = save(directory, run, check=reports)
        return written, write_reports(directory, written) if reports else []

    run, complaints = write(build([]))
    found = _withhold(directory, search)
    if faults := [*(Fault("reports", text) for text in complaints), *found]:
        run, _ = write(_without(build(faults), search))
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


def _withhold(directory: Path, search: Search) -> list[Fault]:
    """Delete every artifact that has a secret, and say what it had without saying the secret."""
    faults: list[Fault] = []
    for file, found in list(search.scan(directory)):
        file.unlink()
        faults.append(Fault("secret", f"{file.relative_to(directory)} held a secret and was deleted: {found}"))
    return faults


def _without(run: Run, search: Search) -> Run:
    """Return a record without secrets: the tests' texts in which one stands are withheld whole."""

    def clean(value: Any) -> bool:
        return search.find(repr(value).encode()) is None

    tests = [
        test if clean(test) else replace(test, message=_WITHHELD, checks=[], evidence=[], reason=None, earlier=[])
        for test in run.tests
    ]
    requirements = [entry if clean(entry.reason) else replace(entry, reason=None) for entry in run.requirements]
    faults = [entry if clean(entry) else Fault(entry.where, _WITHHELD) for entry in run.faults]
    changed = replace(run, tests=tests, requirements=requirements, faults=faults)
    if not clean(changed.specimen):
        changed = replace(changed, specimen=_WITHHELD)
    return changed
