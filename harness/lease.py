"""One run at a time on a cluster: a Lease in the cluster, for runs that come from two machines (HRN-ISO-07)."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from kubernetes.client.exceptions import ApiException

from harness.errors import MissingPrerequisite

__all__ = ["NAME", "Holder", "hold"]

NAME, NAMESPACE = "podid-e2e", "kube-system"
_DURATION = timedelta(seconds=60)
_RENEW_SECONDS = 10.0
_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that runs the scenarios."""

    host: str
    pid: int

    @classmethod
    def this(cls) -> Holder:
        """Return what this process is."""
        return cls(socket.gethostname(), os.getpid())

    @classmethod
    def parse(cls, identity: str) -> Holder:
        """Read a Lease's ``holderIdentity``; what is in another form has no process."""
        host, _, pid = identity.rpartition("/")
        return cls(host, int(pid)) if host and pid.isdecimal() else cls(identity, 0)

    @property
    def identity(self) -> str:
        """As a Lease has it."""
        return f"{self.host}/{self.pid}"

    def is_dead(self) -> bool:
        """Whether it was a process of this machine, and is no more."""
        if self.host != socket.gethostname() or not self.pid:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def __str__(self) -> str:
        """Return it as messages have it."""
        return f"PID {self.pid} on {self.host}" if self.pid else self.host


@contextlib.contextmanager
def hold(api: Any, holder: Holder, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Generator[str]:
    """Hold the cluster's Lease, renewed every ten seconds, and yield a note about who had it before, if anybody.

    Args:
        api: ``CoordinationV1Api`` of the cluster, used by a thread of its own.
        holder: Who.
        now: The time.

    Raises:
        MissingPrerequisite: Another run holds it.
    """
    note = _take(api, holder, now())
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEW_SECONDS):
            # A scenario may restart the API server: the next round renews it.
            with contextlib.suppress(Exception):
                if _is_ours(api, holder):
                    api.patch_namespaced_lease(NAME, NAMESPACE, {"spec": {"renewTime": _instant(now())}})

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield note
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(Exception):
            if _is_ours(api, holder):
                api.delete_namespaced_lease(NAME, NAMESPACE)


def _is_ours(api: Any, holder: Holder) -> bool:
    """Tell whether nobody took it over, as of a run that stood still for a minute."""
    return api.read_namespaced_lease(NAME, NAMESPACE).spec.holder_identity == holder.identity


def _take(api: Any, holder: Holder, now: datetime) -> str:
    body: dict[str, Any] = {
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "holderIdentity": holder.identity,
            "leaseDurationSeconds": int(_DURATION.total_seconds()),
            "acquireTime": _instant(now),
            "renewTime": _instant(now),
        },
    }
    try:
        api.create_namespaced_lease(NAMESPACE, body)
    except ApiException as error:
        if cast("Any", error).status != _CONFLICT:
            raise
    else:
        return ""
    lease = api.read_namespaced_lease(NAME, NAMESPACE)
    former, renewed = Holder.parse(lease.spec.holder_identity or ""), lease.spec.renew_time
    if renewed is not None and now - renewed <= _DURATION and not former.is_dead():
        raise MissingPrerequisite(
            f"{former} holds this cluster, and said so {(now - renewed).total_seconds():.0f} s ago",
            hint=f"wait for it to end; {_DURATION.total_seconds():.0f} s after it broke off anybody may go on "
            f"(Lease {NAMESPACE}/{NAME})",
        )
    # With its version: of two that find it free, one gets it, and the other fails.
    body["metadata"]["resourceVersion"] = lease.metadata.resource_version
    api.replace_namespaced_lease(NAME, NAMESPACE, body)
    return f"taken from {former}, which is gone"


def _instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
