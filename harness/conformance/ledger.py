"""The ledger: every requirement with its level, sentence and source, read from ``suites/requirements/*.yaml``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from harness.errors import UsageError

__all__ = ["Ceiling", "Kind", "Ledger", "Level", "Requirement", "kind_of", "ledger_schema", "read_ledger"]

Level = Literal["MUST", "SHOULD", "MAY"]
Kind = Literal["ours", "upstream"]
"""A kind of subject."""

# Usable in shells, anchors and pytest -k.
_IDENTIFIER = re.compile(r"[A-Z][A-Z0-9]{1,9}(-[A-Z0-9]{1,16}){1,5}")
_TEXTS = ("id", "level", "sentence", "source", "profile", "observe")
_FIELDS = {*_TEXTS, "applies_to"}
_OPTIONAL = {"untestable", "subject", "since", "evidence", "provisional"}
_NO_TEXTS = {"withdrawn", "ceiling"}
_SUBJECTS = {"AGT": "agent", "WHK": "webhook", "API": "eks", "IAM": "iam", "HRN": "harness"}
"""Area → what its requirements are about; the others are about the system as a whole."""
_EVIDENCE = ("documented", "source", "observed", "inferred")
_FIRST_RELEASE = "0.1.0"
_A_CEILING = {"metric": "memory", "unit": "MiB", "most": 1}
_WITHDRAWAL = {"in", "reason", "superseded_by"}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that a subject may use of something."""

    metric: str
    """What is measured, such as ``resident memory, idle``."""
    unit: str
    most: float


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement on the subject or on the lab's AWS."""

    id: str
    level: Level
    sentence: str
    source: str
    """Where it comes from: a document or source file a reader can open."""
    applies_to: tuple[Kind, ...]
    """Kinds of subject that it binds."""
    profile: str
    """The set of features it belongs to."""
    observe: str
    """How a test sees whether it holds."""
    untestable: str = ""
    """Why no test can decide it; empty when one can."""
    since: str = _FIRST_RELEASE
    """Our release that first judged it."""
    evidence: str = "documented"
    """How its source is known; what is only inferred cannot be a MUST."""
    about: str = ""
    """What it is about, where that does not follow from its area."""
    provisional: str = ""
    """Day since which it is on trial, outside of the verdict (HRN-FLK-04); empty when it counts."""
    ceiling: Ceiling | None = None
    """The number that it is about, if it is about one."""
    withdrawn: str = ""
    """Release and reason; empty while it counts. What is withdrawn stays in the file, so that no ID is used twice."""

    @property
    def area(self) -> str:
        """The ID's first part, such as ``AGT``."""
        return self.id.partition("-")[0]

    @property
    def subject(self) -> str:
        """What it is about: the agent, the webhook, EKS, IAM, the system, or the harness itself."""
        return self.about or _SUBJECTS.get(self.area, "system")


def kind_of(subject: str) -> Kind:
    """Return the kind of a subject, such as ``mutant:agent-no-cache``, which is one of ours."""
    return "upstream" if subject == "upstream" else "ours"


class Ledger(Mapping[str, Requirement]):
    """All requirements by ID, in the order of the files."""

    def __init__(self, requirements: Iterable[Requirement]) -> None:
        """Index requirements by ID; the caller made sure that IDs are unique."""
        self._by_id = {requirement.id: requirement for requirement in requirements}

    def __getitem__(self, identifier: str) -> Requirement:
        return self._by_id[identifier]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)


def read_ledger(directory: Path) -> Ledger:
    """Read and check every ``*.yaml`` file of a directory.

    Raises:
        UsageError: Lists every fault found, with its file and ID.
    """
    requirements: list[Requirement] = []
    faults: list[str] = []
    seen: dict[str, str] = {}
    for file in sorted(directory.glob("*.yaml")):
        try:
            entries: list[Any] = _parse(file.read_text())["requirements"]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            faults.append(f"{file.name}: {' '.join(str(error).split())}")
            continue
        for entry in entries:
            found = _faults(entry)
            if not found:
                requirements.append(_requirement(entry))
            if (identifier := _name(entry)) in seen:
                found.append(f"also in {seen[identifier]}")
            seen[identifier] = file.name
            place = f"{file.name}{_line_of(file, identifier)}" if found else ""
            faults += [f"{place}: {identifier}: {fault}" for fault in found]
    if faults:
        raise UsageError("the requirement ledger is invalid:\n  " + "\n  ".join(faults))
    return Ledger(requirements)


