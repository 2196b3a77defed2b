"""``podid``: raise a lab, look into it, run the suites against it, remove it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn, cast

import typer

from harness import binaries
from harness import doctor as doctor_checks
from harness.audit_commands import app as audit_app
from harness.cluster.base import ClusterSpec, IpFamily
from harness.conformance.interruption import exit_code_of
from harness.conformance.ledger import Level, read_ledger
from harness.conformance.selection import select, tests_to_rerun
from harness.conformance.shards import parse_shard
from harness.diagnose_commands import app as diagnose_app
from harness.doctor_existing import existing_checks
from harness.doctor_webhook import webhook_checks
from harness.errors import HarnessFault, MissingPrerequisite, PodidError, UsageError
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
    on_backend,
    print_plan,
    target_of,
)
from harness.iam_commands import app as iam_app
from harness.image_commands import app as images_app
from harness.image_commands import print_images
from harness.kube import Kube
from harness.lab import Lab
from harness.lab import load_balancing as load_balancers
from harness.lab.given import Role
from harness.lab.paths import CHECKOUT, cache_directory
from harness.lab.provider import Choice, choose, find_kind, find_native, parse_request
from harness.lab.reuse import Reuse
from harness.lab.side_by_side import beside, left_over, usual, workers
from harness.matrix_commands import app as matrix_app
from harness.migrate_commands import app as migrate_app
from harness.progress import Progress
from harness.report_commands import Only
from harness.report_commands import app as report_app
from harness.runner import (
    Abandoned,
    chosen_files,
    how_to_continue,
    nodes_wanted,
    podid_command,
    require_paths,
    run_suites,
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

app.add_typer(iam_app, name="iam")
app.add_typer(report_app)
app.add_typer(images_app, name="images")
app.add_typer(diagnose_app)
app.add_typer(audit_app)
app.add_typer(migrate_app, name="migrate")
app.add_typer(matrix_app, name="matrix")
app.add_typer(sweep_app)

LabName = Annotated[str, typer.Option("--lab", envvar="PODID_LAB", help="Name of the lab.")]
Clusters = Annotated[
    list[str],
    typer.Option("--cluster", envvar="PODID_CLUSTER", help="Cluster to raise; repeat for several."),
]
ProviderOption = Annotated[
    str,
    typer.Option(
        "--provider",
        envvar="PODID_PROVIDER",
        help="What clusters stand on: auto (kind with a Docker engine, else native), kind, native or existing.",
    ),
]
Nodes = Annotated[
    int, typer.Option("--nodes", envvar="PODID_NODES", min=1, max=9, help="Nodes of each cluster, at least.")
]
IpFamilyOption = Annotated[
    IpFamily | None,
    typer.Option(
        "--ip-family",
        envvar="PODID_IP_FAMILY",
        help="Addresses of pods and services: ipv4 (default), ipv6 or dual; nodes have both in all but the first.",
    ),
]
Kubernetes = Annotated[
    str,
    typer.Option(
        "--kubernetes",
        envvar="PODID_KUBERNETES",
        metavar="MINOR",
        help=f"Version of Kubernetes of native clusters: {' or '.join(binaries.KUBERNETES)}.",
    ),
]
OfflineOption = Annotated[
    bool,
    typer.Option("--offline", envvar="PODID_OFFLINE", help="Refuse at once if something would have to be fetched."),
]
AgentImage = Annotated[
    str,
    typer.Option(
        "--agent-image",
        metavar="IMAGE",
        envvar="PODID_AGENT_IMAGE",
        help="Agent to deploy instead of ours: a file of docker save, or on kind and existing a reference.",
    ),
]
WebhookImage = Annotated[
    str,
    typer.Option(
        "--webhook-image",
        metavar="IMAGE",
        envvar="PODID_WEBHOOK_IMAGE",
        help="Webhook to deploy instead of ours, likewise.",
    ),
]
ReuseOption = Annotated[
    Reuse,
    typer.Option(
        "--reuse",
        envvar="PODID_REUSE",
        help="Whether a lab that is up must be made of what a new one would be (checked), or not (force).",
    ),
]
_INTERRUPTED = 130
"""What typer returns after Ctrl-C, and shells for a program that it ended."""
_MUTANT_JOBS = 2 * (os.cpu_count() or 1)
DEFAULT_LAB = "podid"
DEFAULT_CLUSTERS = [ClusterSpec().name]
SUITES = CHECKOUT / "suites"


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
    with Progress() as progress:
        kubectl = _missing_kubectl(progress)
        specs = [ClusterSpec.named(name, nodes=nodes, kubernetes=kubernetes) for name in cluster]
        given = _given(agent_image, webhook_image)
        the_lab.up(
            specs,
            progress,
            parse_request(provider),
            ip_family=ip_family,
            given=given,
            is_offline=offline,
            reuse=reuse,
        )
    print("# The lab is up. In the shell you want to use it from:")
    for line in the_lab.exports(kubectl):
        print(line)
    print(f"# Remove it with: {podid_command(lab)} down")


def _given(agent_image: str, webhook_image: str) -> dict[Role, str]:
    """Return what is to run instead of ours."""
    sources: dict[Role, str] = {"agent": agent_image, "webhook": webhook_image}
    return {role: source for role, source in sources.items() if source}


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
    report = Lab(lab).status()
    if as_json:
        print(json.dumps(report, indent=1))
    elif not report:
        print(f"there is no lab {lab!r}; raise one with: {podid_command(lab)} up")
    for place, programs in report.items() if not as_json else ():
        print(place)
        for name, state in programs.items():
            exits = f"  restarted after exit codes {state['exits']}" if state["exits"] else ""
            print(f"  {'running' if state['running'] else 'DOWN':8} {name}{exits}")
    healthy = report and all(state["running"] for programs in report.values() for state in programs.values())
    raise typer.Exit(0 if healthy else 2)


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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    *,
    lab: LabName = DEFAULT_LAB,
    cluster: Clusters = DEFAULT_CLUSTERS,
    nodes: Nodes = 1,
    provider: ProviderOption = "auto",
    ip_family: IpFamilyOption = None,
    kubernetes: Kubernetes = binaries.DEFAULT_KUBERNETES,
    agent_image: AgentImage = "",
    webhook_image: WebhookImage = "",
    keep: Annotated[bool, typer.Option("--keep", envvar="PODID_KEEP", help="Leave the lab up at the end.")] = False,
    keep_failed: Annotated[
        bool,
        typer.Option(
            "--keep-failed",
            envvar="PODID_KEEP_FAILED",
            help="If a test fails, leave the lab up with what its scenario made.",
        ),
    ] = False,
    reuse: ReuseOption = "checked",
    only: Only = [],  # noqa: B006
    level: Annotated[list[str], typer.Option("--level", help="MUST, SHOULD or MAY; repeat.")] = [],  # noqa: B006
    rerun_failed: Annotated[
        Path | None, typer.Option("--rerun-failed", metavar="REPORT", help="Run what did not pass in an earlier run.")
    ] = None,
    shard: Annotated[str, typer.Option("--shard", metavar="I/N", help="Run the I-th of N shares.")] = "",
    labs: Annotated[
        int | None,
        typer.Option(
            "--labs",
            envvar="PODID_LABS",
            min=1,
            help="Labs side by side, among which files are shared out (default: 2 for a long run on native where there "
            "is memory for it and no lab is to stay, else 1).",
        ),
    ] = None,
    offline: OfflineOption = False,
    kube_context: Context = "",
    cluster_uid: ClusterUid = "",
    kubeconfig: Kubeconfig = None,
    allow_install: AllowInstall = False,
    image_registry: ImageRegistry = "",
    aws_address: AwsAddress = "",
    backend: BackendOption = "emulator",
    aws_account: AwsAccountId = "",
    aws_region: AwsRegion = "",
    eks_cluster: EksCluster = "",
    allow_static_keys: AllowStaticKeys = False,
    list_images: Annotated[
        bool, typer.Option("--print-images", help="Print what would be pulled, by digest; create nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and what it would decide; create nothing.")
    ] = False,
) -> None:
    """Raise the lab, run the suites, remove the lab, print the verdict. Further arguments go to pytest.

    Among them: --report-dir DIR, --baseline FILE, --frozen RELEASE, --subject NAME, --retries N, --repeat N, and paths
    below suites/. Another agent or webhook than ours is held to what AWS's does, unless --subject says otherwise.
    """
    if list_images:
        print_images(provider, as_json=False)
        return
    # A typing error should not cost the minutes that a lab takes.
    scenarios = {file.stem for file in SUITES.rglob("test_*.py")}
    select(read_ledger(SUITES / "requirements"), only, cast("list[Level]", level), scenarios)
    parse_shard(shard)
    require_paths(context.args)
    arguments = [*(f"--only={name}" for name in only), *(f"--level={name}" for name in level), *context.args]
    arguments += [f"--shard={shard}"] if shard else []
    arguments += [f"--kubernetes={kubernetes}"] if kubernetes != binaries.DEFAULT_KUBERNETES else []
    arguments += (["--reuse=force"] if reuse == "force" else []) + (["--keep-failed"] if keep_failed else [])
    if rerun_failed:
        files = sorted({node.partition("::")[0] for node in tests_to_rerun(rerun_failed)})
        arguments += [f"--rerun-failed={rerun_failed.absolute()}", *files]
    target = target_of(
        provider,
        kubeconfig=kubeconfig,
        context=kube_context,
        cluster_uid=cluster_uid,
        allow_install=allow_install,
        image_registry=image_registry,
        aws_address=aws_address,
        backend=backend,
        aws_account=aws_account,
        aws_region=aws_region,
        eks_cluster=eks_cluster,
        allow_static_keys=allow_static_keys,
    )
    cluster, arguments = on_backend(target, cluster, arguments, labs=labs, images=agent_image + webhook_image)
    if dry_run:
        print_plan(target, cluster)
        family = [f"--ip-family={ip_family}"] if ip_family else []
        result = run_suites(lab, cluster, ["--dry-run", f"--provider={provider}", *family, *arguments])
        print(result.line)
        raise typer.Exit(result.exit_code)
    if labs and labs > 1 and keep_failed:
        raise UsageError("--keep-failed with several labs: only the first can stay", hint="use --labs 1")
    the_lab, given = Lab(lab, target), _given(agent_image, webhook_image)
    if (given or the_lab.given) and not any(argument.startswith("--subject") for argument in arguments):
        arguments.append("--subject=upstream")
    keep = keep or the_lab.exists
    fault: PodidError | None = None
    with Progress() as progress:
        try:
            try:
                specs = [ClusterSpec.named(name, nodes=nodes, kubernetes=kubernetes) for name in cluster]
                the_lab.up(
                    specs,
                    progress,
                    parse_request(provider),
                    ip_family=ip_family,
                    given=given,
                    nodes_from_start=nodes_wanted(arguments),
                    is_offline=offline,
                    reuse=reuse,
                )
            except (HarnessFault, MissingPrerequisite) as error:
                # The reports are written all the same; they say why nothing ran.
                fault = error
            arguments += workers(
                the_lab, labs or (1 if keep or keep_failed else usual(the_lab, len(chosen_files(arguments))))
            )
            with progress.phase("scenarios"), progress.quiet():
                result = run_suites(lab, cluster, arguments, fault)
                keep = keep or (keep_failed and bool(result.failed) and not fault)
        except Abandoned as abandoned:
            _leave_at_once(lab, abandoned.number)
        finally:
            _remove_all([*left_over(lab), *([] if keep else [the_lab])], lab, progress)
    if fault:
        print(f"podid: {fault}", file=sys.stderr)
    for line in how_to_continue(result, lab, kept=keep and not fault):
        print(line)
    print(result.line)
    raise typer.Exit(result.exit_code)


def _remove_all(labs: Sequence[Lab], name: str, progress: Progress) -> None:
    """Remove the labs that are there, unless a person has no time for that."""
    if not (there := [each for each in labs if each.exists]):
        return
    try:
        with progress.phase("clean-up"):
            for each in there:
                each.down()
    except KeyboardInterrupt as interrupt:
        _leave_at_once(name, interrupt.args[0] if interrupt.args else signal.SIGINT)


def _leave_at_once(lab: str, number: int) -> NoReturn:
    """Stop cleaning up, say what is left and how to remove it, and end like a program that a signal ended."""
    print(f"podid: stopped at once; lab {lab!r} is left, remove it with: {podid_command(lab)} down", file=sys.stderr)
    sys.stderr.flush()
    os._exit(exit_code_of(number))


@app.command()
def mutants(
    names: Annotated[list[str] | None, typer.Argument(help="Names or globs; all without any.")] = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Run the whole suite on each, to find over-killing.")] = False,
    listing: Annotated[
        bool, typer.Option("--list", help="Print them and what must find them out; run nothing.")
    ] = False,
    policies: Annotated[
        bool, typer.Option("--policies", help="Break the scenarios' policies instead, on a lab; names are globs.")
    ] = False,
    lab: LabName = DEFAULT_LAB,
    provider: ProviderOption = "auto",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at a time; tests mostly wait.")] = _MUTANT_JOBS,
    report_dir: Annotated[Path, typer.Option("--report-dir", help="Where the run's directory is made.")] = Path(
        "reports"
    ),
) -> None:
    """Prove that the suites can fail: run them on broken agents and webhooks, and print which test found out which."""
    directory = report_dir / f"mutants-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if policies:
        _break_policies(names or [], directory, lab, provider, is_listing=listing)
        return
    try:
        from harness.mutants import choose, run_mutants  # noqa: PLC0415 - they import agent and webhook
    except ModuleNotFoundError as error:
        raise MissingPrerequisite(f"{error}", hint="install agent and webhook: uv sync") from error
    chosen = choose(names or [], trivial=full or listing)
    if listing:
        for mutant in chosen:
            print(f"{mutant.name:32} {' '.join(mutant.must_kill) or 'nearly all':24} {mutant.fault}")
        return
    matrix = run_mutants(chosen, directory.absolute(), full=full, jobs=jobs, tell=partial(print, flush=True))
    for complaint in matrix.complaints():
        print(complaint)
    print(f"{matrix.line} — {directory / 'kill-matrix.md'}")
    raise typer.Exit(matrix.exit_code)


def _break_policies(names: Sequence[str], directory: Path, lab: str, provider: str, *, is_listing: bool) -> None:
    """Run the scenarios with each of their policies changed in one place."""
    from harness.policy_mutants import EQUIVALENT, choose_policies, run_policy_mutants, users  # noqa: PLC0415

    chosen = choose_policies(names)
    if is_listing:
        for mutation in chosen:
            print(f"{mutation.name}  ({', '.join(users(mutation.file))})")
        for name, reason in EQUIVALENT.items():
            print(f"not run: {name}: {reason}")
        return
    the_lab = Lab(lab)
    keep = the_lab.exists
    with Progress() as progress:
        try:
            the_lab.up([ClusterSpec.named(ClusterSpec().name)], progress, parse_request(provider))
            with progress.phase("scenarios"), progress.quiet():
                matrix = run_policy_mutants(chosen, lab, directory.absolute(), partial(print, flush=True))
        finally:
            _remove_all([] if keep else [the_lab], lab, progress)
    for complaint in matrix.complaints():
        print(complaint)
    print(f"{matrix.line} — {directory / 'policy-matrix.md'}")
    raise typer.Exit(matrix.exit_code)


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
