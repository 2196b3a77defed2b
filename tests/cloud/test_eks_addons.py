"""Add-ons and clusters, as section 4 of the API's specification says."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from eks_fakes import ACCOUNT, ISSUER, SCOPE, Lab

from harness.cloud.eks import AddonHealth, AddonIssue
from harness.cloud.ports import Refusal

AGENT = {"clusterName": "pod-identity-lab", "addonName": "eks-pod-identity-agent"}
TOO_FEW = AddonHealth("progressing", (AddonIssue("InsufficientNumberOfReplicas", "0 of 1 ready"),))


@pytest.fixture
def lab() -> Lab:
    return Lab.new()


def refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Refusal) as refusal:
        call()
    return refusal.value.status, refusal.value.code


def status(lab: Lab) -> str:
    return lab.eks.addons.describe(SCOPE, AGENT)["addon"]["status"]


def test_articles_version_installs(lab: Lab) -> None:
    """API-301, API-302, API-305."""
    made = lab.eks.addons.create(SCOPE, AGENT | {"addonVersion": "v1.3.10-eksbuild.2", "tags": {"a": "b"}})["addon"]

    assert made["addonArn"].startswith(
        f"arn:aws:eks:eu-west-1:{ACCOUNT}:addon/pod-identity-lab/eks-pod-identity-agent/"
    )
    assert {name: made[name] for name in ("status", "addonVersion", "health", "tags")} == {
        "status": "CREATING",
        "addonVersion": "v1.3.10-eksbuild.2",
        "health": {"issues": []},
        "tags": {"a": "b"},
    }
    assert lab.clusters.deployed == ["eks-pod-identity-agent"]


def test_default_version_is_one_that_installs(lab: Lab) -> None:
    (entry,) = lab.eks.addons.versions({"addonName": "eks-pod-identity-agent", "kubernetesVersion": "1.34"})["addons"]
    defaults = [
        version["addonVersion"]
        for version in entry["addonVersions"]
        for compatibility in version["compatibilities"]
        if compatibility["defaultVersion"]
    ]

    assert defaults == ["v1.3.10-eksbuild.2"]
    assert lab.eks.addons.create(SCOPE, AGENT)["addon"]["addonVersion"] == "v1.3.10-eksbuild.2"
    assert lab.eks.addons.versions({"addonName": "vpc-cni"}) == {"addons": []}


def test_status_follows_the_workload(lab: Lab) -> None:
    """API-303, API-306, API-313."""
    lab.eks.addons.create(SCOPE, AGENT)
    lab.clusters.state = TOO_FEW
    assert status(lab) == "CREATING"

    lab.clusters.state = AddonHealth("ready")
    assert status(lab) == "ACTIVE"

    lab.clusters.state = TOO_FEW
    degraded = lab.eks.addons.describe(SCOPE, AGENT)["addon"]
    assert (degraded["status"], degraded["health"]["issues"]) == (
        "DEGRADED",
        [{"code": "InsufficientNumberOfReplicas", "message": "0 of 1 ready", "resourceIds": []}],
    )


def test_workload_that_never_gets_ready_is_degraded(lab: Lab) -> None:
    """API-306: an image that cannot be pulled does not stay CREATING for ever."""
    lab.eks.addons.create(SCOPE, AGENT)
    lab.clusters.state = TOO_FEW

    lab.clock.advance(121)

    assert status(lab) == "DEGRADED"


def test_refused_objects_show_as_failed_creation(lab: Lab) -> None:
    lab.clusters.refuses = True
    assert lab.eks.addons.create(SCOPE, AGENT)["addon"]["status"] == "CREATING"

    failed = lab.eks.addons.describe(SCOPE, AGENT)["addon"]
    assert (failed["status"], failed["health"]["issues"][0]["code"]) == ("CREATE_FAILED", "AccessDenied")


def test_deletion_ends_when_the_workload_is_gone(lab: Lab) -> None:
    """API-304: the waiter of deletion ends on ResourceNotFoundException."""
    lab.eks.addons.create(SCOPE, AGENT)

    assert lab.eks.addons.delete(SCOPE, AGENT)["addon"]["status"] == "DELETING"
    assert status(lab) == "DELETING"
    assert refused(lambda: lab.eks.addons.create(SCOPE, AGENT)) == (409, "ResourceInUseException")
    lab.clusters.state = AddonHealth("absent")
    assert refused(lambda: status(lab)) == (404, "ResourceNotFoundException")
    assert lab.eks.addons.list(SCOPE, {"clusterName": "pod-identity-lab"}) == {"addons": []}
    assert lab.eks.addons.create(SCOPE, AGENT)["addon"]["status"] == "CREATING"


def test_preserving_deletion_leaves_the_objects(lab: Lab) -> None:
    """API-311."""
    lab.eks.addons.create(SCOPE, AGENT)

    lab.eks.addons.delete(SCOPE, AGENT | {"preserve": True})

    assert lab.clusters.deployed == ["eks-pod-identity-agent"]
    assert refused(lambda: status(lab)) == (404, "ResourceNotFoundException")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"clusterName": "nope"}, (404, "ResourceNotFoundException")),
        ({"addonName": "nope"}, (400, "InvalidParameterException")),
        ({"addonVersion": "v0"}, (400, "InvalidParameterException")),
        ({"resolveConflicts": "MAYBE"}, (400, "InvalidParameterException")),
        ({"podIdentityAssociations": [{"serviceAccount": "a", "roleArn": "b"}]}, (400, "InvalidParameterException")),
    ],
)
def test_faults(lab: Lab, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    """API-307, API-308, API-312."""
    assert refused(lambda: lab.eks.addons.create(SCOPE, AGENT | changes)) == expected


def test_second_create_is_refused(lab: Lab) -> None:
    """API-308."""
    lab.eks.addons.create(SCOPE, AGENT)

    assert refused(lambda: lab.eks.addons.create(SCOPE, AGENT)) == (409, "ResourceInUseException")


def test_cluster_is_described_and_listed(lab: Lab) -> None:
    """API-322, API-323."""
    cluster = lab.eks.clusters.describe(SCOPE, {"name": "pod-identity-lab"})["cluster"]

    assert cluster["arn"] == f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/pod-identity-lab"
    assert cluster["identity"] == {"oidc": {"issuer": ISSUER}}
    assert base64.b64decode(cluster["certificateAuthority"]["data"]) == b"PEM"
    assert lab.eks.clusters.list(SCOPE, {}) == {"clusters": ["pod-identity-lab"]}
