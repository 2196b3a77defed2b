"""Container images of the lab: built with buildah from our Dockerfiles, kept in the lab registry's storage.

No image is pulled from anywhere. The base, ``debian:trixie-slim``, is made by mmdebstrap under that name, so that the
same Dockerfiles build with Docker too. The registry's storage is a cache: an image is built again only when something
it is made of changed, and its blobs are verified on every use.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness import wait
from harness.errors import HarnessFault, MissingPrerequisite
from harness.progress import Phase, Progress

__all__ = ["ImageSpec", "ensure", "registry_configuration", "registry_storage"]

BASE = "localhost/debian:trixie-slim"
_BASE_PACKAGES = ("ca-certificates",)
# Part of every key: raise it when the way of building changes what comes out.
_RECIPE = "1"
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image to build."""

    reference: str
    """Full name, such as ``docker.io/amazon/aws-cli:latest``."""
    context: Path
    """Directory with a Dockerfile, and what it copies."""
    extra_files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Name in the context → file that is added to it."""

    @property
    def repository(self) -> str:
        """Name in the lab's registry, which serves all hosts: the reference without host and tag."""
        return self.reference.partition("/")[2].rpartition(":")[0]

    @property
    def tag(self) -> str:
        """Tag of the reference."""
        return self.reference.rpartition(":")[2]

    def files(self) -> list[tuple[str, Path]]:
        """Return everything the image is made of: (name in the context, file), sorted."""
        own = [
            (str(path.relative_to(self.context)), path)
            for path in self.context.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
        ]
        return sorted([*own, *self.extra_files.items()])

    def key(self) -> str:
        """Return a digest of everything that decides what the image contains."""
        digest = hashlib.sha256(f"{_RECIPE} {self.reference} {_BASE_PACKAGES}".encode())
        for name, path in self.files():
            digest.update(f"{name} {path.stat().st_mode & 0o777:o} ".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:32]


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
            "log": {"level": "warn", "accesslog": {"disabled": True}},
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
        MissingPrerequisite: The base could not be fetched.
        HarnessFault: A build failed; the text has its last lines.
    """
    store = registry_storage(cache)
    (cache / "images").mkdir(parents=True, exist_ok=True)
    with progress.phase("images", total=len(specs)) as phase, _locked(cache / "images" / ".lock"):
        with ThreadPoolExecutor() as pool:
            present = list(pool.map(lambda spec: _is_present(cache, store, spec, phase), specs))
        wanted = [spec for spec, there in zip(specs, present, strict=True) if not there]
        if not wanted:
            return
        builder = _Builder(cache)
        builder.prepare(phase)
        with _running_registry(registry, cache) as address:
            for spec in wanted:
                phase.step(f"building {spec.reference}")
                digest = builder.build_and_push(spec, address)
                _record(cache, spec).write_text(json.dumps({"key": spec.key(), "digest": digest}))


def _record(cache: Path, spec: ImageSpec) -> Path:
    return cache / "images" / f"{spec.repository.replace('/', '_')}_{spec.tag}.json"


def _is_present(cache: Path, store: Path, spec: ImageSpec, phase: Phase) -> bool:
    """Tell whether the image as it would be built now is in the registry's storage, unharmed."""
    try:
        record: dict[str, str] = json.loads(_record(cache, spec).read_text())
        if record["key"] != spec.key():
            return False
        root = store / "docker/registry/v2"
        link = root / "repositories" / spec.repository / "_manifests/tags" / spec.tag / "current/link"
        manifest = json.loads(_verified(root, link.read_text()))
        for part in [manifest["config"], *manifest["layers"]]:
            _verified(root, part["digest"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError):
        phase.note(f"the cached image {spec.reference} is damaged; building it again")
        # The registry would not write a blob that it has: remove the damaged ones, or they stay for ever.
        shutil.rmtree(store)
        return False
    return link.read_text() == record["digest"]


def _verified(root: Path, digest: str) -> bytes:
    """Return a blob of the registry's storage.

    Raises:
        ValueError: Its content does not have the digest.
    """
    algorithm, _, value = digest.strip().partition(":")
    content = (root / "blobs" / algorithm / value[:2] / value / "data").read_bytes()
    if hashlib.sha256(content).hexdigest() != value:
        raise ValueError(digest)
    return content


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _running_registry(program: Path, cache: Path) -> Iterator[str]:
    """Run the registry on loopback while images are pushed; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    configuration = cache / "images" / "push-registry.json"
    configuration.write_text(registry_configuration(cache, address, read_only=False))
    log = (cache / "logs" / "push-registry.log").open("w")
    with log, subprocess.Popen([program, "serve", configuration], stdout=log, stderr=log, stdin=subprocess.DEVNULL) as process:
        try:
            wait.until(
                lambda: _answers(address),
                what="the image registry to answer",
                timeout=20,
                stop=lambda _: f"it ended; see {log.name}" if process.poll() is not None else None,
            )
            yield address
        finally:
            process.terminate()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


class _Builder:
    """buildah with a storage of its own, so that nobody's images are touched."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._log = cache / "logs" / "images.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_text("")
        storage = cache / "buildah"
        storage.mkdir(parents=True, exist_ok=True)
        self._buildah = ["buildah", f"--root={storage / 'root'}", f"--runroot={storage / 'run'}"]
        self._buildah += [f"--registries-conf={self._registries()}"]

    def _registries(self) -> Path:
        """Write a configuration in which no short name leads anywhere: nothing is ever pulled."""
        file = self._cache / "images" / "registries.conf"
        file.write_text("unqualified-search-registries = []\n")
        return file

    def prepare(self, phase: Phase) -> None:
        """Remove what an interrupted build left, and make the base image unless it is there."""
        self._run([*self._buildah, "rm", "--all"], "removing leftovers of an interrupted build")
        done = subprocess.run([*self._buildah, "inspect", "--type=image", BASE], capture_output=True, check=False)
        if done.returncode == 0:
            return
        phase.note(f"making the base image {BASE} from Debian's packages")
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=".base-") as directory:
            tar = Path(directory) / "base.tar"
            packages = ",".join(_BASE_PACKAGES)
            bootstrap = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--include={packages}", "trixie", tar]
            self._run(
                bootstrap,
                "making the base image",
                hint="Debian's package archive must be reachable (mmdebstrap trixie); check the network and try again",
            )
            (Path(directory) / "Dockerfile").write_text("FROM scratch\nADD base.tar /\nCMD [\"bash\"]\n")
            self._run([*self._buildah, "bud", "--quiet", f"--tag={BASE}", directory], "making the base image")

    def build_and_push(self, spec: ImageSpec, registry: str) -> str:
        """Build an image, push it, and return the digest of its manifest."""
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=".context-") as directory:
            for name, path in spec.files():
                target = Path(directory) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
            image = f"localhost/podid-build/{spec.repository}:{spec.tag}"
            command = [*self._buildah, "bud", "--isolation=chroot", "--pull-never", "--quiet", f"--tag={image}"]
            if Path(_CA_BUNDLE).exists():
                # A machine behind its own CA: package indexes are verified with the machine's bundle. A mount, so that
                # it does not become part of the image.
                command += [f"--volume={_CA_BUNDLE}:{_CA_BUNDLE}:ro"]
            self._run([*command, directory], f"building {spec.reference}")
            digest_file = Path(directory) / "digest"
            target = f"docker://{registry}/{spec.repository}:{spec.tag}"
            push = ["push", "--quiet", "--tls-verify=false", f"--digestfile={digest_file}", image, target]
            self._run([*self._buildah, *push], f"storing {spec.reference}")
            self._run([*self._buildah, "rmi", "--force", image], f"removing the working copy of {spec.reference}")
            return digest_file.read_text().strip()

    def _run(self, command: Sequence[str | Path], what: str, hint: str = "") -> None:
        """Run a command in mount and PID namespaces of its own: whatever kills it leaves no mount behind."""
        wrapped = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *map(str, command)]
        environment = os.environ | {"TMPDIR": str(self._cache), "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            wrapped, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        with self._log.open("a") as log:
            log.write(f"$ {' '.join(map(str, command))}\n{done.stdout}")
        if done.returncode == 0:
            return
        last = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-8:])
        message = f"{what} failed; {self._log} ends with:\n{last}"
        if "No space left on device" in done.stdout:
            raise MissingPrerequisite(message, hint="free some space, or move the cache with PODID_CACHE_DIR")
        if hint:
            raise MissingPrerequisite(message, hint=hint)
        raise HarnessFault(message, hint="check the network and try again; nothing half-made was kept")
