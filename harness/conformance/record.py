"""The run's record: everything that reports and comparisons know about a run, as ``run.json``.

``run.schema.json`` beside this module describes the file. Its version is ``podid-run/MAJOR.MINOR``: readers accept any
minor of their major.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import jsonschema

from harness.conformance.outcomes import Reason
from harness.errors import HarnessFault, UsageError

__all__ = [
    "FILE_NAME",
    "SCHEMA_VERSION",
    "CheckRecord",
    "EvidenceRecord",
    "Fault",
    "RequirementRecord",
    "Run",
    "TestRecord",
    "read_run",
    "schema",
    "write_atomically",
]

FILE_NAME = "run.json"
SCHEMA_VERSION = "podid-run/1.0"


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """One comparison that a test recorded."""

    requirement: str
    what: str
    expected: Any
    observed: Any
    holds: bool
    evidence: list[int] = field(default_factory=list[int])
    """Indexes into the test's evidence."""


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """Something that a test saw, without secrets."""

    kind: str
    title: str
    content: Any


@dataclass(frozen=True, slots=True)
class TestRecord:
    """One test of the suites."""

    __test__ = False  # not for pytest to collect

    node: str
    behaviour: str
    """First sentence of its docstring."""
    requirements: list[str]
    outcome: str
    """The worst that it says about any of its requirements."""
    decisions: dict[str, str]
    """Requirement ID → outcome."""
    reason: Reason | None = None
    message: str = ""
    """Why it failed, as pytest prints it."""
    attempts: list[str] = field(default_factory=list[str])
    """Outcome of each attempt; more than one if it was tried again."""
    started_at: str = ""
    """Empty when it never started."""
    durations: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds of ``setup``, ``call`` and ``teardown``."""
    worker: str = ""
    checks: list[CheckRecord] = field(default_factory=list[CheckRecord])
    evidence: list[EvidenceRecord] = field(default_factory=list[EvidenceRecord])
    diagnostics: str = ""
    """Directory of diagnostics, relative to the record; empty when there is none."""

    @property
    def seconds(self) -> float:
        """How long it took with set-up and clean-up."""
        return sum(self.durations.values())

    @property
    def file(self) -> str:
        """The suite's file."""
        return self.node.partition("::")[0]

    @property
    def name(self) -> str:
        """The test's name, with its parameters."""
        return self.node.partition("::")[2]


@dataclass(frozen=True, slots=True)
class RequirementRecord:
    """One requirement of the ledger, and what the run says about it."""

    id: str
    area: str
    level: str
    sentence: str
    source: str
    applies_to: list[str]
    profile: str
    observe: str
    untestable: str
    status: str
    """``bound`` to a test, ``provisional`` (no test decides it yet), ``untestable`` or ``foreign`` (other subjects)."""
    outcome: str = ""
    """Empty when no selected test decides it."""
    reason: Reason | None = None
    tests: list[str] = field(default_factory=list[str])
    """Node IDs of the selected tests that decide it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong in the harness itself."""

    where: str
    """``collection``, ``clean-up``, ``diagnostics``, ``reports``, ``canary``, ``baseline`` or ``set-up``."""
    message: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the suites."""

    id: str
    started_at: str
    finished_at: str
    """Empty in the record of a run that was killed."""
    interrupted: bool
    argv: list[str]
    subject: str
    environment: dict[str, str]
    scope: str
    """``full`` or ``partial``."""
    verdict: str
    exit_code: int
    line: str
    """The verdict as the run's last line has it, without the path."""
    counts: dict[str, int]
    """Outcome → number of requirements."""
    observed_musts: int
    musts: int
    requirements: list[RequirementRecord]
    tests: list[TestRecord]
    faults: list[Fault]
    redactions: dict[str, int]
    """Class of secret → how many were removed."""
    specimen: Any
    """What became of the canary's specimen."""
    schema: str = SCHEMA_VERSION

    def as_json(self, *, check: bool = True) -> str:
        """Return the record as JSON text.

        Args:
            check: Whether to hold it against the schema.

        Raises:
            HarnessFault: It does not follow the schema.
        """
        data = asdict(self)
        if check and (fault := _fault(data)):
            raise HarnessFault(f"the run's record does not follow its own schema: {fault}")
        return json.dumps({"schema": data.pop("schema"), **data}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Run:
        """Build a run from checked data."""
        members = dict(data)
        members["requirements"] = [RequirementRecord(**_with_reason(entry)) for entry in data["requirements"]]
        members["tests"] = [_test(entry) for entry in data["tests"]]
        members["faults"] = [Fault(**entry) for entry in data["faults"]]
        return cls(**members)


def _with_reason(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "reason": Reason(**entry["reason"]) if entry["reason"] else None}


def _test(entry: Mapping[str, Any]) -> TestRecord:
    members = _with_reason(entry)
    members["checks"] = [CheckRecord(**check) for check in entry["checks"]]
    members["evidence"] = [EvidenceRecord(**evidence) for evidence in entry["evidence"]]
    return TestRecord(**members)


@cache
def schema() -> dict[str, Any]:
    """Return the published JSON schema of ``run.json``."""
    return json.loads(Path(__file__).with_name("run.schema.json").read_text())


def _fault(data: Any) -> str:
    """Return where and how data departs from the schema; empty when it does not."""
    validator: Any = jsonschema.Draft202012Validator(schema())
    error = next(iter(validator.iter_errors(data)), None)
    return f"{error.json_path}: {error.message[:300]}" if error else ""


def read_run(path: Path, *, check: bool = True) -> Run:
    """Read a run's record.

    Args:
        path: The file, or the directory it lies in.
        check: Whether to hold it against the schema; one that this process had written a moment ago need not be.

    Raises:
        UsageError: There is none, it is of another major version, or it does not follow the schema.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        data: Any = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"no run's record at {file}: {error}", hint="a run leaves it in reports/<run>/") from error
    version = str(cast("dict[str, Any]", data).get("schema", "")) if isinstance(data, dict) else ""
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise UsageError(f"{file} is of version {version!r}; this podid reads {SCHEMA_VERSION}")
    if check and (fault := _fault(data)):
        raise UsageError(f"{file} does not follow its schema: {fault}")
    return Run.from_data(cast("dict[str, Any]", data))


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a half."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
