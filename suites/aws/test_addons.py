"""Add-ons and clusters, as section 4 of the API's specification says."""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from harness.cloud.eks import AddonHealth, AddonIssue
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.eks_lab import ACCOUNT, ISSUER, SCOPE, Lab, refused

AGENT = {"clusterName": "pod-identity-lab", "addonName": "eks-pod-identity-agent"}
TOO_FEW = AddonHealth("progressing", (AddonIssue("InsufficientNumberOfReplicas", "0 of 1 ready"),))


@pytest.fixture
def cloud() -> Lab:
    return Lab.new()


def status(cloud: Lab) -> str:
    return cloud.eks.addons.describe(SCOPE, AGENT)["addon"]["status"]


@requirement("API-301", "API-302", "API-305")
def test_articles_version_installs(cloud: Lab) -> None:
    """API-301, API-302, API-305."""
    given = {
        "configurationValues": '{"env": {}}',
        "serviceAccountRoleArn": f"arn:aws:iam::{ACCOUNT}:role/agent",
        "namespaceConfig": {"namespace": "kube-system"},
    }
    taken = {"resolveConflicts": "OVERWRITE", "clientRequestToken": "t", "podIdentityAssociations": []}
    request = AGENT | {"addonVersion": "v1.3.10-eksbuild.2", "tags": {"a": "b"}} | given | taken
    made = cloud.eks.addons.create(SCOPE, request)["addon"]

    members = {"addonName", "clusterName", "status", "addonVersion", "health", "addonArn", "createdAt", "modifiedAt"}
    assert made.keys() == members | {"tags"} | given.keys()
    assert {name: made[name] for name in given} == given

    assert made["addonArn"].startswith(
        f"arn:aws:eks:eu-west-1:{ACCOUNT}:addon/pod-identity-lab/eks-pod-identity-agent/"
    )
    assert {name: made[name] for name in ("status", "addonVersion", "health", "tags")} == {
        "status": "CREATING",
        "addonVersion": "v1.3.10-eksbuild.2",
        "health": {"issues": []},
        "tags": {"a": "b"},
    }
    assert cloud.clusters.deployed == ["eks-pod-identity-agent"]


@requirement("API-305")
def test_default_version_is_one_that_installs(cloud: Lab) -> None:
    (entry,) = cloud.eks.addons.versions({"addonName": "eks-pod-identity-agent", "kubernetesVersion": "1.34"})["addons"]
    defaults = [
        version["addonVersion"]
        for version in entry["addonVersions"]
        for compatibility in version["compatibilities"]
        if compatibility["defaultVersion"]
    ]

    assert defaults == ["v1.3.10-eksbuild.2"]
    assert cloud.eks.addons.create(SCOPE, AGENT)["addon"]["addonVersion"] == "v1.3.10-eksbuild.2"
    assert cloud.eks.addons.versions({"addonName": "vpc-cni"}) == {"addons": []}


@requirement("API-303", "API-306", "API-313")
def test_status_follows_the_workload(cloud: Lab) -> None:
    """API-303, API-306, API-313."""
    cloud.eks.addons.create(SCOPE, AGENT)
    cloud.clusters.state = TOO_FEW
    assert status(cloud) == "CREATING"

    cloud.clusters.state = AddonHealth("ready")
    assert status(cloud) == "ACTIVE"

    cloud.clusters.state = TOO_FEW
    degraded = cloud.eks.addons.describe(SCOPE, AGENT)["addon"]
    assert (degraded["status"], degraded["health"]["issues"]) == (
        "DEGRADED",
        [{"code": "InsufficientNumberOfReplicas", "message": "0 of 1 ready", "resourceIds": []}],
    )


@requirement("API-306")
def test_workload_that_never_gets_ready_is_degraded(cloud: Lab) -> None:
    """API-306: an image that cannot be pulled does not stay CREATING for ever."""
    cloud.eks.addons.create(SCOPE, AGENT)
    cloud.clusters.state = TOO_FEW

    cloud.clock.advance(121)

    assert status(cloud) == "DEGRADED"


