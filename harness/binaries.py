"""Programs of the native lab, built from pinned Go modules (``tools/``) once and kept in the cache.

An entry of the cache is named after everything that decides its content and carries the SHA-256 of its files, which is
verified on every use. It is built beside its place and renamed into it: there are no half-made entries.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessFault, MissingPrerequisite
from harness.progress import Phase, Progress

__all__ = ["GROUPS", "Group", "ensure"]

TOOLS = Path(__file__).resolve().parent.parent / "tools"
KUBERNETES = "v1.34.4"
GO_MINIMUM = (1, 25)
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Group:
    """Programs that are built together, from one ``go.mod``."""

    name: str
    """Directory below ``tools/``."""
    version: str
    programs: Mapping[str, str]
    """Name of the program → Go package."""
    variables: Mapping[str, str] | None = None
    """Go variables that the linker sets, such as the version a program prints."""
    tags: str = ""
    cgo: bool = False


def _programs(prefix: str, *names: str) -> dict[str, str]:
    return {name.rpartition("/")[2]: prefix + name for name in names}


_VERSION = "k8s.io/component-base/version"
GROUPS: Sequence[Group] = (
    Group("pause", "1", {"pause": "."}),
    Group(
        "cni",
        "1.9.1",
        _programs(
            "github.com/containernetworking/plugins/plugins/",
            "main/bridge",
            "main/loopback",
            "main/ptp",
            "ipam/host-local",
            "meta/portmap",
        ),
    ),
    Group(
        "runc",
        "1.4.3",
        {"runc": "github.com/opencontainers/runc"},
        {"main.version": "1.4.3"},
        tags="seccomp netgo osusergo",
        cgo=True,
    ),
    Group("etcd", "3.6.6", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Group(
        "containerd",
        "2.1.5",
        _programs("github.com/containerd/containerd/v2/cmd/", "containerd", "containerd-shim-runc-v2", "ctr"),
        {"github.com/containerd/containerd/v2/version.Version": "2.1.5"},
        tags="no_btrfs no_zfs no_devmapper no_aufs",
    ),
    Group("registry", "3.0.0", {"registry": "github.com/distribution/distribution/v3/cmd/registry"}),
    Group("coredns", "1.13.1", {"coredns": "github.com/coredns/coredns"}),
    Group(
        "kubernetes",
        KUBERNETES,
        _programs(
            "k8s.io/kubernetes/cmd/",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ),
        {f"{_VERSION}.gitVersion": KUBERNETES, f"{_VERSION}.gitMajor": "1", f"{_VERSION}.gitMinor": "34"},
    ),
)


def ensure(cache: Path, progress: Progress, groups: Sequence[Group] = GROUPS) -> dict[str, Path]:
    """Return the path of every program of the groups, building what the cache lacks.

    Args:
        cache: The harness's cache directory.
        progress: Where to report.
        groups: What is wanted.

    Raises:
        MissingPrerequisite: Go or the network is missing.
        HarnessFault: A build failed; the text has its last lines and names its log.
    """
    store = cache / "binaries"
    store.mkdir(parents=True, exist_ok=True)
    with progress.phase("binaries", total=len(groups)) as phase:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            found = list(pool.map(lambda group: _find(store, group, phase), groups))
        paths: dict[str, Path] = {}
        for group, entry in zip(groups, found, strict=True):
            phase.step(f"{group.name} {group.version}" + ("" if entry else ": building"))
            directory = entry or _build(store, cache / "logs", group, phase)
            paths |= {name: directory / name for name in group.programs}
    return paths


def _key(group: Group) -> str:
    """Return the name of the group's entry: a digest of everything that decides what is built."""
    directory = TOOLS / group.name
    digest = hashlib.sha256(repr(group).encode())
    for file in sorted(directory.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return f"{group.name}-{group.version}-{platform.machine()}-{digest.hexdigest()[:16]}"


def _find(store: Path, group: Group, phase: Phase) -> Path | None:
    """Return the group's entry if it is there and unharmed; a harmed one is removed."""
    entry = store / _key(group)
    if not entry.exists():
        return None
    try:
        manifest: dict[str, str] = json.loads((entry / _MANIFEST).read_text())
        is_good = set(manifest) == set(group.programs) and all(
            _sha256(entry / name) == digest for name, digest in manifest.items()
        )
    except (OSError, ValueError):
        is_good = False
    if is_good:
        return entry
    phase.note(f"the cached {group.name} is damaged; building it again")
    shutil.rmtree(entry)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(store: Path, group: Group) -> Iterator[None]:
    """Let one process build a group; the kernel releases the lock of a process that dies."""
    with (store / f".{group.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(store: Path, logs: Path, group: Group, phase: Phase) -> Path:
    entry = store / _key(group)
    with _locked(store, group):
        if found := _find(store, group, phase):
            return found
        for leftover in store.glob(f".{group.name}-*"):
            shutil.rmtree(leftover)
        temporary = Path(tempfile.mkdtemp(prefix=f".{group.name}-", dir=store))
        try:
            _go_build(group, temporary, logs)
            manifest = {name: _sha256(temporary / name) for name in group.programs}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1))
            temporary.chmod(0o755)
            temporary.rename(entry)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return entry


