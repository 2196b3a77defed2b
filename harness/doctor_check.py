"""One finding of ``podid doctor``, and what more than one place looks at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

__all__ = ["GIB", "Check", "Status", "available_memory", "gib", "inotify", "inotify_limits"]

Status = Literal["ok", "warn", "fail"]
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    status: Status
    found: str
    needed: str
    fix: str = ""

    def line(self) -> str:
        """Return the finding as one line."""
        text = f"{self.status:5} {self.name}: {self.found}"
        if self.status == "ok":
            return text
        return f"{text} (needs {self.needed})" + (f" — fix: {self.fix}" if self.fix else "")

    def as_data(self) -> dict[str, str]:
        """Return the finding as JSON-ready data."""
        return asdict(self)


def gib(size_bytes: int) -> str:
    """Return a size for people."""
    return f"{size_bytes / GIB:.1f} GiB"


def available_memory() -> int:
    """Return how many bytes of memory new programs can have; Linux only."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def inotify_limits(directory: Path = Path("/proc/sys/fs/inotify")) -> dict[str, int]:
    """Return how many ``watches`` and ``instances`` one user may have; Linux only.

    Raises:
        OSError: This kernel has no such limits.
    """
    return {name: int((directory / f"max_user_{name}").read_text()) for name in ("watches", "instances")}


def inotify(watches: int, instances: int, limits: Path = Path("/proc/sys/fs/inotify")) -> Check:
    """Check what one user may watch of files: kubelet and the container runtime fail in odd ways without.

    Args:
        watches: Files and folders that are needed at least.
        instances: Watchers, likewise.
        limits: The kernel's folder.
    """
    try:
        found = inotify_limits(limits)
    except OSError:
        return Check("inotify", "ok", "the limits are the engine's machine's", "")
    return Check(
        "inotify",
        "ok" if found["watches"] >= watches and found["instances"] >= instances else "warn",
        f"{found['watches']} watches, {found['instances']} instances",
        f"{watches} and {instances}",
        "sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512",
    )
