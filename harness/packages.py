"""System packages that a native lab needs: which are missing, and how to get them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MissingPrerequisite
from harness.progress import Progress

__all__ = ["NEEDS", "Need", "install", "install_hint", "missing"]


@dataclass(frozen=True, slots=True)
class Need:
    """A program or header file, why it is needed, and the packages that bring it."""

    path: str
    """Name of a program on PATH, or absolute path of a file."""
    reason: str
    debian: str
    fedora: str
    arch: str

    @property
    def is_met(self) -> bool:
        """Whether it is there."""
        return Path(self.path).exists() if self.path.startswith("/") else shutil.which(self.path) is not None


NEEDS = [
    Need("ip", "network interfaces", "iproute2", "iproute", "iproute2"),
    Need("nft", "kube-proxy and pod masquerading", "nftables", "nftables", "nftables"),
    Need("nsenter", "entering namespaces", "util-linux", "util-linux", "util-linux"),
    Need("mmdebstrap", "the base image", "mmdebstrap", "mmdebstrap", "mmdebstrap"),
    Need("buildah", "building images", "buildah", "buildah", "buildah"),
    Need("gcc", "building runc", "gcc", "gcc", "gcc"),
    Need("pkg-config", "building runc", "pkg-config", "pkgconf-pkg-config", "pkgconf"),
    Need("/usr/include/seccomp.h", "building runc", "libseccomp-dev", "libseccomp-devel", "libseccomp"),
]


def missing() -> dict[str, Need]:
    """Return what is missing, by path."""
    return {need.path: need for need in NEEDS if not need.is_met}


def install_hint(needs: Sequence[Need]) -> str:
    """Return the commands that install packages, for the common distributions."""

    def names(family: str) -> str:
        return " ".join(sorted({getattr(need, family) for need in needs}))

    return (
        f"Debian, Ubuntu: apt-get install --no-install-recommends {names('debian')}; "
        f"Fedora: dnf install {names('fedora')}; Arch: pacman -S {names('arch')}"
    )


def install(progress: Progress) -> None:
    """Install what is missing: as root on Debian and Ubuntu, after saying so; elsewhere say what to install.

    Raises:
        MissingPrerequisite: Something is missing and cannot be installed here.
    """
    needs = missing()
    if not needs:
        return
    reasons = "; ".join(f"{need.path} ({need.reason})" for need in needs.values())
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise MissingPrerequisite(f"missing on this machine: {reasons}", hint=install_hint(list(needs.values())))
    packages = sorted({need.debian for need in needs.values()})
    with progress.phase("packages", total=2) as phase:
        phase.step(f"apt-get update, for: {reasons}")
        _apt_get(["update"], packages)
        phase.step(f"apt-get install {' '.join(packages)}")
        _apt_get(["install", "--yes", "--no-install-recommends", *packages], packages)
    if still := missing():
        raise MissingPrerequisite(
            f"apt-get installed {', '.join(packages)}, and still missing: {', '.join(still)}",
            hint=install_hint(list(still.values())),
        )


def _apt_get(arguments: Sequence[str], packages: Sequence[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # A lock held by another apt is waited for, not an error.
    command = ["apt-get", "--quiet", "--option=DPkg::Lock::Timeout=120", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise MissingPrerequisite(
            f"{' '.join(command)} failed:\n{last}",
            hint=f"check network and package sources, then: apt-get install {' '.join(packages)}",
        )
