"""Doctor's checks for kind labs: the engine, its rights and room, the kernel's limits, what earlier labs left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.cluster.kind.binary import SUPPORTED, is_supported, version_of
from harness.cluster.kind.engine import DIRECTORY_LABEL, LAB_LABEL, Engine, connect
from harness.cluster.kind.node_image import find_node_image, wanted
from harness.doctor_check import GIB, Check, gib, inotify
from harness.errors import MissingPrerequisite, PodidError

__all__ = ["kind_checks"]

_MEMORY_BYTES = 4 * GIB
_DISK_BYTES = 8 * GIB
_WATCHES, _INSTANCES = 65536, 256
"""What two clusters need with some room; kind's own advice for many is 524288 and 512."""
_NO_PROXY = ("127.0.0.1", "localhost")


def kind_checks() -> list[Check]:
    """Run every check; those that need the engine are left out where none answers."""
    checks = [_docker_command(), _kind_program(), inotify(_WATCHES, _INSTANCES), _proxies(os.environ)]
    try:
        engine = connect(timeout=5)
    except MissingPrerequisite as error:
        fix = f"{error.hint}, or use --provider native on Linux as root"
        return [Check("engine", "fail", error.message, "a Docker engine that answers", fix), *checks]
    try:
        info = engine.info()
        of_engine: list[Callable[[], Check]] = [
            lambda: Check("engine", "ok", f"Docker {info['ServerVersion']}, {info.get('Driver')}", ""),
            lambda: _node_image(engine),
            lambda: _privileged(engine),
            lambda: _memory(info),
            lambda: _cgroups(info),
            lambda: _disk(info),
            lambda: _leftovers(engine),
        ]
        return [*checks, *(check() for check in of_engine)]
    finally:
        engine.close()


def _docker_command() -> Check:
    found = shutil.which("docker")
    fix = "install Docker's command line: package docker-ce-cli (Debian: docker.io)"
    return Check("docker command", "ok" if found else "fail", found or "absent", "it, kind calls it", fix)


def _kind_program() -> Check:
    path = os.environ.get("PODID_KIND") or shutil.which("kind")
    needed = " to ".join(f"{major}.{minor}" for major, minor in SUPPORTED)
    if path is None:
        return Check("kind", "ok", "none on PATH; one of ours is built at the first use", "")
    version = version_of(path)
    text = f"{path}, version {version[0]}.{version[1]}" if version else f"{path}, which prints no version"
    if is_supported(version):
        return Check("kind", "ok", text, "")
    if os.environ.get("PODID_KIND"):
        return Check("kind", "fail", text, needed, "unset PODID_KIND, then one of ours is built")
    return Check("kind", "ok", f"{text}; one of ours is used, {needed} would do", "")


def _node_image(engine: Engine) -> Check:
    image = find_node_image(engine)
    if image:
        return Check("node image", "ok", image.reference.partition("@")[0], "")
    fix = f"docker pull {wanted()}; without a registry: docker load --input FILE"
    return Check(
        "node image", "warn", "not in the engine", f"{wanted().partition('@')[0]}, pulled at the first use", fix
    )


def _privileged(engine: Engine) -> Check:
    """Start a privileged container that ends at once, where an image for it is there."""
    name, fix = "privileged", "allow docker run --privileged in the engine's configuration"
    image = find_node_image(engine)
    if image is None:
        return Check(name, "ok", "not tried without a node image", "")
    try:
        engine.run_privileged(image.reference, ["true"], {})
    except PodidError as error:
        return Check(name, "fail", error.message, "privileged containers, which kind's nodes are", fix)
    return Check(name, "ok", "containers may be", "")


def _memory(info: Mapping[str, Any]) -> Check:
    total = int(info.get("MemTotal", 0))
    fix = "give the engine more: Docker Desktop, Settings, Resources"
    return Check(
        "memory", "ok" if total >= _MEMORY_BYTES else "warn", gib(total), f"{gib(_MEMORY_BYTES)} in the engine", fix
    )


def _cgroups(info: Mapping[str, Any]) -> Check:
    version, driver = str(info.get("CgroupVersion", "?")), str(info.get("CgroupDriver", "?"))
    text = f"v{version}, driver {driver}"
    if version == "2":
        return Check("cgroups", "ok", text, "")
    fix = "boot with systemd.unified_cgroup_hierarchy=1; Kubernetes up to 1.34 works as it is"
    return Check("cgroups", "warn", text, "cgroup v2, for node images of Kubernetes 1.35 and later", fix)


def _disk(info: Mapping[str, Any]) -> Check:
    root = Path(str(info.get("DockerRootDir", "")))
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return Check("disk for the engine", "ok", f"{root} is not on this machine", "")
    fix = "docker system prune"
    status = "ok" if free >= _DISK_BYTES else "fail"
    return Check("disk for the engine", status, f"{gib(free)} free at {root}", gib(_DISK_BYTES), fix)


def _proxies(environment: Mapping[str, str]) -> Check:
    used = [name for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy") if environment.get(name)]
    if not used:
        return Check("proxies", "ok", "none", "")
    excepted = (environment.get("NO_PROXY") or environment.get("no_proxy") or "").split(",")
    missing = [host for host in _NO_PROXY if host not in excepted]
    if not missing:
        return Check("proxies", "ok", f"{', '.join(used)}, not for {', '.join(_NO_PROXY)}", "")
    fix = f"export NO_PROXY={','.join([*filter(None, excepted), *missing])}"
    return Check(
        "proxies", "warn", f"{', '.join(used)} also for {', '.join(missing)}", "NO_PROXY for this machine", fix
    )


def _leftovers(engine: Engine) -> Check:
    found = [
        *(container.labels for container in engine.client.containers.list(all=True, filters={"label": LAB_LABEL})),
        *(network.attrs["Labels"] for network in engine.client.networks.list(filters={"label": LAB_LABEL})),
    ]
    orphans = sorted(
        {(labels[LAB_LABEL], labels[DIRECTORY_LABEL]) for labels in found if not Path(labels[DIRECTORY_LABEL]).exists()}
    )
    if not orphans:
        return Check("leftovers", "ok", "none", "")
    fix = "; ".join(
        f"PODID_STATE_DIR={Path(directory).parent.parent} podid down --lab {lab}" for lab, directory in orphans
    )
    return Check("leftovers", "warn", f"of labs that are gone: {', '.join(lab for lab, _ in orphans)}", "none", fix)
