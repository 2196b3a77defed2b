"""What there is of Pod Identity in a cluster and its account, and the tables that are made of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from harness.cloud.documents import members
from harness.errors import UsageError

__all__ = [
    "Association",
    "Inventory",
    "Node",
    "Role",
    "account_of",
    "association_table",
    "drift",
    "read_snapshot",
    "snapshot",
]

SCHEMA = "podid-audit/1"
_ENTRY = ("namespace", "serviceAccount", "roleArn")
_ARN_PARTS = 6


def account_of(arn: str) -> str:
    """Return the account in an ARN; empty where it is none."""
    parts = arn.split(":", _ARN_PARTS - 1)
    return parts[4] if len(parts) == _ARN_PARTS else ""


@dataclass(frozen=True, slots=True)
class Association:
    """A pod identity association."""

    namespace: str
    service_account: str
    id: str
    role_arn: str
    target_role_arn: str = ""
    has_session_tags: bool = True
    owner_arn: str = ""
    """What manages it, such as an add-on."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def pair(self) -> str:
        """Namespace and ServiceAccount."""
        return f"{self.namespace}/{self.service_account}"

    @property
    def role(self) -> str:
        """Name of its role."""
        return self.role_arn.rpartition("/")[2]

    @property
    def effective_role_arn(self) -> str:
        """The role whose permissions pods have: the target role if there is one."""
        return self.target_role_arn or self.role_arn


@dataclass(frozen=True, slots=True)
class Role:
    """A role of an association, or of nodes."""

    name: str
    boundary: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    policies: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """ARN or name → document."""
    trust: Any = None
    """Its trust policy."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node with metadata of EC2; the options are None where EC2 did not tell."""

    name: str
    instance_id: str
    """Empty where the node does not say."""
    tokens: str | None = None
    """``required`` or ``optional``."""
    hop_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """A cluster as it was found. What could not be read is None, with the reason in :attr:`gaps`."""

    cluster: str
    associations: Sequence[Association] | None = None
    roles: Mapping[str, Role | None] | None = None
    """ARN of a role or target role of this account → the role; None for one that is gone."""
    service_accounts: Mapping[str, Mapping[str, str]] | None = None
    """``namespace/name`` → annotations."""
    namespaces: frozenset[str] | None = None
    nodes: Sequence[Node] | None = None
    node_roles: Sequence[Role] | None = None
    agents_desired: int | None = None
    """Nodes that the agent's DaemonSet is for; None without a DaemonSet."""
    agents_needed: int | None = None
    """Nodes that need it: not Fargate's, Windows or hybrid ones, nor those of EKS Auto Mode, which has it built in.

    None where there are no nodes, or they could not be read.
    """
    agents_ready: int = 0
    addon: Mapping[str, Any] | None = None
    """As DescribeAddon tells; empty when the add-on is not installed."""
    latest_version: str = ""
    """Newest version of the add-on for this Kubernetes."""
    alerts: Sequence[str] | None = None
    """PrometheusRules that watch the agent."""
    gaps: Mapping[str, str] = field(default_factory=dict[str, str])
    """Part → why it could not be read."""


def association_table(associations: Iterable[Association]) -> str:
    """Return the guide's table, byte for byte in its form: columns of 18, 32 and 40, padded to the end."""
    lines = [f"{'Namespace':18} {'ServiceAccount':32} {'IAM Role':40}", "-" * 95]
    lines += [f"{one.namespace:18} {one.service_account:32} {one.role:40}" for one in associations]
    return "\n".join(lines) + "\n"


def snapshot(inventory: Inventory) -> dict[str, Any]:
    """Return what a later run compares with: one entry for each association, without what changes by itself.

    Where the associations could not be read, there is None for them.
    """
    entries = None
    if inventory.associations is not None:
        entries = [
            {
                "namespace": one.namespace,
                "serviceAccount": one.service_account,
                "roleArn": one.role_arn,
                "targetRoleArn": one.target_role_arn,
                "sessionTags": one.has_session_tags,
            }
            for one in inventory.associations
        ]
        entries.sort(key=_pair)
    return {"schema": SCHEMA, "cluster": inventory.cluster, "associations": entries}


def read_snapshot(data: Any, cluster: str) -> dict[str, Any]:
    """Return a snapshot of a cluster that was stored, alone or as part of a report.

    Raises:
        UsageError: It is none, of another cluster, or of a run that could not read the associations.
    """
    stored = members(data)
    if stored.get("schema") != SCHEMA or "associations" not in stored:
        raise UsageError(f"not a report of podid audit: it lacks schema {SCHEMA}", hint="make one: podid audit --json")
    if stored.get("cluster") != cluster:
        raise UsageError(f"the report is of cluster {stored.get('cluster')!r}, not of {cluster!r}")
    found = stored["associations"]
    if found is None:
        why = members(stored.get("gaps")).get("associations", "it does not say why")
        raise UsageError(f"the report has no associations: {why}", hint="make one that has: podid audit --json")
    if not isinstance(found, list) or not all(
        isinstance(members(entry).get(name), str) for entry in cast("list[object]", found) for name in _ENTRY
    ):
        raise UsageError(f"not a report of podid audit: an association lacks {', '.join(_ENTRY)}")
    return dict(stored)


def drift(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what changed between two snapshots that have associations, one line an association."""
    before = {_pair(entry): entry for entry in old["associations"]}
    after = {_pair(entry): entry for entry in new["associations"]}
    lines: list[str] = []
    for pair in sorted({*before, *after}):
        name = "/".join(pair)
        if pair not in after:
            lines.append(f"removed  {name}  {before[pair]['roleArn']}")
        elif pair not in before:
            lines.append(f"added    {name}  {after[pair]['roleArn']}")
        else:
            changes = [
                f"{key}: {before[pair].get(key)!r} → {value!r}"
                for key, value in after[pair].items()
                if before[pair].get(key) != value
            ]
            lines += [f"changed  {name}  {'; '.join(changes)}"] if changes else []
    return lines


def _pair(entry: Mapping[str, Any]) -> tuple[str, str]:
    return str(entry["namespace"]), str(entry["serviceAccount"])
