"""What the harness changes of somebody's cluster outside of namespaces of its own, noted so that it can be undone.

Each note is on disk before the change is made: whatever ends the run, ``podid down`` puts everything back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from harness.errors import MissingPrerequisite
from harness.kube import ApiException, Kube, Manifest
from harness.pki import write_private

__all__ = ["Changes", "Edit", "Thing"]


@dataclass(frozen=True, slots=True, order=True)
class Thing:
    """An object by its name."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""

    @classmethod
    def of(cls, manifest: Manifest) -> Thing:
        """Return the object that a manifest describes."""
        metadata = manifest["metadata"]
        return cls(manifest["apiVersion"], manifest["kind"], metadata["name"], metadata.get("namespace", ""))

    def as_manifest(self) -> Manifest:
        """Return a manifest that names it."""
        metadata = {"name": self.name} | ({"namespace": self.namespace} if self.namespace else {})
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}

    def __str__(self) -> str:
        """Name it as messages do."""
        return f"{self.kind} {f'{self.namespace}/' if self.namespace else ''}{self.name}"


class Changes:
    """The notes of one lab."""

    def __init__(self, file: Path, kube: Kube) -> None:
        """Attach to the notes.

        Args:
            file: Where they are.
            kube: An administrator of the cluster.
        """
        self._file = file
        self._kube = kube

    def _read(self) -> list[dict[str, Any]]:
        return json.loads(self._file.read_text()) if self._file.exists() else []

    def _note(self, note: dict[str, Any]) -> None:
        self._write([*self._read(), note])

    def _write(self, notes: list[dict[str, Any]]) -> None:
        """Replace the notes at once: half of them would be worth nothing."""
        new = self._file.with_suffix(".new")
        write_private(new, json.dumps(notes))
        new.replace(self._file)

    def _is_noted(self, thing: Thing) -> bool:
        return any(note["thing"] == asdict(thing) for note in self._read())

    def will_create(self, manifests: Iterable[Manifest]) -> None:
        """Note objects that do not exist yet.

        Raises:
            MissingPrerequisite: Some exist, and are not this lab's: they are named together.
        """
        things = [thing for thing in map(Thing.of, manifests) if not self._is_noted(thing)]
        if there := self.existing_in(self._kube, things):
            raise MissingPrerequisite(
                f"the cluster has already, and not from this lab: {', '.join(map(str, there))}",
                hint="nothing of somebody's is replaced: remove it, or use another cluster",
                kind="environment",
            )
        for thing in things:
            self._note({"how": "created", "thing": asdict(thing)})

    @staticmethod
    def existing_in(kube: Kube, things: Iterable[Thing]) -> list[Thing]:
        """Return which of these objects are in a cluster."""
        return [
            thing for thing in things if kube.exists(thing.api_version, thing.kind, thing.name, thing.namespace or None)
        ]

    def edit(self, thing: Thing, change: Manifest) -> None:
        """Change members of somebody's object, after a note of how they were."""
        self._note(Edit.of(self._kube, thing, change).as_data())
        self._kube.merge(thing.api_version, thing.kind, thing.name, change, thing.namespace or None)

    def undo(self) -> list[Edit]:
        """Delete what was created and take back what was edited, latest first.

        Returns:
            Edits that somebody has changed since, and that were left as they are.
        """
        notes, left = self._read(), list[Edit]()
        while notes:
            note = notes[-1]
            if note["how"] == "created":
                self._kube.delete(Thing(**note["thing"]).as_manifest())
            else:
                edit = Edit.from_data(note)
                if not edit.take_back(self._kube):
                    left.append(edit)
            notes.pop()
            self._write(notes)
        return left


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of members of somebody's object, and what takes it back: nothing else of the object is touched."""

    thing: Thing
    change: Manifest
    inverse: Manifest

    @classmethod
    def of(cls, kube: Kube, thing: Thing, change: Manifest) -> Edit:
        """Return what a change means for an object as it is."""
        before = kube.read(thing.api_version, thing.kind, thing.name, thing.namespace or None)
        return cls(thing, change, _inverse(before, change))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Edit:
        """Read it back."""
        return cls(Thing(**data["thing"]), data["change"], data["inverse"])

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {"how": "edited", "thing": asdict(self.thing), "change": self.change, "inverse": self.inverse}

    def take_back(self, kube: Kube) -> bool:
        """Take it back; return False where somebody has changed the same since, and leave it."""
        thing = self.thing
        try:
            now = kube.read(thing.api_version, thing.kind, thing.name, thing.namespace or None)
        except ApiException as error:
            if getattr(error, "status", None) == 404:
                return True  # somebody removed the object, and our change with it
            raise
        if _has(now, self.change):
            kube.merge(thing.api_version, thing.kind, thing.name, self.inverse, thing.namespace or None)
            return True
        # Taken back before, by a run of this that did not come to its end.
        return _has(now, self.inverse)


def _inverse(before: Mapping[str, Any], change: Mapping[str, Any]) -> Manifest:
    """Return the merge patch that takes another one back."""
    return {
        key: _inverse(before.get(key) or {}, cast("Manifest", value)) if isinstance(value, dict) else before.get(key)
        for key, value in change.items()
    }


def _has(now: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    """Tell whether an object is as a merge patch makes it."""
    return all(
        _has(now.get(key) or {}, cast("Manifest", value)) if isinstance(value, dict) else now.get(key) == value
        for key, value in change.items()
    )
