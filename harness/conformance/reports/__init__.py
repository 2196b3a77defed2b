"""Reports about a run, made from its record alone. A format is a module here; being here registers it.

A module has ``FILE_NAME``, the report's name in the run's directory, and ``render(run) -> str``. It knows no other.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from harness.conformance.record import Run, write_atomically
from harness.conformance.sizes import fitting

__all__ = ["formats", "write_reports"]


def formats() -> list[str]:
    """Return the names of the formats there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def write_reports(directory: Path, run: Run) -> list[str]:
    """Write every report, and return what went wrong: one that breaks does not stop the others."""
    faults: list[str] = []
    for name in formats():
        try:
            module = importlib.import_module(f"{__name__}.{name}")
            _, text = fitting(module.FILE_NAME, run, module.render)
            write_atomically(directory / module.FILE_NAME, text)
        except Exception as error:  # noqa: BLE001 - reported, and the other formats are still wanted
            faults.append(f"{name}: {type(error).__name__}: {error}")
    return faults
