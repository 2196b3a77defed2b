"""LocalStack's own Python environment: found, built from a lock file of hashes, verified, kept.

Only this environment needs Python 3.12 or 3.13; the harness runs on others too.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from uv import find_uv_bin

from harness.errors import HarnessFault, MissingPrerequisite

__all__ = ["Environment", "ensure"]

_LOCK = Path(__file__).parent / "requirements.txt"
_CHECKOUT = Path(__file__).resolve().parents[3]
_MARKER = "complete.json"
_VERSIONS = ("3.13", "3.12")
"""Pythons that LocalStack 4.14.0 runs on, the best first."""

# The build backend is one of the locked packages: building ours needs no network.
_OUR_PACKAGE = ("--no-deps", "--no-build-isolation", "--no-sources")
_PROBE = "import sys, json, ssl, sqlite3; print(json.dumps([sys.executable, *sys.version_info[:3]]))"


class _Phase(Protocol):
    def step(self, text: str) -> None: ...


class _Progress(Protocol):
    def phase(self, name: str, total: int = 0) -> contextlib.AbstractContextManager[_Phase]: ...


@dataclass(frozen=True, slots=True)
class Environment:
    """A complete environment."""

    directory: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"


@dataclass(frozen=True, slots=True)
class _Interpreter:
    path: Path
    version: tuple[int, int, int]

    @property
    def minor(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


def ensure(cache: Path, progress: _Progress, checkout: Path = _CHECKOUT) -> Environment:
    """Return the environment, building it when it is not there or damaged.

    Args:
        cache: Directory for what is built once; environments of several locks, Pythons and checkouts live side by side.
        progress: Told what is going on.
        checkout: Checkout whose plugin the environment loads.

    Raises:
        MissingPrerequisite: There is no usable Python and none can be downloaded, or packages cannot be installed.
    """
    with progress.phase("localstack", total=3) as phase:
        phase.step("looking for Python 3.13 or 3.12")
        interpreter = _find_interpreter() or _download_interpreter()
        place = cache / "localstack"
        place.mkdir(parents=True, exist_ok=True)
        directory = place / _key(interpreter, checkout)
        with _exclusive(directory.with_name(f"{directory.name}.lock")):
            phase.step(f"checking {directory.name}")
            if not _is_intact(directory):
                phase.step("installing localstack-core 4.14.0")
                _build(directory, interpreter, checkout)
        return Environment(directory)


def find(cache: Path, checkout: Path = _CHECKOUT) -> Environment | None:
    """Return the environment if it is in the cache, whole, for a Python of this machine; nothing is built."""
    interpreter = _find_interpreter()
    if interpreter is None:
        return None
    directory = cache / "localstack" / _key(interpreter, checkout)
    return Environment(directory) if _is_intact(directory) else None


def _key(interpreter: _Interpreter, checkout: Path) -> str:
    """Name an environment after everything that it is made of."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    parts = {
        "lock": hashlib.sha256(_LOCK.read_bytes()).hexdigest(),
        "python": [str(interpreter.path), *interpreter.version],
        "checkout": str(checkout),
        "project": [project["version"], project.get("entry-points", {})],
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{interpreter.minor}-{digest[:16]}"


