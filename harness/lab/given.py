"""Agents and webhooks that somebody else built: the images that a lab runs instead of ours.

A lab keeps a copy of each in its directory, so that every cluster it gets later runs the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from harness.errors import HarnessFault, UsageError
from harness.image_lock import built
from harness.images import ImageSpec

__all__ = [
    "PREVIOUS_VERSION",
    "GivenImage",
    "Role",
    "lab_images",
    "note_references",
    "previous_images",
    "read_given",
    "take_in",
]

Role = Literal["agent", "webhook"]

PREVIOUS_VERSION = "0.0.0"
"""What our own agent and webhook call themselves when they play a release that came before."""

_REFERENCE = re.compile(r"[\w.:/@-]+")
_HOW_TO_SAVE = "write one image into the file with: docker save --output FILE IMAGE"


@dataclass(frozen=True, slots=True)
class GivenImage:
    """An image that a lab was given."""

    source: str
    """What the person named: a reference, or a file."""
    sha256: str
    """Digest of the archive."""
    archive: str
    """The lab's copy; empty where clusters pull by themselves."""

    def is_from(self, source: str) -> bool:
        """Tell whether a source still names this image, as far as that is seen without asking an engine."""
        return source == self.source and (not Path(source).is_file() or _sha256(Path(source)) == self.sha256)

    def spec(self, role: Role) -> ImageSpec:
        """Return it under a name of the lab: neither tag nor registry of the original decide what a node runs.

        Where there is no copy, they do.
        """
        if not self.archive:
            return ImageSpec(self.source, Path())
        return ImageSpec(f"docker.io/podid/given-{role}:{self.sha256[:12]}", Path(self.archive))


def take_in(directory: Path, sources: Mapping[Role, str], export: Callable[[str, Path], None]) -> None:
    """Copy images into a lab's directory and note what they are.

    Args:
        directory: Where the copies are kept.
        sources: Archive that ``docker save`` wrote, or a reference.
        export: Writes the image of a reference to a file.

    Raises:
        UsageError: There is no such archive, or it is none of one image.
    """
    directory.mkdir(exist_ok=True)
    found: dict[Role, GivenImage] = {}
    for role, source in sources.items():
        copy = directory / f"{role}.tar"
        if Path(source).is_file():
            shutil.copyfile(source, copy)
        elif source.endswith(".tar") or not _REFERENCE.fullmatch(source):
            raise UsageError(f"there is no file {source}", hint=_HOW_TO_SAVE)
        else:
            export(source, copy)
        _require_one_image(copy, source)
        found[role] = GivenImage(source, _sha256(copy), str(copy))
    _notes(directory).write_text(json.dumps({role: asdict(image) for role, image in found.items()}))


def note_references(directory: Path, sources: Mapping[Role, str]) -> None:
    """Note images that the clusters pull by themselves.

    Args:
        directory: Where the notes are kept.
        sources: References.

    Raises:
        UsageError: One is none.
    """
    for source in sources.values():
        if Path(source).is_file() or not _REFERENCE.fullmatch(source):
            raise UsageError(
                f"{source} is no reference of an image",
                hint="a cluster that the harness did not create pulls its images: push it, and name its reference",
            )
    directory.mkdir(exist_ok=True)
    notes = {role: asdict(GivenImage(source, "", "")) for role, source in sources.items()}
    _notes(directory).write_text(json.dumps(notes))


def read_given(directory: Path) -> dict[Role, GivenImage]:
    """Return what a lab was given; nothing where there is no such directory."""
    notes = _notes(directory)
    return {role: GivenImage(**data) for role, data in json.loads(notes.read_text()).items()} if notes.exists() else {}


def lab_images(given: Mapping[Role, GivenImage]) -> dict[str, ImageSpec]:
    """Return the images that every cluster of a lab can use, by their name in ``images.lock``."""
    ours = {name: built(name) for name in ("webhook", "agent", "aws-cli")}
    return ours | {role: given[role].spec(role) for role in get_args(Role) if role in given}


def previous_images(directory: Path, now: Mapping[Role, GivenImage]) -> dict[Role, ImageSpec]:
    """Return the images that upgrades begin with: those taken in for it, else ours of another version.

    Of what is somebody else's now there is no other version unless it is given.

    Args:
        directory: What was taken in, and where what is needed for ours is kept.
        now: What the lab was given instead of ours.
    """
    given = read_given(directory)
    roles: tuple[Role, ...] = get_args(Role)
    images: dict[Role, ImageSpec] = {role: image.spec(role) for role, image in given.items()}
    for role in roles:
        if role not in {*given, *now}:
            images[role] = _of_another_version(role, directory)
    return images


def _of_another_version(role: Role, directory: Path) -> ImageSpec:
    """Return our own image with another version in it: another image, which says so itself."""
    module = f"podid_{role}/__init__.py"
    text = (built(role).context / module).read_text()
    changed, count = re.subn(r'^__version__ = ".+"$', f'__version__ = "{PREVIOUS_VERSION}"', text, flags=re.MULTILINE)
    if count != 1:
        raise HarnessFault(f"{module} of the {role} does not say its version in one line")
    file = directory / f"{role}-version.py"
    file.write_text(changed)
    return built(f"previous-{role}", {module: file})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _notes(directory: Path) -> Path:
    return directory / "given.json"


def _require_one_image(archive: Path, source: str) -> None:
    try:
        with tarfile.open(archive) as file:
            member = file.extractfile("manifest.json")
            images: list[object] = json.load(member) if member else []
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise UsageError(f"{source} is no archive of an image: {error}", hint=_HOW_TO_SAVE) from error
    if len(images) != 1:
        raise UsageError(f"{source} holds {len(images)} images, not one", hint=_HOW_TO_SAVE)
