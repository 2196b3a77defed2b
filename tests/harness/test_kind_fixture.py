"""Tests that were written for pytest-kind find its names, without its defects."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import cast

import pytest

from harness.cluster.base import Cluster
from harness.cluster.kind_fixture import LabKindCluster, adapt
from harness.errors import HarnessFault, MissingPrerequisite, UsageError

KUBECTL = """#!/bin/sh
case "$*" in
"version") echo "$KUBECONFIG" ;;
"port-forward -n demo --address=127.0.0.1 service/web :80")
  echo started >> "$0.starts"; echo "Forwarding from 127.0.0.1:43123 -> 80"; exec sleep 60 ;;
"port-forward --address=127.0.0.1 service/gone 8080:80") echo 'services "gone" not found'; exit 1 ;;
"slow") exec sleep 60 ;;
*) echo "this kubectl does not know: $*" >&2; exit 2 ;;
esac
"""
PUBLIC_NAMES = "create delete ensure_kubectl kubeconfig_path kubectl kubectl_path load_docker_image name port_forward"


class Raised:
    """A cluster of a lab, as far as the fixture looks at it."""

    name = "pod-identity-lab"

    def __init__(self, directory: Path) -> None:
        self.kubeconfig = directory / "kubeconfig"
        self.is_deleted = False

    def delete(self) -> None:
        self.is_deleted = True


@pytest.fixture
def raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Raised:
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Raised(tmp_path)


@pytest.fixture
def kind_cluster(raised: Raised) -> LabKindCluster:
    return adapt(cast("Cluster", raised))


def test_the_public_names_are_there(kind_cluster: LabKindCluster) -> None:
    assert set(PUBLIC_NAMES.split()) <= set(dir(kind_cluster))


def test_kubectl_uses_the_cluster_s_kubeconfig_and_leaves_ours_alone(
    kind_cluster: LabKindCluster, raised: Raised
) -> None:
    before = dict(os.environ)

    assert kind_cluster.kubectl("version") == f"{raised.kubeconfig}\n"
    assert dict(os.environ) == before


def test_a_failure_says_what_kubectl_said(kind_cluster: LabKindCluster) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        kind_cluster.kubectl("nonsense")

    assert error.value.stderr == "this kubectl does not know: nonsense\n"
    assert "kubectl nonsense\nthis kubectl does not know" in error.value.__notes__[0]


def test_a_command_that_hangs_is_ended(kind_cluster: LabKindCluster) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        kind_cluster.kubectl("slow", timeout=0.1)


def test_a_port_is_forwarded_by_one_process_at_once(kind_cluster: LabKindCluster, raised: Raised) -> None:
    started = time.monotonic()
    with kind_cluster.port_forward("service/web", 80, "-n", "demo") as port:
        assert port == 43123

    assert time.monotonic() - started < 5
    assert (raised.kubeconfig.parent / "kubectl.starts").read_text() == "started\n"


def test_a_port_that_cannot_be_forwarded_says_why(kind_cluster: LabKindCluster) -> None:
    with (
        pytest.raises(HarnessFault, match='services "gone" not found'),
        kind_cluster.port_forward("service/gone", 80, local_port=8080),
    ):
        pass


def test_the_lab_s_configuration_is_the_only_one(kind_cluster: LabKindCluster) -> None:
    kind_cluster.create()
    with pytest.raises(UsageError, match="kind-config"):
        kind_cluster.create("other.yaml")


def test_it_is_removed_when_told_to(kind_cluster: LabKindCluster, raised: Raised) -> None:
    kind_cluster.delete()

    assert raised.is_deleted


def test_without_kubectl_the_way_out_is_said(raised: Raised, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(MissingPrerequisite, match="podid exports"):
        adapt(cast("Cluster", raised)).ensure_kubectl()
