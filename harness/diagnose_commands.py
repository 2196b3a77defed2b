"""``podid diagnose``: why a pod does not get the credentials of its association, and what mends it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from harness.diagnose import find_causes, gather
from harness.progress import Progress
from harness.target import AwsProfile, AwsRegion, ClusterName, KubeconfigFile, KubeContext, LabName, find_target

__all__ = ["app"]

app = typer.Typer()


@app.command()
def diagnose(
    pod: Annotated[str, typer.Argument(help="The pod.")],
    *,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
    kubeconfig: KubeconfigFile = None,
    context: KubeContext = "",
    cluster: ClusterName = "",
    profile: AwsProfile = "",
    region: AwsRegion = "",
    lab: LabName = "podid",
    no_exec: Annotated[
        bool, typer.Option("--no-exec", help="Run nothing in the pod: the agent is not asked from inside.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Say why a pod does not get its credentials, with evidence and cure. Exit code 1 when a cause was found.

    Looks at what you name; else at the lab if one is up, else at your kubeconfig and your default AWS profile.
    """
    target = find_target(lab, kubeconfig=kubeconfig, context=context, profile=profile, region=region, cluster=cluster)
    with Progress() as progress, progress.phase(f"pod {namespace}/{pod}"), contextlib.closing(target.kube()) as kube:
        # Without AWS most causes can be told all the same.
        eks = target.client("eks") if target.session.region_name else None
        picture = gather(kube, eks, target.cluster, pod, namespace, ask=not no_exec)
    causes = find_causes(picture)
    if as_json:
        data: dict[str, Any] = {
            "pod": pod,
            "namespace": namespace,
            "causes": [asdict(found) for found in causes],
            "gaps": picture.gaps,
        }
        print(json.dumps(data, indent=1))
    else:
        for found in causes:
            print(found.text)
        for gap in picture.gaps:
            print(f"not looked at: {gap}")
        if not causes:
            far = ", as far as it could be looked at" if picture.gaps else ""
            print(f"pod {namespace}/{pod}: nothing found between it and its credentials{far}")
    raise typer.Exit(1 if causes else 0)
