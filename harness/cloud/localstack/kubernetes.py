"""EKS's hand in the bound clusters: reads keys, publishes associations, applies add-ons."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import requests

from harness.cloud.documents import members
from harness.cloud.eks import Addon, AddonHealth, AddonIssue, Cluster, ClusterError

__all__ = ["ApiAccess", "BoundClusters"]

LOG = logging.getLogger(__name__)

CONFIG_MAP = "pod-identity-associations"
NAMESPACE = "kube-system"
_FIELD_MANAGER = "eks"
_TIMEOUT = (3.05, 15)
_JWKS_SECONDS = 60
_PLURALS = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ConfigMap": "configmaps",
    "DaemonSet": "daemonsets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}
_CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding"}


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """How to reach an API server, and what to install as the agent's add-on."""

    endpoint: str
    certificate_authority: str
    """PEM."""
    client_certificate: str
    client_key: str
    token_file: str
    addon_manifests: tuple[Mapping[str, Any], ...]


class _Connection:
    """A session with one API server; ``requests`` keeps its connections."""

    def __init__(self, access: ApiAccess) -> None:
        self.access = access
        self._session = requests.Session()
        # Proxies and CA bundles of the environment have no business here.
        self._session.trust_env = False
        with tempfile.NamedTemporaryFile("w", prefix="podid-ca-", suffix=".pem", delete=False) as file:
            file.write(access.certificate_authority)
        self._authority = Path(file.name)
        self._session.verify = file.name
        if access.client_certificate:
            self._session.cert = (access.client_certificate, access.client_key)

    def close(self) -> None:
        self._session.close()
        self._authority.unlink(missing_ok=True)

    def call(self, method: str, path: str, body: Any = None, **parameters: str) -> Mapping[str, Any] | None:
        """Call the API; None when the object is not there.

        Raises:
            ClusterError: Refused or unreachable.
        """
        headers = {"Content-Type": "application/apply-patch+yaml" if method == "PATCH" else "application/json"}
        if self.access.token_file:
            headers["Authorization"] = f"Bearer {Path(self.access.token_file).read_text().strip()}"
        data = json.dumps(body) if body is not None else None
        url = self.access.endpoint.rstrip("/") + path
        try:
            response = self._session.request(
                method, url, params=parameters, data=data, headers=headers, timeout=_TIMEOUT
            )
            answer = members(response.json() if response.content else None)
        except (requests.RequestException, ValueError) as error:
            raise ClusterError(AddonIssue("ClusterUnreachable", f"{method} {path}: {error}")) from error
        if response.status_code == 404 and method in {"GET", "DELETE"}:
            return None
        if response.ok:
            return answer
        text = str(answer.get("message", response.status_code))
        code = {401: "AccessDenied", 403: "AccessDenied", 404: "K8sResourceNotFound", 409: "ConfigurationConflict"}
        raise ClusterError(AddonIssue(code.get(response.status_code, "AdmissionRequestDenied"), text))

    def apply(self, manifest: Mapping[str, Any]) -> None:
        self.call("PATCH", _path(manifest), manifest, fieldManager=_FIELD_MANAGER, force="true")


