"""The plugin's command-line options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import pytest

from harness.conformance.ledger import Kind, Level
from harness.errors import UsageError

__all__ = ["Options", "add_options"]


def add_options(group: pytest.OptionGroup) -> None:
    """Declare the options; for ``pytest_addoption`` of the conftest that registers the plugin."""
    group.addoption("--subject", default="", help="what is tested: ours (default), upstream or mutant:NAME")
    group.addoption("--only", action="append", default=[], metavar="ID", help="requirement or glob; !ID leaves out")
    group.addoption("--level", action="append", default=[], choices=["MUST", "SHOULD", "MAY"], help="levels to decide")
    group.addoption("--dry-run", action="store_true", help="say what would run and what it would decide; run nothing")
    group.addoption("--report-dir", default="reports", help="where the run's directory is made (default: reports)")
    group.addoption("--record-only", action="store_true", help="write run.json alone; podid report makes the reports")
    group.addoption("--baseline", default="", metavar="FILE", help="known failures, as suites/baselines/*.yaml")


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
    is_narrowed: bool
    """Whether pytest's own options or arguments ask for a part of the suites."""

    @classmethod
    def of(cls, config: pytest.Config) -> Options:
        """Read the options of a run.

        Raises:
            UsageError: The subject is none that there is; it decides which requirements apply.
        """
        values: Any = config.option
        subject: str = values.subject or "ours"
        if subject not in get_args(Kind) and not subject.startswith("mutant:"):
            raise UsageError(f"no subject {subject!r}", hint="one of ours, upstream, mutant:NAME")
        return cls(
            subject=subject,
            only=values.only,
            level=values.level,
            dry_run=values.dry_run,
            report_dir=values.report_dir,
            record_only=values.record_only,
            baseline=values.baseline,
            is_narrowed=bool(values.keyword or values.markexpr)
            or any("::" in argument or argument.endswith(".py") for argument in config.args),
        )
