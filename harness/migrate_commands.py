"""``podid migrate``: the way from IRSA to Pod Identity, ServiceAccount by ServiceAccount."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from harness.errors import UsageError
from harness.migrate import Step, gather, plan
from harness.progress import Progress
from harness.target import AwsProfile, AwsRegion, ClusterName, KubeconfigFile, KubeContext, LabName, find_target

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="The way from IRSA to Pod Identity: what is next, and what is wrong. Reads only."
)

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The one to look at; all without it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable.")]


@app.command("plan")
def show(
    *,
    namespace: Namespace = "",
    kubeconfig: KubeconfigFile = None,
    context: KubeContext = "",
    cluster: ClusterName = "",
    profile: AwsProfile = "",
    region: AwsRegion = "",
    lab: LabName = "podid",
    as_json: AsJson = False,
) -> None:
    """Say for every ServiceAccount with a role what the next step is, with its commands."""
    steps = _steps(lab, kubeconfig, namespace, context=context, profile=profile, region=region, cluster=cluster)
    if as_json:
        print(json.dumps([asdict(step) for step in steps], indent=1))
        return
    for step in steps:
        print(f"{step.account}: {_number(step)}{step.what}")
        for command in step.commands:
            print(f"  {command}")
    _print_wrong(steps)


@app.command()
def check(
    *,
    namespace: Namespace = "",
    kubeconfig: KubeconfigFile = None,
    context: KubeContext = "",
    cluster: ClusterName = "",
    profile: AwsProfile = "",
    region: AwsRegion = "",
    lab: LabName = "podid",
    as_json: AsJson = False,
) -> None:
    """Say what is wrong or could not be told, and nothing else. Exit code 1 when there is any of it."""
    steps = _steps(lab, kubeconfig, namespace, context=context, profile=profile, region=region, cluster=cluster)
    wrong = [step for step in steps if step.wrong or step.unknown]
    if as_json:
        print(json.dumps([asdict(step) for step in wrong], indent=1))
    else:
        _print_wrong(steps)
        if not wrong:
            print(f"nothing is wrong with {len(steps)} ServiceAccounts")
    raise typer.Exit(1 if wrong else 0)


def _steps(
    lab: str, kubeconfig: Path | None, namespace: str, *, context: str, profile: str, region: str, cluster: str
) -> list[Step]:
    target = find_target(lab, kubeconfig=kubeconfig, context=context, profile=profile, region=region, cluster=cluster)
    with Progress() as progress, progress.phase("migration"), contextlib.closing(target.kube()) as kube:
        name = target.name_in(kube)
        try:
            return plan(gather(kube, target.client("eks"), target.client("iam"), name, namespace))
        except (BotoCoreError, ClientError) as error:
            raise UsageError(
                f"the associations of {name} cannot be read: {error}",
                hint="name an account with --profile and --region",
            ) from error


def _number(step: Step) -> str:
    return f"step {step.number}, " if 0 < step.number < 8 else ""


def _print_wrong(steps: list[Step]) -> None:
    for step in steps:
        for fault in step.wrong:
            print(f"WRONG    {step.account}: {fault}")
        for gap in step.unknown:
            print(f"UNKNOWN  {step.account}: {gap}")
