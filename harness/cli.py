"""``podid``: raise a lab, look into it, run the suites against it, remove it."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from harness import binaries
from harness import doctor as doctor_checks
from harness.audit_commands import app as audit_app
from harness.cluster.base import ClusterSpec
from harness.diagnose_commands import app as diagnose_app
from harness.doctor_existing import existing_checks
from harness.doctor_webhook import webhook_checks
from harness.errors import MissingPrerequisite, PodidError, UsageError
from harness.existing_commands import (
    AllowInstall,
    AllowStaticKeys,
    AwsAccountId,
    AwsAddress,
    AwsRegion,
    BackendOption,
    ClusterUid,
    Context,
    EksCluster,
    ImageRegistry,
    Kubeconfig,
    target_of,
)
from harness.iam_commands import app as iam_app
from harness.image_commands import app as images_app
from harness.kube import Kube
from harness.lab import Lab
from harness.lab import load_balancing as load_balancers
from harness.lab.paths import cache_directory
from harness.lab.provider import Choice, choose, find_kind, find_native, parse_request
from harness.lab.side_by_side import beside
from harness.lab_options import (
    DEFAULT_CLUSTERS,
    DEFAULT_LAB,
    AgentImage,
    Clusters,
    IpFamilyOption,
    Kubernetes,
    LabName,
    Nodes,
    OfflineOption,
    ProviderOption,
    ReuseOption,
    WebhookImage,
    given_images,
)
from harness.matrix_commands import app as matrix_app
from harness.migrate_commands import app as migrate_app
from harness.progress import Progress
from harness.report_commands import app as report_app
from harness.run_commands import app as run_app
from harness.runner import (
    podid_command,
)
from harness.sweep_commands import app as sweep_app

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Conformance harness and laptop lab for Amazon EKS Pod Identity.",
    epilog="Exit codes: 0 fine, 1 the subject does not conform, 2 not everything could run, 3 harness or usage error.",
)

app.add_typer(run_app)
app.add_typer(iam_app, name="iam")
app.add_typer(report_app)
app.add_typer(images_app, name="images")
app.add_typer(diagnose_app)
app.add_typer(audit_app)
app.add_typer(migrate_app, name="migrate")
app.add_typer(matrix_app, name="matrix")
app.add_typer(sweep_app)

_INTERRUPTED = 130
"""What typer returns after Ctrl-C, and shells for a program that it ended."""


@app.command()
def up(
    *,
    lab: LabName = DEFAULT_LAB,
    cluster: Clusters = DEFAULT_CLUSTERS,
    nodes: Nodes = 1,
    provider: ProviderOption = "auto",
    ip_family: IpFamilyOption = None,
    kubernetes: Kubernetes = binaries.DEFAULT_KUBERNETES,
    agent_image: AgentImage = "",
    webhook_image: WebhookImage = "",
    offline: OfflineOption = False,
    reuse: ReuseOption = "checked",
    context: Context = "",
    cluster_uid: ClusterUid = "",
    kubeconfig: Kubeconfig = None,
    allow_install: AllowInstall = False,
    image_registry: ImageRegistry = "",
    aws_address: AwsAddress = "",
) -> None:
    """Raise the lab, or add a cluster to it, and print how to use it."""
    target = target_of(
        provider,
        kubeconfig=kubeconfig,
        context=context,
        cluster_uid=cluster_uid,
        allow_install=allow_install,
        image_registry=image_registry,
        aws_address=aws_address,
    )
    the_lab = Lab(lab, target)
    with Progress() as progress, the_lab.used():
        kubectl = _missing_kubectl(progress)
        specs = [ClusterSpec.named(name, nodes=nodes, kubernetes=kubernetes) for name in cluster]
        given = given_images(agent_image, webhook_image)
        the_lab.up(
            specs,
            progress,
            parse_request(provider),
            ip_family=ip_family,
            given=given,
            is_offline=offline,
            reuse=reuse,
        )
        the_lab.keep()
    print("# The lab is up. In the shell you want to use it from:")
    for line in the_lab.exports(kubectl):
        print(line)
    print(f"# Remove it with: {podid_command(lab)} down")


@app.command()
def down(lab: LabName = DEFAULT_LAB) -> None:
    """Remove the lab with everything it left on this machine; also after a crash."""
    with Progress() as progress, progress.phase("clean-up"):
        # Of a run that was killed there may be more.
        removed = [each.down() for each in (*beside(lab), Lab(lab))]
    print(f"lab {lab!r} is gone" if any(removed) else f"there was no lab {lab!r}")


@app.command()
def status(
    lab: LabName = DEFAULT_LAB,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show what runs. Exit code 2 when something does not."""
    the_lab = Lab(lab)
    report = the_lab.status()
    is_remembered = not report or the_lab.is_remembered
    if as_json:
        print(json.dumps(report, indent=1))
    elif not report:
        print(f"there is no lab {lab!r}; raise one with: {podid_command(lab)} up")
    for place, programs in report.items() if not as_json else ():
        print(place)
        for name, state in programs.items():
            exits = f"  restarted after exit codes {state['exits']}" if state["exits"] else ""
            print(f"  {'running' if state['running'] else 'DOWN':8} {name}{exits}")
    if not is_remembered and not as_json:
        print(f"AWS began anew and knows nothing of this lab any more; remove it with: {podid_command(lab)} down")
    healthy = report and all(state["running"] for programs in report.values() for state in programs.values())
    raise typer.Exit(0 if healthy and is_remembered else 2)


