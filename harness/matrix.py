"""The version matrix: ``suites/matrix.yaml`` as data, and what is wrong with it (HRN-MTX-01 to -05). Runs nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from harness import binaries
from harness.conformance.ledger import Ledger
from harness.errors import UsageError
from harness.image_lock import pulled

__all__ = ["Leg", "LegProvider", "Matrix", "Trigger", "features_of", "read_matrix"]

Trigger = Literal["pr", "nightly", "weekly", "release"]
LegProvider = Literal["native", "kind", "process"]
_SUBJECTS = ("ours", "upstream")
_SCHEMA = "podid-matrix/1"
_PINNED_NODE = re.compile(r"kindest/node:v(1\.\d+)\.\d+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Leg:
    """One coordinate of the matrix."""

    provider: str
    """``process`` for suites that need no cluster."""
    subject: str
    scenarios: str
    """Name of a set of scenarios."""
    on: tuple[str, ...]
    """When it runs."""
    kubernetes: str = ""
    """Minor version; empty for suites that need no cluster."""

    @property
    def name(self) -> str:
        """Its axes in one word."""
        return "-".join(filter(None, (self.provider, self.kubernetes, self.subject, self.scenarios)))


@dataclass(frozen=True, slots=True)
class Matrix:
    """The legs, and what they are made of."""

    suites: Path
    kubernetes: Mapping[str, Mapping[str, str]]
    """Minor → provider → version or node image."""
    kind_release: str
    kind_range: tuple[str, str]
    """Oldest and newest minor that kind's release has images for."""
    scenarios: Mapping[str, Sequence[str]]
    legs: Sequence[Leg]

    def on(self, trigger: str) -> list[Leg]:
        """Return the legs of a trigger; all without one.

        Raises:
            UsageError: There is no such trigger.
        """
        if trigger and trigger not in get_args(Trigger):
            raise UsageError(f"there is no trigger {trigger!r}", hint=f"use one of {', '.join(get_args(Trigger))}")
        return [leg for leg in self.legs if not trigger or trigger in leg.on]

    def paths(self, leg: Leg) -> list[str]:
        """Return what a leg runs: files and folders below ``suites/``, by name."""
        patterns = self.scenarios.get(leg.scenarios, ())
        return sorted({path.name for pattern in patterns for path in self.suites.glob(pattern)})

    def is_whole(self, leg: Leg) -> bool:
        """Tell whether a leg runs every scenario on a lab, so that its verdict can be conformant."""
        return self.paths(leg) == sorted(path.name for path in self.suites.glob("test_*.py"))

    def source(self, leg: Leg) -> str:
        """Return the version or node image of a leg's clusters; empty where it has none."""
        return self.kubernetes.get(leg.kubernetes, {}).get(leg.provider, "")

    def faults(self, ledger: Ledger) -> list[str]:
        """Return what is wrong, a line each: names that nobody knows, and what no leg covers."""
        return [*self._unknown(), *self._uncovered(ledger), *self._out_of_range()]

    def _unknown(self) -> list[str]:
        found: list[str] = []
        for leg in self.legs:
            known = {
                "provider": get_args(LegProvider),
                "subject": _SUBJECTS,
                "scenarios": tuple(self.scenarios),
                "kubernetes": ("",) if leg.provider == "process" else tuple(self.kubernetes),
            }
            for axis, values in known.items():
                if (value := getattr(leg, axis)) not in values:
                    found.append(f"{leg.name}: {axis} {value!r} is none of {', '.join(values) or 'nothing'}")
            found += [f"{leg.name}: no trigger {name!r}" for name in leg.on if name not in get_args(Trigger)]
            if leg.provider != "process" and leg.kubernetes in self.kubernetes and not self.source(leg):
                found.append(f"{leg.name}: Kubernetes {leg.kubernetes} has nothing for provider {leg.provider}")
        names = [leg.name for leg in self.legs]
        found += [f"two legs are called {name}" for name in sorted({n for n in names if names.count(n) > 1})]
        for name, patterns in self.scenarios.items():
            found += [f"scenarios {name}: there is no {each} in suites/" for each in patterns if not self._has(each)]
        return found

    def _has(self, pattern: str) -> bool:
        return any(self.suites.glob(pattern))

    def _uncovered(self, ledger: Ledger) -> list[str]:
        tests = {path.name for path in (*self.suites.glob("test_*.py"), *_folders(self.suites))}
        covered = {name for leg in self.legs for name in self.paths(leg)}
        found = [f"no leg runs suites/{name}" for name in sorted(tests - covered)]
        pairs = {(leg.provider, leg.kubernetes) for leg in self.legs}
        for minor, sources in self.kubernetes.items():
            found += [f"no leg runs Kubernetes {minor} on {name}" for name in sources if (name, minor) not in pairs]
        decided = {feature for name in tests for feature in features_of(self.suites / name, ledger)}
        reached = {feature for name in tests & covered for feature in features_of(self.suites / name, ledger)}
        return found + [f"no leg covers the feature {name}" for name in sorted(decided - reached)]

    def _out_of_range(self) -> list[str]:
        found: list[str] = []
        if self.kind_release != binaries.KIND.version:
            found.append(f"kind {self.kind_release} is not the one we build, {binaries.KIND.version}")
        oldest, newest = map(_number, self.kind_range)
        for minor, sources in self.kubernetes.items():
            if "native" in sources and sources["native"] != binaries.KUBERNETES.get(minor):
                found.append(f"Kubernetes {minor}: {sources['native']} is not what tools/ builds")
            if node := sources.get("kind"):
                pinned = _PINNED_NODE.fullmatch(node)
                if pinned is None or pinned[1] != minor:
                    found.append(f"Kubernetes {minor}: {node} is no node image of it, pinned by digest")
                if not oldest <= _number(minor) <= newest:
                    found.append(f"kind {self.kind_release} has no node image of Kubernetes {minor}")
        default = self.kubernetes.get(binaries.DEFAULT_KUBERNETES, {}).get("kind")
        if default != pulled("node").reference:
            found.append(f"the node image of Kubernetes {binaries.DEFAULT_KUBERNETES} is not that of images.lock")
        return found


def read_matrix(file: Path) -> Matrix:
    """Read the matrix.

    Raises:
        UsageError: The file is not of its form.
    """
    try:
        data: Any = yaml.safe_load(file.read_text())
        if data["schema"] != _SCHEMA:
            raise UsageError(f"{file} has schema {data['schema']!r}, not {_SCHEMA!r}")
        return Matrix(
            suites=file.parent,
            kubernetes=data["kubernetes"],
            kind_release=str(data["kind"]["release"]),
            kind_range=(str(data["kind"]["oldest"]), str(data["kind"]["newest"])),
            scenarios=data["scenarios"],
            # YAML reads a bare "on" as a truth.
            legs=[
                Leg(**{"on" if name is True else name: _value(value) for name, value in leg.items()})
                for leg in data["legs"]
            ],
        )
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} cannot be read: {error!r}", hint="docs/matrix.md describes it") from error


def features_of(path: Path, ledger: Ledger) -> set[str]:
    """Return the features whose requirements a scenario decides, as its decorators name them; nothing is imported."""
    files = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
    return {ledger[name].profile for file in files for name in _requirements(file) if name in ledger}


@cache
def _requirements(file: Path) -> frozenset[str]:
    return frozenset(
        argument.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "requirement"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    )


def _folders(suites: Path) -> list[Path]:
    return sorted({file.parent for file in suites.glob("*/test_*.py")})


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _number(minor: str) -> tuple[int, ...]:
    return tuple(int(part) for part in minor.split("."))
