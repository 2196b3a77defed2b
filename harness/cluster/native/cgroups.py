"""Control groups of a cluster's pods: one root per cluster, made before kubelet starts and removed after it is gone.

Works on cgroup v2 and on v1 and hybrid layouts, where every hierarchy has its own tree.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from harness import limits, wait

__all__ = ["create", "lab_prefix", "names_with_prefix", "remove"]

_ROOT = Path("/sys/fs/cgroup")


def lab_prefix(lab: Path) -> str:
    """Return what the names of a lab's groups begin with.

    Args:
        lab: The lab's directory; labs of one name may exist in several state directories.
    """
    return f"podid.{lab.name}.{hashlib.sha256(os.fsencode(lab.resolve())).hexdigest()[:8]}."


def _hierarchies() -> list[Path]:
    if not _ROOT.exists():
        return []
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    # Debian's v1 layout has links such as cpu -> cpu,cpuacct: follow each tree once.
    return sorted({entry.resolve() for entry in _ROOT.iterdir() if entry.is_dir()})


def create(name: str) -> None:
    """Create the group ``name`` in every hierarchy."""
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            # On v1 a cpuset without CPUs and memory nodes takes no process.
            if (
                (group / file).exists()
                and (hierarchy / "cpuset.cpus").exists()
                and not (group / file).read_text().strip()
            ):
                (group / file).write_text((hierarchy / file).read_text())


def remove(name: str) -> None:
    """Remove the group ``name`` with everything below it; its processes must be dead already."""
    for hierarchy in _hierarchies():
        group = hierarchy / name
        # A dying process keeps its group busy for a moment.
        wait.until(
            lambda group=group: _remove_tree(group), what=f"cgroup {group} to become empty", timeout=limits.PROCESS_END
        )


def _remove_tree(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()
    return not group.exists()


def names_with_prefix(prefix: str) -> set[str]:
    """Return the names of all top-level groups that begin with ``prefix``."""
    return {
        entry.name for hierarchy in _hierarchies() for entry in hierarchy.iterdir() if entry.name.startswith(prefix)
    }
