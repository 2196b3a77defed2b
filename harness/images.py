"""Container images of the lab: built from our Dockerfiles, or given, and kept in the lab registry's storage.

The storage is a cache: an image is built again only when something that it is made of changed, and its blobs are
verified on every use.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import limits, wait
from harness.errors import HarnessFault
from harness.image_builder import RECIPE, Builder
from harness.progress import Phase, Progress

__all__ = [
    "REGISTRY_ENVIRONMENT",
    "ImageSpec",
    "ensure",
    "locked",
    "missing",
    "registry_configuration",
    "registry_storage",
    "running_registry",
    "stored_digest",
]

REGISTRY_ENVIRONMENT = {"OTEL_TRACES_EXPORTER": "none"}
"""What the registry program needs set: else it looks for a collector of traces on localhost, and logs its failures."""


_REPOSITORIES = "docker/registry/v2/repositories"
_BLOBS = "docker/registry/v2/blobs"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image to build, or one that somebody else built."""

    reference: str
    """Full name, such as ``docker.io/amazon/aws-cli:latest``."""
    context: Path
    """Directory with a Dockerfile, and what it copies; an archive (``docker save``) that is taken as it is."""
    extra_files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Name in the context → file that is added to it, or takes the place of the one there."""

    @property
    def is_archive(self) -> bool:
        """Whether somebody else built it."""
        return self.context.is_file()

    @property
    def repository(self) -> str:
        """Name in the lab's registry, which serves all hosts: the reference without host and tag."""
        return self.reference.partition("/")[2].rpartition(":")[0]

    @property
    def tag(self) -> str:
        """Tag of the reference."""
        return self.reference.rpartition(":")[2]

    def files(self) -> list[tuple[str, Path]]:
        """Return what the image is made of, without what .dockerignore names: (name in the context, file), sorted."""
        if self.is_archive:
            return [("image.tar", self.context)]
        rules = _ignore_rules(self.context / ".dockerignore")
        names = [(str(path.relative_to(self.context)), path) for path in self.context.rglob("*") if path.is_file()]
        own = {name: path for name, path in names if not _is_ignored(name, rules)}
        return sorted((own | dict(self.extra_files)).items())

    def key(self) -> str:
        """Return a digest of everything that decides what the image contains."""
        digest = hashlib.sha256(f"{RECIPE} {platform.machine()} {self.reference}".encode())
        for name, path in self.files():
            digest.update(f"\0{name}\0{path.stat().st_mode & 0o777:o}\0{_sha256(path)}".encode())
        return digest.hexdigest()[:32]


def _ignore_rules(file: Path) -> list[tuple[bool, re.Pattern[str]]]:
    """Return the patterns of a .dockerignore as (whether it leaves out, pattern)."""
    lines = [line.strip() for line in file.read_text().splitlines()] if file.exists() else []
    return [
        (not line.startswith("!"), re.compile(_pattern(line.removeprefix("!").strip("/"))))
        for line in lines
        if line and not line.startswith("#")
    ]


def _pattern(line: str) -> str:
    """Translate a pattern: ``**/`` is any directories, ``*`` and ``?`` stay in one; a directory's files match too."""
    translated = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", line)
    return "".join(translated.get(part) or re.escape(part) for part in parts) + r"(?:/.*)?\Z"


def _is_ignored(name: str, rules: Sequence[tuple[bool, re.Pattern[str]]]) -> bool:
    """Tell whether a file is left out: the last rule that matches decides."""
    return next((leaves_out for leaves_out, pattern in reversed(rules) if pattern.match(name)), False)


def registry_storage(cache: Path) -> Path:
    """Return the directory that holds all images."""
    return cache / "registry"


def registry_configuration(cache: Path, address: str, *, read_only: bool) -> str:
    """Return a configuration for the registry program.

    Args:
        cache: The harness's cache directory.
        address: ``host:port`` to listen on, plain HTTP.
        read_only: Whether pushes are refused.
    """
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "warn" if read_only else "info", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(registry_storage(cache))},
                "maintenance": {"readonly": {"enabled": read_only}, "uploadpurging": {"enabled": False}},
            },
            "http": {"addr": address},
        }
    )


def ensure(specs: Sequence[ImageSpec], cache: Path, registry: Path, progress: Progress) -> None:
    """Build the images that the registry's storage lacks, or that changed.

    Args:
        specs: The images that are wanted.
        cache: The harness's cache directory.
        registry: The registry program.
        progress: Where to report.

    Raises:
        MissingPrerequisite: The base could not be fetched, or the disk is full.
        HarnessFault: A build failed; the text has its last lines.
    """
    with progress.phase("images") as phase, locked(cache, phase):
        lacking, damaged = _examine(specs, cache)
        _remove(damaged, cache, phase)
        phase.total = len(lacking)
        if not lacking:
            return
        builder = Builder(cache, phase)
        with running_registry(registry, cache) as address:
            for spec in lacking:
                _record(cache, spec).unlink(missing_ok=True)
                key, name = spec.key(), f"localhost/podid-build/{spec.repository}:{spec.tag}"
                if spec.is_archive:
                    phase.step(f"storing {spec.reference}")
                    builder.take_in(name, spec.context)
                else:
                    phase.step(f"building {spec.reference}")
                    if "FROM debian:trixie-slim" in (spec.context / "Dockerfile").read_text():
                        builder.make_base()
                    builder.build(name, spec.files())
                digest = builder.push(name, f"{address}/{spec.repository}:{spec.tag}")
                _record(cache, spec).write_text(json.dumps({"key": key, "digest": digest}))
        builder.prune()
        _collect_garbage(registry, cache)


