"""buildah with storage and settings of its own, over a Debian base of our own: nothing is pulled.

The same Dockerfiles build with Docker: the base has the name and the settings of Debian's slim image.
"""

from __future__ import annotations

import configparser
import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from harness.errors import HarnessFault, MissingPrerequisite
from harness.progress import Phase

__all__ = ["RECIPE", "Builder", "host_settings"]

_BASE = "localhost/debian:trixie-slim"
_HOST_CA = "/etc/ssl/build-host.crt"
_PIP_CONFIGURATION = "/etc/pip.conf"
_APT_CONFIGURATION = "/etc/apt/apt.conf.d/zz-build-host"
_KEEP_NOTHING = 'APT::Keep-Downloaded-Packages "false"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";'
_BOOTSTRAP = (
    "--format=tar",
    "--variant=minbase",
    "--include=ca-certificates",
    # As in Debian's slim image for containers: no documentation, no fsync per file, no packages kept.
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale")),
    "--dpkgopt=force-unsafe-io",
    '--aptopt=Acquire::Languages "none"',
    # By a hook: as an option it would hold for mmdebstrap itself, which needs them.
    f"""--customize-hook=echo '{_KEEP_NOTHING}' > "$1/etc/apt/apt.conf.d/keep-nothing"; rm "$1"/var/cache/apt/*.bin""",
    # Builds mount the machine's settings over these: a mount without a place would leave one in the image.
    f'--customize-hook=touch "$1{_HOST_CA}" "$1{_PIP_CONFIGURATION}" "$1{_APT_CONFIGURATION}"',
    "trixie",
)
RECIPE = sha256(repr((_BOOTSTRAP, "2")).encode()).hexdigest()[:16]
"""Digest of how images are built: raise the number when it changes what comes out."""

_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora
)
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
# All images of the lab have about 40; an agent under development adds five with each build.
_MOST_LAYERS = 150
_NO_SPACE_HINT = "free some space, or move the cache to another disk with PODID_CACHE_DIR"


