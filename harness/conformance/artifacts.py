"""A run's directory as a whole: how large its files may be, what it holds, and the part that may leave the machine.

``manifest.json`` lists every file. ``publish/`` holds the same files once more, as hard links, and is there only if the
search for secrets found nothing: whatever uploads reports takes that folder, and never the directory around it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.conformance.record import write_atomically

__all__ = ["MANIFEST", "PUBLISH", "kind_of", "publish", "write_manifest"]

MANIFEST = "manifest.json"
PUBLISH = "publish"
_SCHEMA = "podid-manifest/1"
_PUBLISH_BYTES = 250 << 20
_KINDS = {
    "run.json": "record",
    "run.schema.json": "schema",
    "events.jsonl": "events",
    "index.html": "page",
    "badge.svg": "badge",
    "junit.xml": "junit",
    "summary.md": "summary",
}


def kind_of(path: Path) -> str:
    """Return what a file is, by its path relative to the run's directory."""
    return _KINDS.get(str(path), path.parts[0] if len(path.parts) > 1 else "other")


def write_manifest(directory: Path) -> list[dict[str, Any]]:
    """Write ``manifest.json``, and return its entries: path, bytes, SHA-256 and kind of every other file."""
    entries = [
        {
            "path": str(path.relative_to(directory)),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "kind": kind_of(path.relative_to(directory)),
        }
        for path in _files(directory)
    ]
    _write(directory, {"schema": _SCHEMA, "files": entries})
    return entries


def publish(directory: Path, limit_bytes: int = _PUBLISH_BYTES) -> None:
    """Make ``publish/`` anew, of a directory in which no secret was found.

    Args:
        directory: The run's.
        limit_bytes: Most that may be published; beyond it the largest diagnostics stay behind, as the manifest says.
    """
    entries = write_manifest(directory)
    left_out: set[str] = set()
    size = sum(entry["bytes"] for entry in entries)
    for entry in sorted(entries, key=lambda entry: (entry["kind"] != "diagnostics", -entry["bytes"])):
        if size > limit_bytes:
            left_out.add(entry["path"])
            size -= entry["bytes"]
    target = directory / PUBLISH
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    for entry in entries:
        if entry["path"] not in left_out:
            _link(directory / entry["path"], target / entry["path"])
    files = [entry | ({"left_out": True} if entry["path"] in left_out else {}) for entry in entries]
    _write(target, {"schema": _SCHEMA, "files": files})


def _files(directory: Path) -> Iterable[Path]:
    found = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    parts = ((path, path.relative_to(directory).parts) for path in found)
    return sorted(path for path, names in parts if names[0] != PUBLISH and names != (MANIFEST,))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        # Some file systems know no hard links.
        shutil.copy2(source, target)


def _write(directory: Path, data: Any) -> None:
    write_atomically(directory / MANIFEST, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