@requirement("API-303", "API-313")
def test_refused_objects_show_as_failed_creation(cloud: Lab) -> None:
    cloud.clusters.refuses = True
    assert cloud.eks.addons.create(SCOPE, AGENT)["addon"]["status"] == "CREATING"

    failed = cloud.eks.addons.describe(SCOPE, AGENT)["addon"]
    assert (failed["status"], failed["health"]["issues"][0]["code"]) == ("CREATE_FAILED", "AccessDenied")


@requirement("API-303")
def test_update_is_told_and_ends_with_the_rollout(cloud: Lab) -> None:
    """An update is a record of what changes; the add-on is updating until its workload is ready again."""
    cloud.eks.addons.create(SCOPE, AGENT | {"configurationValues": "{}"})
    cloud.clusters.state = AddonHealth("ready")
    assert status(cloud) == "ACTIVE"
    cloud.clusters.state = TOO_FEW
    cloud.clock.advance(600)

    change = {"addonVersion": "v1.3.9-eksbuild.5", "resolveConflicts": "OVERWRITE", "podIdentityAssociations": []}
    update = cloud.eks.addons.update(SCOPE, AGENT | change)["update"]

    assert (update["status"], update["type"], update["errors"]) == ("InProgress", "AddonUpdate", [])
    assert update["createdAt"] == cloud.clock.now()
    assert {one["type"]: one["value"] for one in update["params"]} == {
        "AddonVersion": "v1.3.9-eksbuild.5",
        "PodIdentityAssociations": "[]",
        "ResolveConflicts": "OVERWRITE",
    }
    assert status(cloud) == "UPDATING"
    cloud.clusters.state = AddonHealth("ready")
    addon = cloud.eks.addons.describe(SCOPE, AGENT)["addon"]
    assert (addon["status"], addon["addonVersion"]) == ("ACTIVE", "v1.3.9-eksbuild.5")
    assert addon["configurationValues"] == "{}"
    assert addon["modifiedAt"] > addon["createdAt"]
    cloud.clusters.state = TOO_FEW
    assert status(cloud) == "DEGRADED"


@requirement("API-303")
def test_a_failed_update_says_why_and_can_be_made_again(cloud: Lab) -> None:
    """What the cluster does not take; a version that is none changes nothing."""
    cloud.eks.addons.create(SCOPE, AGENT)
    cloud.clusters.refuses = True
    update = cloud.eks.addons.update(SCOPE, AGENT | {"addonVersion": "v1.3.9-eksbuild.5"})["update"]
    failed = status(cloud)
    cloud.clusters.refuses = False
    cloud.clusters.state = AddonHealth("ready")

    assert (update["status"], len(update["errors"]), failed) == ("Failed", 1, "UPDATE_FAILED")
    unknown = refused(lambda: cloud.eks.addons.update(SCOPE, AGENT | {"addonVersion": "v9"}))
    assert unknown[:2] == (400, "InvalidParameterException")
    cloud.eks.addons.update(SCOPE, AGENT)
    assert status(cloud) == "ACTIVE"
    absent = AGENT | {"addonName": "vpc-cni"}
    assert refused(lambda: cloud.eks.addons.update(SCOPE, absent))[:2] == (404, "ResourceNotFoundException")


@requirement("API-303")
def test_deletion_ends_when_the_workload_is_gone(cloud: Lab) -> None:
    """API-304: the waiter of deletion ends on ResourceNotFoundException."""
    cloud.eks.addons.create(SCOPE, AGENT)

    assert cloud.eks.addons.delete(SCOPE, AGENT)["addon"]["status"] == "DELETING"
    assert status(cloud) == "DELETING"
    assert refused(lambda: cloud.eks.addons.create(SCOPE, AGENT))[:2] == (409, "ResourceInUseException")
    cloud.clusters.state = AddonHealth("absent")
    assert refused(lambda: status(cloud))[:2] == (404, "ResourceNotFoundException")
    assert cloud.eks.addons.list(SCOPE, {"clusterName": "pod-identity-lab"}) == {"addons": []}
    assert cloud.eks.addons.create(SCOPE, AGENT)["addon"]["status"] == "CREATING"


