"""The guide's security hardening checklist, its ten points in its order, and what else an audit finds. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.audit.inventory import Inventory, Role
from harness.cloud.documents import entries, members

__all__ = ["Check", "Status", "run_checks"]

Status = Literal["pass", "fail", "unknown"]

_WANTED_TAGS = ("cluster", "purpose", "managed-by")
_TAG_VARIABLE = re.compile(r"aws:PrincipalTag/(kubernetes-|eks-)")
_IRSA = "eks.amazonaws.com/role-arn"
_NODE_POLICIES = re.compile(
    r"arn:aws[a-z-]*:iam::aws:policy/(AmazonEKSWorkerNode(Minimal)?Policy|AmazonEC2ContainerRegistry(ReadOnly|PullOnly)"
    r"|AmazonEKS_CNI_Policy|AmazonSSMManagedInstanceCore)"
)
"""What nodes need; whoever takes a node over may use all that its role has."""


@dataclass(frozen=True, slots=True)
class Check:
    """A point of the checklist, judged."""

    id: str
    """Stays, for scripts and SARIF."""
    title: str
    status: Status
    evidence: Sequence[str]
    cure: str = ""


Rule = Callable[[Inventory], tuple[Status, Sequence[str]]]


def run_checks(inventory: Inventory, changes: Sequence[str] | None = None) -> list[Check]:
    """Judge every point.

    Args:
        inventory: What was found.
        changes: Drift since an earlier run; None if there is nothing to compare with.
    """
    checks: list[Check] = []
    for identifier, (title, rule, cure) in _CHECKS.items():
        status, evidence = rule(inventory)
        checks.append(Check(identifier, title, status, evidence, cure if status == "fail" else ""))
    audited: tuple[Status, Sequence[str]] = ("unknown", ["nothing to compare with: give an earlier report with --diff"])
    if changes is not None:
        audited = ("fail", changes) if changes else ("pass", ["no association changed since the earlier report"])
    checks.insert(8, Check("09-audit", "Audit associations regularly; nothing drifted", *audited))
    return checks


def _gap(inventory: Inventory, *parts: str) -> tuple[Status, Sequence[str]] | None:
    """Return the verdict *unknown* if one of the parts could not be read."""
    missing = [f"{part}: {inventory.gaps[part]}" for part in parts if part in inventory.gaps]
    return ("unknown", missing) if missing else None


def _verdict(faults: Sequence[str], fine: str) -> tuple[Status, Sequence[str]]:
    return ("fail", faults) if faults else ("pass", [fine])


# --- The ten points -------------------------------------------------------------------------------------------------


def _one_role_each(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "associations", "roles"):
        return gap
    pairs: dict[str, list[str]] = {}
    for one in inventory.associations or ():
        pairs.setdefault(one.role_arn, []).append(one.pair)
    shared = {arn: found for arn, found in pairs.items() if len(found) > 1}
    faults = [
        f"{arn.rpartition('/')[2]} serves {', '.join(sorted(found))}, and its policies do not tell them apart by tags"
        for arn, found in shared.items()
        if not _is_abac((inventory.roles or {}).get(arn))
    ]
    return _verdict(faults, f"{len(pairs)} roles; {len(shared)} shared, told apart by session tags")


def _is_abac(role: Role | None) -> bool:
    """Whether every statement that allows something depends on Pod Identity's tags."""
    if role is None or not role.policies:
        return False
    return all(
        _TAG_VARIABLE.search(repr(statement)) for document in role.policies.values() for statement in _allows(document)
    )


def _allows(document: Any) -> list[Mapping[str, Any]]:
    statements: Any = document.get("Statement", [])
    listed: list[Any] = statements if isinstance(statements, list) else [statements]  # pyright: ignore[reportUnknownVariableType]
    return [one for one in listed if one.get("Effect") == "Allow"]


def _session_tags(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "associations"):
        return gap
    without = [f"{one.pair} has disableSessionTags" for one in inventory.associations or () if not one.has_session_tags]
    return _verdict(without, "every association sends its session tags")


def _boundaries(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "associations", "roles"):
        return gap
    missing = [f"{role.name} has no permissions boundary" for role in _present(inventory) if not role.boundary]
    return _verdict(missing, "every role has a permissions boundary")


def _present(inventory: Inventory) -> list[Role]:
    return [role for role in (inventory.roles or {}).values() if role is not None]


def _hop_limit(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "nodes"):
        return gap
    faults = [
        f"node {node.name}: HttpTokens={node.tokens}, HttpPutResponseHopLimit={node.hop_limit}"
        for node in inventory.nodes or ()
        # Without required tokens SDKs fall back to IMDSv1, which no hop limit stops.
        if (node.hop_limit or 0) > 1 or node.tokens == "optional"
    ]
    silent = [f"node {node.name}: EC2 does not tell" for node in inventory.nodes or () if node.hop_limit is None]
    if silent and not faults:
        return "unknown", silent
    return _verdict(faults, f"{len(inventory.nodes or ())} nodes with HttpTokens=required, HttpPutResponseHopLimit=1")


def _tags(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "associations", "roles"):
        return gap
    lacking = {
        role.name: [tag for tag in _WANTED_TAGS if tag not in {key.lower() for key in role.tags}]
        for role in _present(inventory)
    }
    return _verdict(
        [f"{name} lacks {', '.join(tags)}" for name, tags in lacking.items() if tags],
        f"every role has the tags {', '.join(_WANTED_TAGS)}",
    )


