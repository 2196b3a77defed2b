"""``podid matrix``: what runs on which versions, as a check, a plan, GitHub's matrix, and one leg after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from harness.conformance.history import DEFAULT, read_durations
from harness.conformance.ledger import read_ledger
from harness.conformance.outcomes import Outcome
from harness.conformance.record import FILE_NAME, Run, read_run
from harness.conformance.verdict import ExitCode
from harness.errors import UsageError
from harness.image_lock import read_lock
from harness.lab.paths import CHECKOUT
from harness.matrix import Leg, Matrix, read_matrix

__all__ = ["Row", "app", "table", "worst_code"]

SUITES = CHECKOUT / "suites"
FILE = SUITES / "matrix.yaml"
COULD_NOT_RUN = "could-not-run"
_GIVEN = ("PODID_AGENT_IMAGE", "PODID_WEBHOOK_IMAGE")
_NODE_IMAGE = "PODID_KIND_NODE_IMAGE"
_WORST_FIRST = (ExitCode.HARNESS_ERROR, ExitCode.NON_CONFORMANT, ExitCode.INCOMPLETE, ExitCode.CONFORMANT)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The version matrix of suites/matrix.yaml.")

On = Annotated[str, typer.Option("--on", metavar="TRIGGER", help="Only the legs of pr, nightly, weekly or release.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[LEG]...", help="Names or globs; all without any.")]


@app.command()
def check() -> None:
    """Say what no leg covers and what nobody knows. Exit code 3 when there is something."""
    matrix = read_matrix(FILE)
    faults = matrix.faults(read_ledger(SUITES / "requirements"))
    for fault in faults:
        print(fault)
    print(f"matrix: {len(matrix.legs)} legs, {len(faults) or 'nothing'} wrong")
    raise typer.Exit(3 if faults else 0)


@app.command()
def plan(names: Names = None, on: On = "") -> None:
    """Print what each leg would run, pull and be given, and how long it took; run nothing."""
    matrix = read_matrix(FILE)
    for leg in _chosen(matrix, names, on):
        earlier = read_durations(CHECKOUT / DEFAULT, leg.name)
        seconds = sum(earlier.expected(earlier.seconds).values())
        pulled = [
            image.reference for image in read_lock().values() if image.origin == "pull" and leg.provider == "kind"
        ]
        images = [matrix.source(leg), *(image for image in pulled if "kindest/node" not in image)] if pulled else []
        print(leg.name)
        print(f"  runs:        {', '.join(leg.on)}")
        print(f"  scenarios:   {' '.join(matrix.paths(leg))}")
        print(f"  pulls:       {', '.join(images) or 'nothing'}")
        print(f"  takes:       {f'{seconds / 60:.0f} min, as earlier runs' if seconds else 'unknown, no earlier run'}")
        print(f"  is given:    {' '.join(_GIVEN) if leg.subject == 'upstream' else 'no image'}")
        print("  credentials: none, AWS is emulated")


@app.command("json")
def as_json(names: Names = None, on: On = "") -> None:
    """Print the legs as GitHub's matrix."""
    matrix = read_matrix(FILE)
    legs = [
        {
            "name": leg.name,
            "provider": leg.provider,
            "kubernetes": leg.kubernetes,
            "node-image": matrix.source(leg) if leg.provider == "kind" else "",
            "subject": leg.subject,
            "suites": "" if matrix.is_whole(leg) else " ".join(f"suites/{path}" for path in matrix.paths(leg)),
        }
        for leg in _chosen(matrix, names, on)
    ]
    print(json.dumps({"include": legs}))


@app.command("node-image")
def node_image(kubernetes: Annotated[str, typer.Argument(help="Minor version, such as 1.36.")]) -> None:
    """Print kind's node image of a version, for PODID_KIND_NODE_IMAGE."""
    images = {minor: of["kind"] for minor, of in read_matrix(FILE).kubernetes.items() if of.get("kind")}
    if kubernetes not in images:
        raise UsageError(f"no node image of Kubernetes {kubernetes!r}", hint=f"{FILE.name} has {', '.join(images)}")
    print(images[kubernetes])


def _chosen(matrix: Matrix, names: list[str] | None, on: str) -> list[Leg]:
    legs = matrix.on(on)
    for pattern in names or ():
        if not any(fnmatchcase(leg.name, pattern) for leg in legs):
            raise UsageError(f"no leg {pattern!r}", hint=f"known: {', '.join(leg.name for leg in legs)}")
    return [leg for leg in legs if not names or any(fnmatchcase(leg.name, pattern) for pattern in names)]


# --- Running --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one leg."""

    leg: str
    verdict: str
    """The record's; ``could-not-run`` when nothing was observed, which is never a pass."""
    musts: str
    seconds: float
    reason: str
    exit_code: int