def _go_build(group: Group, output: Path, logs: Path) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"build-{group.name}.log"
    flags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in (group.variables or {}).items())])
    command = [str(find_go()), "build", "-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={flags}"]
    command += [f"-tags={group.tags}"] if group.tags else []
    environment = {name: value for name, value in os.environ.items() if name not in {"GOFLAGS", "GOOS", "GOARCH"}}
    environment |= {"GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "1" if group.cgo else "0"}
    # With a directory as output, go names each program after its package.
    names = {name: package.rpartition("/")[2] for name, package in group.programs.items()}
    together = all(name == last for name, last in names.items())
    runs = [(f"{output}/", list(group.programs.values()))] if together else []
    runs = runs or [(str(output / name), [package]) for name, package in group.programs.items()]
    with log.open("w") as file:
        for target, packages in runs:
            done = subprocess.run(
                [*command, "-o", target, *packages],
                cwd=TOOLS / group.name,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            if done.returncode != 0:
                raise _explain(group, log)


def _explain(group: Group, log: Path) -> HarnessFault | MissingPrerequisite:
    """Turn the log of a failed build into an error that helps."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith("go: downloading")]
    last = "\n".join(f"  {line}" for line in lines[-6:])
    message = f"building {group.name} {group.version} failed; {log} ends with:\n{last}"
    text = "\n".join(lines)
    if "no space left on device" in text:
        return MissingPrerequisite(message, hint="free some space; GOCACHE, GOMODCACHE, TMPDIR and PODID_CACHE_DIR can move it")
    if re.search(r"dial tcp|no such host|connection refused|i/o timeout|TLS handshake", text):
        return MissingPrerequisite(
            message,
            hint="Go modules cannot be downloaded: check the network and go's proxy (go env GOPROXY), then try again",
        )
    return HarnessFault(message, hint="try again; if it stays, clean Go's cache with: go clean -cache")


def find_go() -> Path:
    """Return the Go command.

    Raises:
        MissingPrerequisite: There is none, or it is too old.
    """
    wanted = ".".join(map(str, GO_MINIMUM))
    hint = f"install Go {wanted} or later (https://go.dev/dl/) and put it on PATH"
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).exists():
            printed = subprocess.run([candidate, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
            version = re.match(r"go(\d+)\.(\d+)", printed)
            if version and (int(version[1]), int(version[2])) >= GO_MINIMUM:
                return Path(candidate)
            raise MissingPrerequisite(f"{candidate} is Go {printed.strip() or '(unusable)'}, too old", hint=hint)
    raise MissingPrerequisite("Go is not installed; Kubernetes and its companions are built with it", hint=hint)
