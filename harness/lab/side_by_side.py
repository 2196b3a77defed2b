"""Several labs for one run: each worker of pytest-xdist has its own, so that no scenario sees what another does.

The first worker has the lab that the person named; the others add their number to its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from harness.lab.lab import Lab
from harness.lab.paths import state_directory

__all__ = ["beside", "of_worker", "workers"]

_FIRST = "gw0"
_LAB_BYTES = 3 << 30
"""Memory that a lab may take with everything that the scenarios run in it."""
_MOST = 2
"""Scenario files are of different lengths; more labs than this wait for the longest."""


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


def workers(lab: Lab, asked: int | None, arguments: Sequence[str]) -> list[str]:
    """Return pytest's arguments that share the scenarios out among labs, by file.

    Args:
        lab: The person's lab; when it did not come up, nothing is shared out.
        asked: How many labs; None for as many as this machine has processors and memory for, if all scenarios run.
        arguments: Pytest's arguments so far.
    """
    if lab.provider_name is None:
        return []
    if asked is None:
        is_whole = not any(argument.startswith("suites") for argument in arguments)
        # A node of kind is a container engine of its own: two labs there take longer than one.
        asked = _fitting() if is_whole and lab.provider_name == "native" else 1
    return [f"--numprocesses={asked}", "--dist=loadfile", f"--provider={lab.provider_name}"] if asked > 1 else []


def _fitting() -> int:
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    memory = int(available.split()[1]) << 10
    return max(1, min(_MOST, os.cpu_count() or 1, memory // _LAB_BYTES))
