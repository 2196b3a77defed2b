"""Everything the harness raises on purpose.

::

    PodidError
    ├── UsageError            the caller asked for something that makes no sense
    ├── MissingPrerequisite   the machine lacks something; the hint says how to get it
    ├── HarnessFault          the lab or the harness broke; says nothing about the subject
    └── SubjectFault          the agent or the webhook under test misbehaved
        ├── NotReady          it did not get ready: one requirement fails, and what needs it could not run
        └── MissingFeature    it lacks what it declares or what the profile requires: that feature's requirements fail

Only a :class:`SubjectFault` may ever make a verdict *non-conformant*.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "HarnessFault",
    "MissingFeature",
    "MissingPrerequisite",
    "NotReady",
    "PodidError",
    "PrerequisiteKind",
    "SubjectFault",
    "UsageError",
]


PrerequisiteKind = Literal["prerequisite", "environment", "backend-unsupported", "opt-in-required", "time-budget"]


class PodidError(Exception):
    """An error whose text is meant for a person: what happened, why, and what to do."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the two halves apart so that reports can show them apart.

        Args:
            message: What happened, with the values, and why as far as known.
            hint: What to do about it; commands can be pasted. May be empty.
        """
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


class UsageError(PodidError):
    """An option, a name or a combination that cannot work."""


class MissingPrerequisite(PodidError):  # noqa: N818 - named after what it says
    """The machine lacks a program, a right, a kernel feature or the network."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", kind: PrerequisiteKind = "prerequisite") -> None:
        """Keep what sort of thing is missing.

        Args:
            message: As of every error.
            hint: As of every error.
            kind: Kind of the typed skip that a test becomes (HRN-SKIP-01).
        """
        super().__init__(message, hint=hint)
        self.kind: PrerequisiteKind = kind


class HarnessFault(PodidError):  # noqa: N818 - "fault" is the word of the verdict
    """The lab did not do what it should; the subject is not to blame."""


class SubjectFault(PodidError):  # noqa: N818 - "fault" is the word of the verdict
    """The subject contradicted its contract outside a plain assertion."""

    exit_code = 1


class NotReady(SubjectFault):
    """The subject did not get ready, so that everything which needs it says nothing."""

    def __init__(self, message: str, *, requirement: str, hint: str = "") -> None:
        """Keep what fails.

        Args:
            message: As of every error.
            requirement: ID of the requirement to get ready, which alone is contradicted.
            hint: As of every error.
        """
        super().__init__(message, hint=hint)
        self.requirement = requirement


class MissingFeature(SubjectFault):
    """The subject lacks a feature that it should have, so that none of its requirements holds."""

    def __init__(self, message: str, *, feature: str) -> None:
        """Keep what is missing."""
        super().__init__(message)
        self.feature = feature
