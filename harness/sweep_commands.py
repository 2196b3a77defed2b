"""``podid sweep``: remove what expired runs left in a cluster and in an account."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import boto3
import typer
from botocore.exceptions import BotoCoreError, ClientError

from harness.cluster.existing.marked import Found, find_marked, remove, take_back
from harness.cluster.existing.target import Target, default_kubeconfig
from harness.cluster.existing.target import cluster_uid as uid_of
from harness.errors import MissingPrerequisite, PodidError, UsageError
from harness.existing_commands import AllowStaticKeys, ClusterUid, Context, Kubeconfig
from harness.kube import ApiException, Kube
from harness.lab import Lab
from harness.progress import Progress
from harness.sweep.account import accounts_file, require_account, require_undenied
from harness.sweep.aws import Client, find_tagged, judge

__all__ = ["app"]

app = typer.Typer()

_PANEL = "Where"


@dataclass
class _Sweep:
    """What was found, and what became of it."""

    is_dry: bool
    now: datetime
    expired: int = 0
    kept: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])

    def handle(self, name: str, reason: str, delete: Callable[[], object]) -> None:
        """Remove a thing, unless there is a reason for it to stay."""
        if reason:
            self.kept.append(f"{name}: {reason}")
            return
        self.expired += 1
        if self.is_dry:
            print(f"would remove  {name}")
            return
        try:
            delete()
        except (PodidError, ApiException, ClientError, BotoCoreError) as error:
            self.failed.append(f"{name}: {error}")
        else:
            print(f"removed       {name}")


@app.command()
def sweep(
    account: Annotated[
        str, typer.Option("--account", help="Account of AWS, listed as disposable.", rich_help_panel=_PANEL)
    ] = "",
    region: Annotated[str, typer.Option("--region", help="Its region.", rich_help_panel=_PANEL)] = "",
    lab: Annotated[str, typer.Option("--lab", help="AWS of this lab instead.", rich_help_panel=_PANEL)] = "",
    *,
    context: Context = "",
    cluster_uid: ClusterUid = "",
    kubeconfig: Kubeconfig = None,
    allow_static_keys: AllowStaticKeys = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove; without it everything is only named.")] = False,
) -> None:
    """Remove what carries the marks of a run that has expired; by default only name it.

    Exit codes: 0 nothing expired is left, 1 something is, 2 account or cluster may not be touched, 3 usage error.
    """
    if not (account or lab or context):
        raise UsageError(
            "nothing to look at",
            hint="name an account with --account and --region, a cluster with --context and --cluster-uid, or a lab",
        )
    state = _Sweep(is_dry=not delete, now=datetime.now(UTC))
    with Progress() as progress:
        if context:
            target = Target(str((kubeconfig or default_kubeconfig()).absolute()), context, cluster_uid)
            with progress.phase("cluster"), _cluster(target) as kube:
                _sweep_cluster(state, kube)
        if account or lab:
            client = _client(account, region, lab, allows_static_keys=allow_static_keys)
            with progress.phase("aws"):
                for resource in find_tagged(client):
                    state.handle(str(resource), judge(resource, state.now), resource.remove)
    raise typer.Exit(_tell(state))


def _tell(state: _Sweep) -> int:
    """Print what stays, and return the exit code (HRN-EXT-13)."""
    for line in state.kept:
        print(f"stays         {line}")
    for line in state.failed:
        print(f"NOT REMOVED   {line}")
    left = state.expired if state.is_dry else len(state.failed)
    print(f"{state.expired} expired, {left} left, {len(state.kept)} not expired or not ours")
    return 1 if left else 0


@contextlib.contextmanager
def _cluster(target: Target) -> Generator[Kube]:
    """Yield a client of the cluster, if it is the one that is meant."""
    with target.connect() as kube:
        if (uid := uid_of(kube)) != target.uid:
            raise MissingPrerequisite(
                f"context {target.context} is the cluster with uid {uid}, not {target.uid or 'named by --cluster-uid'}",
                hint=f"if this one is meant: --context {target.context} --cluster-uid {uid}",
            )
        yield kube


def _sweep_cluster(state: _Sweep, kube: Kube) -> None:
    found = find_marked(kube)
    # First what was edited is put back: the object that remembers it is among those that go.
    for one in _expired(found, state.now) if not state.is_dry else ():
        state.failed += [f"edit of {edit.thing}: somebody has edited it since" for edit in take_back(kube, one)]
    for one in found:
        state.handle(f"{one.thing} of run {one.run}", _stays(one, state.now), _Removal(kube, one))


@dataclass(frozen=True, slots=True)
class _Removal:
    """Removes one object when it is called."""

    kube: Kube
    found: Found

    def __call__(self) -> None:
        remove(self.kube, [self.found.thing])


def _expired(found: list[Found], now: datetime) -> Iterator[Found]:
    return (one for one in found if not _stays(one, now))


def _stays(found: Found, now: datetime) -> str:
    if found.expires is None:
        return "it has not all four labels"
    return "" if found.expires < now else f"it may stay until {found.expires:%Y-%m-%dT%H:%M:%SZ}"


def _client(account: str, region: str, lab: str, *, allows_static_keys: bool) -> Client:
    if lab:
        return Lab(lab).require().administrator(*([account] if account else [])).client
    if not region:
        raise UsageError("an account is swept in one region", hint="name it with: --region eu-west-1")
    session: Any = boto3.Session(region_name=region)
    require_account(session, account, accounts_file(), allows_static_keys=allows_static_keys)
    require_undenied(session.client, account)
    return session.client
