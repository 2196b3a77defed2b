"""Which state of this repository a run is about."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

__all__ = ["commit", "sources"]

_SUBJECT = ("agent", "webhook")


def commit(checkout: Path) -> str:
    """Return the commit, with ``-dirty`` when files differ from it; empty outside of a Git repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def sources(checkout: Path) -> str:
    """Return a digest of our agent and webhook: programs, images and manifests."""
    digest = hashlib.sha256()
    for folder in _SUBJECT:
        for file in sorted((checkout / folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(checkout)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
