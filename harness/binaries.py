"""Programs of labs, built from pinned Go modules (``tools/``) once and kept in the cache.

An entry of the cache is named after its sources and how they are built, and carries the SHA-256 of its files, which is
verified on every use (0.3 s for all). It is built beside its place and renamed into it: there are no half-made entries.
The version of Go is recorded but not part of the name: a patch release of Go would cost everybody five minutes, and a
cache made elsewhere serves a machine without Go.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import json
import platform
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from harness.errors import HarnessFault, MissingPrerequisite, UsageError
from harness.go_toolchain import find_go, go_environment
from harness.progress import Phase, Progress

__all__ = [
    "ACTIONLINT",
    "AWS_SDK_GO",
    "DEFAULT_KUBERNETES",
    "EXTERNAL_SECRETS",
    "GROUPS",
    "HELM",
    "KIND",
    "KUBECTL",
    "KUBERNETES",
    "LOAD_BALANCER_CONTROLLER",
    "NETWORK_POLICIES",
    "OLD_AWS_SDK_GO",
    "Group",
    "ensure",
    "entries",
    "groups_of",
    "missing",
    "paths",
]

TOOLS = Path(__file__).resolve().parent.parent / "tools"
KUBERNETES = {"1.34": "v1.34.4", "1.35": "v1.35.4"}
"""Minor → version of Kubernetes that native clusters can have; the first is the default."""
DEFAULT_KUBERNETES = next(iter(KUBERNETES))
_MANIFEST = "manifest.json"
# What the linker would strip is not made in the first place: a tenth of the time.
_BUILD = ("build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false")
_STRIP = "-s -w"
_NO_SPACE_HINT = "free some space; PODID_CACHE_DIR, GOCACHE, GOMODCACHE and TMPDIR can move it to another disk"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Group:
    """Programs that are built together, from one ``go.mod``."""

    name: str
    """Directory below ``tools/``."""
    version: str
    programs: Mapping[str, str]
    """Name of the program → Go package. A package of several names is built once and acts by the name it is called."""
    variables: Mapping[str, str] | None = None
    """Go variables that the linker sets, such as the version a program prints."""
    tags: str = ""
    cgo: bool = False
    files: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Name of a file kept beside the programs → module and path in it (``module:path``): what belongs to a program and
    may not be committed here, such as its CRDs. A directory becomes an archive."""

    @property
    def products(self) -> Sequence[str]:
        """Names of everything that the group's entry of the cache has."""
        return [*self.programs, *self.files]


def _programs(prefix: str, *names: str) -> dict[str, str]:
    return {name.rpartition("/")[2]: prefix + name for name in names}


_VERSION = "k8s.io/component-base/version"
_COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")


def _kubernetes_variables(minor: str) -> dict[str, str]:
    return {
        f"{_VERSION}.gitVersion": KUBERNETES[minor],
        f"{_VERSION}.gitMajor": minor.partition(".")[0],
        f"{_VERSION}.gitMinor": minor.partition(".")[2],
    }


def _kubernetes(minor: str) -> Group:
    """Return the components of a minor; the default one's directory has no minor in its name."""
    name = "kubernetes" if minor == DEFAULT_KUBERNETES else f"kubernetes-{minor}"
    return Group(name, KUBERNETES[minor], dict.fromkeys(_COMPONENTS, "."), _kubernetes_variables(minor))


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
        {"github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion": "v1.9.1"},
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
        tags="no_btrfs no_zfs no_devmapper no_tracing",
    ),
    Group("registry", "3.0.0", {"registry": "."}),
    Group("coredns", "1.13.1", {"coredns": "."}),
    _kubernetes(DEFAULT_KUBERNETES),
)