def _record(cache: Path, spec: ImageSpec) -> Path:
    return cache / "images" / f"{spec.repository.replace('/', '_')}_{spec.tag}.json"


def stored_digest(spec: ImageSpec, cache: Path) -> str:
    """Return the digest of the image that the storage has under a reference.

    Raises:
        OSError: It has none.
    """
    tag = registry_storage(cache) / _REPOSITORIES / spec.repository / "_manifests/tags" / spec.tag / "current/link"
    return tag.read_text().strip()


def missing(specs: Sequence[ImageSpec], cache: Path) -> list[ImageSpec]:
    """Return the images that are not in the storage, unharmed, as they would be built now."""
    return _examine(specs, cache)[0]


def _examine(specs: Sequence[ImageSpec], cache: Path) -> tuple[list[ImageSpec], set[str]]:
    """Return the images that must be built, and the digests of blobs that are damaged or gone."""
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(_stored_parts, [cache] * len(specs), specs))
        # Each once: images share their base.
        digests = sorted({digest for found in parts for digest in found})
        intact = pool.map(_is_intact, (_blob(cache, digest) for digest in digests), digests)
        bad = {digest for digest, is_intact in zip(digests, intact, strict=True) if not is_intact}
    lacking = [spec for spec, found in zip(specs, parts, strict=True) if not found or not bad.isdisjoint(found)]
    return lacking, bad


def _remove(damaged: set[str], cache: Path, phase: Phase) -> None:
    """Remove damaged blobs: the registry would not write a blob that it has."""
    for digest in sorted(damaged):
        with contextlib.suppress(FileNotFoundError):
            _blob(cache, digest).unlink()
            phase.note(f"a cached part of the images is damaged, and built again: {digest}")


def _stored_parts(cache: Path, spec: ImageSpec) -> set[str]:
    """Return the digests of the stored image: manifest, configuration, layers; none if it must be built."""
    try:
        record: dict[str, str] = json.loads(_record(cache, spec).read_text())
        digest = stored_digest(spec, cache)
        if record != {"key": spec.key(), "digest": digest}:
            return set()
        manifest = _blob(cache, digest).read_bytes()
    except (OSError, ValueError):
        return set()
    try:
        description: dict[str, Any] = json.loads(manifest)
        return {digest, *(part["digest"] for part in [description["config"], *description["layers"]])}
    except (ValueError, LookupError, TypeError):
        return {digest}


def _blob(cache: Path, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    return registry_storage(cache) / _BLOBS / algorithm / value[:2] / value / "data"


def _is_intact(blob: Path, digest: str) -> bool:
    try:
        return f"sha256:{_sha256(blob)}" == digest
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(cache: Path, phase: Phase | None = None, *, shared: bool = False) -> Generator[None]:
    """Let one process look at and change the images, or many look; the kernel releases the lock of one that dies.

    Args:
        cache: The harness's cache directory.
        phase: Where to say that another process has the lock.
        shared: Whether others may look meanwhile.
    """
    (cache / "images").mkdir(parents=True, exist_ok=True)
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with (cache / "images" / ".lock").open("w") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if phase:
                phase.note("another command is building images; waiting for it")
            fcntl.flock(file, how)
        yield


@contextlib.contextmanager
def running_registry(program: Path, cache: Path) -> Generator[str]:
    """Run the registry on a free port of loopback while images are pushed or unpacked; yield its address."""
    configuration = cache / "images" / "push-registry.json"
    configuration.write_text(registry_configuration(cache, "127.0.0.1:0", read_only=False))
    log = cache / "logs" / "push-registry.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # It must not outlive a podid that is killed: it accepts pushes.
    command = ["setpriv", "--pdeathsig=KILL", program, "serve", configuration]
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, env=os.environ | REGISTRY_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        ) as process,
    ):
        try:
            yield wait.until(
                lambda: _listening(log),
                what="the image registry to listen",
                timeout=limits.PROCESS_START,
                stop=lambda _: f"it ended; see {log}" if process.poll() is not None else None,
            )
        finally:
            process.terminate()


def _collect_garbage(program: Path, cache: Path) -> None:
    """Remove what no tag names any more from the registry's storage."""
    command = [program, "garbage-collect", "--delete-untagged", cache / "images" / "push-registry.json"]
    environment = os.environ | REGISTRY_ENVIRONMENT
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        last = done.stdout.strip().rpartition("\n")[2]
        raise HarnessFault(
            f"the image cache cannot be cleaned: {last}", hint=f"start afresh with: rm -r {registry_storage(cache)}"
        )


def _listening(log: Path) -> str:
    """Return the address that the registry says it listens on; empty before."""
    found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())
    return found[1] if found else ""