@requirement("API-303")
def test_preserving_deletion_leaves_the_objects(cloud: Lab) -> None:
    """API-311."""
    cloud.eks.addons.create(SCOPE, AGENT)

    cloud.eks.addons.delete(SCOPE, AGENT | {"preserve": True})

    assert cloud.clusters.deployed == ["eks-pod-identity-agent"]
    assert refused(lambda: status(cloud))[:2] == (404, "ResourceNotFoundException")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"clusterName": "nope"}, (404, "ResourceNotFoundException"), marks=requirement("API-308")),
        pytest.param({"addonName": "nope"}, (400, "InvalidParameterException"), marks=requirement("API-308")),
        pytest.param({"addonVersion": "v0"}, (400, "InvalidParameterException"), marks=requirement("API-308")),
        pytest.param({"resolveConflicts": "MAYBE"}, (400, "InvalidParameterException"), marks=requirement("API-301")),
        pytest.param(
            {"podIdentityAssociations": [{"serviceAccount": "a", "roleArn": "b"}]},
            (400, "InvalidParameterException"),
            marks=requirement("API-307"),
        ),
    ],
)
def test_faults(cloud: Lab, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    """API-307, API-308, API-312."""
    assert refused(lambda: cloud.eks.addons.create(SCOPE, AGENT | changes))[:2] == expected


@requirement("API-308")
def test_second_create_is_refused(cloud: Lab) -> None:
    """API-308."""
    cloud.eks.addons.create(SCOPE, AGENT)

    assert refused(lambda: cloud.eks.addons.create(SCOPE, AGENT))[:2] == (409, "ResourceInUseException")


@requirement("API-322")
def test_cluster_is_described_and_listed(cloud: Lab) -> None:
    """API-322, API-323."""
    cluster = cloud.eks.clusters.describe(SCOPE, {"name": "pod-identity-lab"})["cluster"]

    assert cluster["arn"] == f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/pod-identity-lab"
    controllers_read = {
        *(
            "name",
            "arn",
            "createdAt",
            "version",
            "endpoint",
            "roleArn",
            "resourcesVpcConfig",
            "kubernetesNetworkConfig",
        ),
        *("identity", "status", "certificateAuthority", "platformVersion", "tags"),
    }
    assert controllers_read <= cluster.keys()
    assert cluster["kubernetesNetworkConfig"].keys() >= {"ipFamily", "serviceIpv4Cidr"}
    assert cluster["identity"] == {"oidc": {"issuer": ISSUER}}
    assert base64.b64decode(cluster["certificateAuthority"]["data"]) == b"PEM"
    assert cloud.eks.clusters.list(SCOPE, {}) == {"clusters": ["pod-identity-lab"]}


@requirement("API-321")
@pytest.mark.parametrize(
    ("name", "is_good"),
    [
        ("a", True),
        ("9-lives_X", True),
        ("a" * 100, True),
        ("", False),
        ("a" * 101, False),
        ("-a", False),
        ("_a", False),
        ("a.b", False),
        ("ä", False),
        ("a\n", False),
    ],
)
def test_a_cluster_has_a_name_that_eks_takes(cloud: Lab, name: str, is_good: bool) -> None:
    cluster = replace(cloud.eks.clusters.get(SCOPE, "pod-identity-lab"), name=name)
    with suppress(ValueError):
        cloud.eks.clusters.bind(cluster)

    names = cloud.eks.clusters.list(SCOPE, {})["clusters"]
    check("API-321", what=repr(name), expected=is_good, observed=name in names)
