"""Where the harness keeps things."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MissingPrerequisite

__all__ = ["CHECKOUT", "LabPaths", "cache_directory", "full_disk", "state_directory"]

_FULL_BYTES = 256 << 20

CHECKOUT = Path(__file__).resolve().parents[2]
"""The checkout: agent/, webhook/, fixtures/ and tools/ are read from here."""


def cache_directory() -> Path:
    """Return the directory for what is built once: ``PODID_CACHE_DIR``, else below the user's cache."""
    return _directory("PODID_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def state_directory() -> Path:
    """Return the directory for labs: ``PODID_STATE_DIR``, else below the user's state."""
    return _directory("PODID_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def full_disk() -> MissingPrerequisite | None:
    """Return the error to raise if the disk of either directory has no room left; the directories need not exist."""
    for directory in (state_directory(), cache_directory()):
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        if shutil.disk_usage(existing).free < _FULL_BYTES:
            return MissingPrerequisite(
                f"the disk of {existing} is full",
                hint="free some space, or set PODID_STATE_DIR and PODID_CACHE_DIR to directories on another disk",
            )
    return None


def _directory(own: str, standard: str, default: str) -> Path:
    if value := os.environ.get(own):
        return Path(value).absolute()
    base = os.environ.get(standard)
    return (Path(base) if base else Path.home() / default).absolute() / "podid"


@dataclass(frozen=True, slots=True)
class LabPaths:
    """Files of one lab; the directory goes with the lab."""

    state: Path
    lab: str

    @property
    def directory(self) -> Path:
        """Everything of the lab."""
        return self.state / "labs" / self.lab

    @property
    def lock(self) -> Path:
        """The lab's lock, which outlives the lab."""
        return self.state / "labs" / f"{self.lab}.lock"

    @property
    def use(self) -> Path:
        """Lock of the runs that use the lab, which outlives it too."""
        return self.state / "labs" / f"{self.lab}.use"

    @property
    def kept(self) -> Path:
        """Mark of a lab that somebody wants to stay; it goes with the lab, and stands where every user can see it."""
        return self.state / "labs" / f"{self.lab}.kept"

    @property
    def description(self) -> Path:
        """The lab's provider."""
        return self.directory / "lab.json"

    @property
    def target(self) -> Path:
        """Which of somebody's clusters the lab is on."""
        return self.directory / "target.json"

    @property
    def account_record(self) -> Path:
        """What a run made in somebody's account of AWS."""
        return self.directory / "account.json"

    @property
    def given(self) -> Path:
        """Images of agent and webhook that the lab was given."""
        return self.directory / "given"

    @property
    def previous(self) -> Path:
        """Images of agent and webhook that upgrades begin with."""
        return self.directory / "previous"

    @property
    def network(self) -> Path:
        """The lab's network and addresses."""
        return self.directory / "network.json"

    @property
    def aws(self) -> Path:
        """Directory of AWS."""
        return self.directory / "aws"

    def cluster(self, name: str) -> Path:
        """Directory of a cluster."""
        return self.directory / "clusters" / name

    @property
    def clusters(self) -> Path:
        """Directory of all clusters."""
        return self.directory / "clusters"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig with a context per cluster."""
        return self.directory / "kubeconfig"

    @property
    def aws_config(self) -> Path:
        """AWS configuration file with a profile per account."""
        return self.directory / "aws-config"

    @property
    def builds(self) -> Path:
        """Mark of build processes (see :mod:`harness.cluster.native.sandbox`); never created."""
        return self.directory / "builds"
