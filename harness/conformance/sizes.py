"""How large a run's files may become, and what is left out of one that would be larger."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.conformance.record import EvidenceRecord, Run, TestRecord
from harness.errors import HarnessFault

__all__ = ["LIMITS_BYTES", "fitting"]

LIMITS_BYTES = {
    "run.json": 20 << 20,
    "index.html": 15 << 20,
    "badge.svg": 16 << 10,
    "junit.xml": 10 << 20,
    # GitHub drops a step summary above 1 MiB as a whole.
    "summary.md": 256 << 10,
}
_CUT_CHARACTERS = 2000


def fitting(name: str, run: Run, render: Callable[[Run], str], limit_bytes: int | None = None) -> tuple[Run, str]:
    """Return a file's text within its limit, and the run that it was made of: the first that fits.

    Evidence makes files large. It goes in three steps, and says so in its place: what passed tests saw is cut, then
    left out, then all evidence is.

    Args:
        name: The file.
        run: The whole run.
        render: Makes the text.
        limit_bytes: The limit; the file's own by default.

    Raises:
        HarnessFault: Not even the shortest fits.
    """
    limit = LIMITS_BYTES[name] if limit_bytes is None else limit_bytes
    size = 0
    for step in (_whole, _cut_what_passed, _without_what_passed, _without_evidence):
        lighter = step(run, f"left out: {name} has at most {limit >> 10} KiB")
        text = render(lighter)
        if (size := len(text.encode())) <= limit:
            return lighter, text
    raise HarnessFault(f"{name} would have {size >> 10} KiB without any evidence, and may have {limit >> 10} KiB")


def _whole(run: Run, _note: str) -> Run:
    return run


def _cut_what_passed(run: Run, note: str) -> Run:
    def cut(content: Any) -> Any:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        return content if len(text) <= _CUT_CHARACTERS else f"{text[:_CUT_CHARACTERS]}… ({note})"

    return _with_evidence(run, lambda test, content: cut(content) if test.outcome == "passed" else content)


def _without_what_passed(run: Run, note: str) -> Run:
    return _with_evidence(run, lambda test, content: note if test.outcome == "passed" else content)


def _without_evidence(run: Run, note: str) -> Run:
    lighter = _with_evidence(run, lambda _, __: note)
    tests = [
        replace(
            test,
            message=test.message[-_CUT_CHARACTERS:],
            earlier=[replace(attempt, message=attempt.message[-_CUT_CHARACTERS:]) for attempt in test.earlier],
        )
        for test in lighter.tests
    ]
    return replace(lighter, tests=tests)


def _with_evidence(run: Run, change: Callable[[TestRecord, Any], Any]) -> Run:
    def changed(test: TestRecord, evidence: list[EvidenceRecord]) -> list[EvidenceRecord]:
        return [replace(entry, content=change(test, entry.content)) for entry in evidence]

    return replace(
        run,
        tests=[
            replace(
                test,
                evidence=changed(test, test.evidence),
                earlier=[replace(attempt, evidence=changed(test, attempt.evidence)) for attempt in test.earlier],
            )
            for test in run.tests
        ],
    )
