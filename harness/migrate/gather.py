"""Reads ServiceAccounts, their pods, associations and roles; reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from botocore.exceptions import ClientError

from harness.audit import Role, account_of
from harness.audit.gather import associations_of, needs_agent, role_of
from harness.cloud.documents import members
from harness.diagnose.picture import AGENT, compute_type, deployment_of, workload_of
from harness.errors import UsageError
from harness.kube import Kube, Manifest
from harness.migrate.steps import ANNOTATION, Account, Picture, PodUse

__all__ = ["gather"]


def gather(kube: Kube, eks: Any, iam: Any, cluster: str, namespace: str = "") -> Picture:
    """Return where every ServiceAccount is that has an annotation of IRSA or an association.

    Args:
        kube: A client of the cluster.
        eks: A boto3 client of EKS.
        iam: A boto3 client of IAM.
        cluster: Name that EKS knows the cluster by.
        namespace: The one to look at; empty for all.

    Raises:
        UsageError: There is no such namespace.
    """
    if namespace and kube.get(f"/api/v1/namespaces/{namespace}") is None:
        raise UsageError(f"there is no namespace {namespace!r}", hint="list them with: kubectl get namespaces")
    within = f"namespaces/{namespace}/" if namespace else ""
    arn: str = eks.describe_cluster(name=cluster)["cluster"]["arn"]
    associations = {
        (one.namespace, one.service_account): one
        for one in associations_of(eks, cluster)
        if not namespace or one.namespace == namespace
    }
    nodes = kube.items("/api/v1/nodes")
    fargate = {node["metadata"]["name"] for node in nodes if compute_type(node) == "fargate"}
    deployments = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): deployment_of(one)
        for one in kube.items(f"/apis/apps/v1/{within}replicasets")
    }
    pods: dict[tuple[str, str], list[PodUse]] = {}
    for pod in kube.items(f"/api/v1/{within}pods"):
        if pod["status"].get("phase") in {"Pending", "Running"} and "deletionTimestamp" not in pod["metadata"]:
            pair = (pod["metadata"]["namespace"], pod["spec"].get("serviceAccountName", "default"))
            pods.setdefault(pair, []).append(_use(pod, fargate, deployments))
    annotated = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): members(one["metadata"].get("annotations"))
        for one in kube.items(f"/api/v1/{within}serviceaccounts")
    }
    accounts = [
        Account(
            *pair, annotations.get(ANNOTATION, ""), associations.get(pair), pods.get(pair, []), exists=pair in annotated
        )
        for pair in {*annotated, *associations}
        if (annotations := annotated.get(pair, {})).get(ANNOTATION) or pair in associations
    ]
    daemon_set = kube.get(f"/apis/apps/v1/namespaces/kube-system/daemonsets/{AGENT}")
    return Picture(arn, accounts, *_roles(iam, accounts, account_of(arn)), _agent(daemon_set, nodes))


def _agent(daemon_set: Manifest | None, nodes: Sequence[Manifest]) -> Literal["missing", "not ready", "ready"]:
    if not any(needs_agent(node) for node in nodes):
        return "ready"
    if daemon_set is None:
        return "missing"
    status = members(daemon_set.get("status"))
    ready, desired = status.get("numberReady", 0), status.get("desiredNumberScheduled", 0)
    return "ready" if ready >= desired > 0 else "not ready"


def _use(pod: Manifest, fargate: set[str], deployments: Mapping[tuple[str, str], str]) -> PodUse:
    names = {entry["name"] for container in pod["spec"]["containers"] for entry in container.get("env") or ()}
    irsa, pod_identity = "AWS_WEB_IDENTITY_TOKEN_FILE" in names, "AWS_CONTAINER_CREDENTIALS_FULL_URI" in names
    mechanism = "both" if irsa and pod_identity else "irsa" if irsa else "pod-identity" if pod_identity else "none"
    selector: Mapping[str, str] = pod["spec"].get("nodeSelector") or {}
    stays = "on Fargate" if pod["spec"].get("nodeName") in fargate else ""
    if selector.get("kubernetes.io/os") == "windows" or members(pod["spec"].get("os")).get("name") == "windows":
        stays = "on Windows"
    owners = pod["metadata"].get("ownerReferences") or ()
    ends = any(owner["kind"] == "Job" for owner in owners)
    workload = workload_of(pod, lambda name: deployments.get((pod["metadata"]["namespace"], name), ""))
    return PodUse(pod["metadata"]["name"], mechanism, workload, stays, ends_by_itself=ends)


def _roles(iam: Any, accounts: Iterable[Account], own: str) -> tuple[dict[str, Role | None], dict[str, str]]:
    """Return the roles that could be read, and why the others could not."""
    arns = {account.irsa_role_arn for account in accounts}
    for account in accounts:
        if account.association:
            arns |= {account.association.role_arn, account.association.effective_role_arn}
    found: dict[str, Role | None] = {}
    unread: dict[str, str] = {}
    for arn in sorted(arns - {""}):
        try:
            # By its name alone IAM would tell of one of our own.
            if account_of(arn) != own:
                unread[arn] = f"it is of account {account_of(arn)}"
                continue
            found[arn] = role_of(iam, arn.rpartition("/")[2])
        except ClientError as error:
            unread[arn] = str(error)
    return found, unread
