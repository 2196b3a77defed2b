"""The verbs of ``podid`` about runs that are over and about the ledger: nothing here runs a test or needs a lab."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from harness.conformance.artifacts import PUBLISH
from harness.conformance.compare import compare, since
from harness.conformance.frozen import freeze, read_all, read_frozen
from harness.conformance.history import DEFAULT, last_outcomes, note_run, read_flakes
from harness.conformance.ledger import Level, Requirement, read_ledger
from harness.conformance.merge import bring_diagnostics, merge
from harness.conformance.record import new_run_id, read_run
from harness.conformance.release import objections
from harness.conformance.reports import write_reports
from harness.conformance.selection import select
from harness.conformance.store import rewrite, save, seal
from harness.conformance.trial import overdue, ripe
from harness.errors import HarnessFault, UsageError
from harness.lab.paths import CHECKOUT
from harness.runner import collect_bindings

__all__ = ["Only", "app"]

SUITES = CHECKOUT / "suites"
REQUIREMENTS = SUITES / "requirements"
FROZEN = REQUIREMENTS / "frozen"

app = typer.Typer(add_completion=False)
ledger_app = typer.Typer(no_args_is_help=True, add_completion=False, help="Check the requirements; freeze a release's.")
app.add_typer(ledger_app, name="ledger")

Only = Annotated[
    list[str],
    typer.Option(
        "--only",
        metavar="EXPR",
        help="ID or glob; scenario:, profile: or level: with one; ! for the opposite, blanks for and, repeat for or.",
    ),
]
History = Annotated[Path, typer.Option("--history", help="Where durations and flakes are.")]
HISTORY = CHECKOUT / DEFAULT


class Form(Enum):
    """How to print a comparison."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


@app.command("compare")
def compare_runs(
    old: Annotated[Path, typer.Argument(help="A run's directory or its run.json.")],
    new: Annotated[Path, typer.Argument(help="Another.")],
    form: Annotated[Form, typer.Option("--format", help="How to print it.")] = Form.TEXT,
    release: Annotated[str, typer.Option("--release", help="Also say what stands against this frozen release.")] = "",
    history: History = HISTORY,
) -> None:
    """Say what changed between two runs. Exit code 1: a MUST was lost; 2: the runs do not allow an all-clear."""
    run = read_run(new)
    against = objections(run, read_frozen(FROZEN, release), read_flakes(history)) if release else ()
    first, second = (str((path if path.is_dir() else path.parent) / "index.html") for path in (old, new))
    comparison = compare(read_run(old), run, against, (first, second))
    match form:
        case Form.TEXT:
            print(comparison.text())
        case Form.MARKDOWN:
            print(comparison.markdown(), end="")
        case Form.JSON:
            print(json.dumps(comparison.data(), indent=1, ensure_ascii=False))
    raise typer.Exit(comparison.exit_code)


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="A run's directory.")]) -> None:
    """Write a run's reports again from its record; nothing is run."""
    _complain(rewrite(directory))
    print(directory / "index.html")


@app.command("merge")
def merge_runs(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Directories of runs.")],
    report_dir: Annotated[Path, typer.Option("--report-dir", help="Where the directory is made.")] = Path("reports"),
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="RUN", help="An earlier run; the summary says what changed since."),
    ] = None,
    history: History = HISTORY,
) -> None:
    """Make one report of several runs: suites of one subject, or all shards. The exit code is that of the verdict."""
    runs = [read_run(directory) for directory in directories]
    identifier = f"merged-{new_run_id(datetime.now(UTC))}"
    run = merge(identifier, runs)
    run = replace(run, since=since(read_run(against), run)) if against else run
    directory = report_dir / identifier
    directory.mkdir(mode=0o700, parents=True)
    bring_diagnostics({part.id: source for source, part in zip(directories, runs, strict=True)}, directory)
    complaints = write_reports(directory, save(directory, run))
    seal(directory, may_leave=all((source / PUBLISH).is_dir() for source in directories))
    _complain(complaints)
    if shards := [part for part in runs if part.shard]:
        note_run(history, merge(identifier, shards))
    print(f"{run.line} — {directory / 'index.html'}")
    raise typer.Exit(run.exit_code)


def _complain(faults: list[str]) -> None:
    if faults:
        raise HarnessFault("not every report could be written:\n  " + "\n  ".join(faults))


