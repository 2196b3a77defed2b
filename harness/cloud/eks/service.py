"""EKS as one service: its parts wired, and the tag calls that reach across them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.cloud.documents import entries, members
from harness.cloud.eks import validation
from harness.cloud.eks.addons import Addons
from harness.cloud.eks.associations import Associations, EksSettings
from harness.cloud.eks.clusters import Clusters
from harness.cloud.eks.model import Addon, AddonDeployer, Association, Cluster, ClusterDirectory, Scope
from harness.cloud.ports import Clock, IamStore, Ids, Refusal

__all__ = ["Eks"]

_ARN = re.compile(r"arn:aws[a-z-]*:eks:[a-z0-9-]+:\d{12}:(cluster|podidentityassociation|addon)/.+")


class Eks:
    """Amazon EKS, bound to real clusters. Operations take and return what the API does."""

    def __init__(
        self,
        directory: ClusterDirectory,
        deployer: AddonDeployer,
        iam: IamStore,
        clock: Clock,
        ids: Ids,
        *,
        settings: EksSettings = EksSettings(),  # noqa: B008 - immutable
    ) -> None:
        """Begin empty.

        Args:
            directory: The real clusters: keys, and publication of associations.
            deployer: Objects of add-ons.
            iam: Roles.
            clock: The lab's time.
            ids: Source of identifiers.
            settings: Quota and delays.
        """
        self.clusters = Clusters(ids)
        self.associations = Associations(self.clusters, directory, iam, clock, ids, settings=settings)
        self.addons = Addons(self.clusters, deployer, clock, ids)

    def remove_cluster(self, cluster: Cluster) -> None:
        """Forget a cluster with its associations and add-ons (API-264)."""
        self.associations.drop_cluster(cluster)
        self.addons.drop_cluster(cluster)
        self.clusters.unbind(cluster)

    def clear(self) -> None:
        """Withdraw associations and add-ons from all clusters; the clusters stay bound."""
        self.associations.clear()
        self.addons.clear()

    def tags_of(self, arn: str) -> Mapping[str, str] | None:
        """Return the tags of a resource, None if there is no such resource."""
        resource = self._find(arn)
        return resource.tags if resource else None

    def tag(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Add tags, or change them (API-271)."""
        resource = self._resource(scope, request)
        tags = members(request.get("tags"))
        if not tags:
            raise _bad_request("At least one tag is required.")
        self._set_tags(resource, validation.check_tags({**resource.tags, **tags}, "BadRequestException"))
        return {}

    def untag(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Remove tags by key; keys that are not there are ignored."""
        resource = self._resource(scope, request)
        keys = entries(request.get("tagKeys"))
        if not keys:
            raise _bad_request("At least one tag key is required.")
        self._set_tags(resource, {key: value for key, value in resource.tags.items() if key not in keys})
        return {}

    def list_tags(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tags of a resource."""
        return {"tags": dict(self._resource(scope, request).tags)}

    def _find(self, arn: str) -> Cluster | Association | Addon | None:
        return self.clusters.with_arn(arn) or self.associations.with_arn(arn) or self.addons.with_arn(arn)

    def _resource(self, scope: Scope, request: Mapping[str, Any]) -> Cluster | Association | Addon:
        arn = request.get("resourceArn")
        if not isinstance(arn, str) or not _ARN.fullmatch(arn):
            raise _bad_request(f"The ARN {arn} is not valid.")
        resource = self._find(arn)
        owner = resource if isinstance(resource, Cluster) else resource and resource.cluster
        if resource is None or owner is None or owner.scope != scope:
            raise Refusal("NotFoundException", f"No resource found for ARN: {arn}", 404)
        return resource

    def _set_tags(self, resource: Cluster | Association | Addon, tags: Mapping[str, str]) -> None:
        if isinstance(resource, Cluster):
            self.clusters.set_tags(resource, tags)
        elif isinstance(resource, Association):
            self.associations.set_tags(resource, tags)
        else:
            self.addons.set_tags(resource, tags)


def _bad_request(message: str) -> Refusal:
    return Refusal("BadRequestException", message, 400)
