"""Everything a lab needs from elsewhere, in one directory: carried to a machine without network (HRN-IMG-08)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import HarnessFault, MissingPrerequisite, UsageError
from harness.lab.provider import Provider
from harness.progress import Progress

__all__ = ["load", "require_all_parts", "save", "saved_by"]

_SCHEMA = "podid-parts/1"
_MANIFEST = "manifest.json"
_IMAGES = "images"
_CACHE = "cache"


def require_all_parts(provider: Provider) -> None:
    """Refuse where something would have to be fetched.

    Raises:
        MissingPrerequisite: Lists it.
    """
    if missing := provider.missing():
        raise MissingPrerequisite(
            "not everything that a lab needs is on this machine:\n" + "\n".join(f"  {part}" for part in missing),
            hint="where there is a network: podid images save DIR; here: podid images load DIR",
        )


def save(target: Path, provider: Provider, cache: Path, progress: Progress) -> None:
    """Write a directory with everything that a lab of this provider needs.

    Args:
        target: The directory; must not be there.
        provider: The provider.
        cache: The harness's cache directory.
        progress: Where to report.

    Raises:
        UsageError: The directory is there.
        MissingPrerequisite: Something was never fetched or built here.
    """
    if target.exists():
        raise UsageError(f"{target} is there already", hint="name a directory that is not")
    if missing := provider.missing():
        raise MissingPrerequisite(
            "not everything is on this machine yet:\n" + "\n".join(f"  {part}" for part in missing),
            hint=f"raise a lab once: podid up --provider {provider.name}",
        )
    parts = provider.parts()
    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with progress.phase("save", total=len(parts.files) + len(parts.images) + 1) as phase:
            for part in parts.files:
                phase.step(f"copying {part.relative_to(cache)}")
                _copy(part, draft / _CACHE / part.relative_to(cache))
            (draft / _IMAGES).mkdir(parents=True)
            for name, identifier in parts.images.items():
                phase.step(f"saving {name}")
                provider.save_image(name, identifier, draft / _archive(identifier))
            phase.step("computing digests")
            manifest = {
                "schema": _SCHEMA,
                "provider": provider.name,
                "machine": platform.machine(),
                "images": dict(parts.images),
                "files": {str(path.relative_to(draft)): _digest(path) for path in _files(draft)},
            }
            (draft / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def saved_by(source: Path) -> str:
    """Return the name of the provider that a directory was saved for.

    Raises:
        UsageError: It is no such directory, or one for another kind of machine.
    """
    return _read(source)["provider"]


def load(source: Path, provider: Provider, cache: Path, progress: Progress) -> None:
    """Put what :func:`save` wrote where a lab looks for it.

    Every file is verified before the first is copied.

    Args:
        source: The directory.
        provider: The provider it was saved for.
        cache: The harness's cache directory.
        progress: Where to report.

    Raises:
        UsageError: It is no such directory, or one for another kind of machine.
        HarnessFault: A file is damaged or missing.
    """
    manifest = _read(source)
    with progress.phase("load", total=len(manifest["images"]) + 2) as phase:
        phase.step(f"verifying {len(manifest['files'])} files")
        for name, digest in manifest["files"].items():
            if not os.path.lexists(source / name) or _digest(source / name) != digest:
                raise HarnessFault(f"{source / name} is damaged or missing", hint="copy the directory again")
        phase.step("copying into the cache")
        for name in manifest["files"]:
            if Path(name).parts[0] == _CACHE:
                _place(source / name, cache / Path(name).relative_to(_CACHE))
        for name, identifier in manifest["images"].items():
            phase.step(f"loading {name}")
            provider.load_image(name, identifier, source / _archive(identifier))


def _read(source: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((source / _MANIFEST).read_text())
        schema, machine = manifest["schema"], manifest["machine"]
        names: list[str] = [*manifest["files"], *map(_archive, manifest["images"].values())]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{source} was not written by podid images save: {error}", hint="name the directory that it wrote"
        ) from error
    if any(".." in Path(name).parts for name in names):
        raise UsageError(f"{source} has files that would lie elsewhere: do not trust it")
    if schema != _SCHEMA:
        raise UsageError(f"{source} has schema {schema!r}, not {_SCHEMA!r}", hint="save it again with this version")
    if machine != platform.machine():
        raise UsageError(f"{source} is for {machine}, and this machine is {platform.machine()}")
    return manifest


def _archive(identifier: str) -> str:
    """Return where an image is kept."""
    return f"{_IMAGES}/{identifier.partition(':')[2]}.tar"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


def _place(source: Path, target: Path) -> None:
    """Copy a file so that nobody sees half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    shutil.copy2(source, draft, follow_symlinks=False)
    draft.replace(target)


def _files(directory: Path) -> Iterator[Path]:
    """Yield files and symbolic links, sorted."""
    return iter(sorted(path for path in directory.rglob("*") if path.is_symlink() or path.is_file()))


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or where a link leads."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
