"""Reads a cluster and its account for an audit; reads only, and notes what it may not read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

from botocore.exceptions import BotoCoreError, ClientError

from harness.audit.inventory import Association, Inventory, Node, Role, account_of
from harness.cloud.documents import members
from harness.diagnose.picture import AGENT, compute_type
from harness.errors import HarnessFault
from harness.kube import Kube, Manifest

__all__ = ["associations_of", "gather", "needs_agent", "role_of"]

T = TypeVar("T")
Client = Callable[[str], Any]


class _Reader:
    """Reads part after part; one that cannot be read leaves a gap and not an error."""

    def __init__(self) -> None:
        self.gaps: dict[str, str] = {}

    def read(self, part: str, how: Callable[[], T]) -> T | None:
        try:
            return how()
        except (BotoCoreError, ClientError, HarnessFault) as error:
            self.gaps[part] = " ".join(str(error).split())
            return None


def gather(kube: Kube, client: Client, cluster: str) -> Inventory:
    """Return what there is.

    Args:
        kube: A client of the cluster.
        client: Service → boto3 client.
        cluster: Name that EKS knows the cluster by.
    """
    reader = _Reader()
    eks, iam = client("eks"), client("iam")
    associations = reader.read("associations", lambda: associations_of(eks, cluster))
    accounts = reader.read("ServiceAccounts", lambda: kube.items("/api/v1/serviceaccounts"))
    namespaces = reader.read("ServiceAccounts", lambda: kube.items("/api/v1/namespaces"))
    daemon_set = reader.read("agent", lambda: kube.get(f"/apis/apps/v1/namespaces/kube-system/daemonsets/{AGENT}"))
    status = members(members(daemon_set).get("status"))
    nodes = reader.read("nodes", lambda: kube.items("/api/v1/nodes"))
    instances = None if nodes is None else reader.read("instances", lambda: _instances(client("ec2"), nodes))
    why = reader.gaps.get("nodes") or reader.gaps.get("instances", "")
    addon = reader.read("add-on", lambda: _addon(eks, cluster))
    rules = reader.read("alerts", lambda: kube.items("/apis/monitoring.coreos.com/v1/prometheusrules"))
    return Inventory(
        cluster=cluster,
        associations=associations,
        roles=reader.read("roles", lambda: _roles(iam, associations or ())),
        service_accounts=None if accounts is None else {_pair(one): _annotations(one) for one in accounts},
        namespaces=None if namespaces is None else frozenset(one["metadata"]["name"] for one in namespaces),
        nodes=[node for node, _ in instances] if instances is not None else None,
        node_roles=reader.read("node roles", lambda: _node_roles(iam, instances, why)),
        agents_desired=status.get("desiredNumberScheduled", 0) if daemon_set else None,
        agents_needed=sum(map(needs_agent, nodes)) if nodes else None,
        agents_ready=status.get("numberReady", 0),
        addon=addon,
        latest_version=reader.read("add-on versions", lambda: _latest(eks, cluster)) or "",
        alerts=None if rules is None else [_pair(rule) for rule in rules if AGENT in json.dumps(rule.get("spec"))],
        gaps=reader.gaps,
    )


def _pair(manifest: Manifest) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def _annotations(manifest: Manifest) -> Mapping[str, str]:
    return manifest["metadata"].get("annotations") or {}


def needs_agent(node: Manifest) -> bool:
    """Whether the add-on's DaemonSet is for a node; hybrid ones have another, and Auto Mode has the agent built in."""
    windows = members(node["metadata"].get("labels")).get("kubernetes.io/os") == "windows"
    return not windows and compute_type(node) not in {"fargate", "auto", "hybrid"}


def _roles(iam: Any, associations: Sequence[Association]) -> Mapping[str, Role | None]:
    """Return the roles and target roles of the account: by its name alone IAM would tell of one of our own."""
    arns = {
        arn
        for one in associations
        for arn in (one.role_arn, one.effective_role_arn)
        if account_of(arn) == account_of(one.role_arn)
    }
    return {arn: role_of(iam, arn.rpartition("/")[2]) for arn in sorted(arns)}


def associations_of(eks: Any, cluster: str) -> Sequence[Association]:
    """Return all associations of a cluster in the order in which EKS lists them."""
    pages = eks.get_paginator("list_pod_identity_associations").paginate(clusterName=cluster)
    return [_association(eks, cluster, entry["associationId"]) for page in pages for entry in page["associations"]]


