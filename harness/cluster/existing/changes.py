"""What the harness changes of somebody's cluster outside of namespaces of its own, noted so that it can be undone.

Each note is on disk before the change is made: whatever ends the run, ``podid down`` puts everything back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import MissingPrerequisite
from harness.kube import ApiException, Kube, Manifest
from harness.pki import write_private

__all__ = ["Changes", "Thing"]

_SET_BY_THE_API = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid", "selfLink")


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

    def _note(self, thing: Thing, how: Literal["created", "edited"], before: Manifest | None = None) -> None:
        notes = self._read()
        if not any(note["thing"] == asdict(thing) for note in notes):
            self._write([*notes, {"thing": asdict(thing), "how": how, "before": before}])

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
            self._note(thing, "created")

    @staticmethod
    def existing_in(kube: Kube, things: Iterable[Thing]) -> list[Thing]:
        """Return which of these objects are in a cluster."""
        return [
            thing for thing in things if kube.exists(thing.api_version, thing.kind, thing.name, thing.namespace or None)
        ]

    def will_edit(self, thing: Thing) -> Manifest:
        """Note an object as it is, and return it."""
        before = self._kube.read(thing.api_version, thing.kind, thing.name, thing.namespace or None)
        self._note(thing, "edited", before)
        return before

    def noted(self) -> list[tuple[Thing, str]]:
        """Return what was noted, in order, and whether it was created or edited."""
        return [(Thing(**note["thing"]), note["how"]) for note in self._read()]

    def undo(self) -> list[Thing]:
        """Delete what was created and put back what was edited, latest first; return what was edited."""
        notes, edited = self._read(), list[Thing]()
        while notes:
            note = notes[-1]
            thing = Thing(**note["thing"])
            if note["how"] == "created":
                self._kube.delete(thing.as_manifest())
            else:
                self._put_back(note["before"])
                edited.append(thing)
            notes.pop()
            self._write(notes)
        return edited

    def _put_back(self, before: Manifest) -> None:
        thing = Thing.of(before)
        try:
            now = self._kube.read(thing.api_version, thing.kind, thing.name, thing.namespace or None)
        except ApiException as error:
            if getattr(error, "status", None) != 404:
                raise
            now = None
        metadata = {name: value for name, value in before["metadata"].items() if name not in _SET_BY_THE_API}
        wanted = {name: value for name, value in before.items() if name != "status"} | {"metadata": metadata}
        if now is None:
            self._kube.apply([wanted])
        else:
            metadata["resourceVersion"] = now["metadata"]["resourceVersion"]
            self._kube.replace(wanted)