@cache
def ledger_schema() -> dict[str, Any]:
    """Return the published JSON schema of the ledger's files; editors complete and check entries with it.

    :func:`read_ledger` checks the same by itself, with every run: that takes a tenth of the time, and names lines.
    """
    return json.loads(Path(__file__).with_name("ledger.schema.json").read_text())


# libyaml reads a thousand requirements in a tenth of a second, the Python loader in two.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def _parse(text: str) -> Any:
    """Parse YAML; once for all forks of a process that has read the ledger."""
    return yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe one


def _line_of(file: Path, name: str) -> str:
    """Return where an entry stands, as ``:LINE``; for complaints, so it may take its time."""
    lines = file.read_text().splitlines()
    return next(
        (f":{number}" for number, line in enumerate(lines, 1) if re.search(rf"\bid: {re.escape(name)}\b", line)), ""
    )


def _name(entry: Any) -> str:
    return str(entry.get("id", entry)) if isinstance(entry, dict) else repr(entry)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _requirement(entry: dict[str, Any]) -> Requirement:
    members: dict[str, Any] = entry | {"applies_to": tuple(entry["applies_to"])}
    members["about"] = members.pop("subject", "")
    if "ceiling" in entry:
        members["ceiling"] = Ceiling(**entry["ceiling"])
    if told := entry.get("withdrawn"):
        successor = f"; superseded by {told['superseded_by']}" if "superseded_by" in told else ""
        members["withdrawn"] = f"{told['in']}: {told['reason']}{successor}"
    return Requirement(**members)


def _faults(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return ["not a mapping of fields"]
    fields: dict[str, Any] = entry  # pyright: ignore[reportUnknownVariableType]
    faults = [f"missing {name}" for name in sorted(_FIELDS - set(fields))]
    faults += [f"unknown field {name}" for name in sorted(set(fields) - _FIELDS - _OPTIONAL - _NO_TEXTS)]
    for name in (*_TEXTS, *_OPTIONAL):
        if name in fields and not (isinstance(fields[name], str) and fields[name].strip()):
            faults.append(f"{name} must be a text, not {fields[name]!r}")
    if "id" in fields and not _IDENTIFIER.fullmatch(str(fields["id"])):
        faults.append("not an ID of the form AREA-NAME")
    if "level" in fields and fields["level"] not in get_args(Level):
        faults.append(f"level {fields['level']!r} is none of {', '.join(get_args(Level))}")
    faults += _evidence_faults(fields)
    if not _is_ceiling(fields.get("ceiling", _A_CEILING)):
        faults.append(f"ceiling must have a metric, a unit and a number as most, not {fields['ceiling']!r}")
    if not _is_day(fields.get("provisional", "2026-01-01")):
        faults.append(f"provisional must be a day in quotes, such as '2026-11-26', not {fields['provisional']!r}")
    told: Any = fields.get("withdrawn", {"in": "", "reason": ""})
    if not isinstance(told, dict) or not {"in", "reason"} <= set(told) <= _WITHDRAWAL:  # pyright: ignore[reportUnknownArgumentType]
        faults.append(f"withdrawn must have in, reason and maybe superseded_by, not {told!r}")
    kinds = fields.get("applies_to", ["ours"])
    if not isinstance(kinds, list) or not kinds or not set(kinds) <= set(get_args(Kind)):  # pyright: ignore[reportUnknownArgumentType]
        faults.append(f"applies_to {kinds!r} is no list of {' or '.join(get_args(Kind))}")
    return faults


def _evidence_faults(fields: dict[str, Any]) -> list[str]:
    evidence = fields.get("evidence", "documented")
    faults = [] if evidence in _EVIDENCE else [f"evidence {evidence!r} is none of {', '.join(_EVIDENCE)}"]
    if evidence == "inferred" and fields.get("level") == "MUST":
        faults.append("what is only inferred cannot be a MUST")
    return faults


def _is_ceiling(told: Any) -> bool:
    if not isinstance(told, dict):
        return False
    fields: dict[str, Any] = told  # pyright: ignore[reportUnknownVariableType]
    most = fields.get("most", -1)
    texts = [isinstance(fields.get(name), str) for name in ("metric", "unit")]
    return len(fields) == len(_A_CEILING) and all(texts) and type(most) in {int, float} and most >= 0


def _is_day(text: Any) -> bool:
    try:
        return bool(date.fromisoformat(text))
    except (TypeError, ValueError):
        return False
