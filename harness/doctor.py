"""``podid doctor``: can this machine raise a lab? Looks, changes nothing, takes no network and under two seconds."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from harness import packages
from harness.cluster.base import IpFamily
from harness.cluster.native import cgroups
from harness.doctor_check import GIB, Check, available_memory, gib, inotify
from harness.errors import MissingPrerequisite
from harness.lab.lock import is_left_over
from harness.lab.paths import LabPaths, cache_directory, state_directory

__all__ = ["Check", "ipv6_check", "require", "run_checks"]

_CACHE_BYTES, _STATE_BYTES = 8 * GIB, 3 * GIB
_KIND_CACHE_BYTES, _KIND_STATE_BYTES = 2 * GIB, GIB // 2
_MEMORY_BYTES = 3 * GIB
_WATCHES, _INSTANCES = 8192, 128
"""Four labs side by side were seen with 6,300 watches and 124 instances, all of them root's; three fit into 128."""


def run_checks(provider: Literal["native", "kind"] = "native", ip_family: IpFamily = "ipv4") -> list[Check]:
    """Run every check for a lab of a provider and IP family."""
    common: list[Callable[[], Check]] = [
        _python,
        lambda: _disk("cache", cache_directory(), _CACHE_BYTES if provider == "native" else _KIND_CACHE_BYTES),
        lambda: _disk("state", state_directory(), _STATE_BYTES if provider == "native" else _KIND_STATE_BYTES),
        lambda: ipv6_check(ip_family),
    ]
    if provider == "kind":
        # Here: a machine without Docker need not wait for its SDK.
        from harness.doctor_kind import kind_checks  # noqa: PLC0415

        return [*kind_checks(), *(check() for check in common)]
    native: list[Callable[[], Check]] = [
        _system,
        _root,
        _programs,
        _overlay,
        _cgroups,
        _namespaces,
        _memory,
        lambda: inotify(_WATCHES, _INSTANCES),
        _leftovers,
    ]
    return [check() for check in [*native, *common]]


def require(provider: Literal["native", "kind"], ip_family: IpFamily = "ipv4") -> None:
    """Refuse to go on where a lab cannot work; missing packages are the installer's business, not a refusal.

    Raises:
        MissingPrerequisite: Lists everything that is missing, with the ways out.
    """
    failures = [
        check for check in run_checks(provider, ip_family) if check.status == "fail" and check.name != _PROGRAMS
    ]
    if failures:
        option = "" if ip_family == "ipv4" else f" --ip-family {ip_family}"
        raise MissingPrerequisite(
            f"this machine cannot raise a {provider} lab:\n" + "\n".join(f"  {check.line()}" for check in failures),
            hint=f"podid doctor --provider {provider}{option} shows all checks",
        )


_PROGRAMS = "programs"


def _system() -> Check:
    found = f"{platform.system()} {platform.machine()}"
    is_good = platform.system() == "Linux" and platform.machine() in {"x86_64", "aarch64"}
    return Check(
        "system", "ok" if is_good else "fail", found, "Linux on x86_64 or aarch64", "use a Linux machine or VM"
    )


def _root() -> Check:
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    fix = "run the same command as root, for example with: sudo -E env PATH=$PATH …"
    return Check("user", "ok" if os.geteuid() == 0 else "fail", user, "root, for namespaces, mounts and cgroups", fix)


def _python() -> Check:
    is_good = sys.version_info >= (3, 11)
    return Check("python", "ok" if is_good else "fail", platform.python_version(), "3.11 or later")


def _programs() -> Check:
    missing = packages.missing()
    if not missing:
        return Check(_PROGRAMS, "ok", "all there", "")
    names = ", ".join(missing)
    return Check(_PROGRAMS, "fail", f"missing: {names}", names, packages.install_hint(missing))


def _overlay() -> Check:
    is_there = "overlay" in Path("/proc/filesystems").read_text()
    return Check("overlayfs", "ok" if is_there else "fail", "there" if is_there else "absent", "it", "modprobe overlay")


def _cgroups() -> Check:
    version = "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1"
    is_mounted = version == "v2" or Path("/sys/fs/cgroup/memory").exists()
    return Check("cgroups", "ok" if is_mounted else "fail", version if is_mounted else "not mounted", "cgroup v1 or v2")


def _namespaces() -> Check:
    limits = {kind: int(Path(f"/proc/sys/user/max_{kind}_namespaces").read_text()) for kind in ("pid", "net", "mnt")}
    found = ", ".join(f"{kind} {limit}" for kind, limit in limits.items())
    is_good = min(limits.values()) >= 16
    return Check("namespaces", "ok" if is_good else "fail", found, "16 of each", "sysctl user.max_net_namespaces=1024")


def _memory() -> Check:
    available = available_memory()
    is_good = available >= _MEMORY_BYTES
    return Check("memory", "ok" if is_good else "warn", gib(available), f"{gib(_MEMORY_BYTES)} available")


def _disk(name: str, directory: Path, needed: int) -> Check:
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    variable = f"PODID_{name.upper()}_DIR"
    fix = f"free some space, or set {variable} to a directory on another disk"
    return Check(
        f"disk for {name}", "ok" if free >= needed else "fail", f"{gib(free)} free at {existing}", gib(needed), fix
    )


def ipv6_check(ip_family: IpFamily, module: Path = Path("/sys/module/ipv6/parameters")) -> Check:
    """Look whether new network namespaces have IPv6: not the host's own setting decides, but the kernel's."""
    if platform.system() != "Linux":
        return Check("ipv6", "ok", "not looked into: the Docker engine's kernel decides", "")
    switched_off = [name for name in ("disable", "disable_ipv6") if _says(module / name, "1")]
    if module.exists() and not switched_off:
        return Check("ipv6", "ok", "there, for labs with --ip-family ipv6 or dual", "")
    found = f"switched off at boot: ipv6.{switched_off[0]}=1" if switched_off else "the kernel lacks it"
    fix = f"boot without ipv6.{switched_off[0]}=1" if switched_off else "modprobe ipv6"
    status = "warn" if ip_family == "ipv4" else "fail"
    return Check(
        "ipv6", status, found, "IPv6, for labs with --ip-family ipv6 or dual", f"{fix}, or use --ip-family ipv4"
    )


def _says(file: Path, text: str) -> bool:
    return file.exists() and file.read_text().strip() == text


def _leftovers() -> Check:
    labs = state_directory() / "labs"
    running = {path.name for path in labs.iterdir() if path.is_dir()} if labs.exists() else set[str]()
    groups = {name: name.split(".")[1] for name in cgroups.names_with_prefix("podid.")}
    # Those of another state directory are for whoever uses that to judge.
    ours = {name: lab for name, lab in groups.items() if name.startswith(cgroups.lab_prefix(labs / lab))}
    orphans = {name: lab for name, lab in sorted(ours.items()) if lab not in running}
    killed = sorted(name for name in running if is_left_over(LabPaths(labs.parent, name)))
    if not orphans and not killed:
        return Check("leftovers", "ok", f"none; labs: {', '.join(sorted(running)) or 'none'}", "")
    found = [f"cgroups of labs that are gone: {', '.join(orphans)}"] if orphans else []
    found += [f"labs of runs that were killed: {', '.join(killed)}"] if killed else []
    fix = "; ".join(f"PODID_LAB={lab} podid down" for lab in sorted({*orphans.values(), *killed}))
    return Check("leftovers", "warn", "; ".join(found), "none", fix)