_CODE = re.compile(r"managed-?by|terraform|eksctl|cloudformation|pulumi|crossplane|ack\.|opentofu", re.IGNORECASE)


def _as_code(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "associations"):
        return gap
    bare = [
        f"{one.pair}: no owner, and no tag that names a tool"
        for one in inventory.associations or ()
        if not one.owner_arn and not any(_CODE.search(key) for key in one.tags)
    ]
    # What made an association cannot be seen, only what a tool left on it.
    return ("unknown", bare) if bare else ("pass", ["every association has an owner or a tool's tag"])


def _agents(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "agent"):
        return gap
    if inventory.agents_desired is None:
        return "fail", ["there is no DaemonSet kube-system/eks-pod-identity-agent"]
    ready = f"{inventory.agents_ready} of {inventory.agents_desired} agents ready"
    if inventory.agents_ready < inventory.agents_desired or inventory.agents_desired == 0:
        return "fail", [ready]
    if inventory.alerts:
        return "pass", [ready, *(f"alert: {name}" for name in inventory.alerts)]
    return "unknown", [ready, "no PrometheusRule names the agent; alerts elsewhere cannot be seen from here"]


def _addon(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "add-on"):
        return gap
    addon = inventory.addon or {}
    if not addon:
        return "fail", ["the add-on eks-pod-identity-agent is not installed"]
    version, status = addon["addonVersion"], addon["status"]
    issues = [f"{one['code']}: {one['message']}" for one in entries(members(addon.get("health")).get("issues"))]
    facts = [f"{version}, {status}", *issues]
    if not inventory.latest_version:
        return ("fail" if issues or status != "ACTIVE" else "unknown"), [*facts, "the newest version is not known"]
    behind = version != inventory.latest_version
    bad = behind or issues or status != "ACTIVE"
    return ("fail" if bad else "pass"), [*facts, f"newest for this Kubernetes: {inventory.latest_version}"]


def _irsa_beside(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "associations", "ServiceAccounts"):
        return gap
    accounts = inventory.service_accounts or {}
    both = [
        f"{one.pair}: association for {one.role}, and {_IRSA}={accounts[one.pair][_IRSA]}"
        for one in inventory.associations or ()
        if _IRSA in accounts.get(one.pair, {})
    ]
    return _verdict(both, "no ServiceAccount has both")


# --- What else ------------------------------------------------------------------------------------------------------


def _orphans(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "associations", "ServiceAccounts", "roles"):
        return gap
    faults: list[str] = []
    for one in inventory.associations or ():
        if one.namespace not in (inventory.namespaces or ()):
            faults.append(f"{one.pair} ({one.id}): there is no namespace {one.namespace}")
        elif one.pair not in (inventory.service_accounts or {}):
            faults.append(f"{one.pair} ({one.id}): there is no such ServiceAccount")
        if (inventory.roles or {}).get(one.role_arn, one) is None:
            faults.append(f"{one.pair} ({one.id}): there is no role {one.role_arn}")
    return _verdict(faults, "every association has its namespace, ServiceAccount and role")


def _node_role(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "node roles"):
        return gap
    faults = [
        f"{role.name} has {policy}"
        for role in inventory.node_roles or ()
        for policy in role.policies
        if not _NODE_POLICIES.fullmatch(policy)
    ]
    names = ", ".join(role.name for role in inventory.node_roles or ())
    return _verdict(faults, f"{names}: nothing beyond what nodes need")


_CHECKS: Mapping[str, tuple[str, Rule, str]] = {
    "01-one-role-each": (
        "One IAM role per ServiceAccount",
        _one_role_each,
        "give each ServiceAccount a role of its own, or tell them apart by aws:PrincipalTag/kubernetes-namespace",
    ),
    "02-session-tags": (
        "Session tags and ABAC for many tenants",
        _session_tags,
        "aws eks update-pod-identity-association --no-disable-session-tags",
    ),
    "03-boundary": (
        "A permissions boundary on every Pod Identity role",
        _boundaries,
        "aws iam put-role-permissions-boundary --role-name ROLE --permissions-boundary POLICY_ARN",
    ),
    "04-hop-limit": (
        "IMDS hop limit 1 on EC2 nodes, tokens required",
        _hop_limit,
        (
            "aws ec2 modify-instance-metadata-options --instance-id ID --http-tokens required "
            "--http-put-response-hop-limit 1, and the same in the launch template"
        ),
    ),
    "05-tags": ("Every role is tagged cluster, purpose, managed-by", _tags, "aws iam tag-role --role-name ROLE"),
    "06-as-code": ("Associations are managed as code", _as_code, ""),
    "07-agent": (
        "The agent runs on every node, with an alert",
        _agents,
        "kubectl --namespace kube-system describe daemonset eks-pod-identity-agent",
    ),
    "08-addon": (
        "The add-on is healthy and up to date",
        _addon,
        "aws eks update-addon --cluster-name CLUSTER --addon-name eks-pod-identity-agent --addon-version VERSION",
    ),
    "10-irsa-beside": (
        "No IRSA annotation beside an association",
        _irsa_beside,
        "kubectl annotate serviceaccount NAME eks.amazonaws.com/role-arn-",
    ),
    "11-orphans": (
        "No association without its namespace, ServiceAccount or role",
        _orphans,
        "aws eks delete-pod-identity-association --cluster-name CLUSTER --association-id ID",
    ),
    "12-node-role": (
        "The node role can do what nodes need, and no more",
        _node_role,
        "move what pods need into roles of their own, and detach it from the node role",
    ),
}
