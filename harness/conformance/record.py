"""The run's record: everything that reports and comparisons know about a run, as ``run.json``.

``run.schema.json`` beside this module describes the file. Its version is ``podid-run/MAJOR.MINOR``: readers accept any
minor of their major, and pass over members that a later minor added.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import jsonschema

from harness.conformance.outcomes import Outcome, Reason
from harness.errors import HarnessFault, UsageError

__all__ = [
    "FILE_NAME",
    "SCHEMA_VERSION",
    "WORST_FIRST",
    "AttemptRecord",
    "ChangeRecord",
    "CheckRecord",
    "EvidenceRecord",
    "Fault",
    "FrozenRecord",
    "PartRecord",
    "RequirementRecord",
    "Run",
    "ScenarioRecord",
    "Setting",
    "ShardRecord",
    "SinceRecord",
    "TestRecord",
    "Use",
    "gist",
    "new_run_id",
    "read_run",
    "schema",
    "write_atomically",
]

FILE_NAME = "run.json"
SCHEMA_VERSION = "podid-run/1.3"

_CHAIN = re.compile(
    r"^(?:The above exception was the direct cause|During handling of the above exception).*$", re.MULTILINE
)

WORST_FIRST = tuple(outcome.value for outcome in Outcome)
"""Outcomes as a record has them."""

Use = dict[str, dict[str, float]]
"""Program (``agent``, ``webhook``) → metric → value."""


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
class AttemptRecord:
    """An attempt at a test that was not the last one."""

    outcome: str
    started_at: str
    reason: Reason | None = None
    message: str = ""
    checks: list[CheckRecord] = field(default_factory=list[CheckRecord])
    evidence: list[EvidenceRecord] = field(default_factory=list[EvidenceRecord])
    diagnostics: str = ""


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
    earlier: list[AttemptRecord] = field(default_factory=list[AttemptRecord])
    """The attempts before the last one, whose members stand above."""
    resources: Use = field(default_factory=Use)
    """What agent and webhook used meanwhile."""

    @property
    def seconds(self) -> float:
        """How long it took with set-up and clean-up."""
        return sum(self.durations.values())

    @property
    def again(self) -> str:
        """The command that runs it alone; scenarios stand on a lab, which that raises and keeps."""
        runner = "python3 -m nox -s e2e -- --keep" if self.file.count("/") < 2 else "uv run pytest"
        return f"{runner} --partial {shlex.quote(self.node)}"

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
    """``bound`` to a test, ``provisional`` (no test decides it yet), ``untestable``, ``foreign`` (other subjects),
    ``withdrawn``, or ``later`` (not in the frozen set that was asked for)."""
    outcome: str = ""
    """Empty when no selected test decides it."""
    reason: Reason | None = None
    tests: list[str] = field(default_factory=list[str])
    """Node IDs of the selected tests that decide it."""
    withdrawn: str = ""
    """Release and reason, when it counts no more."""


@dataclass(frozen=True, slots=True)
class ScenarioRecord:
    """One file of the suites."""

    name: str
    seconds: float
    resources: Use


@dataclass(frozen=True, slots=True)
class FeatureRecord:
    """One feature of the subject."""

    rule: str
    """What the profile says: ``required``, ``optional`` or ``excluded``."""
    declared: bool
    detected: bool | None
    """None when nobody could tell, or no test asked."""
    evidence: str
    """What was seen that says so."""
    note: str
    """``undeclared`` when it was found and the subject does not declare it."""


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """Which share of the scenarios a run took."""

    index: int
    total: int
    plan: str
    """Digest of who takes what: shards of one plan leave nothing out and share nothing."""
    of: str
    """Scope of what was divided, ``full`` or ``partial``."""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """One of the runs that a merged record was made of."""

    id: str
    argv: list[str]
    line: str


@dataclass(frozen=True, slots=True)
class FrozenRecord:
    """The release whose requirements the subject was held to."""

    release: str
    sha256: str
    """Digest of the set."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An option's value."""

    value: str
    source: str
    """``cli``, ``env`` or ``default``."""


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One requirement that came out in another way than in an earlier run, or that still fails."""

    kind: str
    id: str
    level: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class SinceRecord:
    """What changed since an earlier run."""

    run: str
    line: str
    changes: list[ChangeRecord]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong in the harness itself."""

    where: str
    """``collection``, ``clean-up``, ``diagnostics``, ``reports``, ``secret``, ``baseline``, ``floor`` or ``set-up``."""
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
    leg: str = ""
    """Coordinate of a matrix of runs; durations and flakes are kept apart by it."""
    scenarios: list[ScenarioRecord] = field(default_factory=list[ScenarioRecord])
    shard: ShardRecord | None = None
    parts: list[PartRecord] = field(default_factory=list[PartRecord])
    """The runs that this record was merged from; empty for a run by itself."""
    frozen: FrozenRecord | None = None
    since: SinceRecord | None = None
    """What changed since the run that ``--against`` names."""
    settings: dict[str, Setting] = field(default_factory=dict[str, Setting])
    """Option → value and where it comes from."""
    unused_expectations: list[str] = field(default_factory=list[str])
    """Entries of the baseline about which the run says nothing, and why."""
    detected_features: dict[str, FeatureRecord] = field(default_factory=dict[str, FeatureRecord])
    searched: list[str] = field(default_factory=list[str])
    """Forms in which secrets were looked for, each of which the search found when it stood there on purpose."""
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
        nested: dict[str, Any] = {
            "requirements": [_of(RequirementRecord, entry) for entry in data["requirements"]],
            "tests": [_test(entry) for entry in data["tests"]],
            "faults": [_of(Fault, entry) for entry in data["faults"]],
            "scenarios": [_of(ScenarioRecord, entry) for entry in data.get("scenarios", [])],
            "parts": [_of(PartRecord, entry) for entry in data.get("parts", [])],
            "shard": _of(ShardRecord, data["shard"]) if data.get("shard") else None,
            "since": _since(data["since"]) if data.get("since") else None,
            "settings": {name: _of(Setting, entry) for name, entry in data.get("settings", {}).items()},
            "detected_features": {
                name: _of(FeatureRecord, entry) for name, entry in data.get("detected_features", {}).items()
            },
            "frozen": _of(FrozenRecord, data["frozen"]) if data.get("frozen") else None,
        }
        return _of(cls, {**data, **nested})


