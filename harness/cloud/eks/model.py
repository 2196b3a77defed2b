"""What EKS keeps: clusters bound to real ones, pod identity associations, add-ons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

__all__ = [
    "Addon",
    "AddonDeployer",
    "AddonHealth",
    "AddonIssue",
    "Association",
    "Cluster",
    "ClusterDirectory",
    "ClusterError",
    "Scope",
]


@dataclass(frozen=True, slots=True)
class Scope:
    """Account and region a call is made in; resources of others do not exist for it (API-109)."""

    account: str
    region: str
    partition: str = "aws"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as DescribeCluster shows it, bound to a running one by the adapter."""

    name: str
    scope: Scope
    issuer: str
    """``iss`` of its tokens, ``https://oidc.eks.<region>.amazonaws.com/id/<32 upper-case hex>`` (API-323)."""
    endpoint: str
    certificate_authority: str
    """PEM."""
    version: str
    """Kubernetes version, ``1.34``."""
    created_at: datetime
    role_arn: str
    service_cidr: str = "10.96.0.0/16"
    """IPv6 in a cluster whose ``ipFamily`` is ``ipv6``."""
    platform_version: str = "eks.1"
    vpc: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """``resourcesVpcConfig`` as DescribeCluster prints it."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def arn(self) -> str:
        """ARN of the cluster."""
        return f"arn:{self.scope.partition}:eks:{self.scope.region}:{self.scope.account}:cluster/{self.name}"


@dataclass(frozen=True, slots=True)
class Association:
    """A pod identity association."""

    association_id: str
    cluster: Cluster
    namespace: str
    service_account: str
    role_arn: str
    created_at: datetime
    modified_at: datetime
    target_role_arn: str = ""
    disable_session_tags: bool = False
    policy: str = ""
    owner_arn: str = ""
    """ARN of the add-on that manages the association."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def arn(self) -> str:
        """ARN of the association (API-203)."""
        scope = self.cluster.scope
        return (
            f"arn:{scope.partition}:eks:{scope.region}:{scope.account}"
            f":podidentityassociation/{self.cluster.name}/{self.association_id}"
        )

    @property
    def external_id(self) -> str:
        """``sts:ExternalId`` towards a target role (API-217)."""
        scope = self.cluster.scope
        return f"{scope.region}/{scope.account}/{self.cluster.name}/{self.namespace}/{self.service_account}"

    def summary(self) -> dict[str, Any]:
        """Return what ListPodIdentityAssociations shows (API-234)."""
        data = {
            "clusterName": self.cluster.name,
            "namespace": self.namespace,
            "serviceAccount": self.service_account,
            "associationArn": self.arn,
            "associationId": self.association_id,
        }
        return data | ({"ownerArn": self.owner_arn} if self.owner_arn else {})

    def record(self) -> dict[str, Any]:
        """Return the full record; members without a value are absent (API-204)."""
        data = {
            "clusterName": self.cluster.name,
            "namespace": self.namespace,
            "serviceAccount": self.service_account,
            "roleArn": self.role_arn,
            "associationArn": self.arn,
            "associationId": self.association_id,
            "tags": dict(self.tags),
            "createdAt": self.created_at,
            "modifiedAt": self.modified_at,
            "disableSessionTags": self.disable_session_tags,
        }
        if self.target_role_arn:
            data |= {"targetRoleArn": self.target_role_arn, "externalId": self.external_id}
        if self.policy:
            data["policy"] = self.policy
        if self.owner_arn:
            data["ownerArn"] = self.owner_arn
        return data


@dataclass(frozen=True, slots=True)
class AddonIssue:
    """An entry of an add-on's health (API-313)."""

    code: str
    message: str
    resource_ids: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the entry as DescribeAddon prints it."""
        return {"code": self.code, "message": self.message, "resourceIds": list(self.resource_ids)}


@dataclass(frozen=True, slots=True)
class AddonHealth:
    """What the cluster says about the workload of an add-on."""

    state: Literal["absent", "progressing", "ready"]
    issues: tuple[AddonIssue, ...] = ()


@dataclass(frozen=True, slots=True)
class Addon:
    """An add-on; its status is computed from the cluster when somebody asks."""

    name: str
    cluster: Cluster
    identifier: str
    version: str
    created_at: datetime
    modified_at: datetime
    members: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Members given at creation that are shown again, such as ``configurationValues``."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    was_active: bool = False
    is_updating: bool = False
    is_deleting: bool = False
    failures: tuple[AddonIssue, ...] = ()
    """Why applying its objects failed."""

    @property
    def arn(self) -> str:
        """ARN of the add-on."""
        scope = self.cluster.scope
        return (
            f"arn:{scope.partition}:eks:{scope.region}:{scope.account}"
            f":addon/{self.cluster.name}/{self.name}/{self.identifier}"
        )

    def record(self, status: str, issues: Sequence[AddonIssue]) -> dict[str, Any]:
        """Return the add-on as DescribeAddon prints it (API-302)."""
        return {
            "addonName": self.name,
            "clusterName": self.cluster.name,
            "status": status,
            "addonVersion": self.version,
            "health": {"issues": [issue.record() for issue in issues]},
            "addonArn": self.arn,
            "createdAt": self.created_at,
            "modifiedAt": self.modified_at,
            "tags": dict(self.tags),
            **self.members,
        }


class ClusterError(Exception):
    """The bound cluster refused or could not be reached; ``issue`` says it in EKS's terms."""

    def __init__(self, issue: AddonIssue) -> None:
        """Keep the issue."""
        super().__init__(f"{issue.code}: {issue.message}")
        self.issue = issue


class ClusterDirectory(Protocol):
    """The real clusters behind the records."""

    def publish(self, cluster: Cluster, pairs: Sequence[tuple[str, str]]) -> None:
        """Make exactly these (namespace, service account) pairs known to admission (API-905).

        Raises:
            ClusterError: The cluster did not take them.
        """
        ...

    def jwks(self, cluster: Cluster, *, is_fresh: bool = False) -> Mapping[str, Any]:
        """Return the cluster's published keys.

        Args:
            cluster: Whose keys.
            is_fresh: Do not answer from a cache: an unknown key id may be a rotation.

        Raises:
            ClusterError: They cannot be read.
        """
        ...


class AddonDeployer(Protocol):
    """Brings the objects of add-ons into clusters."""

    def apply(self, addon: Addon) -> None:
        """Create or update the objects of an add-on.

        Raises:
            ClusterError: The cluster refused.
        """
        ...

    def delete(self, addon: Addon) -> None:
        """Start deleting the objects of an add-on; absent ones are fine.

        Raises:
            ClusterError: The cluster refused.
        """
        ...

    def health(self, addon: Addon) -> AddonHealth:
        """Return how the workload of an add-on is doing."""
        ...
