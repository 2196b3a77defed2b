"""Images, unpacked once: what containerd makes of them is kept in the cache, and a new node begins with a clone of it.

Files are shared by hard links where they can be: containerd only ever adds and removes files of content and snapshots,
and containers write to layers of their own. Its databases it changes, so each clone has its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from harness import images, limits, wait
from harness.errors import HarnessFault
from harness.images import ImageSpec
from harness.progress import Phase, Progress

__all__ = ["clone", "unpacked", "write_mirrors"]

_MIRRORED = (
    "docker.io",
    "public.ecr.aws",
    "registry.k8s.io",
    "oci.external-secrets.io",
    "602401143452.dkr.ecr.eu-west-1.amazonaws.com",
)
_DATABASES = "*/*.db"
_HALF_MADE = ".making"


def unpacked(specs: Sequence[ImageSpec], cache: Path, programs: Mapping[str, Path], progress: Progress) -> Path:
    """Return the store of images that are in the registry's storage; unpack them if there is none.

    Args:
        specs: The images.
        cache: The harness's cache directory.
        programs: Name → path of containerd, ctr and registry.
        progress: Where to report.

    Raises:
        HarnessFault: An image could not be unpacked; the text has containerd's last words.
    """
    directory = cache / "unpacked"
    with images.locked(cache):
        store = directory / _key(specs, cache, programs["containerd"])
        if not store.exists():
            with progress.phase("unpacking", total=len(specs)) as phase:
                if directory.exists():
                    # Nodes have links of their own to what they need of others.
                    shutil.rmtree(directory)
                directory.mkdir(mode=0o700, parents=True)
                _unpack(specs, directory / _HALF_MADE, cache, programs, phase)
                (directory / _HALF_MADE).rename(store)
    return store


def _key(specs: Sequence[ImageSpec], cache: Path, containerd: Path) -> str:
    """Return a digest of everything that decides what the store contains."""
    parts = [containerd.parent.name, *sorted(f"{spec.reference}@{images.stored_digest(spec, cache)}" for spec in specs)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def clone(store: Path, root: Path) -> None:
    """Let a containerd that has not run yet begin with the images of a store; with none if the store is gone.

    Args:
        store: What :func:`unpacked` returned; a later start may have made another one in its place.
        root: The directory that will be its root; must not exist.
    """
    with images.locked(store.parents[1], shared=True):
        if not store.exists():
            return
        command = ["cp", "--archive", *(["--link"] if _can_link(store, root.parent) else []), store, root]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise HarnessFault(
                f"a node cannot be given its images: {done.stdout.strip()[-500:]}",
                hint=f"let them be unpacked anew: rm -r {store.parent}",
            )
        for database in store.glob(_DATABASES):
            own = root / database.relative_to(store)
            own.unlink()
            shutil.copy2(database, own)


def _can_link(store: Path, directory: Path) -> bool:
    """Tell by trying: two mounts of one file system share no links, and look like one to everybody who asks."""
    probe = directory / ".link"
    try:
        probe.hardlink_to(next(store.glob(_DATABASES)))
    except OSError:
        return False
    probe.unlink()
    return True


def write_mirrors(directory: Path, registry: str) -> None:
    """Send every pull to a registry of ours: it holds only what the lab built or was given, and there is no way out.

    Args:
        directory: Where containerd looks for what it must know of registries; created.
        registry: ``host:port``, plain HTTP.
    """
    for host in _MIRRORED:
        (directory / host).mkdir(parents=True, exist_ok=True)
        (directory / host / "hosts.toml").write_text(
            f'server = "http://{registry}"\n\n[host."http://{registry}"]\n  capabilities = ["pull", "resolve"]\n'
        )


def _unpack(specs: Sequence[ImageSpec], root: Path, cache: Path, programs: Mapping[str, Path], phase: Phase) -> None:
    # The path of a socket holds 107 bytes, and caches may have long names.
    with (
        tempfile.TemporaryDirectory(prefix="podid-") as name,
        images.running_registry(programs["registry"], cache) as registry,
    ):
        scratch, log = Path(name), cache / "logs" / "unpacking.log"
        write_mirrors(scratch / "certs.d", registry)
        with _running_containerd(programs["containerd"], root, scratch, log) as socket:
            for spec in specs:
                phase.step(spec.reference)
                command = [programs["ctr"], f"--address={socket}", "--namespace=k8s.io", "images", "pull"]
                command += [f"--hosts-dir={scratch / 'certs.d'}", spec.reference]
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
                if done.returncode != 0:
                    raise HarnessFault(
                        f"{spec.reference} cannot be unpacked: {done.stdout.strip()[-500:]}",
                        hint=f"see: {log}; let the images be built anew: rm -r {images.registry_storage(cache)}",
                    )


@contextlib.contextmanager
def _running_containerd(program: Path, root: Path, scratch: Path, log: Path) -> Generator[Path]:
    """Run a containerd that unpacks images and nothing else; yield its socket, and let it end by itself afterwards."""
    socket = scratch / "containerd.sock"
    configuration = scratch / "containerd.toml"
    configuration.write_text(
        f"""\
version = 3
root = "{root}"
state = "{scratch / "state"}"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]

[grpc]
  address = "{socket}"
"""
    )
    # It must not outlive a podid that is killed, and nor must what it mounts, which it does below TMPDIR.
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", program, "--config", configuration]
    environment = os.environ | {"TMPDIR": str(scratch)}
    with (
        log.open("w") as file,
        subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file) as process,
    ):
        try:
            wait.until(
                socket.exists,
                what="the containerd that unpacks images to listen",
                timeout=limits.PROCESS_START,
                stop=lambda _: f"it ended; see {log}" if process.poll() is not None else None,
            )
            yield socket
        finally:
            process.terminate()
