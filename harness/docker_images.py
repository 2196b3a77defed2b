"""Images built by a Docker engine, and the archives that they become.

The engine's builder has no mounts, so what it must know of this machine (package index, proxies of apt, certificates)
is copied into the first layer of each stage; that layer is left out when the image is written to an archive. Every
layer above it is a difference, so nothing of this machine's settings remains.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import tarfile
import tempfile
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from docker.errors import APIError, ImageNotFound

from harness.cluster.kind.engine import Engine, explained, refusal
from harness.errors import HarnessFault, MissingPrerequisite
from harness.image_builder import host_settings
from harness.image_lock import pulled
from harness.images import ImageSpec
from harness.progress import Phase, Progress

__all__ = ["BASE", "Archive", "DockerImages"]

BASE = pulled("base").tagged
"""The name that our Dockerfiles build over."""
IMAGE_LABEL = "io.podid.image"
"""Label of images that stay in the engine: the repository they were built for."""
_RECIPE = "2"
"""Part of every key: raise it when it changes what comes out."""
_HOST_DIRECTORY = ".podid-build-host"
_SLIM = {
    # As in Debian's slim image, whatever base is there: no packages kept, no documentation, no fsync per file.
    "/etc/apt/apt.conf.d/zz-podid-build": (
        'APT::Keep-Downloaded-Packages "false"; Acquire::Languages "none";\n'
        'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
    ),
    "/etc/dpkg/dpkg.cfg.d/zz-podid-build": "".join(
        ["force-unsafe-io\n", *(f"path-exclude=/usr/share/{name}/*\n" for name in ("doc", "man", "info", "locale"))]
    ),
}
"""Place → text of settings for every build, beside this machine's."""
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_ARCHIVES_KEPT = 3


@dataclass(frozen=True, slots=True)
class Archive:
    """A ``docker-archive`` file of images."""

    path: Path
    ids: Mapping[str, str]
    """Full name → ID (``sha256:`` and the digest of the image's configuration)."""


