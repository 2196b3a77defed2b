"""The health of targets, as ELB judges it from checks (``controllers.md`` 3.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.cloud.elbv2.snapshot import HealthCheck

__all__ = ["INITIAL", "REGISTERED", "Health", "Observation", "TargetState", "matches"]


@dataclass(frozen=True, slots=True)
class Health:
    """A target's health as DescribeTargetHealth tells it."""

    state: Literal["initial", "healthy", "unhealthy", "draining", "unused", "unavailable"]
    reason: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What came of one check: a status, or none in time, or no answer at all."""

    kind: Literal["answered", "timed-out", "failed"]
    status: int = 0


REGISTERED = Health("initial", "Elb.RegistrationInProgress", "Target registration is in progress")
INITIAL = Health("initial", "Elb.InitialHealthChecking", "Initial health checks in progress")
_HEALTHY = Health("healthy")


class TargetState:
    """Checks of one target so far. A new one needs a single good check; one that was judged needs the threshold."""

    def __init__(self) -> None:
        """Begin without a check."""
        self.health = REGISTERED
        self._in_a_row = 0
        self._was_good = True

    def observe(self, seen: Observation, check: HealthCheck) -> Health:
        """Take one check into account and return the health after it."""
        is_good = seen.kind == "answered" and matches(seen.status, check.matcher)
        self._in_a_row = self._in_a_row + 1 if is_good == self._was_good else 1
        self._was_good = is_good
        if is_good:
            enough = 1 if self.health.state == "initial" else check.healthy_threshold
            if self._in_a_row >= enough:
                self.health = _HEALTHY
        elif self._in_a_row >= check.unhealthy_threshold:
            self.health = _unhealthy(seen)
        elif self.health == REGISTERED:
            self.health = INITIAL
        return self.health


def _unhealthy(seen: Observation) -> Health:
    if seen.kind == "answered":
        text = f"Health checks failed with these codes: [{seen.status}]"
        return Health("unhealthy", "Target.ResponseCodeMismatch", text)
    if seen.kind == "timed-out":
        return Health("unhealthy", "Target.Timeout", "Request timed out")
    return Health("unhealthy", "Target.FailedHealthChecks", "Health checks failed")


def matches(status: int, matcher: str) -> bool:
    """Tell whether a status is one of ``200``, ``200,202``, ``200-299``."""
    for part in matcher.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and int(first) <= status <= int(last if last.isdigit() else first):
            return True
    return False
