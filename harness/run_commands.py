"""``podid run`` and ``podid mutants``: raise a lab where one is needed, run suites, say what came of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn, Self, cast

import typer

from harness import binaries
from harness.cluster.base import ClusterSpec
from harness.conformance.interruption import exit_code_of
from harness.conformance.ledger import Level, read_ledger
from harness.conformance.record import new_run_id
from harness.conformance.selection import select, tests_to_rerun
from harness.conformance.shards import parse_shard
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
from harness.image_commands import print_images
from harness.lab import Lab
from harness.lab.paths import CHECKOUT
from harness.lab.provider import parse_request
from harness.lab.side_by_side import left_over, usual, workers
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
from harness.progress import Progress
from harness.report_commands import Only
from harness.runner import (
    Abandoned,
    chosen_files,
    how_to_continue,
    nodes_wanted,
    podid_command,
    require_paths,
    run_suites,
)

__all__ = ["app"]

app = typer.Typer()

SUITES = CHECKOUT / "suites"
_MUTANT_JOBS = 2 * (os.cpu_count() or 1)


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
            help="Labs side by side, among which files are shared out (default: up to 4 for a long run on native, as "
            "there is room, where no lab is to stay; else 1).",
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
    the_lab, given = Lab(lab, target), given_images(agent_image, webhook_image)
    fault: PodidError | None = None
    with Progress() as progress, _Claim(the_lab, progress, keep=keep) as claim:
        try:
            try:
                claim.lay()
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
            arguments += _subject(arguments) if given or the_lab.given else []
            arguments += workers(
                the_lab, labs or (1 if claim.stays or keep_failed else usual(the_lab, len(chosen_files(arguments))))
            )
            with progress.phase("scenarios"), progress.quiet():
                result = run_suites(lab, cluster, arguments, fault)
            claim.keep = keep or (keep_failed and bool(result.failed) and not fault)
        except Abandoned as abandoned:
            _leave_at_once(lab, abandoned.number)
    if fault:
        print(f"podid: {fault}", file=sys.stderr)
    for line in how_to_continue(result, lab, kept=claim.stays and not fault):
        print(line)
    print(result.line)
    raise typer.Exit(result.exit_code)


def _subject(arguments: Sequence[str]) -> list[str]:
    """Return the subject of a run on another agent or webhook than ours; nothing where the person says whose it is."""
    return [] if any(argument.startswith("--subject") for argument in arguments) else ["--subject=upstream"]


class _Claim:
    """A run's hold on its lab, which is removed at the end unless it was there before or somebody wants it to stay."""

    def __init__(self, lab: Lab, progress: Progress, *, keep: bool = False) -> None:
        self._lab = lab
        self._progress = progress
        self._use = contextlib.ExitStack()
        self._was_there = True
        self.keep = keep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._use.close()

    @property
    def stays(self) -> bool:
        return self.keep or self._was_there

    def lay(self) -> None:
        """Remove what a run that was killed left of the lab, and let no other run take it for that.

        Raises:
            MissingPrerequisite: The place of labs belongs to another user, or the engine that holds the lab is gone.
        """
        if left := left_over(self._lab.name):
            self._progress.say(f"left of a run that was killed: lab {', '.join(each.name for each in left)}")
            _remove_all(left, self._lab.name, self._progress)
        self._use.enter_context(self._lab.used())
        self._use.callback(self._end)
        self._was_there = self._lab.exists

    def _end(self) -> None:
        if self.keep and self._lab.exists:
            self._lab.keep()
        _remove_all([*left_over(self._lab.name), *([] if self.stays else [self._lab])], self._lab.name, self._progress)


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
    directory = report_dir / f"mutants-{new_run_id(datetime.now(UTC))}"
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
    with Progress() as progress, _Claim(the_lab, progress) as claim:
        claim.lay()
        the_lab.up([ClusterSpec.named(ClusterSpec().name)], progress, parse_request(provider))
        with progress.phase("scenarios"), progress.quiet():
            matrix = run_policy_mutants(chosen, lab, directory.absolute(), partial(print, flush=True))
    for complaint in matrix.complaints():
        print(complaint)
    print(f"{matrix.line} — {directory / 'policy-matrix.md'}")
    raise typer.Exit(matrix.exit_code)
