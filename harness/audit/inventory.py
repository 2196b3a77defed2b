"""What there is of Pod Identity in a cluster and its account, and the tables that are made of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UsageError

__all__ = [
    "Association",
    "Inventory",
    "Node",
    "Role",
    "association_table",
    "drift",
    "read_snapshot",
    "snapshot",
]

SCHEMA = "podid-audit/1"


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
    """A node and the EC2 instance behind it; the options are None where EC2 did not tell."""

    name: str
    instance_id: str
    tokens: str | None = None
    """``required`` or ``optional``."""
    hop_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """A cluster as it was found. What could not be read is None, with the reason in :attr:`gaps`."""

    cluster: str
    associations: Sequence[Association] | None = None
    roles: Mapping[str, Role | None] | None = None
    """Role ARN of an association → the role; None for one that is gone."""
    service_accounts: Mapping[str, Mapping[str, str]] | None = None
    """``namespace/name`` → annotations."""
    namespaces: frozenset[str] | None = None
    nodes: Sequence[Node] | None = None
    node_roles: Sequence[Role] | None = None
    agents_desired: int | None = None
    """Nodes that the agent's DaemonSet is for; None without a DaemonSet."""
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
    """Return what a later run compares with: one entry for each association, without what changes by itself."""
    entries = [
        {
            "namespace": one.namespace,
            "serviceAccount": one.service_account,
            "roleArn": one.role_arn,
            "targetRoleArn": one.target_role_arn,
            "sessionTags": one.has_session_tags,
        }
        for one in inventory.associations or ()
    ]
    return {"schema": SCHEMA, "cluster": inventory.cluster, "associations": sorted(entries, key=_pair)}


def read_snapshot(data: Any) -> dict[str, Any]:
    """Return a snapshot that was stored, alone or as part of a report.

    Raises:
        UsageError: It is none.
    """
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or not isinstance(data.get("associations"), list):  # pyright: ignore[reportUnknownMemberType]
        raise UsageError(f"not a report of podid audit: it lacks schema {SCHEMA}", hint="make one: podid audit --json")
    return data  # pyright: ignore[reportUnknownVariableType]


def drift(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what changed between two snapshots, one line an association."""
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