def groups_of(minor: str = DEFAULT_KUBERNETES) -> Sequence[Group]:
    """Return what a native lab needs whose clusters have a minor version of Kubernetes.

    Raises:
        UsageError: It cannot be built here.
    """
    if minor not in KUBERNETES:
        raise UsageError(
            f"native clusters have no Kubernetes {minor}",
            hint=f"use --kubernetes with one of {', '.join(KUBERNETES)}; docs/matrix.md says how to add one",
        )
    return [_kubernetes(minor) if group.name == "kubernetes" else group for group in GROUPS]


_CONTROLLER = "sigs.k8s.io/aws-load-balancer-controller"
LOAD_BALANCER_CONTROLLER = Group(
    "aws-load-balancer-controller",
    "3.2.2",
    {"aws-load-balancer-controller": _CONTROLLER},
    {f"{_CONTROLLER}/pkg/version.GitVersion": "v3.2.2"},
    files={
        "aws-load-balancer-controller.tgz": f"{_CONTROLLER}:helm/aws-load-balancer-controller",
        "iam_policy.json": f"{_CONTROLLER}:docs/install/iam_policy.json",
    },
)
"""The AWS Load Balancer Controller with its chart and its IAM policy, for the scenario that installs it."""

HELM = Group("helm", "3.19.0", {"helm": "helm.sh/helm/v3/cmd/helm"})
"""For people and scenarios whose machine has none."""

KIND = Group("kind", "0.33.0", {"kind": "sigs.k8s.io/kind"})
"""kind itself, for machines that have none."""

ACTIONLINT = Group("actionlint", "1.7.12", {"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"})
"""Checks our workflows; no lab needs it."""

KUBECTL = Group("kubectl", KUBERNETES[DEFAULT_KUBERNETES], {"kubectl": "."}, _kubernetes_variables(DEFAULT_KUBERNETES))
"""For people whose machine has none; no test needs it."""

AWS_SDK_GO = Group("aws-sdk-go", "1.48.0", {"aws-sdk-go": "."})
"""A program of ours with AWS's SDK for Go, to call the emulated AWS as applications do."""

OLD_AWS_SDK_GO = Group("old-aws-sdk-go", "1.47.10", {"old-aws-sdk-go": "."})
"""The same with the last release of AWS's SDK for Go v1 from before Pod Identity, to see what becomes of it."""

NETWORK_POLICIES = Group(
    "kube-network-policies", "0.7.0", {"kube-network-policies": "sigs.k8s.io/kube-network-policies/cmd"}
)
"""An engine that enforces NetworkPolicy; for the scenario of a policy, where the cluster's network has none.

Not 0.8.0: it ends where containerd has no NRI.
"""

_ESO = "github.com/external-secrets/external-secrets"
EXTERNAL_SECRETS = Group(
    "external-secrets",
    "0.20.4",
    {"external-secrets": _ESO},
    files={
        f"{kind}.yaml": f"{_ESO}:config/crds/bases/{group}_{kind}.yaml"
        for group, kind in (
            ("external-secrets.io", "clustersecretstores"),
            ("external-secrets.io", "externalsecrets"),
            ("external-secrets.io", "pushsecrets"),
            ("external-secrets.io", "secretstores"),
            ("generators.external-secrets.io", "generatorstates"),
        )
    },
)
"""The External Secrets Operator and the CRDs it cannot start without; for its scenario only, as it takes minutes to
build."""


def ensure(cache: Path, progress: Progress, groups: Sequence[Group] = GROUPS) -> dict[str, Path]:
    """Return the path of every program and file of the groups, building what the cache lacks.

    Args:
        cache: The harness's cache directory.
        progress: Where to report.
        groups: What is wanted.

    Raises:
        MissingPrerequisite: Go, the network or disk space is missing.
        HarnessFault: A build failed; the text has its last lines and names its log.
    """
    store = cache / "binaries"
    store.mkdir(parents=True, exist_ok=True)
    with progress.phase("binaries") as phase:
        lacking = missing(cache, groups)
        phase.total = len(lacking)
        with _Builds(cache, phase) as builds:
            builds.run(lacking)
    return paths(cache, groups)