@app.command()
def logs(
    name: Annotated[
        str, typer.Argument(help="Such as aws/localstack or pod-identity-lab/kubelet; empty lists them.")
    ] = "",
    lab: LabName = DEFAULT_LAB,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Print the last lines only; 0 prints all.")] = 100,
) -> None:
    """Print a program's log, or list all logs."""
    files = Lab(lab).logs()
    if not name:
        for known, path in files.items():
            print(f"{known:40} {path}")
        return
    if name not in files:
        raise UsageError(
            f"no log {name!r} in lab {lab!r}", hint="known: " + (", ".join(files) or "none, the lab is down")
        )
    text = files[name].read_text(errors="replace").splitlines()
    print("\n".join(text[-lines:] if lines else text))


@app.command()
def kubeconfig(lab: LabName = DEFAULT_LAB) -> None:
    """Print the path of the lab's kubeconfig, with a context per cluster."""
    print(Lab(lab).require().paths.kubeconfig)


@app.command()
def exports(lab: LabName = DEFAULT_LAB) -> None:
    """Print the lines that make a shell's kubectl and aws use the lab: eval "$(podid exports)"."""
    the_lab = Lab(lab).require()
    with Progress() as progress:
        kubectl = _missing_kubectl(progress)
    for line in the_lab.exports(kubectl):
        print(line)


def _missing_kubectl(progress: Progress) -> Path | None:
    """Return a kubectl of ours if the machine has none."""
    if shutil.which("kubectl"):
        return None
    return binaries.ensure(cache_directory(), progress, [binaries.KUBECTL])["kubectl"]


@app.command()
def load_balancing(lab: LabName = DEFAULT_LAB, cluster: str = DEFAULT_CLUSTERS[0]) -> None:
    """Let the lab's load balancers carry traffic, and print where the controller's chart and IAM policy are."""
    the_lab = Lab(lab).require()
    with Progress() as progress:
        found = the_lab.cluster(cluster)
        with contextlib.closing(Kube(found.kubeconfig)) as kube:
            load_balancers.bring_up(the_lab, found, kube, progress)
        files = load_balancers.controller_files(the_lab, progress)
    print(f"chart: {files.chart}\nIAM policy: {files.policy}\nhelm: {files.helm}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def curl(context: typer.Context, lab: LabName = DEFAULT_LAB, cluster: str = DEFAULT_CLUSTERS[0]) -> None:
    """Run curl with these arguments against the lab's load balancers, whose names only the lab resolves."""
    address = Lab(lab).require().cluster(cluster).nodes[0].address
    program = shutil.which("curl")
    if program is None:
        raise MissingPrerequisite("there is no curl on this machine", hint="install curl")
    done = subprocess.run([program, "--noproxy", "*", "--connect-to", f"::{address}:", *context.args], check=False)
    raise typer.Exit(done.returncode)


@app.command()
def doctor(
    *,
    provider: ProviderOption = "auto",
    ip_family: IpFamilyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    webhook: Annotated[
        Path | None,
        typer.Option("--webhook", metavar="KUBECONFIG", help="Instead: can the webhook of this cluster do its work?"),
    ] = None,
    context: Context = "",
    cluster_uid: ClusterUid = "",
    kubeconfig: Kubeconfig = None,
    allow_install: AllowInstall = False,
    aws_address: AwsAddress = "",
    backend: BackendOption = "emulator",
    aws_account: AwsAccountId = "",
    aws_region: AwsRegion = "",
    eks_cluster: EksCluster = "",
    allow_static_keys: AllowStaticKeys = False,
) -> None:
    """Check whether this machine can raise a lab; changes nothing. Exit code 2 when it cannot."""
    target = target_of(
        provider,
        kubeconfig=kubeconfig,
        context=context,
        cluster_uid=cluster_uid,
        allow_install=allow_install,
        aws_address=aws_address,
        backend=backend,
        aws_account=aws_account,
        aws_region=aws_region,
        eks_cluster=eks_cluster,
        allow_static_keys=allow_static_keys,
    )
    if webhook is not None:
        kube = Kube(webhook)
        checks = webhook_checks(kube)
        kube.close()
    elif target:
        checks = existing_checks(target)
    else:
        requested = parse_request(provider)
        choice = choose(find_kind(), find_native()) if requested == "auto" else Choice(requested, "as asked for")
        checks = doctor_checks.run_checks("kind" if choice.name == "kind" else "native", ip_family or "ipv4")
        if not as_json:
            print(choice.line)
    if as_json:
        print(json.dumps([check.as_data() for check in checks], indent=1))
    else:
        for check in checks:
            print(check.line())
    raise typer.Exit(2 if any(check.status == "fail" for check in checks) else 0)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; a person's errors end in one message, never in a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(arguments, standalone_mode=False)
    except PodidError as error:
        print(f"podid: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except typer.TyperException as error:
        print(f"podid: {error.format_message()}\nsee: podid --help", file=sys.stderr)
        sys.exit(3)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"podid: the disk is full: {error.filename or error}\nfree some space and try again", file=sys.stderr)
        sys.exit(3)
    if code == _INTERRUPTED:
        print("podid: interrupted; what was half-made has been removed", file=sys.stderr)
    sys.exit(code or 0)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)