@app.command()
def run(
    names: Names = None,
    on: On = "",
    lab: Annotated[str, typer.Option("--lab", help="Lab that each leg raises and removes.")] = "matrix",
    report_dir: Annotated[Path, typer.Option("--report-dir", help="Where each leg gets a directory.")] = Path(
        "reports/matrix"
    ),
) -> None:
    """Run legs one after the other, and print a table. Exit code: the worst of the legs'."""
    matrix = read_matrix(FILE)
    if faults := matrix.faults(read_ledger(SUITES / "requirements")):
        raise UsageError(f"the matrix is not as it must be: {'; '.join(faults)}", hint="see: podid matrix check")
    legs = _chosen(matrix, names, on)
    rows: list[Row] = []
    for number, leg in enumerate(legs, 1):
        print(f"leg {number} of {len(legs)}: {leg.name}", flush=True)
        rows.append(_run(matrix, leg, lab, (report_dir / leg.name).absolute()))
    print("\n".join(table(rows)))
    raise typer.Exit(worst_code(rows))


def _run(matrix: Matrix, leg: Leg, lab: str, directory: Path) -> Row:
    if leg.subject == "upstream" and not any(os.environ.get(name) for name in _GIVEN):
        reason = f"prerequisite: no image of upstream is given; set {' and '.join(_GIVEN)}"
        return Row(leg.name, COULD_NOT_RUN, "", 0.0, reason, ExitCode.INCOMPLETE)
    before = set(directory.glob(f"*/{FILE_NAME}"))
    started = time.monotonic()
    done = subprocess.run(
        _command(matrix, leg, lab, directory), cwd=CHECKOUT, env=_environment(matrix, leg), check=False
    )
    seconds = time.monotonic() - started
    new = sorted(set(directory.glob(f"*/{FILE_NAME}")) - before)
    if not new:
        reason = f"the command ended with {done.returncode} and left no record"
        return Row(leg.name, COULD_NOT_RUN, "", seconds, reason, done.returncode or ExitCode.HARNESS_ERROR)
    return _row(leg, read_run(new[-1]), seconds, done.returncode)


def _command(matrix: Matrix, leg: Leg, lab: str, directory: Path) -> list[str]:
    paths = [] if matrix.is_whole(leg) else [f"suites/{path}" for path in matrix.paths(leg)]
    options = [f"--leg={leg.name}", f"--report-dir={directory}", *paths]
    if leg.provider == "process":
        return [sys.executable, "-m", "pytest", "--numprocesses=auto", "--dist=loadfile", *options]
    podid = str(Path(sys.executable).with_name("podid"))
    command = [podid, "run", f"--lab={lab}", f"--provider={leg.provider}"]
    command += [f"--kubernetes={leg.kubernetes}"] if leg.provider == "native" else []
    return [*command, *(["--partial"] if paths else []), *options]


def _environment(matrix: Matrix, leg: Leg) -> Mapping[str, str]:
    """Return the environment of a leg: nothing of ours changes what it is made of."""
    kept = {name: value for name, value in os.environ.items() if name not in {*_GIVEN, _NODE_IMAGE, "PODID_KUBERNETES"}}
    if leg.subject == "upstream":
        kept |= {name: os.environ[name] for name in _GIVEN if name in os.environ}
    # The default's need not be named: then an image of its minor that was loaded from an archive serves as well.
    if leg.provider == "kind" and matrix.source(leg) != read_lock()["node"].reference:
        kept[_NODE_IMAGE] = matrix.source(leg)
    return kept


def _row(leg: Leg, record: Run, seconds: float, code: int) -> Row:
    reasons = [
        f"{test.reason.kind}: {test.reason.detail}"
        for test in record.tests
        if test.outcome == Outcome.NOT_RUN.value and test.reason
    ]
    reason = " ".join(reasons[0].split()) if reasons else ""
    verdict = record.verdict if record.observed_musts else COULD_NOT_RUN
    return Row(leg.name, verdict, f"{record.observed_musts} of {record.musts}", seconds, reason, code)


def table(rows: list[Row]) -> list[str]:
    """Return the table at the end, with a line that counts."""
    width = max((len(row.leg) for row in rows), default=3)
    lines = [f"{'leg':{width}}  {'verdict':15}  {'MUST observed':13}  {'minutes':>7}  why not"]
    lines += [
        f"{row.leg:{width}}  {row.verdict:15}  {row.musts:13}  {row.seconds / 60:7.1f}  {row.reason[:200]}".rstrip()
        for row in rows
    ]
    good = sum(row.exit_code == ExitCode.CONFORMANT and row.verdict != COULD_NOT_RUN for row in rows)
    stuck = sum(row.verdict == COULD_NOT_RUN for row in rows)
    return [*lines, f"matrix: {good} of {len(rows)} legs fine, {stuck} could not run (exit {worst_code(rows)})"]


def worst_code(rows: list[Row]) -> int:
    """Return the exit code of all legs together: what could not run is never fine."""
    codes = {row.exit_code or (ExitCode.INCOMPLETE if row.verdict == COULD_NOT_RUN else 0) for row in rows}
    return next((int(code) for code in _WORST_FIRST if code in codes), int(ExitCode.HARNESS_ERROR))
