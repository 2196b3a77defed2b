"""``images.lock``: every container image of a lab; what is pulled, by digest.

A further image is an entry in that file, and where it is built an :class:`ImageSpec` from :func:`built`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.errors import HarnessFault
from harness.images import ImageSpec

__all__ = ["LOCK", "LockedImage", "built", "pulled", "read_lock"]

_CHECKOUT = Path(__file__).resolve().parent.parent
LOCK = _CHECKOUT / "images.lock"
_SCHEMA = "podid-images/1"
_PINNED = re.compile(r"[^@]+:[^@:/]+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class LockedImage:
    """An entry of the lock."""

    name: str
    """What we call it."""
    reference: str
    """What pods or the engine call it; with a digest if it is pulled."""
    origin: Literal["pull", "build"]
    providers: tuple[str, ...]
    purpose: str
    licence: str
    context: str = ""
    """Directory of its Dockerfile in the checkout, if it is built."""

    @property
    def tagged(self) -> str:
        """The reference without its digest."""
        return self.reference.partition("@")[0]

    def as_data(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


@cache
def read_lock(path: Path = LOCK) -> Mapping[str, LockedImage]:
    """Return the images by name.

    Raises:
        HarnessFault: The file is not as it must be; the text says what and where.
    """
    try:
        document = yaml.safe_load(path.read_text())
        if document["schema"] != _SCHEMA:
            raise HarnessFault(f"{path} has schema {document['schema']!r}, not {_SCHEMA!r}")
        entries: list[dict[str, Any]] = document["images"]
        for entry in entries:
            entry["providers"] = tuple(entry["providers"])
        images = [LockedImage(**entry) for entry in entries]
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise HarnessFault(f"{path} cannot be read: {error!r}") from error
    for image in images:
        if image.origin == "pull" and not _PINNED.fullmatch(image.reference):
            raise HarnessFault(
                f"{path}: {image.name} is pulled, so its reference needs a tag and a digest (HRN-IMG-06)"
            )
        if image.origin == "build" and not image.context:
            raise HarnessFault(f"{path}: {image.name} is built, so it needs the directory of its Dockerfile")
    return {image.name: image for image in images}


def pulled(name: str) -> LockedImage:
    """Return an image that is pulled."""
    return _entry(name, "pull")


def built(name: str, extra_files: Mapping[str, Path] | None = None) -> ImageSpec:
    """Return how an image is built.

    Args:
        name: Its name in the lock.
        extra_files: Name in the context → file that is added to it, or takes the place of the one there.
    """
    entry = _entry(name, "build")
    return ImageSpec(entry.reference, _CHECKOUT / entry.context, dict(extra_files or {}))


def _entry(name: str, origin: Literal["pull", "build"]) -> LockedImage:
    entry = read_lock().get(name)
    if entry is None or entry.origin != origin:
        raise HarnessFault(f"{LOCK} has no image {name!r} of origin {origin!r}")
    return entry
