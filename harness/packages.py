"""System packages that a native lab needs: which are missing, and how to get them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
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


_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
NEEDS = [
    Need("ip", "network interfaces", "iproute2", "iproute", "iproute2"),
    Need("nft", "kube-proxy and pod masquerading", "nftables", "nftables", "nftables"),
    Need("nsenter", "entering namespaces", "util-linux", "util-linux", "util-linux"),
    Need("unshare", "making namespaces", "util-linux", "util-linux", "util-linux"),
    Need("setpriv", "ending builds with their podid", "util-linux", "util-linux", "util-linux"),
    Need("mmdebstrap", "the base image", "mmdebstrap", "mmdebstrap", "aur/mmdebstrap"),
    Need(_KEYRING, "verifying Debian's packages", "debian-archive-keyring", "debian-keyring", "debian-archive-keyring"),
    Need("buildah", "building images", "buildah", "buildah", "buildah"),
    Need("gcc", "building runc", "gcc", "gcc", "gcc"),
    Need("/usr/include/stdlib.h", "building runc", "libc6-dev", "glibc-devel", "glibc"),
    Need("pkg-config", "building runc", "pkg-config", "pkgconf-pkg-config", "pkgconf"),
    Need("/usr/include/seccomp.h", "building runc", "libseccomp-dev", "libseccomp-devel", "libseccomp"),
]


def missing() -> dict[str, Need]:
    """Return what is missing, by path."""
    return {need.path: need for need in NEEDS if not need.is_met}


def install_hint(needs: Mapping[str, Need]) -> str:
    """Return the commands that install packages, for the common distributions.

    Args:
        needs: What is missing, as :func:`missing` returns it.
    """

    def names(family: str) -> list[str]:
        return sorted({getattr(need, family) for need in needs.values()})

    arch = [name for name in names("arch") if not name.startswith("aur/")]
    aur = [name.removeprefix("aur/") for name in names("arch") if name.startswith("aur/")]
    lines = {
        "Debian, Ubuntu": ("apt-get install --no-install-recommends", names("debian")),
        "Fedora": ("dnf install", names("fedora")),
        "Arch": ("pacman -S", arch),
        "Arch, from the AUR": ("", aur),
    }
    return "; ".join(
        f"{system}: {' '.join([command, *found]).strip()}" for system, (command, found) in lines.items() if found
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
        raise MissingPrerequisite(f"missing on this machine: {reasons}", hint=install_hint(needs))
    packages = sorted({need.debian for need in needs.values()})
    with progress.phase("packages") as phase:
        phase.note(f"missing: {reasons}")
        command = ["install", "--yes", "--no-install-recommends", *packages]
        phase.step(f"apt-get install {' '.join(packages)}")
        if _apt_get(command).returncode != 0:
            # Lists that were never fetched, or that name packages that are gone from the archive.
            phase.step("apt-get update")
            _succeed(_apt_get(["update"]), packages)
            phase.step(f"apt-get install {' '.join(packages)}")
            _succeed(_apt_get(command), packages)
    if still := missing():
        raise MissingPrerequisite(
            f"apt-get installed {', '.join(packages)}, and still missing: {', '.join(still)}",
            hint=install_hint(still),
        )


def _apt_get(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # A lock held by another apt is waited for, not an error.
    command = ["apt-get", "--quiet", "--option=DPkg::Lock::Timeout=120", *arguments]
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def _succeed(done: subprocess.CompletedProcess[str], packages: Sequence[str]) -> None:
    if done.returncode != 0:
        last = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-6:])
        raise MissingPrerequisite(
            f"{' '.join(done.args)} failed:\n{last}",
            hint=f"check network and package sources, then: apt-get update && apt-get install {' '.join(packages)}",
        )
