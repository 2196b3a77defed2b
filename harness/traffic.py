"""Counts what clients saw of a change that was made under them: failures by kind and phase, and gaps (HRN-UPG-02).

The clients are ``fixtures/upgrade/client.py``; what they print is read here, and nothing here needs a cluster.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["CLEAN_SECONDS", "Attempt", "Phase", "Step", "Traffic", "around", "parse_attempts"]

Phase = Literal["baseline", "change", "settled"]
CLEAN_SECONDS = 10.0
"""How long a change must be preceded, and is followed, by traffic without a failure."""
USUAL_READ = 0.08
"""Seconds that a cold read takes on two idle processors."""
_CREDENTIALS = "container-role"
"""What botocore calls credentials of an agent in an error about them."""
_AROUND = 1.5
"""Seconds around a failed attempt in which an agent's log lines may belong to it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One read, or one time without anybody at the agent's address."""

    node: str
    kind: str
    """``cached``, ``cold`` or ``port``."""
    began: float
    """Seconds since 1970, as the node has them."""
    ended: float
    error: str
    """Empty when it went well."""


def parse_attempts(node: str, kind: str, lines: Iterable[str]) -> list[Attempt]:
    """Read what a client printed."""
    return [Attempt(node, kind, **json.loads(line)) for line in lines if line.startswith("{")]


@dataclass(frozen=True, slots=True)
class Step:
    """One change under traffic, with the clean time before and after it."""

    name: str
    baseline_at: float
    change_at: float
    settled_at: float
    ended_at: float

    def phase(self, attempt: Attempt) -> Phase | None:
        """Return in which phase an attempt began, None if in none of this step."""
        if not self.baseline_at <= attempt.began < self.ended_at:
            return None
        if attempt.began < self.change_at:
            # One that is on its way when the change begins is the change's.
            return "baseline" if attempt.ended < self.change_at else "change"
        return "change" if attempt.began < self.settled_at else "settled"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What all clients printed."""

    attempts: Sequence[Attempt]

    def reads(self, kind: str) -> list[Attempt]:
        """Return the reads of one kind of client."""
        return [attempt for attempt in self.attempts if attempt.kind == kind]

    def failed(self, step: Step, kind: str, *phases: Phase) -> list[Attempt]:
        """Return the failed reads of one kind in these phases of a step; without phases, in all of it."""
        wanted = phases or ("baseline", "change", "settled")
        return [attempt for attempt in self.reads(kind) if attempt.error and step.phase(attempt) in wanted]

    def counts(self, step: Step) -> dict[str, dict[str, dict[str, int]]]:
        """Return kind → phase → ``attempts`` and ``failed``."""
        return {
            kind: {
                phase: {
                    "attempts": sum(step.phase(attempt) == phase for attempt in self.reads(kind)),
                    "failed": len(self.failed(step, kind, phase)),
                }
                for phase in ("baseline", "change", "settled")
            }
            for kind in ("cached", "cold")
        }

    def longest_gap_ms(self, step: Step, kind: str) -> int:
        """Return the longest time that a client of this kind went from one good read to the next.

        Half a second is the usual: that is how often it reads. One that never read again has its gap to the end.
        """
        gaps = [0.0]
        for node in {attempt.node for attempt in self.reads(kind)}:
            good = [
                attempt.ended
                for attempt in self.reads(kind)
                if attempt.node == node and not attempt.error and step.phase(attempt)
            ]
            moments = [step.baseline_at, *sorted(good), step.ended_at]
            gaps += [after - before for before, after in itertools.pairwise(moments)]
        return round(1000 * max(gaps))

    def silences(self, step: Step) -> list[Attempt]:
        """Return the times without anybody at the agent's address, by node and time."""
        return [attempt for attempt in self.reads("port") if step.phase(attempt)]

    def silent_ms(self, step: Step) -> int:
        """Return the longest of them."""
        return round(1000 * max((one.ended - one.began for one in self.silences(step)), default=0.0))

    def idle_silent_ms(self, step: Step) -> float:
        """Return how long the longest of them would have been on an idle machine."""
        times = ((one.ended - one.began) / self.slowness(one) for one in self.silences(step))
        return 1000 * max(times, default=0.0)

    def slowness(self, silence: Attempt) -> float:
        """Return how many times longer than usual a cold read took on other nodes meanwhile, four at most.

        That is the machine's. It is busy for seconds, so that reads from before and after tell nothing about it.
        """
        reads = [
            one.ended - one.began
            for one in self.reads("cold")
            if not one.error and one.node != silence.node and one.began <= silence.ended and silence.began <= one.ended
        ]
        return min(4.0, max(1.0, statistics.median(reads) / USUAL_READ)) if reads else 1.0

    def outside_the_gap(self, step: Step) -> list[Attempt]:
        """Return the failed reads of cold clients that no silence of their node explains.

        An SDK's tries take two seconds and a little; a read whose time meets the silence was refused in it.
        """
        silences = self.silences(step)
        return [
            attempt
            for attempt in self.failed(step, "cold")
            if not any(
                _CREDENTIALS in attempt.error
                and one.node == attempt.node
                and attempt.began <= one.ended
                and one.began <= attempt.ended
                for one in silences
            )
        ]

    def log(self, step: Step) -> dict[str, list[str]]:
        """Return client → its attempts of a step, a line each."""
        lines: dict[str, list[str]] = {}
        for one in self.attempts:
            if phase := step.phase(one):
                what = one.error or "read"
                line = f"{one.began - step.change_at:+.2f} s {phase}: {1000 * (one.ended - one.began):.0f} ms, {what}"
                lines.setdefault(f"{one.node} {one.kind}", []).append(line)
        return lines

    def plot(self, steps: Sequence[Step]) -> dict[str, Any]:
        """Return the reads as the report's plot: a line for each client, and when each change began."""
        first = min(attempt.began for attempt in self.attempts)
        names = sorted({(attempt.node, attempt.kind) for attempt in self.attempts if attempt.kind != "port"})
        return {
            "series": [
                {
                    "name": f"{node} {kind}",
                    "points": [
                        [round(attempt.began - first, 2), not attempt.error]
                        for attempt in self.attempts
                        if (attempt.node, attempt.kind) == (node, kind)
                    ],
                }
                for node, kind in names
            ],
            "events": [{"at": max(0.0, round(step.change_at - first, 2)), "what": step.name} for step in steps],
        }


def around(attempt: Attempt, lines: Mapping[str, Sequence[tuple[float, str]]]) -> list[str]:
    """Return what the agent of an attempt's node logged about then.

    Args:
        attempt: The attempt.
        lines: Node → log lines with their time.
    """
    return [
        text for at, text in lines.get(attempt.node, ()) if attempt.began - _AROUND <= at <= attempt.ended + _AROUND
    ][:40]
