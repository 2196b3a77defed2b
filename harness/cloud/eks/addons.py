"""Add-ons: the agent's, deployed into the bound cluster and as healthy as its DaemonSet (``eks-api.md`` section 4)."""

from __future__ import annotations

import json
import string
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from harness.cloud.documents import entries, members
from harness.cloud.eks import validation
from harness.cloud.eks.clusters import Clusters
from harness.cloud.eks.model import Addon, AddonDeployer, AddonIssue, Cluster, ClusterError, Scope
from harness.cloud.paging import InvalidTokenError, Pager
from harness.cloud.ports import Clock, Ids, Refusal

__all__ = ["AGENT_ADDON", "AGENT_VERSIONS", "Addons"]

AGENT_ADDON = "eks-pod-identity-agent"
AGENT_VERSIONS = ("v1.3.10-eksbuild.2", "v1.3.9-eksbuild.5", "v1.3.8-eksbuild.2", "v1.3.7-eksbuild.2")
"""Newest first; the first is the default (API-305)."""

_KUBERNETES_VERSIONS = ("1.35", "1.34", "1.33", "1.32", "1.31", "1.30", "1.29", "1.28")
_RESOLVE_CONFLICTS = {None, "OVERWRITE", "NONE", "PRESERVE"}
_SHOWN_AGAIN = ("configurationValues", "serviceAccountRoleArn", "namespaceConfig")
_PATIENCE = timedelta(seconds=120)
"""How long an add-on may be on its way before it counts as degraded."""