class Builder:
    """Builds one image after the other; the layers they share are made once."""

    def __init__(self, cache: Path, phase: Phase) -> None:
        """Prepare buildah's storage and configuration.

        Args:
            cache: The harness's cache directory.
            phase: Told what takes long.
        """
        self._phase = phase
        self._home = cache / "buildah"
        self._log = cache / "logs" / "images.log"
        self._scratch = self._home / "scratch"
        for directory in (self._log.parent, self._home / "library"):
            directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        self._log.write_text("")
        self._configure()
        self._buildah = self._command("overlay")
        if self._run([*self._buildah, "info"]).returncode != 0:
            # The cache lies on a file system that overlays cannot lie on, such as another overlay.
            self._buildah = self._command("vfs")
        self._check([*self._buildah, "rm", "--all"], "removing what an interrupted build left")

    def _command(self, driver: str) -> list[str]:
        # Storage of two drivers does not mix.
        places = [f"--root={self._home / driver}", f"--runroot={self._home / 'run'}"]
        return ["buildah", *places, f"--storage-driver={driver}", f"--registries-conf={self._home / 'registries.conf'}"]

    def _configure(self) -> None:
        """Write configuration files that take the place of the machine's."""
        # A short name leads to local images only.
        (self._home / "registries.conf").write_text("unqualified-search-registries = []\n")
        (self._home / "storage.conf").write_text('[storage]\ndriver = "overlay"\n')
        (self._home / "containers.conf").write_text("")
        (self._home / "auth.json").write_text("{}")

    def make_base(self) -> None:
        """Make the base image, unless it is there.

        Raises:
            MissingPrerequisite: Debian's packages cannot be fetched.
        """
        versioned = f"localhost/podid-base:{RECIPE}"
        if self._run([*self._buildah, "inspect", "--type=image", versioned]).returncode != 0:
            self._phase.note("making the base image debian:trixie-slim from Debian's packages")
            context = self._scratch / "base"
            context.mkdir()
            self._check(
                ["mmdebstrap", "--quiet", *_BOOTSTRAP, context / "base.tar"],
                "making the base image",
                hint="mmdebstrap must reach Debian's package archive: check the network, and http_proxy if you use one",
            )
            (context / "Dockerfile").write_text('FROM scratch\nADD base.tar /\nCMD ["bash"]\n')
            self._check([*self._buildah, "bud", "--quiet", f"--tag={versioned}", context], "making the base image")
            shutil.rmtree(context)
        self._check([*self._buildah, "tag", versioned, _BASE], "naming the base image")

    def build(self, name: str, files: Sequence[tuple[str, Path]]) -> None:
        """Build an image from files of its context, among them its Dockerfile.

        Args:
            name: Name and tag in the builder's storage.
            files: Name in the context → file.

        Raises:
            HarnessFault: It failed; the text has the last lines.
        """
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            context, host = Path(directory, "context"), Path(directory, "host")
            for target, path in files:
                (context / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, context / target)
            host.mkdir()
            command = [*self._buildah, "bud", "--isolation=chroot", "--pull-never", "--layers", f"--tag={name}"]
            command += [f"--volume={source}:{target}:ro" for target, source in host_settings(host).items()]
            self._check([*command, context], f"building {name}")

    def take_in(self, name: str, archive: Path) -> None:
        """Name the one image of an archive that ``docker save`` wrote.

        Args:
            name: Name and tag in the builder's storage.
            archive: The file.

        Raises:
            HarnessFault: It cannot be read.
        """
        printed = self._check([*self._buildah, "pull", "--quiet", f"docker-archive:{archive}"], f"reading {archive}")
        self._check([*self._buildah, "tag", printed.split()[-1], name], f"naming the image of {archive}")

    def push(self, name: str, target: str) -> str:
        """Push an image and return its digest.

        Args:
            name: Name and tag in the builder's storage.
            target: ``host:port/name:tag`` of a registry that speaks plain HTTP.
        """
        digest = self._scratch / "digest"
        # Every node unpacks every image: zstd takes a third of gzip's time.
        options = ["--quiet", "--tls-verify=false", "--compression-format=zstd", f"--digestfile={digest}"]
        self._check([*self._buildah, "push", *options, name, f"docker://{target}"], f"storing {name}")
        try:
            return digest.read_text().strip()
        finally:
            digest.unlink()

    def prune(self) -> None:
        """Remove what earlier builds left in the storage, once it is much; the next builds are full ones."""
        images = self._run([*self._buildah, "images", "--all", "--quiet"]).stdout.split()
        if len(images) > _MOST_LAYERS:
            self._check([*self._buildah, "rmi", "--prune", "--force"], "removing old layers")

    def _check(self, command: Sequence[str | Path], what: str, hint: str = "") -> str:
        """Run a command and return what it printed."""
        try:
            done = self._run(command)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise MissingPrerequisite(f"{what} failed: {error}", hint=_NO_SPACE_HINT) from error
            raise
        if done.returncode == 0:
            return done.stdout
        last = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-8:])
        message = f"{what} failed; {self._log} ends with:\n{last}"
        if re.search("no space left on device", done.stdout, re.IGNORECASE):
            raise MissingPrerequisite(message, hint=_NO_SPACE_HINT)
        if hint:
            raise MissingPrerequisite(message, hint=hint)
        raise HarnessFault(
            message, hint=f"check the network and try again; if it stays, start afresh with: rm -r {self._home}"
        )

    def _run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a command in mount and PID namespaces of its own: whatever ends us leaves no mount and no process."""
        # buildah keeps what it knows about registries below /var/lib, whatever --root says.
        script = 'mkdir -p /var/lib/containers && mount --bind "$0" /var/lib/containers && exec "$@"'
        wrapped = [
            "setpriv",
            "--pdeathsig=KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        wrapped += ["sh", "-c", script, str(self._home / "library"), *map(str, command)]
        done = subprocess.run(
            wrapped,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        with self._log.open("a") as log:
            log.write(f"$ {' '.join(map(str, command))}\n{done.stdout}")
        return done

    def _environment(self) -> Mapping[str, str]:
        return os.environ | {
            "CONTAINERS_CONF": str(self._home / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self._home / "storage.conf"),
            "DEBIAN_FRONTEND": "noninteractive",
            "REGISTRY_AUTH_FILE": str(self._home / "auth.json"),
            "TMPDIR": str(self._scratch),
        }


def host_settings(directory: Path) -> dict[str, Path]:
    """Write the machine's package settings for a build; they are mounted, so they are not part of the image.

    Returns:
        Place in the build → file. Proxies of the environment are passed by buildah itself.
    """
    settings: dict[str, Path] = {}
    if bundle := ca_bundle(os.environ):
        settings[_HOST_CA] = bundle
    for place, text in (
        (_PIP_CONFIGURATION, pip_configuration(os.environ, has_ca=bundle is not None)),
        (_APT_CONFIGURATION, _apt_configuration(has_ca=bundle is not None)),
    ):
        settings[place] = directory / Path(place).name
        settings[place].write_text(text)
    return settings


def ca_bundle(environment: Mapping[str, str]) -> Path | None:
    """Return the file of certificates that this machine trusts."""
    named = [environment[name] for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE") if environment.get(name)]
    return next((Path(path) for path in (*named, *_CA_BUNDLES) if Path(path).is_file()), None)


def pip_configuration(environment: Mapping[str, str], *, has_ca: bool, system: Path = Path("/etc/pip.conf")) -> str:
    """Return a pip.conf with where this machine's packages come from: its files, then its environment."""
    home = Path(environment.get("HOME", "/"))
    files = [system, home / ".pip/pip.conf", home / ".config/pip/pip.conf", environment.get("PIP_CONFIG_FILE")]
    parser = configparser.RawConfigParser()
    parser.read([file for file in files if file])
    found = {
        name: value
        for section in ("global", "install")
        if parser.has_section(section)
        for name, value in parser.items(section)
    }
    found |= {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_")
    }
    wanted = {name: found[name] for name in _PIP_SETTINGS if found.get(name)} | ({"cert": _HOST_CA} if has_ca else {})
    return "\n".join(["[global]", *(f"{name} = {value}" for name, value in wanted.items()), ""])


def _apt_configuration(*, has_ca: bool) -> str:
    """Return apt's proxies as this machine has them, and the certificates it trusts."""
    lines = [f'Acquire::https::CAInfo "{_HOST_CA}";'] if has_ca else []
    if shutil.which("apt-config"):
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
        lines += re.findall(r"^Acquire::https?::Proxy(?:::\S+)? .*;$", dump, re.MULTILINE)
    return "\n".join([*lines, ""])
