"""What admission and EKS Auth learn of associations, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import limits, wait
from harness.cloud.eks import Eks, EksSettings
from harness.cloud.localstack.kubernetes import ApiAccess, BoundClusters
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.bound_cluster import CONFIG_MAP, ApiServerDouble
from harness.subject.eks_lab import NAME, READER, SCOPE, Lab, by_id, refused


@pytest.fixture
def cloud() -> Lab:
    return Lab.new(names=("pod-identity-lab", "second"))


@requirement("API-905")
def test_pairs_are_published_sorted_before_the_answer(cloud: Lab) -> None:
    cloud.create("b")
    cloud.create("a")

    assert cloud.clusters.published == {"pod-identity-lab": [("demo", "a"), ("demo", "b")]}


@requirement("API-225", "API-905")
def test_refused_publication_leaves_everything_as_it_was(cloud: Lab) -> None:
    """API-225 and API-905: EKS never knows more or less than admission."""
    record = cloud.create()
    cloud.clusters.refuses = True

    assert refused(lambda: cloud.create("other"))[:2] == (500, "ServerException")
    assert refused(lambda: cloud.eks.associations.delete(SCOPE, by_id(record)))[0] == 500

    cloud.clusters.refuses = False
    found = cloud.eks.associations.list(SCOPE, NAME)["associations"]
    assert [summary["associationId"] for summary in found] == [record["associationId"]]


@requirement("API-903")
def test_auth_sees_changes_after_its_delay() -> None:
    """API-903: on creation, update and deletion alike; describing is never delayed."""
    cloud = Lab.new(settings=EksSettings(auth_delay=5))
    cluster = cloud.eks.clusters.get(SCOPE, "pod-identity-lab")
    record = cloud.create()

    def seen() -> bool:
        return cloud.eks.associations.seen_by_auth(cluster, "demo", "s3-reader") is not None

    assert not seen()
    cloud.clock.advance(5)
    assert seen()
    cloud.eks.associations.delete(SCOPE, by_id(record))
    cloud.clock.advance(4.9)
    assert seen()
    cloud.clock.advance(0.1)
    assert not seen()


@requirement("API-264")
def test_removed_cluster_takes_its_associations_along(cloud: Lab) -> None:
    """API-264."""
    record = cloud.create()
    cloud.eks.remove_cluster(cloud.eks.clusters.get(SCOPE, "pod-identity-lab"))

    assert refused(lambda: cloud.eks.associations.describe(SCOPE, by_id(record)))[2] == (
        "No cluster found for name: pod-identity-lab."
    )


@requirement("API-903", "API-905")
def test_admission_learns_of_changes_after_its_own_delay(tmp_path: Path) -> None:
    """List, and EKS Auth, know of a change at once; admission does so later, and then of exactly the same pairs."""
    api = ApiServerDouble(tmp_path)
    clusters = BoundClusters(publication_delay=0.5)
    made = Lab.new()
    eks = Eks(clusters, clusters, made.iam, made.clock, made.ids)
    bound = made.eks.clusters.get(SCOPE, "pod-identity-lab")
    eks.clusters.bind(bound)
    access = ApiAccess(api.endpoint, api.authority.certificate, "", "", str(api.token_file), ())
    clusters.bind(bound.arn, access)
    try:
        request = NAME | {"namespace": "demo", "serviceAccount": "s3-reader", "roleArn": READER}
        record = eks.associations.create(SCOPE, request)["association"]
        early = CONFIG_MAP in api.objects
        listed = [found["associationId"] for found in eks.associations.list(SCOPE, NAME)["associations"]]
        is_seen = eks.associations.seen_by_auth(bound, "demo", "s3-reader") is not None
        wait.until(lambda: CONFIG_MAP in api.objects, what="the publication", timeout=limits.ASSOCIATION_VISIBLE)
    finally:
        clusters.unbind(bound.arn)
        api.stop()

    check("API-903", what="published at once", expected=False, observed=early)
    check(
        "API-903",
        what="listed at once",
        expected=[record["associationId"]],
        observed=listed,
    )
    check("API-903", what="known to EKS Auth at once", expected=True, observed=is_seen)
    check("API-905", expected=[{"namespace": "demo", "serviceAccount": "s3-reader"}], observed=api.published())