@app.command("list")
def list_requirements(
    only: Only = [],  # noqa: B006 - typer copies it
    level: Annotated[list[str], typer.Option("--level", help="MUST, SHOULD or MAY.")] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    history: History = HISTORY,
) -> None:
    """List the requirements: level, feature, tier, status, last outcome, mutants, and the tests that decide them."""
    ledger = read_ledger(REQUIREMENTS)
    asked = select(ledger, only, cast("list[Level]", level), {file.stem for file in SUITES.rglob("test_*.py")})
    tests: dict[str, list[str]] = {}
    for node, identifiers in collect_bindings(SUITES, is_last=True).items():
        for name in identifiers:
            tests.setdefault(name, []).append(node)
    chosen = [
        entry
        for entry in ledger.values()
        if any(asked.asks(entry, node.partition("::")[0]) for node in tests.get(entry.id, [""]))
    ]
    mutants, last = _killers(), last_outcomes(history)
    lines = [_listed(entry, tests.get(entry.id, []), mutants.get(entry.id, []), last.get(entry.id)) for entry in chosen]
    if as_json:
        print(json.dumps(lines, indent=1, ensure_ascii=False))
        return
    for line in lines:
        print(f"{line['id']:16} {line['level']:6} {line['sentence']}")
        facts = [line["feature"], line["tier"], line["status"], f"last {line['last'] or 'never'}"]
        facts += [f"mutants {' '.join(line['mutants'])}"] if line["mutants"] else []
        print(
            f"{'':24}{' · '.join(fact for fact in facts if fact)} · confirmed on AWS {line['aws_verified'] or 'never'}"
        )
        why = f"withdrawn in {line['withdrawn']}" if line["withdrawn"] else f"untestable: {line['untestable']}"
        why = why if line["status"] != "provisional" else "provisional: no test decides it"
        print("\n".join(f"{'':24}{text}" for text in line["tests"] or [why]))
    decided = sum(entry.id in tests for entry in chosen)
    print(f"{len(chosen)} requirements, {decided} decided by tests", file=sys.stderr)


def _listed(entry: Requirement, tests: list[str], mutants: list[str], last: str | None) -> dict[str, Any]:
    """Return what a line of the list says; no requirement was confirmed on real AWS so far."""
    status = (
        "withdrawn" if entry.withdrawn else "untestable" if entry.untestable else "stable" if tests else "provisional"
    )
    # Scenarios lie directly in suites/ and stand on a cluster, the other suites on processes.
    tiers = sorted({"cluster" if node.count("/") == 1 else "process" for node in tests})
    facts = {"subject": entry.subject, "feature": entry.profile, "tier": "+".join(tiers), "status": status}
    known = {"tests": tests, "mutants": mutants, "last": last or "", "aws_verified": ""}
    return asdict(entry) | facts | known


def _killers() -> dict[str, list[str]]:
    """Return requirement ID → mutants that it must find out; nothing where agent and webhook are not installed."""
    try:
        from harness.subject.mutants.catalogue import all_mutants  # noqa: PLC0415 - it imports agent and webhook

        mutants = all_mutants()
    except ModuleNotFoundError:
        return {}
    killers: dict[str, list[str]] = {}
    for mutant in mutants:
        for name in mutant.must_kill:
            killers.setdefault(name, []).append(mutant.name)
    return killers


@app.command()
def flakes(
    leg: Annotated[list[str], typer.Option("--leg", help="Legs to look at; all by default.")] = [],  # noqa: B006
    history: History = HISTORY,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Say which requirements were not steady in the last twenty runs, and how often."""
    found = read_flakes(history, leg)
    if as_json:
        print(json.dumps([asdict(entry) for entry in found], indent=1, ensure_ascii=False))
        return
    rows = [("requirement", "leg", "flaky", "failed", "errors", "last", "said"), *(entry.row() for entry in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows if found else ():
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"{len(found)} unsteady requirements in {history}", file=sys.stderr)


@ledger_app.command()
def check(history: History = HISTORY) -> None:
    """Check the ledger, that nothing that a release froze has changed, and that no trial goes on for too long.

    Exit code 3 when something is wrong.
    """
    ledger = read_ledger(REQUIREMENTS)
    releases = read_all(FROZEN)
    if complaints := [complaint for frozen in releases for complaint in frozen.complaints(ledger)]:
        raise UsageError("the ledger is not what was frozen:\n  " + "\n  ".join(complaints))
    today = datetime.now(UTC).date()
    if complaints := overdue(ledger, today):
        raise UsageError("trials have to end:\n  " + "\n  ".join(complaints))
    for name in ripe(ledger, history, today):
        print(f"{name} was steady for long enough: take its line 'provisional' out")
    withdrawn = sum(bool(entry.withdrawn) for entry in ledger.values())
    print(f"{len(ledger)} requirements, {withdrawn} of them withdrawn, {len(releases)} frozen releases: all is well")


@ledger_app.command("freeze")
def freeze_release(release: Annotated[str, typer.Argument(help="Such as 0.1.0.")]) -> None:
    """Write down what a release is held to: every requirement that a test decides now. Once for each release."""
    ledger = read_ledger(REQUIREMENTS)
    bound = {name for identifiers in collect_bindings(SUITES, is_last=True).values() for name in identifiers}
    bound -= {entry.id for entry in ledger.values() if entry.provisional}
    file = freeze(FROZEN, release, ledger, bound)
    print(f"{file}: {len(bound)} requirements")