class BoundClusters:
    """All bound clusters; implements the domain's ports towards them. Safe for use by several threads."""

    def __init__(self, publication_delay: float = 0) -> None:
        """Begin without clusters.

        Args:
            publication_delay: Seconds until admission learns of a change of associations (API-903).
        """
        self._delay = publication_delay
        self._lock = threading.Lock()
        self._connections: dict[str, _Connection] = {}
        self._keys: dict[str, tuple[float, Mapping[str, Any]]] = {}

    def bind(self, arn: str, access: ApiAccess) -> None:
        """Make a cluster reachable under its ARN."""
        connection = _Connection(access)
        with self._lock:
            previous = self._connections.pop(arn, None)
            self._connections[arn] = connection
            self._keys.pop(arn, None)
        if previous:
            previous.close()

    def unbind(self, arn: str) -> None:
        """Forget a cluster."""
        with self._lock:
            connection = self._connections.pop(arn, None)
            self._keys.pop(arn, None)
        if connection:
            connection.close()

    def _connection(self, cluster: Cluster) -> _Connection:
        with self._lock:
            connection = self._connections.get(cluster.arn)
        if connection is None:
            raise ClusterError(AddonIssue("ClusterUnreachable", f"cluster {cluster.name} is not bound"))
        return connection

    # --- ClusterDirectory -------------------------------------------------------------------------------------------

    def publish(self, cluster: Cluster, pairs: Sequence[tuple[str, str]]) -> None:
        """Write the set of pairs into the cluster's ConfigMap, at once or after the delay."""
        connection = self._connection(cluster)
        manifest = _config_map(pairs)
        if not self._delay:
            connection.apply(manifest)
            return
        timer = threading.Timer(self._delay, _apply_late, (connection, manifest, cluster.name))
        timer.daemon = True
        timer.start()

    def jwks(self, cluster: Cluster, *, is_fresh: bool = False) -> Mapping[str, Any]:
        """Return the cluster's keys, from the cache when they were read a moment ago."""
        with self._lock:
            at, keys = self._keys.get(cluster.arn, (0.0, {}))
        if keys and not is_fresh and time.monotonic() - at < _JWKS_SECONDS:
            return keys
        found = self._connection(cluster).call("GET", "/openid/v1/jwks")
        if not found:
            raise ClusterError(AddonIssue("K8sResourceNotFound", "the API server publishes no keys"))
        with self._lock:
            self._keys[cluster.arn] = (time.monotonic(), found)
        return found

    # --- pods -------------------------------------------------------------------------------------------------------

    def pod_addresses(self, cluster: Cluster) -> Mapping[str, list[str]]:
        """Return node → addresses of the pods that have one of their own.

        Raises:
            ClusterError: The cluster does not answer.
        """
        listed = self._connection(cluster).call("GET", "/api/v1/pods", fieldSelector="status.phase=Running") or {}
        found: dict[str, list[str]] = {}
        for pod in listed.get("items", []):
            spec, status = members(pod.get("spec")), members(pod.get("status"))
            if status.get("podIP") and not spec.get("hostNetwork"):
                found.setdefault(str(spec.get("nodeName")), []).append(str(status["podIP"]))
        return found

    # --- AddonDeployer ----------------------------------------------------------------------------------------------

    def apply(self, addon: Addon) -> None:
        """Apply the add-on's objects in their order."""
        connection = self._connection(addon.cluster)
        for manifest in connection.access.addon_manifests:
            connection.apply(manifest)

    def delete(self, addon: Addon) -> None:
        """Delete the add-on's objects in reverse; the DaemonSet stays visible until its pods are gone."""
        connection = self._connection(addon.cluster)
        for manifest in reversed(connection.access.addon_manifests):
            connection.call("DELETE", _path(manifest), propagationPolicy="Foreground")

    def health(self, addon: Addon) -> AddonHealth:
        """Return what the DaemonSet's status says."""
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{addon.name}"
        try:
            daemon_set = self._connection(addon.cluster).call("GET", path)
        except ClusterError as error:
            return AddonHealth("progressing", (error.issue,))
        if daemon_set is None:
            missing = AddonIssue(
                "K8sResourceNotFound", f"DaemonSet {NAMESPACE}/{addon.name} does not exist", (addon.name,)
            )
            return AddonHealth("absent", (missing,))
        return _rollout(daemon_set, addon.name)


def _rollout(daemon_set: Mapping[str, Any], name: str) -> AddonHealth:
    status = daemon_set.get("status", {})
    desired = int(status.get("desiredNumberScheduled", 0))
    ready = int(status.get("numberReady", 0))
    updated = int(status.get("updatedNumberScheduled", 0))
    is_observed = int(status.get("observedGeneration", 0)) >= int(daemon_set["metadata"].get("generation", 1))
    is_leaving = "deletionTimestamp" in daemon_set["metadata"]
    if is_observed and not is_leaving and desired > 0 and ready >= desired and updated >= desired:
        return AddonHealth("ready")
    text = (
        f"The add-on is unhealthy because it doesn't have the desired number of replicas: {ready} of {desired} ready."
    )
    return AddonHealth("progressing", (AddonIssue("InsufficientNumberOfReplicas", text, (name,)),))


def _config_map(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    identities = ",".join([_identity(*pair) for pair in sorted(pairs)])
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": NAMESPACE},
        "data": {"identities.json": f'{{"identities":[{identities}]}}'},
    }


@lru_cache(maxsize=16384)
def _identity(namespace: str, service_account: str) -> str:
    """Return a pair as JSON; remembered, because a change of one pair publishes all of them."""
    return json.dumps({"namespace": namespace, "serviceAccount": service_account}, separators=(",", ":"))


def _apply_late(connection: _Connection, manifest: Mapping[str, Any], name: str) -> None:
    try:
        connection.apply(manifest)
    except ClusterError as error:
        LOG.warning("associations of cluster %s were not published: %s", name, error)


def _path(manifest: Mapping[str, Any]) -> str:
    kind, version, metadata = str(manifest["kind"]), str(manifest["apiVersion"]), manifest["metadata"]
    if kind not in _PLURALS:
        raise ClusterError(AddonIssue("ConfigurationConflict", f"an add-on cannot contain a {kind}"))
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if kind not in _CLUSTER_SCOPED:
        base += f"/namespaces/{metadata.get('namespace', NAMESPACE)}"
    return f"{base}/{_PLURALS[kind]}/{metadata['name']}"
