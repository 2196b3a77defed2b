"""IAM's decisions: may this principal do this action on this resource (``iam.md`` sections 2 to 8).

Pure: no I/O, no clock, no emulator. Values go into :func:`authorize`, a :class:`Decision` comes out. Which checks a
call raises is :mod:`harness.cloud.actions`, what a denied caller is told is :mod:`harness.cloud.denials`.
"""

from __future__ import annotations

from harness.cloud.iam.context import CallContext
from harness.cloud.iam.evaluate import authorize, keys_asked
from harness.cloud.iam.model import (
    Check,
    ContextValue,
    Decision,
    EvaluationRequest,
    Grade,
    Layer,
    PolicyKind,
    PolicySet,
)

__all__ = [
    "CallContext",
    "Check",
    "ContextValue",
    "Decision",
    "EvaluationRequest",
    "Grade",
    "Layer",
    "PolicyKind",
    "PolicySet",
    "authorize",
    "keys_asked",
]
