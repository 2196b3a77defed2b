"""Frozen sets: what a release was held to, as ``suites/requirements/frozen/<release>.yaml``.

A frozen requirement keeps its meaning for ever. Whoever changes what it asks gives the change an ID of its own, and
withdraws the old one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.conformance.ledger import Ledger, Requirement
from harness.errors import UsageError

__all__ = ["FrozenSet", "freeze", "read_all", "read_frozen"]

_RELEASE = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]*")


@dataclass(frozen=True, slots=True)
class FrozenSet:
    """The requirements of one release."""

    release: str
    digests: Mapping[str, str]
    """Requirement ID → SHA-256 of what it asks."""

    @property
    def sha256(self) -> str:
        """Digest of the whole set."""
        return hashlib.sha256(json.dumps(dict(self.digests), sort_keys=True).encode()).hexdigest()

    def complaints(self, ledger: Ledger) -> list[str]:
        """Return where a ledger departs from what was frozen."""
        texts: list[str] = []
        for name, digest in self.digests.items():
            if name not in ledger:
                texts.append(f"{name}: gone, but release {self.release} has it; keep the entry and add withdrawn")
            elif _digest(ledger[name]) != digest:
                texts.append(
                    f"{name}: level, sentence, profile or applies_to is not what release {self.release} froze; "
                    "restore it, withdraw it, and give the change an ID of its own"
                )
        return texts


def freeze(directory: Path, release: str, ledger: Ledger, bound: Collection[str]) -> Path:
    """Write down what a release is held to: all requirements that a test decides.

    Args:
        directory: Where frozen sets are.
        release: Such as ``0.1.0``.
        ledger: All requirements.
        bound: IDs that some test decides.

    Raises:
        UsageError: The release is frozen already, or is no name for a file.
    """
    file = _file(directory, release)
    if file.exists():
        raise UsageError(f"release {release} is frozen already: {file}", hint="what is frozen never changes")
    stable = {name: _digest(ledger[name]) for name in sorted(bound) if not ledger[name].withdrawn}
    file.parent.mkdir(exist_ok=True)
    head = f"# What release {release} is held to: requirement -> SHA-256 of level, sentence, profile and applies_to.\n"
    file.write_text(head + yaml.safe_dump({"release": release, "requirements": stable}, sort_keys=False, width=200))
    return file


def read_frozen(directory: Path, release: str) -> FrozenSet:
    """Read the set of one release.

    Raises:
        UsageError: There is none, or it is not readable.
    """
    file = _file(directory, release)
    if not file.exists():
        known = ", ".join(sorted(other.stem for other in directory.glob("*.yaml"))) or "none"
        raise UsageError(f"no release {release!r} is frozen; known: {known}", hint=f"podid ledger freeze {release}")
    try:
        return FrozenSet(release, dict(yaml.safe_load(file.read_text())["requirements"]))
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{file} is no frozen set: {error}") from error


def read_all(directory: Path) -> list[FrozenSet]:
    """Read all frozen sets there are."""
    return [read_frozen(directory, file.stem) for file in sorted(directory.glob("*.yaml"))]


def _file(directory: Path, release: str) -> Path:
    if not _RELEASE.fullmatch(release):
        raise UsageError(f"{release!r} is no name of a release", hint="letters, digits and . _ + - as in 0.1.0")
    return directory / f"{release}.yaml"


def _digest(entry: Requirement) -> str:
    asked = [entry.level, entry.sentence, entry.profile, sorted(entry.applies_to)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