def missing(cache: Path, groups: Sequence[Group] = GROUPS) -> list[Group]:
    """Return the groups that the cache lacks, or that are damaged in it."""
    store = cache / "binaries"
    # Hashing releases the interpreter's lock: two cores take a third of the time of one.
    with ThreadPoolExecutor() as pool:
        checks = [pool.submit(_is_intact, store, group) for group in groups]
        return [group for group, check in zip(groups, checks, strict=True) if not check.result()]


def paths(cache: Path, groups: Sequence[Group] = GROUPS) -> dict[str, Path]:
    """Return the path of every program and file of the groups; whether it is there is not looked at."""
    return {
        name: entry / name
        for group, entry in zip(groups, entries(cache, groups), strict=True)
        for name in group.products
    }


def entries(cache: Path, groups: Sequence[Group] = GROUPS) -> list[Path]:
    """Return the groups' directories in the cache."""
    return [_entry(cache / "binaries", group) for group in groups]


_Call = Callable[[Sequence[str], Path, Mapping[str, str], IO[str]], int]


class _Builds:
    """Builds groups, two at a time: while one waits for the network or links, the other compiles."""

    _AT_ONCE = 2

    def __init__(self, cache: Path, phase: Phase) -> None:
        self._cache = cache
        self._phase = phase
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False
        self._pool = ThreadPoolExecutor(self._AT_ONCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs, after an error or an interruption; the other threads wait for it."""
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    def run(self, groups: Sequence[Group]) -> None:
        """Build the groups; the first error ends all."""
        for done in as_completed([self._pool.submit(self._ensure, group) for group in groups]):
            done.result()

    def _ensure(self, group: Group) -> None:
        store = self._cache / "binaries"
        self._phase.step(f"building {group.name} {group.version}")
        with _locked(store, group, self._phase):
            if not _is_intact(store, group):
                _build(self._cache, group, self._phase, self.call)

    def call(self, command: Sequence[str], directory: Path, environment: Mapping[str, str], log: IO[str]) -> int:
        """Run a program and return its exit code; it ends when the builds do."""
        with self._lock:
            if self._is_stopped:
                return -signal.SIGKILL
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.remove(process)


def _entry(store: Path, group: Group) -> Path:
    """Return the directory of the group's programs: its name has a digest of what is built, and how."""
    digest = hashlib.sha256(repr((group, _BUILD, _STRIP)).encode())
    if group.files:
        digest.update(repr(sorted(group.files.items())).encode())
    sources = TOOLS / group.name
    for file in sorted(path for path in sources.iterdir() if path.suffix in {".mod", ".sum", ".go"}):
        digest.update(file.name.encode() + file.read_bytes())
    return store / f"{group.name}-{group.version}-{platform.machine()}-{digest.hexdigest()[:16]}"


def _is_intact(store: Path, group: Group) -> bool:
    """Tell whether the group is there, with exactly the bytes that were built."""
    entry = _entry(store, group)
    try:
        digests: dict[str, str] = json.loads((entry / _MANIFEST).read_text())["sha256"]
        return digests == _digests(entry, group)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _digests(directory: Path, group: Group) -> dict[str, str]:
    """Return the SHA-256 of every program and file; a file with several names is read once."""
    files = {name: (directory / name).resolve(strict=True) for name in group.products}
    digests = {file: _sha256(file) for file in set(files.values())}
    return {name: digests[file] for name, file in files.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(store: Path, group: Group, phase: Phase) -> Generator[None]:
    """Let one process build a group; the kernel releases the lock of a process that dies."""
    with (store / f".{group.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            phase.note(f"another command is building {group.name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(cache: Path, group: Group, phase: Phase, call: _Call) -> None:
    store = cache / "binaries"
    entry = _entry(store, group)
    if entry.exists():
        phase.note(f"the cached {group.name} {group.version} is damaged; building it again")
        shutil.rmtree(entry)
    for leftover in store.glob(f".{group.name}-*"):
        shutil.rmtree(leftover)
    go = find_go(cache, phase)
    try:
        # Not TemporaryDirectory: after the renaming there is nothing to remove.
        temporary = Path(tempfile.mkdtemp(prefix=f".{group.name}-", dir=store))
        try:
            _go_build(go, group, temporary, cache / "logs", call)
            for name, place in group.files.items():
                module, _, path = place.partition(":")
                _copy(_module_directory(go, group, module) / path, temporary / name)
            manifest = {"go": _go_version(go), "sha256": _digests(temporary, group)}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1))
            temporary.chmod(0o755)
            temporary.rename(entry)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise MissingPrerequisite(f"building {group.name} failed: {error}", hint=_NO_SPACE_HINT) from error
        raise


def _go_version(go: Path) -> str:
    return subprocess.run(
        [go, "version"], env=go_environment(cgo=False), capture_output=True, text=True, check=True
    ).stdout.strip()


def _go_build(go: Path, group: Group, output: Path, logs: Path, call: _Call) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"build-{group.name}.log"
    flags = " ".join([_STRIP, *(f"-X {name}={value}" for name, value in (group.variables or {}).items())])
    # A build whose podid was killed would go on for minutes, and write into a directory that is gone.
    bound = ["setpriv", "--pdeathsig=KILL"] if shutil.which("setpriv") else []
    command = [*bound, str(go), *_BUILD, f"-ldflags={flags}"]
    command += [f"-tags={group.tags}"] if group.tags else []
    with log.open("w") as file:
        arguments = [*command, "-o", f"{output}/", *dict.fromkeys(group.programs.values())]
        if call(arguments, TOOLS / group.name, go_environment(cgo=group.cgo), file) != 0:
            raise _explain(group, log)
    for name, package in group.programs.items():
        if name != (made := _executable(group, package)):
            (output / name).symlink_to(made)


def _module_directory(go: Path, group: Group, module: str) -> Path:
    """Return where Go keeps the files of a module that the group's ``go.mod`` pins."""
    command = [go, "list", "-m", "-f", "{{.Dir}}", module]
    environment = go_environment(cgo=False)
    done = subprocess.run(command, cwd=TOOLS / group.name, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        raise HarnessFault(f"the files of module {module} cannot be found: {done.stderr.strip()}")
    return Path(done.stdout.strip())


def _copy(source: Path, target: Path) -> None:
    """Copy a file; pack a directory, under its own name, so that the same files give the same bytes."""
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(f"{source.name}/{path.relative_to(source)}")
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)


def _executable(group: Group, package: str) -> str:
    """Return how go names a package's program: by the last element of its path that is no major version."""
    path = group.name if package == "." else re.sub(r"/v\d+$", "", package)
    return path.rpartition("/")[2]


def _explain(group: Group, log: Path) -> HarnessFault | MissingPrerequisite:
    """Turn the log of a failed build into an error that helps."""
    printed = log.read_text(errors="replace").splitlines()
    # One missing module is reported once for each package of it.
    lines = list(dict.fromkeys(line for line in printed if not line.startswith("go: downloading")))
    last = "\n".join(f"  {line}" for line in lines[-6:])
    message = f"building {group.name} {group.version} failed; {log} ends with:\n{last}"
    text = "\n".join(lines)
    if re.search(r"no space left on device|disk quota exceeded", text):
        return MissingPrerequisite(message, hint=_NO_SPACE_HINT)
    if re.search(r'dial tcp|\bGet "http|reading https?://|module lookup disabled|i/o timeout|TLS handshake', text):
        return MissingPrerequisite(
            message,
            hint="Go modules cannot be downloaded: check the network and Go's proxy (go env GOPROXY), then try again",
        )
    if "checksum mismatch" in text:
        return HarnessFault(message, hint="a downloaded module is not what go.sum pins; clean with: go clean -modcache")
    return HarnessFault(message, hint="try again; if it stays, clean Go's cache with: go clean -cache")
