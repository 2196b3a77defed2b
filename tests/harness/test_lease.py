"""One run at a time on a cluster, as the API server's answers say."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from harness import limits, wait
from harness.errors import MissingPrerequisite
from harness.lease import Holder, hold

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
OURS = Holder.this()


class Leases:
    """The Leases of an API server."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] | None = None
        self.version = 0
        self.reads = 0
        self.renewals = 0

    def create_namespaced_lease(self, _namespace: str, body: dict[str, Any]) -> None:
        if self.spec is not None:
            raise ApiException(409)
        self._store(body)

    def replace_namespaced_lease(self, _name: str, _namespace: str, body: dict[str, Any]) -> None:
        if body["metadata"]["resourceVersion"] != self.version:
            raise ApiException(409)
        self._store(body)

    def read_namespaced_lease(self, _name: str, _namespace: str) -> Any:
        assert self.spec is not None
        self.reads += 1
        renewed = datetime.fromisoformat(self.spec["renewTime"])
        spec = SimpleNamespace(holder_identity=self.spec["holderIdentity"], renew_time=renewed)
        return SimpleNamespace(spec=spec, metadata=SimpleNamespace(resource_version=self.version))

    def patch_namespaced_lease(self, _name: str, _namespace: str, body: dict[str, Any]) -> None:
        assert self.spec is not None
        self.renewals += 1
        self.spec |= body["spec"]

    def take_over(self, identity: str) -> None:
        assert self.spec is not None
        self.spec["holderIdentity"] = identity

    def delete_namespaced_lease(self, _name: str, _namespace: str) -> None:
        self.spec = None

    def _store(self, body: dict[str, Any]) -> None:
        self.spec, self.version = copy.deepcopy(body["spec"]), self.version + 1


def held_by(holder: Holder, age: float) -> Leases:
    """Return Leases of which the other run's was renewed so many seconds ago."""
    leases = Leases()
    spec = {"holderIdentity": holder.identity, "renewTime": (NOW - timedelta(seconds=age)).isoformat()}
    leases.create_namespaced_lease("kube-system", {"spec": spec})
    return leases


def test_lease_is_there_as_long_as_the_run() -> None:
    leases = Leases()

    with hold(leases, OURS, lambda: NOW) as note:
        during = leases.spec

    assert note == ""
    assert during is not None
    assert during["holderIdentity"] == f"{socket.gethostname()}/{os.getpid()}"
    assert during["leaseDurationSeconds"] == 60
    assert leases.spec is None


def test_cluster_of_another_run_is_left_alone() -> None:
    leases = held_by(Holder("elsewhere", 7), age=59)

    with (
        pytest.raises(MissingPrerequisite, match=r"PID 7 on elsewhere holds this cluster.* 59 s ago"),
        hold(leases, OURS, lambda: NOW),
    ):
        pass

    assert leases.spec is not None
    assert leases.spec["holderIdentity"] == "elsewhere/7"


def test_lease_that_ran_out_is_taken_with_a_note() -> None:
    leases = held_by(Holder("elsewhere", 7), age=61)

    with hold(leases, OURS, lambda: NOW) as note:
        assert note == "taken from PID 7 on elsewhere, which is gone"

    assert leases.spec is None


def test_run_that_died_on_this_machine_is_not_waited_for() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leases = held_by(Holder(socket.gethostname(), dead.pid), age=1)

    with hold(leases, OURS, lambda: NOW) as note:
        assert "which is gone" in note


def test_run_that_lives_on_this_machine_is_waited_for() -> None:
    leases = held_by(Holder(socket.gethostname(), os.getppid()), age=1)

    with pytest.raises(MissingPrerequisite), hold(leases, OURS, lambda: NOW):
        pass


def test_lease_that_another_run_took_over_is_neither_renewed_nor_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.lease._RENEW_SECONDS", 0.01)
    leases = Leases()

    with hold(leases, OURS, lambda: NOW):
        wait.until(lambda: leases.renewals >= 2, what="two renewals", timeout=limits.PROCESS_START)
        leases.take_over("elsewhere/7")
        reads, renewals = leases.reads, leases.renewals
        wait.until(lambda: leases.reads >= reads + 3, what="three more looks", timeout=limits.PROCESS_START)

    # One was perhaps on its way.
    assert leases.renewals <= renewals + 1
    assert leases.spec is not None
    assert leases.spec["holderIdentity"] == "elsewhere/7"


@pytest.mark.parametrize("identity", ["somebody", "a/b", "/7", ""])
def test_holder_in_another_form_has_no_process(identity: str) -> None:
    assert (Holder.parse(identity).pid, str(Holder.parse(identity))) == (0, identity)