def _association(eks: Any, cluster: str, identifier: str) -> Association:
    told = eks.describe_pod_identity_association(clusterName=cluster, associationId=identifier)["association"]
    return Association(
        namespace=told["namespace"],
        service_account=told["serviceAccount"],
        id=identifier,
        role_arn=told["roleArn"],
        target_role_arn=told.get("targetRoleArn") or "",
        has_session_tags=not told.get("disableSessionTags", False),
        owner_arn=told.get("ownerArn") or "",
        tags=told.get("tags") or {},
    )


def _addon(eks: Any, cluster: str) -> Mapping[str, Any]:
    try:
        return eks.describe_addon(clusterName=cluster, addonName=AGENT)["addon"]
    except eks.exceptions.ResourceNotFoundException:
        return {}


def _latest(eks: Any, cluster: str) -> str:
    """Return the newest version for the cluster's Kubernetes, as EKS lists them: newest first."""
    kubernetes = eks.describe_cluster(name=cluster)["cluster"]["version"]
    told = eks.describe_addon_versions(addonName=AGENT, kubernetesVersion=kubernetes)["addons"]
    versions = [entry["addonVersion"] for addon in told for entry in addon["addonVersions"]]
    return max(versions, key=lambda version: [int(part) for part in re.findall(r"\d+", version)], default="")


def role_of(iam: Any, name: str) -> Role | None:
    """Return a role with all its policies; None if it is gone."""
    try:
        told = iam.get_role(RoleName=name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        return None
    return Role(
        name=name,
        boundary=members(told.get("PermissionsBoundary")).get("PermissionsBoundaryArn", ""),
        tags={tag["Key"]: tag["Value"] for tag in told.get("Tags") or ()},
        policies={**_attached(iam, name), **_inline(iam, name)},
        trust=_document(told["AssumeRolePolicyDocument"]),
    )


def _attached(iam: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for page in iam.get_paginator("list_attached_role_policies").paginate(RoleName=name):
        for entry in page["AttachedPolicies"]:
            arn = entry["PolicyArn"]
            version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
            found[arn] = _document(document)
    return found


def _inline(iam: Any, name: str) -> dict[str, Any]:
    names = [
        entry
        for page in iam.get_paginator("list_role_policies").paginate(RoleName=name)
        for entry in page["PolicyNames"]
    ]
    return {one: _document(iam.get_role_policy(RoleName=name, PolicyName=one)["PolicyDocument"]) for one in names}


def _document(told: Any) -> Any:
    return json.loads(unquote(told)) if isinstance(told, str) else told


def _instances(ec2: Any, manifests: Iterable[Manifest]) -> list[tuple[Node, str]]:
    """Return the nodes with what EC2 says of them, and the ARN of their instance profile; Fargate has no metadata."""
    nodes = {one["metadata"]["name"]: _instance_id(one) for one in manifests if compute_type(one) != "fargate"}
    identifiers = sorted({*nodes.values()} - {""})
    found: dict[str, Mapping[str, Any]] = {}
    for page in ec2.get_paginator("describe_instances").paginate(InstanceIds=identifiers) if identifiers else ():
        found |= {one["InstanceId"]: one for entry in page["Reservations"] for one in entry["Instances"]}
    nodes_found: list[tuple[Node, str]] = []
    for name, identifier in nodes.items():
        told = found.get(identifier, {})
        options = members(told.get("MetadataOptions"))
        node = Node(name, identifier, options.get("HttpTokens"), options.get("HttpPutResponseHopLimit"))
        nodes_found.append((node, members(told.get("IamInstanceProfile")).get("Arn", "")))
    return nodes_found


def _instance_id(node: Manifest) -> str:
    """Return the node's instance; empty for hybrid nodes and for clusters elsewhere."""
    last = (node["spec"].get("providerID") or "").rpartition("/")[2]
    return last if last.startswith("i-") else ""


def _node_roles(iam: Any, instances: Sequence[tuple[Node, str]] | None, why: str) -> Sequence[Role]:
    if instances is None:
        raise HarnessFault(f"the nodes' instance profiles are not known: {why}")
    profiles = sorted({arn.rpartition("/")[2] for _, arn in instances if arn})
    if not profiles:
        raise HarnessFault("EC2 tells no instance profile of the nodes")
    names = dict.fromkeys(role for profile in profiles for role in _roles_of_profile(iam, profile))
    found = {name: role_of(iam, name) for name in names}
    if gone := [name for name, role in found.items() if role is None]:
        raise HarnessFault(f"there is no role {', '.join(gone)}")
    return [role for role in found.values() if role]


def _roles_of_profile(iam: Any, profile: str) -> Sequence[str]:
    try:
        told = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]
    except iam.exceptions.NoSuchEntityException:
        # EKS names profile and role alike where it makes them itself.
        return [profile]
    return [role["RoleName"] for role in told["Roles"]]