class Addons:
    """The add-ons of a lab; safe for use by several threads."""

    def __init__(self, clusters: Clusters, deployer: AddonDeployer, clock: Clock, ids: Ids) -> None:
        """Begin without add-ons.

        Args:
            clusters: Clusters to install into.
            deployer: Applies and deletes objects, and knows their health.
            clock: The lab's time.
            ids: Source of identifiers.
        """
        self._clusters = clusters
        self._deployer = deployer
        self._clock = clock
        self._ids = ids
        self._pager = Pager(ids.letters(32, string.ascii_letters))
        self._lock = threading.RLock()
        self._addons: dict[tuple[str, str], Addon] = {}

    # --- operations -------------------------------------------------------------------------------------------------

    def create(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create an add-on: its objects are applied before the answer, their rollout is not waited for.

        Raises:
            Refusal: Unknown cluster, add-on or version, or the add-on is there already (API-308).
        """
        addon = self._new(scope, request)
        with self._lock:
            present = self._addons.get(_key(addon.cluster, addon.name))
            if present and not self._is_gone(present):
                raise Refusal("ResourceInUseException", f"Addon already exists: {addon.name}", 409)
            try:
                self._deployer.apply(addon)
            except ClusterError as error:
                addon = replace(addon, failures=(error.issue,))
            self._addons[_key(addon.cluster, addon.name)] = addon
        # EKS answers before it has looked at the objects; failures show in DescribeAddon.
        return {"addon": addon.record("CREATING", ())}

    def describe(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return an add-on with the status its workload has now."""
        addon = self._get(scope, request)
        status, issues = self._status(addon)
        return {"addon": addon.record(status, issues)}

    def list(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the names of a cluster's add-ons, a page at a time."""
        cluster = self._clusters.get(scope, validation.required(request, "clusterName"))
        with self._lock:
            present = [addon for (arn, _), addon in self._addons.items() if arn == cluster.arn]
            names = sorted(addon.name for addon in present if not self._is_gone(addon))
        page, token = self._page(names, f"addons of {cluster.arn}", request)
        return {"addons": page} | ({"nextToken": token} if token else {})

    def update(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Change version and values of an add-on: its objects are applied again before the answer (API-310).

        Raises:
            Refusal: No such add-on, one that is being deleted, or a version that is none.
        """
        with self._lock:
            addon = self._get(scope, request)
            if addon.is_deleting:
                raise Refusal("ResourceInUseException", f"Addon is being deleted: {addon.name}", 409)
            version = validation.optional(request, "addonVersion") or addon.version
            self._check(addon.name, version, request)
            given = {member: request[member] for member in _SHOWN_AGAIN if request.get(member)}
            changed = replace(
                addon,
                version=version,
                members={**addon.members, **given},
                modified_at=self._clock.now(),
                is_updating=True,
                failures=(),
            )
            try:
                self._deployer.apply(changed)
            except ClusterError as error:
                changed = replace(changed, failures=(error.issue,))
            self._addons[_key(addon.cluster, addon.name)] = changed
        return {"update": _update_record(self._ids.uuid(), changed, request)}

    def delete(self, scope: Scope, request: Mapping[str, Any]) -> dict[str, Any]:
        """Start deleting an add-on; with ``preserve`` its objects stay in the cluster.

        Raises:
            Refusal: No such add-on, or the cluster refused.
        """
        with self._lock:
            addon = self._get(scope, request)
            if request.get("preserve"):
                del self._addons[_key(addon.cluster, addon.name)]
                return {"addon": addon.record("DELETING", ())}
            try:
                self._deployer.delete(addon)
            except ClusterError as error:
                raise Refusal("ServerException", f"The add-on could not be deleted: {error}", 500) from error
            deleting = replace(addon, is_deleting=True, modified_at=self._clock.now())
            self._addons[_key(addon.cluster, addon.name)] = deleting
        return {"addon": deleting.record("DELETING", ())}

    def versions(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the known add-ons with their versions (DescribeAddonVersions)."""
        name = validation.optional(request, "addonName")
        kubernetes = validation.optional(request, "kubernetesVersion")
        entries = [_versions_entry(kubernetes)] if name in {None, AGENT_ADDON} else []
        page, token = self._page(entries, f"versions {name} {kubernetes}", request, key=_addon_name)
        return {"addons": page} | ({"nextToken": token} if token else {})

    # --- for the neighbours -----------------------------------------------------------------------------------------

    def find(self, cluster: Cluster, name: str) -> Addon | None:
        """Return an add-on of a cluster."""
        with self._lock:
            return self._addons.get(_key(cluster, name))

    def with_arn(self, arn: str) -> Addon | None:
        """Return the add-on with exactly this ARN."""
        with self._lock:
            return next((addon for addon in self._addons.values() if addon.arn == arn), None)

    def set_tags(self, addon: Addon, tags: Mapping[str, str]) -> None:
        """Replace the tags of an add-on."""
        with self._lock:
            self._addons[_key(addon.cluster, addon.name)] = replace(addon, tags=dict(tags))

    def drop_cluster(self, cluster: Cluster) -> None:
        """Forget the add-ons of a cluster that goes away."""
        with self._lock:
            for key in [key for key in self._addons if key[0] == cluster.arn]:
                del self._addons[key]

    def clear(self) -> None:
        """Delete every add-on with its objects.

        Raises:
            ClusterError: A cluster refused; its add-on is still known then.
        """
        with self._lock:
            for key, addon in list(self._addons.items()):
                self._deployer.delete(addon)
                del self._addons[key]

    # --- inside -----------------------------------------------------------------------------------------------------

    def _new(self, scope: Scope, request: Mapping[str, Any]) -> Addon:
        cluster_name = validation.required(request, "clusterName")
        name = validation.required(request, "addonName")
        version = validation.optional(request, "addonVersion") or AGENT_VERSIONS[0]
        tags = validation.check_tags(request.get("tags") or {})
        cluster = self._clusters.get(scope, cluster_name)
        if name != AGENT_ADDON:
            raise validation.invalid_parameter(f"Addon {name} specified is not supported")
        self._check(name, version, request)
        now = self._clock.now()
        return Addon(
            name=name,
            cluster=cluster,
            identifier=self._ids.uuid(),
            version=version,
            created_at=now,
            modified_at=now,
            members={member: request[member] for member in _SHOWN_AGAIN if request.get(member)},
            tags=tags,
        )

    @staticmethod
    def _check(name: str, version: str, request: Mapping[str, Any]) -> None:
        if request.get("resolveConflicts") not in _RESOLVE_CONFLICTS:
            raise validation.invalid_parameter("resolveConflicts must be OVERWRITE, NONE or PRESERVE.")
        if version not in AGENT_VERSIONS:
            raise validation.invalid_parameter(f"Addon version specified is not supported: {version}")
        for association in map(members, entries(request.get("podIdentityAssociations"))):
            raise validation.invalid_parameter(
                f"Service account {association.get('serviceAccount')} in pod identity configuration"
                f" is not supported for addon {name}"
            )

    def _get(self, scope: Scope, request: Mapping[str, Any]) -> Addon:
        cluster = self._clusters.get(scope, validation.required(request, "clusterName"))
        name = validation.required(request, "addonName")
        with self._lock:
            addon = self._addons.get(_key(cluster, name))
            if addon is None or self._is_gone(addon):
                raise validation.not_found(f"No addon: {name} found in cluster: {cluster.name}")
        return addon

    def _is_gone(self, addon: Addon) -> bool:
        """Tell whether a deletion is complete, and forget the add-on then."""
        if not addon.is_deleting or self._deployer.health(addon).state != "absent":
            return False
        self._addons.pop(_key(addon.cluster, addon.name), None)
        return True

    def _status(self, addon: Addon) -> tuple[str, Sequence[AddonIssue]]:
        if addon.is_deleting:
            return "DELETING", ()
        if addon.failures:
            return "UPDATE_FAILED" if addon.is_updating else "CREATE_FAILED", addon.failures
        health = self._deployer.health(addon)
        if health.state == "ready":
            if addon.is_updating or not addon.was_active:
                with self._lock:
                    active = replace(addon, was_active=True, is_updating=False)
                    self._addons[_key(addon.cluster, addon.name)] = active
            return "ACTIVE", ()
        is_late = self._clock.now() - addon.modified_at > _PATIENCE
        if is_late or (addon.was_active and not addon.is_updating):
            return "DEGRADED", health.issues
        return "UPDATING" if addon.is_updating else "CREATING", ()

    def _page(
        self, items: Sequence[Any], query: str, request: Mapping[str, Any], key: Any = str
    ) -> tuple[list[Any], str | None]:
        try:
            return self._pager.page(
                items,
                key,
                query=json.dumps(query),
                size=validation.page_size(request),
                token=validation.optional(request, "nextToken"),
            )
        except InvalidTokenError as error:
            raise validation.invalid_parameter("The nextToken is not valid.") from error


def _key(cluster: Cluster, name: str) -> tuple[str, str]:
    return cluster.arn, name


def _update_record(identifier: str, addon: Addon, request: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {
        "addonVersion": "AddonVersion",
        "configurationValues": "ConfigurationValues",
        "podIdentityAssociations": "PodIdentityAssociations",
        "resolveConflicts": "ResolveConflicts",
        "serviceAccountRoleArn": "ServiceAccountRoleArn",
    }
    given = {kind: request[member] for member, kind in kinds.items() if request.get(member) is not None}
    failures = [
        {"errorCode": issue.code, "errorMessage": issue.message, "resourceIds": list(issue.resource_ids)}
        for issue in addon.failures
    ]
    return {
        "id": identifier,
        "status": "Failed" if failures else "InProgress",
        "type": "AddonUpdate",
        "params": [
            {"type": kind, "value": value if isinstance(value, str) else json.dumps(value)}
            for kind, value in given.items()
        ],
        "createdAt": addon.modified_at,
        "errors": failures,
    }


def _addon_name(entry: Mapping[str, Any]) -> str:
    return str(entry["addonName"])


def _versions_entry(kubernetes: str | None) -> dict[str, Any]:
    # The agent is not tied to a Kubernetes version (API-326).
    clusters = [kubernetes] if kubernetes else list(_KUBERNETES_VERSIONS)
    return {
        "addonName": AGENT_ADDON,
        "type": "security",
        "addonVersions": [
            {
                "addonVersion": version,
                "architecture": ["amd64", "arm64"],
                "compatibilities": [
                    {
                        "clusterVersion": cluster,
                        "platformVersions": ["*"],
                        "defaultVersion": version == AGENT_VERSIONS[0],
                    }
                    for cluster in clusters
                ],
                "requiresConfiguration": False,
                "requiresIamPermissions": False,
            }
            for version in AGENT_VERSIONS
        ],
        "publisher": "eks",
        "owner": "aws",
    }
