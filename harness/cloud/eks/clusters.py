"""Clusters: bound by the adapter, described to callers (``eks-api.md`` section 4)."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.cloud.eks import validation
from harness.cloud.eks.model import Cluster, Scope
from harness.cloud.paging import InvalidTokenError, Pager
from harness.cloud.ports import Ids

__all__ = ["Clusters"]


class Clusters:
    """The clusters of a lab, by account, region and name."""

    def __init__(self, ids: Ids) -> None:
        """Begin without clusters."""
        self._pager = Pager(ids.letters(32, string.ascii_letters))
        self._clusters: dict[tuple[Scope, str], Cluster] = {}

    def bind(self, cluster: Cluster) -> None:
        """Make a running cluster known; one of the same name is replaced."""
        if not validation.CLUSTER_NAME.fullmatch(cluster.name):
            raise ValueError(f"{cluster.name!r} is no name of an EKS cluster")
        self._clusters[cluster.scope, cluster.name] = cluster

    def unbind(self, cluster: Cluster) -> None:
        """Forget a cluster."""
        self._clusters.pop((cluster.scope, cluster.name), None)

    def all(self) -> list[Cluster]:
        """Return every cluster of every account."""
        return list(self._clusters.values())

    def get(self, scope: Scope, name: str) -> Cluster:
        """Return a cluster of an account and region.

        Raises:
            harness.cloud.ports.Refusal: There is none of this name (API-206).
        """
        cluster = self._clusters.get((scope, name))
        if cluster is None:
            raise validation.not_found(f"No cluster found for name: {name}.")
        return cluster

    def with_issuer_id(self, issuer_id: str) -> Cluster | None:
        """Return the cluster whose issuer ends in this id."""
        return next((cluster for cluster in self.all() if cluster.issuer.rpartition("/")[2] == issuer_id), None)

    def with_arn(self, arn: str) -> Cluster | None:
        """Return the cluster with exactly this ARN."""
        return next((cluster for cluster in self.all() if cluster.arn == arn), None)

    def set_tags(self, cluster: Cluster, tags: Mapping[str, str]) -> None:
        """Replace the tags of a cluster."""
        self.bind(replace(cluster, tags=dict(tags)))

    def describe(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a cluster as controllers and ``aws eks update-kubeconfig`` read it (API-322)."""
        cluster = self.get(scope, validation.required(request, "name"))
        return {
            "cluster": {
                "name": cluster.name,
                "arn": cluster.arn,
                "createdAt": cluster.created_at,
                "version": cluster.version,
                "endpoint": cluster.endpoint,
                "roleArn": cluster.role_arn,
                "resourcesVpcConfig": dict(cluster.vpc),
                "kubernetesNetworkConfig": _network(cluster.service_cidr),
                "identity": {"oidc": {"issuer": cluster.issuer}},
                "status": "ACTIVE",
                "certificateAuthority": {"data": base64.b64encode(cluster.certificate_authority.encode()).decode()},
                "platformVersion": cluster.platform_version,
                "tags": dict(cluster.tags),
            }
        }

    def list(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the names of the clusters of an account and region, a page at a time."""
        names = sorted(name for place, name in self._clusters if place == scope)
        try:
            page, token = self._pager.page(
                names,
                str,
                query=json.dumps([scope.account, scope.region]),
                size=validation.page_size(request),
                token=validation.optional(request, "nextToken"),
            )
        except InvalidTokenError as error:
            raise validation.invalid_parameter("The nextToken is not valid.") from error
        return {"clusters": page} | ({"nextToken": token} if token else {})


def _network(service_cidr: str) -> dict[str, str]:
    """Return ``kubernetesNetworkConfig``: EKS's clusters are of one IP family, which their services' network tells."""
    if ":" in service_cidr:
        return {"ipFamily": "ipv6", "serviceIpv6Cidr": service_cidr}
    return {"ipFamily": "ipv4", "serviceIpv4Cidr": service_cidr}