@contextlib.contextmanager
def _exclusive(path: Path) -> Generator[None]:
    """Keep two builders apart; the kernel drops the lock with its holder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- interpreter ----------------------------------------------------------------------------------------------------


def _find_interpreter() -> _Interpreter | None:
    """Return the best interpreter that runs: a shim that exists may still exit with 127."""
    for version in _VERSIONS:
        for path in _candidates(version):
            interpreter = _probe(path)
            if interpreter and interpreter.minor == version:
                return interpreter
    return None


def _candidates(version: str) -> Iterator[Path]:
    """Yield paths that may be this Python: on PATH, pyenv's, our own, uv's; asking uv is slow, so it comes last."""
    on_path = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    for directory in on_path:
        yield directory / f"python{version}"
    # Not Path.glob: it raises where the directory may not be read, as after su.
    for directory in map(Path, sorted(glob.glob(f"{glob.escape(str(_pyenv_root()))}/versions/{version}*/bin"))):  # noqa: PTH207
        yield directory / f"python{version}"
    yield Path(sys.executable)
    yield from _managed_by_uv()


def _pyenv_root() -> Path:
    if root := os.environ.get("PYENV_ROOT"):
        return Path(root)
    done = _run(["pyenv", "root"]) if shutil.which("pyenv") else None
    return Path(done.stdout.strip()) if done and done.returncode == 0 else Path.home() / ".pyenv"


def _managed_by_uv() -> list[Path]:
    done = _run([find_uv_bin(), "python", "list", "--only-installed", "--output-format", "json", "--no-config"])
    try:
        return [Path(entry["path"]) for entry in json.loads(done.stdout) if entry.get("path")]
    except (ValueError, KeyError, TypeError):
        return []


def _probe(path: Path) -> _Interpreter | None:
    if not os.access(path, os.X_OK):
        return None
    done = _run([str(path), "-I", "-c", _PROBE])
    try:
        executable, major, minor, micro = json.loads(done.stdout)
    except (ValueError, TypeError):
        return None
    return _Interpreter(Path(executable), (major, minor, micro))


def _download_interpreter() -> _Interpreter:
    done = _run([find_uv_bin(), "python", "install", _VERSIONS[0], "--no-config"], timeout=600)
    for path in _managed_by_uv():
        interpreter = _probe(path)
        if interpreter and interpreter.minor == _VERSIONS[0]:
            return interpreter
    raise MissingPrerequisite(
        f"LocalStack needs Python 3.13 or 3.12; none runs here, and uv could not install one:\n{done.stderr.strip()}",
        hint="install Python 3.13, for example with: uv python install 3.13",
    )


# --- environment ----------------------------------------------------------------------------------------------------


def _build(directory: Path, interpreter: _Interpreter, checkout: Path) -> None:
    """Build beside the final place and rename: what has the final name is complete."""
    draft = directory.with_name(f".{directory.name}.draft")
    try:
        # A second time without uv's cache: its files are linked into environments, so that damage there comes back.
        for uncached in ((), ("--no-cache",)):
            for leftover in (draft, directory):
                shutil.rmtree(leftover, ignore_errors=True)
            _install(draft, interpreter, checkout, uncached)
            failure = _failure_of(draft)
            if not failure:
                (draft / _MARKER).write_text(json.dumps(_inventory(draft)))
                draft.rename(directory)
                return
        raise HarnessFault(f"LocalStack was installed and does not run:\n{failure}")
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _install(draft: Path, interpreter: _Interpreter, checkout: Path, uncached: Sequence[str]) -> None:
    _uv("venv", "--relocatable", "--python", str(interpreter.path), str(draft))
    install = ("pip", "install", "--python", str(draft / "bin" / "python"), *uncached)
    _uv(*install, "--require-hashes", "-r", str(_LOCK))
    _uv(*install, *_OUR_PACKAGE, "-e", str(checkout))


def _is_intact(directory: Path) -> bool:
    """Tell whether an environment still has every file that it was built with, and its interpreter runs."""
    try:
        expected = json.loads((directory / _MARKER).read_text())
    except (OSError, ValueError):
        return False
    return expected == _inventory(directory) and _probe(directory / "bin" / "python") is not None


def _failure_of(directory: Path) -> str:
    """Return why LocalStack cannot be imported, empty if it can."""
    probe = "import localstack.services.plugins, moto.iam.models; print(localstack.constants.VERSION)"
    done = _run([str(directory / "bin" / "python"), "-I", "-c", probe], timeout=120)
    return "" if done.stdout.endswith("4.14.0\n") else done.stderr.strip() or done.stdout.strip() or "no output"


def _inventory(directory: Path) -> dict[str, str]:
    """Return a digest of names and sizes of all files but caches, and of the links to the interpreter."""
    digest = hashlib.sha256()
    for root, directories, files in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in sorted(files):
            path = Path(root, name)
            if name == _MARKER:
                continue
            size = path.readlink() if path.is_symlink() else path.stat().st_size
            digest.update(f"{path.relative_to(directory)}\0{size}\n".encode())
    return {"files": digest.hexdigest()}


def _uv(*arguments: str) -> None:
    done = _run([find_uv_bin(), *arguments, "--no-config", "--quiet"], timeout=600)
    if done.returncode != 0:
        text = done.stderr.strip()
        if re.search(r"network|connect|dns|timed out|resolve host", text, re.IGNORECASE):
            raise MissingPrerequisite(
                f"LocalStack's environment cannot be installed:\n{text}", hint="check the network and run again"
            )
        raise HarnessFault(f"LocalStack's environment cannot be installed:\n{text}")


def _run(command: Sequence[str], timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a program; one that cannot be started or hangs counts as failed."""
    # Settings of whatever virtual environment or pip runs us must not leak into another Python.
    leaking = ("PYTHON", "VIRTUAL_ENV", "PIP_", "CONDA_", "__PYVENV")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(leaking)}
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(command), 127, "", str(error))
