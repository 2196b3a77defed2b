"""What a running test writes down: checks, each about one requirement, and the evidence it saw.

A test that decides several requirements records a check for each, so that one failure does not blur the others::

    @requirement("AGT-230", "AGT-233")
    def test_agent_answers(pod: Pod) -> None:
        response = credentials_response(pod)

        check("AGT-230", expected=200, observed=response.status)
        check("AGT-233", expected="123456789012", observed=json.loads(response.body)["AccountId"])

A failed check does not end the test; the plugin fails it when its body is over.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.conformance.record import Use
from harness.errors import UsageError

__all__ = ["Check", "Evidence", "EvidenceKind", "Recorder", "attach", "check", "note_use", "recording"]

EvidenceKind = Literal[
    "http", "admission", "token", "iam", "cloudtrail", "aws-calls", "command", "graph", "object", "plot", "text"
]
_LIMIT_CHARACTERS = 20_000
_MOST_CHANGES = 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that was seen, as data for a report; secrets are removed when it is written down."""

    kind: EvidenceKind
    title: str
    """One line, such as ``GET /v1/credentials → 200``."""
    content: Any
    """Text, or data that JSON can express."""


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison, about one requirement."""

    requirement: str
    what: str
    """What was compared, in a few words; may be empty."""
    expected: Any
    observed: Any
    holds: bool
    evidence: tuple[int, ...]
    """Indexes of its evidence among that of the test."""


@dataclass(slots=True)
class Recorder:
    """What one test wrote down so far."""

    node: str
    requirements: tuple[str, ...]
    checks: list[Check] = field(default_factory=list[Check])
    evidence: list[Evidence] = field(default_factory=list[Evidence])
    resources: Use = field(default_factory=Use)
    has_failed: bool = False
    """Whether the subject contradicted a requirement, or the harness broke on the way."""

    def restart(self) -> None:
        """Forget everything: the test begins again."""
        self.checks.clear()
        self.evidence.clear()
        self.resources = {}
        self.has_failed = False

    def failures(self) -> list[str]:
        """Return a text for every check that failed."""
        return [
            f"{entry.requirement}{f' ({entry.what})' if entry.what else ''}\n"
            f"  expected: {_line(entry.expected)}\n{_difference(entry)}  observed: {_line(entry.observed)}"
            for entry in self.checks
            if not entry.holds
        ]


class recording:  # noqa: N801 - reads as a word in ``with recording(recorder):``
    """Context manager: makes a recorder the one that :func:`check` and :func:`attach` write to."""

    current: Recorder | None = None

    def __init__(self, recorder: Recorder) -> None:
        """Keep the recorder."""
        self._recorder = recorder

    def __enter__(self) -> Recorder:
        recording.current = self._recorder
        return self._recorder

    def __exit__(self, *error: object) -> None:
        recording.current = None


def attach(evidence: Evidence) -> int | None:
    """Add evidence to the running test, and return its index; outside of a test nothing happens."""
    if recording.current is None:
        return None
    recording.current.evidence.append(Evidence(evidence.kind, evidence.title, _plain(evidence.content)))
    return len(recording.current.evidence) - 1


def note_use(use: Use) -> None:
    """Note what agent and webhook used during the running test; outside of a test nothing happens."""
    if recording.current is not None:
        recording.current.resources = use


def check(
    identifier: str,
    *,
    expected: Any,
    observed: Any,
    holds: bool | None = None,
    what: str = "",
    evidence: Iterable[Evidence] = (),
) -> None:
    """Record whether one requirement holds, and go on.

    Args:
        identifier: ID of a requirement that the test names in ``@requirement``.
        expected: What the requirement wants; a value, or words when ``holds`` is given.
        observed: What was seen.
        holds: Whether the requirement holds; by default, whether the two are equal.
        what: What was compared, when one requirement needs several checks.
        evidence: What shows it, beside what the test attached anyway.

    Raises:
        UsageError: No test runs, or it does not name the requirement.
    """
    recorder = recording.current
    if recorder is None or identifier not in recorder.requirements:
        where = recorder.node if recorder else "no running test"
        raise UsageError(f"check({identifier!r}) in {where}", hint=f'add "{identifier}" to its @requirement(…)')
    holds = bool(expected == observed) if holds is None else holds
    indexes = [attach(entry) for entry in evidence]
    numbers = tuple(index for index in indexes if index is not None)
    recorder.checks.append(Check(identifier, what, _plain(expected), _plain(observed), holds, numbers))


def _plain(value: Any) -> Any:
    """Return a value as JSON can express it, bounded in size."""
    if isinstance(value, str):
        return value if len(value) <= _LIMIT_CHARACTERS else f"{value[:_LIMIT_CHARACTERS]}… ({len(value)} characters)"
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(value, list | tuple | set | frozenset):
        entries = [_plain(entry) for entry in value]  # pyright: ignore[reportUnknownVariableType]
        return [*entries[:500], f"… ({len(entries)} entries)"] if len(entries) > 500 else entries
    return _plain(repr(value))


def _difference(entry: Check) -> str:
    """Return the lines in which two lists, mappings or longer texts differ; nothing for what one sees by itself."""
    expected, observed = _lines(entry.expected), _lines(entry.observed)
    if min(len(expected), len(observed)) <= 1:
        return ""
    changes = [line for line in difflib.ndiff(expected, observed) if line[:2] in {"- ", "+ "}]
    shown = [*changes[:_MOST_CHANGES], *([f"… {len(changes)} lines differ"] if len(changes) > _MOST_CHANGES else [])]
    return "".join(f"    {line[:200]}\n" for line in shown)


def _lines(value: Any) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    return text.splitlines()


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:2000]
