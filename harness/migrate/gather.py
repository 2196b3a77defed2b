"""Reads ServiceAccounts, their pods, associations and roles; reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from harness.audit import Role
from harness.audit.gather import associations_of, role_of
from harness.cloud.documents import members
from harness.diagnose.picture import AGENT
from harness.kube import Kube, Manifest
from harness.migrate.steps import ANNOTATION, Account, Picture, PodUse

__all__ = ["gather"]

_RESTARTABLE = {"DaemonSet": "daemonset", "StatefulSet": "statefulset"}


def gather(kube: Kube, eks: Any, iam: Any, cluster: str, namespace: str = "") -> Picture:
    """Return where every ServiceAccount is that has an annotation of IRSA or an association.

    Args:
        kube: A client of the cluster.
        eks: A boto3 client of EKS.
        iam: A boto3 client of IAM.
        cluster: Name that EKS knows the cluster by.
        namespace: The one to look at; empty for all.
    """
    within = f"/api/v1/namespaces/{namespace}" if namespace else "/api/v1"
    associations = {(one.namespace, one.service_account): one for one in associations_of(eks, cluster)}
    fargate = {node["metadata"]["name"] for node in kube.items("/api/v1/nodes") if _is_fargate(node)}
    pods: dict[tuple[str, str], list[PodUse]] = {}
    for pod in kube.items(f"{within}/pods"):
        if pod["status"].get("phase") in {"Pending", "Running"} and "deletionTimestamp" not in pod["metadata"]:
            pair = (pod["metadata"]["namespace"], pod["spec"].get("serviceAccountName", "default"))
            pods.setdefault(pair, []).append(_use(pod, fargate))
    accounts: list[Account] = []
    for manifest in kube.items(f"{within}/serviceaccounts"):
        metadata = manifest["metadata"]
        pair = (metadata["namespace"], metadata["name"])
        role_arn = members(metadata.get("annotations")).get(ANNOTATION, "")
        if role_arn or pair in associations:
            accounts.append(Account(*pair, role_arn, associations.get(pair), pods.get(pair, [])))
    status = members(members(kube.get(f"/apis/apps/v1/namespaces/kube-system/daemonsets/{AGENT}")).get("status"))
    ready, desired = status.get("numberReady", 0), status.get("desiredNumberScheduled", 0)
    return Picture(cluster, accounts, _roles(iam, accounts), has_agent=desired > 0 and ready >= desired)


def _is_fargate(node: Manifest) -> bool:
    return members(node["metadata"].get("labels")).get("eks.amazonaws.com/compute-type") == "fargate"


def _use(pod: Manifest, fargate: set[str]) -> PodUse:
    names = {entry["name"] for container in pod["spec"]["containers"] for entry in container.get("env") or ()}
    irsa, pod_identity = "AWS_WEB_IDENTITY_TOKEN_FILE" in names, "AWS_CONTAINER_CREDENTIALS_FULL_URI" in names
    mechanism = "both" if irsa and pod_identity else "irsa" if irsa else "pod-identity" if pod_identity else "none"
    selector: Mapping[str, str] = pod["spec"].get("nodeSelector") or {}
    stays = "on Fargate" if pod["spec"].get("nodeName") in fargate else ""
    if selector.get("kubernetes.io/os") == "windows" or members(pod["spec"].get("os")).get("name") == "windows":
        stays = "on Windows"
    return PodUse(pod["metadata"]["name"], mechanism, _owner(pod), stays)


def _owner(pod: Manifest) -> str:
    """Return what ``kubectl rollout restart`` takes; empty for pods that end or stand alone."""
    for owner in pod["metadata"].get("ownerReferences") or ():
        if owner["kind"] == "ReplicaSet":
            return f"deployment/{owner['name'].rpartition('-')[0]}"
        if owner["kind"] in _RESTARTABLE:
            return f"{_RESTARTABLE[owner['kind']]}/{owner['name']}"
    return ""


def _roles(iam: Any, accounts: list[Account]) -> dict[str, Role | None]:
    arns = {account.irsa_role_arn for account in accounts}
    arns |= {account.association.role_arn for account in accounts if account.association}
    found: dict[str, Role | None] = {}
    for arn in sorted(arns - {""}):
        try:
            found[arn] = role_of(iam, arn.rpartition("/")[2])
        except ClientError:
            # Of another account, or not ours to read: nothing is said of it.
            continue
    return found
