"""The plugin's command-line options."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from harness.conformance.history import DEFAULT
from harness.conformance.ledger import Kind, Level
from harness.conformance.shards import Shard, parse_shard
from harness.errors import UsageError

__all__ = ["Options", "add_options"]


def add_options(group: pytest.OptionGroup) -> None:
    """Declare the options; for ``pytest_addoption`` of the conftest that registers the plugin."""
    group.addoption("--subject", default="", help="what is tested: ours (default), upstream or mutant:NAME")
    group.addoption(
        "--only",
        action="append",
        default=[],
        metavar="EXPR",
        help="requirement or glob, scenario:, profile: or level: with a glob; ! for the opposite; blanks for and",
    )
    group.addoption("--level", action="append", default=[], choices=["MUST", "SHOULD", "MAY"], help="levels to decide")
    group.addoption("--dry-run", action="store_true", help="say what would run and what it would decide; run nothing")
    group.addoption("--report-dir", default="reports", help="where the run's directory is made (default: reports)")
    group.addoption("--record-only", action="store_true", help="write run.json alone; podid report makes the reports")
    group.addoption("--baseline", default="", metavar="FILE", help="known failures, as suites/baselines/*.yaml")
    group.addoption("--frozen", default="", metavar="RELEASE", help="hold the subject to what this release froze")
    group.addoption("--shard", default="", metavar="I/N", help="run the I-th of N shares of the scenarios")
    group.addoption("--rerun-failed", default="", metavar="REPORT", help="run what did not pass in an earlier run")
    group.addoption("--retries", type=int, default=0, metavar="N", help="try a failed test again; then it is flaky")
    group.addoption("--repeat", type=int, default=1, metavar="N", help="run every test N times")
    group.addoption(
        "--leg",
        default=os.environ.get("PODID_LEG", ""),
        help="coordinate of a matrix; durations and flakes are kept apart by it (default: the subject)",
    )
    group.addoption(
        "--history",
        default=os.environ.get("PODID_HISTORY", DEFAULT),
        metavar="DIR",
        help=f"where durations and flakes of earlier runs are (default: {DEFAULT})",
    )


@dataclass(frozen=True, slots=True)
class Options:
    """The options' values."""

    subject: str
    only: list[str]
    level: list[Level]
    dry_run: bool
    report_dir: str
    record_only: bool
    baseline: str
    frozen: str
    shard: Shard | None
    rerun_failed: str
    retries: int
    repeat: int
    leg: str
    history: str
    is_narrowed: bool
    """Whether pytest's own options or arguments ask for a part of the suites."""

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
        return cls(
            subject=subject,
            only=values.only,
            level=values.level,
            dry_run=values.dry_run,
            report_dir=values.report_dir,
            record_only=values.record_only,
            baseline=values.baseline,
            frozen=values.frozen,
            shard=parse_shard(values.shard),
            rerun_failed=values.rerun_failed,
            retries=values.retries,
            repeat=values.repeat,
            leg=values.leg or subject,
            history=values.history,
            is_narrowed=bool(values.keyword or values.markexpr)
            or any("::" in argument or argument.endswith(".py") for argument in config.args),
        )
