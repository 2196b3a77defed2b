"""``podid audit``: what is assigned to what, what drifted, and the guide's hardening checklist."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.audit import Check, Inventory, as_sarif, association_table, drift, gather, run_checks, snapshot
from harness.audit.inventory import read_snapshot
from harness.errors import UsageError
from harness.progress import Progress
from harness.target import AwsProfile, AwsRegion, ClusterName, KubeconfigFile, KubeContext, LabName, find_target

__all__ = ["app"]

app = typer.Typer()

_MARKS = {"pass": "pass   ", "fail": "FAIL   ", "unknown": "unknown"}


@app.command()
def audit(
    *,
    kubeconfig: KubeconfigFile = None,
    context: KubeContext = "",
    cluster: ClusterName = "",
    profile: AwsProfile = "",
    region: AwsRegion = "",
    lab: LabName = "podid",
    diff: Annotated[
        Path | None, typer.Option("--diff", metavar="OLD", help="An earlier report (--json) to compare with.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print the guide's table of associations alone.")] = False,
    output: Annotated[str, typer.Option("--format", help="text, json or sarif.")] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Audit the associations of a cluster; reads only. Exit code 1 when a check fails, or something drifted.

    Looks at what you name; else at the lab if one is up, else at your kubeconfig and your default AWS profile.
    """
    form = _form("json" if as_json else output)
    stored = _read(diff) if diff else None
    target = find_target(lab, kubeconfig=kubeconfig, context=context, profile=profile, region=region, cluster=cluster)
    with Progress() as progress, progress.phase("audit"), contextlib.closing(target.kube()) as kube:
        name = target.name_in(kube)
        old = None if stored is None else read_snapshot(stored, name)
        inventory = gather(kube, target.client, name)
    if table:
        if inventory.associations is None:
            raise UsageError(f"the associations of {name} cannot be read: {inventory.gaps['associations']}")
        print(association_table(inventory.associations), end="")
        return
    changes = None if old is None or inventory.associations is None else drift(old, snapshot(inventory))
    checks = run_checks(inventory, changes)
    if form == "sarif":
        print(json.dumps(as_sarif(name, checks, importlib.metadata.version("podid")), indent=1))
    elif form == "json":
        print(json.dumps(_report(inventory, checks), indent=1))
    else:
        _print(inventory, checks)
    raise typer.Exit(1 if any(check.status == "fail" for check in checks) else 0)


def _form(name: str) -> Literal["text", "json", "sarif"]:
    for known in ("text", "json", "sarif"):
        if name == known:
            return known
    raise UsageError(f"there is no format {name!r}", hint="use --format text, json or sarif")


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}", hint="make one: podid audit --json > OLD") from error


def _report(inventory: Inventory, checks: list[Check]) -> dict[str, Any]:
    """Return a snapshot, so that a report can be compared with, and the checks."""
    return {**snapshot(inventory), "checks": [asdict(check) for check in checks], "gaps": dict(inventory.gaps)}


def _print(inventory: Inventory, checks: list[Check]) -> None:
    if inventory.associations is not None:
        print(association_table(inventory.associations))
    for check in checks:
        print(f"{_MARKS[check.status]}  {check.id:16}  {check.title}")
        for entry in check.evidence:
            print(f"{'':27}{entry}")
        if check.cure:
            print(f"{'':27}cure: {check.cure}")
    counts = {status: sum(check.status == status for check in checks) for status in _MARKS}
    print(f"\n{counts['pass']} pass, {counts['fail']} fail, {counts['unknown']} unknown")
