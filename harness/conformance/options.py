"""The plugin's command-line options. Each can also be set in the environment, as ``PODID_`` and its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from harness.conformance.history import DEFAULT
from harness.conformance.ledger import Kind, Level
from harness.conformance.record import Setting
from harness.conformance.shards import Shard, parse_shard
from harness.errors import UsageError

__all__ = ["Options", "add_options", "declare", "settings"]

_DECLARED: dict[str, Any] = {}
"""Option → its default."""


def declare(group: pytest.OptionGroup, name: str, default: Any = "", **details: Any) -> None:
    """Declare an option that takes its value from the command line, else the environment, else the default.

    Args:
        group: Where it is listed.
        name: Such as ``--report-dir``; then the variable is ``PODID_REPORT_DIR``.
        default: Its type is the option's: a flag, a number, a list that grows by repetition, or a text.
        details: As argparse takes them.
    """
    _DECLARED[name] = default
    text = os.environ.get(_variable(name))
    if isinstance(default, bool):
        group.addoption(name, action="store_true", default=_is_true(text) if text else default, **details)
    elif isinstance(default, list):
        group.addoption(name, action="append", default=[text] if text else [], **details)
    elif isinstance(default, int):
        group.addoption(name, type=int, default=text or default, **details)
    else:
        group.addoption(name, default=text or default, **details)


def _variable(name: str) -> str:
    return "PODID_" + name.removeprefix("--").replace("-", "_").upper()


def _is_true(text: str) -> bool:
    return text.lower() not in {"0", "false", "no"}


def settings(config: pytest.Config) -> dict[str, Setting]:
    """Return option → its value and where that comes from, for the record."""
    given = {argument.partition("=")[0] for argument in config.invocation_params.args}
    found: dict[str, Setting] = {}
    for name in sorted(_DECLARED):
        source = "cli" if name in given else "env" if os.environ.get(_variable(name)) else "default"
        value = config.getoption(name, default=None)
        shown = " | ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        found[name.removeprefix("--")] = Setting(shown, source)
    return found


def add_options(group: pytest.OptionGroup) -> None:
    """Declare the options; for ``pytest_addoption`` of the conftest that registers the plugin."""
    declare(group, "--subject", help="what is tested: ours (default), upstream or mutant:NAME")
    only = "requirement or glob, scenario:, profile: or level: with a glob; ! for the opposite; blanks for and"
    declare(group, "--only", [], metavar="EXPR", help=only)
    declare(group, "--level", [], choices=["MUST", "SHOULD", "MAY"], help="levels to decide")
    declare(group, "--partial", False, help="a part of the suites is enough: exit with 0 if all of it is fine")
    declare(group, "--keep-failed", False, help="leave what the scenarios of failed tests made")
    declare(group, "--fail-fast", False, help="stop after the first MUST that is not met")
    declare(group, "--without-feature", [], metavar="NAME", help="leave a feature's requirements undecided; repeat")
    declare(group, "--profile", "pod-identity", metavar="NAME", help="which features are required: suites/profiles/")
    declare(group, "--subject-file", metavar="FILE", help="what the subject declares (default: suites/subjects/)")
    declare(group, "--dry-run", False, help="say what would run and what it would decide; run nothing")
    declare(group, "--report-dir", "reports", help="where the run's directory is made (default: reports)")
    declare(group, "--record-only", False, help="write run.json alone; podid report makes the reports")
    declare(group, "--baseline", metavar="FILE", help="known failures, as suites/baselines/*.yaml")
    declare(group, "--frozen", metavar="RELEASE", help="hold the subject to what this release froze")
    declare(group, "--against", metavar="RUN", help="an earlier run; the summary says what changed since")
    declare(group, "--shard", metavar="I/N", help="run the I-th of N shares of the scenarios")
    declare(group, "--rerun-failed", metavar="REPORT", help="run what did not pass in an earlier run")
    declare(group, "--retries", 0, metavar="N", help="try a failed test again; then it is flaky")
    declare(group, "--repeat", 1, metavar="N", help="run every test N times")
    declare(group, "--leg", help="coordinate of a matrix; keeps durations and flakes apart (default: the subject)")
    declare(group, "--history", DEFAULT, metavar="DIR", help=f"durations and flakes of earlier runs ({DEFAULT})")


@dataclass(frozen=True, slots=True)
class Options:
    """The options' values."""

    subject: str
    only: list[str]
    level: list[Level]
    without_feature: list[str]
    profile: str
    subject_file: str
    partial: bool
    """Whether a part of the suites is enough for exit code 0; a share of several runs always is."""
    keep_failed: bool
    fail_fast: bool
    dry_run: bool
    report_dir: str
    record_only: bool
    baseline: str
    frozen: str
    against: str
    shard: Shard | None
    rerun_failed: str
    retries: int
    repeat: int
    leg: str
    history: str
    paths: tuple[str, ...]
    """Folders and files that were given as a whole, relative to the checkout or absolute."""
    ignored: tuple[str, ...]
    is_narrowed: bool
    """Whether pytest's own options or arguments ask for a part of the suites."""
    settings: Mapping[str, Setting]
    """Option → value and where it comes from."""

    @classmethod
    def of(cls, config: pytest.Config) -> Options:
        """Read the options of a run.

        Raises:
            UsageError: A value makes no sense, such as a subject that there is not.
        """
        values: Any = config.option
        subject: str = values.subject or "ours"
        if subject not in get_args(Kind) and not subject.startswith("mutant:"):
            raise UsageError(f"no subject {subject!r}", hint="one of ours, upstream, mutant:NAME")
        if values.retries < 0 or values.repeat < 1 or (values.retries and values.repeat > 1):
            raise UsageError("--retries counts from 0 and --repeat from 1, and only one of them may be given")
        shard = parse_shard(values.shard)
        return cls(
            subject=subject,
            only=values.only,
            level=values.level,
            without_feature=values.without_feature,
            profile=values.profile,
            subject_file=values.subject_file,
            partial=values.partial or shard is not None,
            keep_failed=values.keep_failed,
            fail_fast=values.fail_fast,
            dry_run=values.dry_run,
            report_dir=values.report_dir,
            record_only=values.record_only,
            baseline=values.baseline,
            frozen=values.frozen,
            against=values.against,
            shard=shard,
            rerun_failed=values.rerun_failed,
            retries=values.retries,
            repeat=values.repeat,
            leg=values.leg or subject,
            history=values.history,
            paths=tuple(argument for argument in config.args if "::" not in argument),
            ignored=tuple(map(str, values.ignore or ())),
            is_narrowed=bool(values.keyword or values.markexpr)
            or any("::" in argument or argument.endswith(".py") for argument in config.args),
            settings=settings(config),
        )
