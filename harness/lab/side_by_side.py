"""Several labs for one run: each worker of pytest-xdist has its own, so that no scenario sees what another does.

The first worker has the lab that the person named; the others add their number to its name.
"""

from __future__ import annotations

import os
import re

from harness.doctor_check import GIB, available_memory, inotify_limits
from harness.lab.lab import Lab
from harness.lab.paths import state_directory

__all__ = ["beside", "left_over", "of_worker", "usual", "workers"]

_FIRST = "gw0"
_LONG_RUN = 4
"""Files from which on further labs are worth their start."""
_MOST = 4
_ROOM = 3 * GIB
"""Memory that a lab with two clusters takes; as much as that stays free."""
_INSTANCES = 40
"""Watchers of inotify that a lab with two clusters and four nodes takes; the kernel says how many a user may have."""


def of_worker(lab: str, worker: str) -> str:
    """Return the name of a worker's lab.

    Args:
        lab: The lab that the person named.
        worker: As pytest-xdist numbers them, such as ``gw1``; the first one's or none is the person's lab.
    """
    return lab if worker in {"", _FIRST} else f"{lab}-{worker}"


def beside(lab: str) -> list[Lab]:
    """Return the labs of other workers that are there, also after a crash."""
    directories = (state_directory() / "labs").glob(f"{lab}-gw*")
    names = [directory.name for directory in directories if re.fullmatch(r"gw\d+", directory.name[len(lab) + 1 :])]
    return [Lab(name) for name in sorted(names)]


def left_over(lab: str) -> list[Lab]:
    """Return what a run left that was killed, of the lab and of those of other workers (HRN-CLN-08)."""
    return [each for each in (*beside(lab), Lab(lab)) if each.is_left_over]


def usual(lab: Lab, files: int) -> int:
    """Return how many labs serve a run best: scenarios wait much, so that a long one is done sooner with four.

    Args:
        lab: The person's lab, which is up.
        files: How many files of scenarios are to run.
    """
    if lab.provider_name != "native" or files < _LONG_RUN or (os.cpu_count() or 1) == 1:
        return 1
    room = min(available_memory() // _ROOM, inotify_limits()["instances"] // _INSTANCES)
    return max(1, min(_MOST, room))


def workers(lab: Lab, count: int) -> list[str]:
    """Return pytest's arguments that share scenarios out among so many labs, by file.

    Args:
        lab: The person's lab; when it did not come up, nothing is shared out.
        count: How many labs.
    """
    if count == 1 or lab.provider_name is None:
        return []
    return [f"--numprocesses={count}", "--dist=loadfile", f"--provider={lab.provider_name}"]
