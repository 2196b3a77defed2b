"""An EKS without clusters behind it: what is published and deployed can be looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.cloud.eks import Addon, AddonHealth, AddonIssue, Cluster, ClusterError, Eks, EksSettings, Scope
from harness.cloud.ports import Refusal, Role
from harness.subject.cloud_ports import SeededIds, SettableClock, StoredIam

ACCOUNT = "123456789012"
SCOPE = Scope(ACCOUNT, "eu-west-1")
NAME = {"clusterName": "pod-identity-lab"}
ISSUER = "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E"
READER = f"arn:aws:iam::{ACCOUNT}:role/pod-identity-lab-s3-reader-role"
UNIVERSAL_TRUST = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},'
    '"Action":["sts:AssumeRole","sts:TagSession"]}]}'
)


@dataclass
class Clusters:
    """Published pairs by cluster, keys, and the health that add-ons report."""

    published: dict[str, list[tuple[str, str]]] = field(default_factory=dict[str, list[tuple[str, str]]])
    keys: dict[str, Any] = field(default_factory=dict[str, Any])
    fresh_keys: dict[str, Any] | None = None
    deployed: list[str] = field(default_factory=list[str])
    state: AddonHealth = AddonHealth("progressing")  # noqa: RUF009 - immutable
    refuses: bool = False

    def publish(self, cluster: Cluster, pairs: Sequence[tuple[str, str]]) -> None:
        """Keep the pairs, as a cluster's webhook would."""
        self._maybe_refuse()
        self.published[cluster.name] = list(pairs)

    def jwks(self, cluster: Cluster, *, is_fresh: bool = False) -> Mapping[str, Any]:
        """Return the keys, or those after a rotation when they are read anew."""
        del cluster  # all clusters have one set of keys
        self._maybe_refuse()
        return self.fresh_keys if is_fresh and self.fresh_keys is not None else self.keys

    def apply(self, addon: Addon) -> None:
        """Note that the add-on's objects are there."""
        self._maybe_refuse()
        self.deployed.append(addon.name)

    def delete(self, addon: Addon) -> None:
        """Note that they are gone."""
        self._maybe_refuse()
        self.deployed.remove(addon.name)

    def health(self, addon: Addon) -> AddonHealth:
        """Return the health that the test has set."""
        del addon  # there is one
        return self.state

    def _maybe_refuse(self) -> None:
        if self.refuses:
            raise ClusterError(AddonIssue("AccessDenied", "forbidden"))


@dataclass
class Lab:
    """EKS, and everything around it that a test wants to touch."""

    eks: Eks
    clusters: Clusters
    iam: StoredIam
    clock: SettableClock
    ids: SeededIds

    @classmethod
    def new(cls, *, settings: EksSettings = EksSettings(), names: Sequence[str] = ("pod-identity-lab",)) -> Lab:  # noqa: B008 - immutable
        """Return an EKS with these clusters and the article's role."""
        clusters, iam, clock, ids = Clusters(), StoredIam(), SettableClock(), SeededIds()
        lab = cls(Eks(clusters, clusters, iam, clock, ids, settings=settings), clusters, iam, clock, ids)
        lab.add_role(READER)
        for name in names:
            lab.eks.clusters.bind(cluster(name, clock))
        return lab

    def add_role(self, arn: str, trust: str = UNIVERSAL_TRUST) -> None:
        """Store a role."""
        name = arn.rpartition("/")[2]
        self.iam.roles[arn] = Role(arn, name, "AROAEXAMPLEEXAMPLE12", arn.split(":")[4], trust, (), None, {})

    def create(self, service_account: str = "s3-reader", **changes: Any) -> dict[str, Any]:
        """Associate demo/s3-reader with the article's role, but for changes."""
        request = {
            "clusterName": "pod-identity-lab",
            "namespace": "demo",
            "serviceAccount": service_account,
            "roleArn": READER,
        }
        return self.eks.associations.create(SCOPE, request | changes)["association"]


def cluster(name: str, clock: SettableClock) -> Cluster:
    """Return a cluster of the article's account under this name."""
    return Cluster(
        name=name,
        scope=SCOPE,
        issuer=ISSUER,
        endpoint="https://10.0.0.1:6443",
        certificate_authority="PEM",
        version="1.34",
        created_at=clock.now(),
        role_arn=f"arn:aws:iam::{ACCOUNT}:role/cluster",
    )


def refused(call: Callable[[], object]) -> tuple[int, str, str]:
    """Return status, code and text with which EKS refuses a call; fails when it does not."""
    with pytest.raises(Refusal) as refusal:
        call()
    return refusal.value.status, refusal.value.code, refusal.value.message


def by_id(record: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the parameters of a call about an association."""
    return {**NAME, "associationId": record["associationId"], **changes}
