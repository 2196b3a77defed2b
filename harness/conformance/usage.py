"""What agent and webhook use of a machine: readings of their processes, and what these come to over a scenario.

Whoever can reach the processes reads them (:mod:`harness.metering`); this module only counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.conformance.record import Use

__all__ = ["Reading", "Readings", "total_use", "use_between"]

_SUMS = frozenset({"cpu_s"})


@dataclass(frozen=True, slots=True)
class Reading:
    """One process at one moment."""

    program: str
    """``agent`` or ``webhook``."""
    rss_mib: float
    rss_peak_mib: float
    """The most since the last reading, or since the process started."""
    cpu_s: float
    """Seconds of CPU since the process started."""
    threads: int
    fds: int


Readings = Mapping[str, Reading]
"""Process → reading; a process that was restarted is another one."""


def use_between(before: Readings, after: Readings) -> Use:
    """Return what each program used between two readings; without the ones of which nothing could be read.

    Args:
        before: At the beginning.
        after: At the end; processes that ended meanwhile are missing, and what they used is not known.
    """
    use: Use = {}
    for process, reading in after.items():
        earlier = before[process].cpu_s if process in before else 0.0
        of_process = {
            "rss_mib": reading.rss_mib,
            "rss_peak_mib": max(reading.rss_peak_mib, reading.rss_mib),
            "cpu_s": round(max(0.0, reading.cpu_s - earlier), 3),
            "threads": float(reading.threads),
            "fds": float(reading.fds),
        }
        program = use.setdefault(reading.program, dict.fromkeys(of_process, 0.0))
        for metric, value in of_process.items():
            program[metric] = round(program[metric] + value, 3)
    return use


def total_use(uses: Iterable[Use]) -> Use:
    """Return what several tests come to: CPU adds up, of everything else the most counts."""
    total: Use = {}
    for use in uses:
        for program, metrics in use.items():
            mine = total.setdefault(program, {})
            for metric, value in metrics.items():
                known = mine.get(metric, 0.0)
                mine[metric] = round(known + value, 3) if metric in _SUMS else max(known, value)
    return total
