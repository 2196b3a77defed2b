"""The seven outcomes, and the two typed ways for a test not to run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NoReturn

import pytest

from harness import wait
from harness.errors import MissingFeature, MissingPrerequisite, NotReady, SubjectFault, UsageError

__all__ = [
    "EXECUTED",
    "NotApplicableKind",
    "NotRunKind",
    "Outcome",
    "Reason",
    "could_not_run",
    "not_applicable",
    "outcome_of",
    "worst",
]


class Outcome(Enum):
    """What a test says about a requirement, from bad to good: a requirement takes the worst of its tests."""

    FAILED = "failed"
    """The subject contradicted the requirement."""
    ERROR = "error"
    """The harness broke; says nothing about the subject."""
    NOT_RUN = "could-not-run"
    """Something that the test needs is missing."""
    EXPECTED_FAILURE = "expected-failure"
    """Failed, and the baseline describes this very failure."""
    FLAKY = "flaky"
    """Failed or broke, then passed when it was tried again."""
    PASSED = "passed"
    NOT_APPLICABLE = "not-applicable"
    """The requirement does not concern this subject."""


_WORST_FIRST = list(Outcome)
_SHORTEST_DETAIL = 10
EXECUTED = frozenset({Outcome.FAILED, Outcome.EXPECTED_FAILURE, Outcome.FLAKY, Outcome.PASSED})
"""Outcomes of requirements about which something was observed."""

NotRunKind = Literal[
    "prerequisite",
    "environment",
    "backend-unsupported",
    "blocked-by",
    "opt-in-required",
    "narrowed",
    "time-budget",
    "fail-fast",
    "interrupted",
    "worker-crashed",
    "not-started",
]
NotApplicableKind = Literal["feature-absent", "feature-excluded", "version", "platform", "subject"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a requirement has an outcome that its test did not decide."""

    kind: str
    detail: str
    """What is missing or broken, and where possible the command or option that helps."""


class NotExecuted(pytest.skip.Exception):
    """Raised by :func:`could_not_run` and :func:`not_applicable`; pytest calls it a skip."""

    def __init__(self, outcome: Outcome, reason: Reason) -> None:
        if len(reason.detail.strip()) < _SHORTEST_DETAIL:
            raise UsageError(f"{reason.detail!r} says too little", hint="say what is missing and how to supply it")
        super().__init__(f"{outcome.value} ({reason.kind}): {reason.detail}")
        self.outcome = outcome
        self.reason = reason


def could_not_run(kind: NotRunKind, detail: str) -> NoReturn:
    """End a test that lacks something; the verdict becomes incomplete if a MUST hangs on it.

    Args:
        kind: What sort of thing is missing.
        detail: What is missing and how to supply it.
    """
    raise NotExecuted(Outcome.NOT_RUN, Reason(kind, detail))


def not_applicable(kind: NotApplicableKind, detail: str) -> NoReturn:
    """End a test whose requirements do not concern this subject.

    Args:
        kind: What takes the requirement out.
        detail: The feature or version, with the value that was observed.
    """
    raise NotExecuted(Outcome.NOT_APPLICABLE, Reason(kind, detail))


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the worst of at least one outcome."""
    return min(outcomes, key=_WORST_FIRST.index)


def outcome_of(error: BaseException | None, *, in_body: bool) -> tuple[Outcome, Reason | None]:
    """Return what the end of a phase says.

    In the body, an assertion, a wait that ran out and a subject's fault speak about the subject. Everything else, and
    everything in set-up, is the harness's own trouble.

    Args:
        error: What ended the phase; None when it came to its end.
        in_body: Whether it was the test's body.
    """
    if error is None:
        return Outcome.PASSED, None
    if isinstance(error, NotExecuted):
        return error.outcome, error.reason
    speaks = isinstance(error, AssertionError | wait.Timeout | SubjectFault | pytest.fail.Exception)
    if speaks and in_body and not isinstance(error, NotReady):
        # pytest-timeout's guard comes as a failure, and says nothing about the subject.
        is_guard = isinstance(error, pytest.fail.Exception) and str(error).startswith("Timeout")
        return (Outcome.ERROR, Reason("guard-timeout", str(error))) if is_guard else (Outcome.FAILED, None)
    if isinstance(error, MissingPrerequisite | NotReady | MissingFeature):
        return Outcome.NOT_RUN, _obstacle(error)
    if isinstance(error, pytest.skip.Exception | pytest.xfail.Exception):
        detail = f"{error}; end the test with could_not_run(…) or not_applicable(…) instead"
        return Outcome.ERROR, Reason("untyped-skip", detail)
    detail = f"{type(error).__name__}: {error}"[:2000]
    return Outcome.ERROR, Reason("body" if in_body else "set-up", detail)


def _obstacle(error: MissingPrerequisite | NotReady | MissingFeature) -> Reason:
    if isinstance(error, MissingPrerequisite):
        return Reason(error.kind, str(error))
    blocker = error.requirement if isinstance(error, NotReady) else error.feature
    return Reason("blocked-by", f"{blocker}: {error}")
