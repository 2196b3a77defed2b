"""One finding of ``podid doctor``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["GIB", "Check", "Status", "gib"]

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
