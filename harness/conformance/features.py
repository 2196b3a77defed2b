"""Features: what a profile asks for, what a subject declares, and what is found in what runs (HRN-PROF).

A requirement belongs to one feature (``profile`` in the ledger). Before the first test of a feature other than ``core``
runs, conftests are asked whether it is there (``pytest_podid_detect`` in :mod:`harness.conformance.hooks`) and answer
with what was seen. Then one rule decides whether the tests of that feature run; no option adds a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from harness.conformance.ledger import Ledger
from harness.conformance.outcomes import could_not_run, not_applicable
from harness.conformance.record import FeatureRecord
from harness.errors import MissingFeature, UsageError

__all__ = ["Detection", "Features", "Rule", "offered", "read_features"]

Rule = Literal["required", "optional", "excluded"]
CORE = "core"


@dataclass(frozen=True, slots=True)
class Detection:
    """Whether a feature is there, and what was seen that says so."""

    is_present: bool
    evidence: str


def offered(flag: str, program: str, help_text: str) -> Detection:
    """Return whether a program's help lists the flag that a feature is used with."""
    line = next((" ".join(line.split()) for line in help_text.splitlines() if flag in line), "")
    return Detection(bool(line), f"{program} --help: {line or f'lists no {flag}'}"[:300])


class Features:
    """The features of one run."""

    def __init__(self, rules: Mapping[str, Rule], declared: Collection[str], without: Collection[str]) -> None:
        """Begin without having looked.

        Args:
            rules: Feature → what the profile says; optional for others.
            declared: What the subject says that it has.
            without: What is not to be decided (``--without-feature``).
        """
        self._rules = rules
        self._declared = declared
        self._without = without
        self.found: dict[str, Detection | None] = {}

    def require(self, names: Collection[str], detect: Callable[[str], Detection | None]) -> None:
        """End a test that must not run, or that a missing feature decides.

        Args:
            names: Features of the requirements that the test decides.
            detect: Looks for one.

        Raises:
            MissingFeature: The profile requires it or the subject declares it, and it is not there.
            harness.conformance.outcomes.NotExecuted: It is left out by an option or by the profile, or is not there.
        """
        if narrowed := sorted(set(names) & set(self._without)):
            could_not_run("narrowed", f"--without-feature {' '.join(narrowed)}: run without this option to decide it")
        for name in sorted(set(names) - {CORE}):
            if self._rule(name) == "excluded":
                not_applicable("feature-excluded", f"the profile excludes {name}")
            found = self.found[name] = self.found.get(name) or detect(name)
            if found is None or found.is_present:
                continue
            if self._rule(name) == "required" or name in self._declared:
                who = "the profile requires it" if self._rule(name) == "required" else "the subject declares it"
                raise MissingFeature(f"feature {name} is not there, and {who}: {found.evidence}", feature=name)
            not_applicable("feature-absent", f"feature {name}: {found.evidence}")

    def expected(self, names: Collection[str]) -> str:
        """Return why a test of some features could not run, as far as that is known without looking; else nothing."""
        narrowed = sorted(set(names) & set(self._without))
        return f"--without-feature {' '.join(narrowed)}" if narrowed else ""

    def records(self, ledger: Ledger) -> dict[str, FeatureRecord]:
        """Return feature → what is known about it, for the record."""
        return {name: self._record(name) for name in sorted({entry.profile for entry in ledger.values()})}

    def _record(self, name: str) -> FeatureRecord:
        found = self.found.get(name)
        undeclared = found is not None and found.is_present and name not in self._declared
        return FeatureRecord(
            rule=self._rule(name),
            declared=name in self._declared,
            detected=found.is_present if found else None,
            evidence=found.evidence if found else "",
            note="undeclared" if undeclared else "",
        )

    def _rule(self, name: str) -> Rule:
        return self._rules.get(name, "optional")


def read_features(suites: Path, profile: str, subject: Path, ledger: Ledger, without: Collection[str]) -> Features:
    """Read what a profile asks for and what a subject declares.

    Args:
        suites: Directory of the suites, with ``profiles/``.
        profile: Name of one; the default need not be there.
        subject: File of the subject; without one, it declares nothing.
        ledger: All requirements: only their features exist.
        without: Features that are not to be decided.

    Raises:
        UsageError: A file is damaged, or names a profile, feature or rule that there is not.
    """
    known = {entry.profile for entry in ledger.values()}
    file = suites / "profiles" / f"{profile}.yaml"
    if not file.exists() and (suites / "profiles").exists():
        names = sorted(path.stem for path in (suites / "profiles").glob("*.yaml"))
        raise UsageError(f"no profile {profile!r}", hint=f"one of {', '.join(names)}")
    rules: dict[str, Rule] = dict(_features(file, known)) if file.exists() else {}
    if wrong := {rule for rule in rules.values() if rule not in get_args(Rule)}:
        raise UsageError(f"{file}: {', '.join(map(str, wrong))} is none of {', '.join(get_args(Rule))}")
    for name in without:
        if name not in known:
            raise UsageError(f"no feature {name!r}", hint=f"one of {', '.join(sorted(known))}")
    return Features(rules, set(_features(subject, known)) if subject.exists() else set(), without)


def _features(file: Path, known: Collection[str]) -> Any:
    try:
        features: Any = yaml.safe_load(file.read_text())["features"]
        unknown = set(features) - set(known)
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if unknown:
        raise UsageError(
            f"{file}: no feature {', '.join(map(str, unknown))}", hint=f"one of {', '.join(sorted(known))}"
        )
    return features