class DockerImages:
    """Builds images with a Docker engine and keeps their archives in the cache."""

    def __init__(self, engine: Engine, cache: Path, cancelled: threading.Event) -> None:
        """Prepare; nothing is built.

        Args:
            engine: The engine.
            cache: The harness's cache directory.
            cancelled: Ends a running build soon after it is set.
        """
        self._engine = engine
        self._store = cache / "docker-images"
        self._log = cache / "logs" / "docker-images.log"
        self._cancelled = cancelled
        for directory in (self._store, self._log.parent):
            directory.mkdir(parents=True, exist_ok=True)

    def ensure_archive(self, specs: Sequence[ImageSpec], progress: Progress) -> Archive:
        """Return an archive of images as they would be built now, building what changed.

        Args:
            specs: The images.
            progress: Where to report.

        Raises:
            MissingPrerequisite: The base or packages cannot be fetched, or a disk is full.
            HarnessFault: A build failed; the text has its last lines.
        """
        with progress.phase("images") as phase, _locked(self._store / ".nodes.lock", phase):
            self._ensure_base(phase)
            path = self._archive(specs)
            if found := _intact(path):
                return found
            phase.total = len(specs) + 1
            built = [(spec.reference, self._build(spec, phase), has_settings(spec)) for spec in specs]
            phase.step("writing the archive")
            archive = self._write(path, built)
            self._prune_archives()
            return archive

    def ensure_image(self, spec: ImageSpec, progress: Progress, *, phase_name: str) -> str:
        """Return the tag of an image in the engine, content-keyed, building it when it is not there.

        Args:
            spec: The image; its reference names a repository of our own.
            progress: Where to report.
            phase_name: Name of the phase.
        """
        with progress.phase(phase_name) as phase, _locked(self._store / f".{phase_name}.lock", phase):
            self._ensure_base(phase)
            tag = self._tag(spec)
            if self._is_there(tag):
                return tag
            phase.total = 2
            image = self._build(spec, phase)
            phase.step("storing it")
            path = self._store / f"image-{self._key([spec])}.tar"
            try:
                self._write(path, [(tag, image, True)])
                with path.open("rb") as file, explained(f"loading {tag}"):
                    self._engine.client.images.load(file)
            finally:
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
            self._prune_images(spec.repository, tag)
            return tag

    def missing(self, nodes: Sequence[ImageSpec], others: Sequence[ImageSpec]) -> list[str]:
        """Say what would have to be pulled or built; nothing is.

        Args:
            nodes: Images of the archive.
            others: Images in the engine.
        """
        if not self._is_there(BASE):
            return [f"the base image {BASE}, and so every image built over it"]
        lacking = [] if _intact(self._archive(nodes)) else [f"the archive of {', '.join(s.reference for s in nodes)}"]
        return lacking + [f"the image {spec.reference}" for spec in others if not self._is_there(self._tag(spec))]

    def stored(self, nodes: Sequence[ImageSpec], others: Sequence[ImageSpec]) -> tuple[list[Path], list[str]]:
        """Return the files of the archive, and the names of the images in the engine, the base among them."""
        archive = self._archive(nodes)
        return [archive, archive.with_suffix(".json")], [BASE, *map(self._tag, others)]

    def _archive(self, specs: Sequence[ImageSpec]) -> Path:
        return self._store / f"nodes-{self._key(specs)}.tar"

    def _tag(self, spec: ImageSpec) -> str:
        return f"{spec.repository}:{self._key([spec])}"

    def _key(self, specs: Sequence[ImageSpec]) -> str:
        base = self._engine.client.images.get(BASE).id
        parts = [_RECIPE, str(base), *(spec.key() for spec in specs)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

    def _is_there(self, tag: str) -> bool:
        try:
            self._engine.client.images.get(tag)
        except ImageNotFound:
            return False
        return True

    def _ensure_base(self, phase: Phase) -> None:
        if self._is_there(BASE):
            return
        reference = pulled("base").reference
        phase.step(f"pulling {BASE}")
        try:
            with explained(f"pulling {reference}"):
                self._engine.client.images.pull(reference).tag(*BASE.split(":"))
        except HarnessFault as error:
            raise MissingPrerequisite(
                error.message, hint="check the network; without one, load it with: docker load --input FILE"
            ) from error

    # --- building ---------------------------------------------------------------------------------------------------

    def _build(self, spec: ImageSpec, phase: Phase) -> str:
        """Build an image, or take one in, and return its ID; the engine keeps its layers as a cache."""
        if spec.is_archive:
            phase.step(f"storing {spec.reference}")
            with spec.context.open("rb") as file, explained(f"loading {spec.reference}"):
                (image,) = self._engine.client.images.load(file)
            return str(image.id)
        phase.step(f"building {spec.reference}")
        name = f"podid-build/{spec.repository}:{hashlib.sha256(spec.key().encode()).hexdigest()[:12]}"
        with tempfile.TemporaryDirectory(dir=self._store) as directory:
            settings = {place: path.read_bytes() for place, path in host_settings(Path(directory)).items()}
            settings |= {place: text.encode() for place, text in _SLIM.items()}
            context = build_context(spec.files(), settings)
        proxies = {key: os.environ[key] for name in _PROXIES for key in (name, name.upper()) if os.environ.get(key)}
        lines: list[str] = []
        try:
            stream: Iterable[Mapping[str, Any]] = self._engine.client.api.build(
                fileobj=io.BytesIO(context),
                custom_context=True,
                tag=name,
                labels={IMAGE_LABEL: spec.repository},
                buildargs=proxies,
                network_mode="host",
                rm=True,
                forcerm=True,
                decode=True,
                timeout=1800,
            )
            self._follow(stream, spec, lines)
            self._prune_images(name.rpartition(":")[0], name)
            return str(self._engine.client.images.get(name).id)
        except APIError as error:
            raise refusal(f"building {spec.reference}", str(error.explanation or error)) from error
        finally:
            with self._log.open("a") as log:
                log.write(f"--- {spec.reference}\n" + "".join(lines))

    def _follow(self, stream: Iterable[Mapping[str, Any]], spec: ImageSpec, lines: list[str]) -> None:
        for entry in stream:
            if self._cancelled.is_set():
                # Closing the connection ends the build in the engine.
                raise HarnessFault(f"building {spec.reference} was given up")
            lines.append(str(entry.get("stream", "")))
            if message := entry.get("error"):
                last = "\n".join(f"  {line}" for line in "".join(lines).strip().splitlines()[-8:])
                error = refusal(f"building {spec.reference}", f"{message}; {self._log} ends with:\n{last}")
                raise type(error)(error.message, hint=error.hint or "check the network and try again")

    # --- archives ---------------------------------------------------------------------------------------------------

    def _write(self, path: Path, images: Sequence[tuple[str, str, bool]]) -> Archive:
        """Write an archive, shared layers once.

        Args:
            path: The file.
            images: Name, ID, and whether a layer has this machine's settings, which is left out.
        """
        base_layers = len(self._engine.client.images.get(BASE).attrs["RootFS"]["Layers"])
        draft = path.with_name(f".{path.name}.draft")
        ids: dict[str, str] = {}
        manifest: list[dict[str, Any]] = []
        written: set[str] = set()
        with tarfile.open(draft, "w") as archive:
            for name, image, drops_settings in images:
                with tempfile.TemporaryFile(dir=self._store) as file:
                    with explained(f"reading {name}"):
                        for chunk in self._engine.client.images.get(image).save():
                            file.write(chunk)
                    file.seek(0)
                    with tarfile.open(fileobj=file) as saved:
                        entry = _copy_image(saved, archive, written, drop=base_layers if drops_settings else None)
                manifest.append({**entry, "RepoTags": [name]})
                ids[name] = f"sha256:{entry['Config'].removesuffix('.json')}"
            _add(archive, "manifest.json", json.dumps(manifest).encode())
        description = {"ids": ids, "sha256": _sha256(draft)}
        path.with_suffix(".json").write_text(json.dumps(description))
        draft.rename(path)
        return Archive(path, ids)

    def _prune_archives(self) -> None:
        """Keep the newest archives: every change of the agent makes another."""
        archives = sorted(self._store.glob("nodes-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in archives[_ARCHIVES_KEPT:]:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)

    def _prune_images(self, repository: str, current: str) -> None:
        """Remove what earlier versions left in the engine; an image that a container uses stays."""
        with contextlib.suppress(APIError):
            self._engine.client.images.prune(filters={"dangling": True, "label": IMAGE_LABEL})
        for image in self._engine.client.images.list(name=repository):
            for tag in image.tags:
                if tag != current:
                    with contextlib.suppress(APIError):
                        self._engine.client.images.remove(tag)


def build_context(files: Sequence[tuple[str, Path]], settings: Mapping[str, bytes]) -> bytes:
    """Return a tar of an image's files with its Dockerfile changed to copy this machine's settings first.

    Args:
        files: Name in the context → file, among them ``Dockerfile``.
        settings: Place in the build → content.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in files:
            data = path.read_bytes()
            if name == "Dockerfile":
                data = with_settings(data.decode()).encode()
            _add(archive, name, data, mode=path.stat().st_mode & 0o777)
        for place, content in settings.items():
            _add(archive, _HOST_DIRECTORY + place, content)
    return buffer.getvalue()


def has_settings(spec: ImageSpec) -> bool:
    """Tell whether a layer of the built image has this machine's settings: its last stage is over our base."""
    if spec.is_archive:
        return False
    stages = [line.split()[1] for line in (spec.context / "Dockerfile").read_text().splitlines() if line[:5] == "FROM "]
    return stages[-1] == BASE


def with_settings(dockerfile: str) -> str:
    """Return a Dockerfile whose stages over our base begin with a copy of the machine's settings."""
    lines: list[str] = []
    for line in dockerfile.splitlines():
        lines.append(line)
        if line.split()[:2] == ["FROM", BASE]:
            lines.append(f"COPY {_HOST_DIRECTORY}/ /")
    return "\n".join([*lines, ""])


def without_layer(configuration: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return an image's configuration without one of its layers, its history and what the builder noted for itself.

    Args:
        configuration: The configuration; unchanged.
        index: Number of the layer.
    """
    kept = {key: value for key, value in configuration.items() if key not in {"container", "container_config"}}
    layers = list(kept["rootfs"]["diff_ids"])
    del layers[index]
    history: list[Any] = list(kept.get("history", []))
    of_layers = [number for number, entry in enumerate(history) if not entry.get("empty_layer")]
    if index < len(of_layers):
        del history[of_layers[index]]
    return {**kept, "rootfs": {**kept["rootfs"], "diff_ids": layers}, "history": history}


def _copy_image(
    saved: tarfile.TarFile, archive: tarfile.TarFile, written: set[str], *, drop: int | None
) -> dict[str, Any]:
    """Copy the one image of an archive, without layer number ``drop``, and return its entry for the manifest."""
    (entry,) = json.load(_open(saved, "manifest.json"))
    text = _open(saved, entry["Config"]).read()
    configuration: dict[str, Any] = json.loads(text)
    names = list(zip(configuration["rootfs"]["diff_ids"], entry["Layers"], strict=True))
    if drop is not None:
        del names[drop]
        text = json.dumps(without_layer(configuration, drop), sort_keys=True).encode()
    config = f"{hashlib.sha256(text).hexdigest()}.json"
    layers: list[str] = []
    for diff_id, member in names:
        layer = f"{diff_id.partition(':')[2]}/layer.tar"
        layers.append(layer)
        if layer not in written:
            source = _open(saved, member)
            info = tarfile.TarInfo(layer)
            info.size = source.seek(0, io.SEEK_END)
            source.seek(0)
            archive.addfile(info, source)
            written.add(layer)
    if config not in written:
        _add(archive, config, text)
        written.add(config)
    return {"Config": config, "Layers": layers}


def _open(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise HarnessFault(f"the engine's archive has no file {name}")
    return file


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))


def _intact(path: Path) -> Archive | None:
    """Return an archive if it is there with exactly the bytes that were written."""
    try:
        description = json.loads(path.with_suffix(".json").read_text())
        if description["sha256"] == _sha256(path):
            return Archive(path, description["ids"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(path: Path, phase: Phase) -> Generator[None]:
    """Let one process look and build; the kernel releases the lock of a process that dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            phase.note("another command is building images; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
