"""The ``kind`` program: the user's own when its version is supported, else one built from its Go module."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from harness import binaries
from harness.errors import UsageError
from harness.progress import Progress

__all__ = ["SUPPORTED", "ensure_kind", "find_kind", "is_supported", "version_of"]

SUPPORTED = ((0, 29), (0, 33))
"""First and last minor version whose configuration and node images we know."""


def ensure_kind(cache: Path, progress: Progress) -> Path:
    """Return a ``kind`` program: ``PODID_KIND``, else the one on PATH, else our own.

    Args:
        cache: The harness's cache directory.
        progress: Where to report.

    Raises:
        UsageError: ``PODID_KIND`` is no supported kind.
        MissingPrerequisite: None is there and it cannot be built.
    """
    if found := find_kind():
        return found
    if own := shutil.which("kind"):
        progress.say(f"{own} is {_text(version_of(own))}; using a kind of ours ({_range()} would do)")
    return binaries.ensure(cache, progress, [binaries.KIND])["kind"]


def find_kind() -> Path | None:
    """Return the user's kind, ``PODID_KIND`` or the one on PATH; None when there is none that we know how to use.

    Raises:
        UsageError: ``PODID_KIND`` is no supported kind.
    """
    if named := os.environ.get("PODID_KIND"):
        version = version_of(named)
        if not is_supported(version):
            raise UsageError(
                f"PODID_KIND={named} is {_text(version)}, not a kind between {_range()}",
                hint="unset PODID_KIND to use a kind of ours",
            )
        return Path(named)
    own = shutil.which("kind")
    return Path(own) if own and is_supported(version_of(own)) else None


def version_of(program: str | Path) -> tuple[int, int] | None:
    """Return major and minor version, None when it does not say."""
    try:
        done = subprocess.run([program, "version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\bv?(\d+)\.(\d+)\.\d+", done.stdout)
    return (int(found[1]), int(found[2])) if found else None


def is_supported(version: tuple[int, int] | None) -> bool:
    """Tell whether we know how to use a kind of this version."""
    return version is not None and SUPPORTED[0] <= version <= SUPPORTED[1]


def _text(version: tuple[int, int] | None) -> str:
    return f"kind {version[0]}.{version[1]}" if version else "something that prints no version"


def _range() -> str:
    return " and ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