_T = TypeVar("_T")


def _of(kind: type[_T], entry: Mapping[str, Any]) -> _T:
    """Build a record from the members that it knows."""
    members = {item.name: entry[item.name] for item in fields(cast("Any", kind)) if item.name in entry}
    if isinstance(members.get("reason"), dict):
        members["reason"] = Reason(**members["reason"])
    return kind(**members)


def _since(entry: Mapping[str, Any]) -> SinceRecord:
    return SinceRecord(entry["run"], entry["line"], [_of(ChangeRecord, change) for change in entry["changes"]])


def _test(entry: Mapping[str, Any]) -> TestRecord:
    earlier = [_of(AttemptRecord, {**attempt, **_seen(attempt)}) for attempt in entry.get("earlier", [])]
    return _of(TestRecord, {**entry, **_seen(entry), "earlier": earlier})


def _seen(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "checks": [_of(CheckRecord, check) for check in entry["checks"]],
        "evidence": [_of(EvidenceRecord, evidence) for evidence in entry["evidence"]],
    }


@cache
def schema() -> dict[str, Any]:
    """Return the published JSON schema of ``run.json``."""
    return json.loads(Path(__file__).with_name("run.schema.json").read_text())


def _fault(data: Any) -> str:
    """Return where and how data departs from the schema; empty when it does not."""
    validator: Any = jsonschema.Draft202012Validator(schema())
    error = next(iter(validator.iter_errors(data)), None)
    return f"{error.json_path}: {error.message[:300]}" if error else ""


def new_run_id(started: datetime) -> str:
    """Return the ID of a run, which its directory is named by: another one each time, also within a second."""
    return f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


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
    (major, _, minor), (our_major, _, our_minor) = version.partition("."), SCHEMA_VERSION.partition(".")
    if major != our_major or not minor.isdecimal():
        raise UsageError(f"{file} is of version {version!r}; this podid reads {SCHEMA_VERSION}")
    # Our schema describes what is older; a later minor may have more, and is taken for what we know of it.
    if check and int(minor) <= int(our_minor) and (fault := _fault(data)):
        raise UsageError(f"{file} does not follow its schema: {fault}")
    try:
        return Run.from_data(cast("dict[str, Any]", data))
    except (KeyError, TypeError) as error:
        raise UsageError(f"{file} lacks what a record has: {error}") from error


def gist(message: str) -> str:
    """Return the line of a failure's text that says most: the first that pytest marks as an error's, else the last.

    Of several exceptions, one the cause of the other, the last is the one that ended the test.
    """
    lines = _CHAIN.split(message.strip())[-1].splitlines()
    marked = next((line[1:] for line in lines if line.startswith("E  ")), "")
    return (marked or (lines[-1] if lines else "")).strip()


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
