"""The guide's security hardening checklist, its ten points in its order, and what else an audit finds. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.audit.inventory import Association, Inventory, Role, account_of
from harness.cloud.documents import entries, members

__all__ = ["Check", "Status", "run_checks"]

Status = Literal["pass", "fail", "unknown"]

_WANTED_TAGS = ("cluster", "purpose", "managed-by")
_TAG = re.compile(
    r"aws:PrincipalTag/(kubernetes-namespace|kubernetes-service-account|kubernetes-pod-uid)\b", re.IGNORECASE
)
"""The tags that differ between pods of one cluster and that nobody can choose; whoever makes a pod chooses its name."""
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
    if gap := _gap(inventory, "associations"):
        audited = gap
    elif changes is not None:
        audited = ("fail", changes) if changes else ("pass", ["no association changed since the earlier report"])
    checks.insert(8, Check("09-audit", "Audit associations regularly; nothing drifted", *audited))
    return checks


def _gap(inventory: Inventory, *parts: str) -> tuple[Status, Sequence[str]] | None:
    """Return the verdict *unknown* if one of the parts could not be read."""
    missing = [f"{part}: {inventory.gaps[part]}" for part in parts if part in inventory.gaps]
    return ("unknown", missing) if missing else None


def _verdict(faults: Sequence[str], fine: str, silent: Sequence[str] = ()) -> tuple[Status, Sequence[str]]:
    """Return the verdict over what is wrong and what could not be told."""
    if faults:
        return "fail", [*faults, *silent]
    return ("unknown", silent) if silent else ("pass", [fine])


def _elsewhere(inventory: Inventory) -> list[str]:
    """Return a line for each role of another account."""
    arns = {one.effective_role_arn for one in inventory.associations or ()} - set(inventory.roles or {})
    return [f"{arn} is of account {account_of(arn)}: it is not seen from here" for arn in sorted(arns)]


# --- The ten points -------------------------------------------------------------------------------------------------


def _one_role_each(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "associations", "roles"):
        return gap
    users: dict[str, list[Association]] = {}
    for one in inventory.associations or ():
        users.setdefault(one.effective_role_arn, []).append(one)
    shared = {arn: found for arn, found in users.items() if len(found) > 1}
    faults: list[str] = []
    silent: list[str] = []
    for arn, found in shared.items():
        serves = f"{arn.rpartition('/')[2]} serves {', '.join(sorted(one.pair for one in found))}"
        if arn not in (inventory.roles or {}):
            silent.append(
                f"{serves}, and is of account {account_of(arn)}: whether tags tell them apart is not seen here"
            )
        elif not _tells_apart((inventory.roles or {})[arn], found):
            faults.append(f"{serves}, and its policies do not tell them apart by tags")
    return _verdict(faults, f"{len(users)} roles; {len(shared)} shared, told apart by session tags", silent)


def _tells_apart(role: Role | None, users: Sequence[Association]) -> bool:
    """Whether every statement that allows something depends on tags that are other ones for each of its users."""
    if role is None or not role.policies:
        return False
    allowing = [statement for document in role.policies.values() for statement in _allows(document)]
    return all(_differ(users, {tag.lower() for tag in _TAG.findall(repr(statement))}) for statement in allowing)


def _differ(users: Sequence[Association], tags: set[str]) -> bool:
    if "kubernetes-pod-uid" in tags:
        return True
    values = {
        (
            one.namespace if "kubernetes-namespace" in tags else "",
            one.service_account if "kubernetes-service-account" in tags else "",
        )
        for one in users
    }
    return len(values) == len(users)


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
    return _verdict(missing, "every role has a permissions boundary", _elsewhere(inventory))


def _present(inventory: Inventory) -> list[Role]:
    return [role for role in (inventory.roles or {}).values() if role is not None]


def _hop_limit(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "nodes", "instances"):
        return gap
    nodes = inventory.nodes or ()
    faults = [
        f"node {node.name}: HttpTokens={node.tokens}, HttpPutResponseHopLimit={node.hop_limit}"
        for node in nodes
        # Without required tokens SDKs fall back to IMDSv1, which no hop limit stops.
        if (node.hop_limit or 0) > 1 or node.tokens == "optional"
    ]
    silent = [f"node {node.name}: EC2 does not tell" for node in nodes if node.hop_limit is None]
    if not nodes:
        silent = ["there is no node of EC2"]
    return _verdict(faults, f"{len(nodes)} nodes with HttpTokens=required, HttpPutResponseHopLimit=1", silent)


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
        _elsewhere(inventory),
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


_BUILT_IN = (
    "no node is the add-on's: EKS Auto Mode has the agent built in; Fargate, Windows and hybrid nodes have not this one"
)


def _nothing_to_install(inventory: Inventory) -> tuple[Status, Sequence[str]] | None:
    """Return the verdict where no node asks for the add-on; None where one does."""
    if inventory.agents_needed is None:
        why = "the cluster has no nodes: which kind they will be cannot be told"
        return _gap(inventory, "nodes") or ("unknown", [why])
    return ("pass", [_BUILT_IN]) if inventory.agents_needed == 0 else None


def _agents(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "agent", "nodes"):
        return gap
    if verdict := _nothing_to_install(inventory):
        return verdict
    needed, desired = inventory.agents_needed or 0, inventory.agents_desired
    if desired is None:
        return "fail", ["there is no DaemonSet kube-system/eks-pod-identity-agent"]
    facts = [f"{inventory.agents_ready} of {desired} agents ready"]
    if desired < needed:
        facts.append(f"the DaemonSet is for {desired} of {needed} nodes that need an agent")
    if inventory.agents_ready < desired or desired < needed:
        return "fail", facts
    if inventory.alerts:
        return "pass", [*facts, *(f"alert: {name}" for name in inventory.alerts)]
    why = inventory.gaps.get("alerts", "no PrometheusRule names the agent; alerts elsewhere cannot be seen from here")
    return "unknown", [*facts, why]


def _addon(inventory: Inventory) -> tuple[Status, Sequence[str]]:
    if gap := _gap(inventory, "add-on"):
        return gap
    addon = inventory.addon or {}
    if not addon and (verdict := _nothing_to_install(inventory)):
        return verdict
    if not addon:
        return "fail", ["the add-on eks-pod-identity-agent is not installed"]
    version, status = addon["addonVersion"], addon["status"]
    issues = [f"{one['code']}: {one['message']}" for one in entries(members(addon.get("health")).get("issues"))]
    facts = [f"{version}, {status}", *issues]
    if not inventory.latest_version:
        why = inventory.gaps.get("add-on versions", "EKS names none")
        return ("fail" if issues or status != "ACTIVE" else "unknown"), [
            *facts,
            f"the newest version is not known: {why}",
        ]
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
        faults += [
            f"{one.pair} ({one.id}): there is no role {arn}"
            for arn in dict.fromkeys([one.role_arn, one.effective_role_arn])
            if (inventory.roles or {}).get(arn, one) is None
        ]
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
