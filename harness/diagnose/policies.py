"""What NetworkPolicies say about the way from a pod to the agent. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cloud.documents import members

__all__ = ["blocking_policies", "selects"]

Manifest = Mapping[str, Any]


def blocking_policies(pod: Manifest, policies: Sequence[Manifest], address: str, port: int) -> list[str]:
    """Return the names of the policies that isolate a pod's egress, if none of them lets it reach an address.

    Args:
        pod: The pod.
        policies: All policies of its namespace.
        address: IP address outside of the cluster's pods.
        port: TCP port there.
    """
    labels = members(pod["metadata"].get("labels"))
    isolating = [
        policy for policy in policies if _isolates_egress(policy) and selects(policy["spec"]["podSelector"], labels)
    ]
    if any(_allows(rule, address, port) for policy in isolating for rule in policy["spec"].get("egress") or ()):
        return []
    return [policy["metadata"]["name"] for policy in isolating]


def _isolates_egress(policy: Manifest) -> bool:
    types = policy["spec"].get("policyTypes")
    return "Egress" in types if types else "egress" in policy["spec"]


def selects(selector: Manifest | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector matches; the empty one matches everything."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in members(selector.get("matchLabels")).items()):
        return False
    return all(_meets(expression, labels) for expression in selector.get("matchExpressions") or ())


def _meets(expression: Manifest, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _allows(rule: Manifest, address: str, port: int) -> bool:
    """Tell whether an egress rule covers an address; rules for pods and namespaces never cover a link-local one."""
    peers = rule.get("to")
    if peers and not any(_covers(peer.get("ipBlock"), address) for peer in peers):
        return False
    ports = rule.get("ports")
    return not ports or any(_has_port(entry, port) for entry in ports)


def _covers(block: Manifest | None, address: str) -> bool:
    if not block:
        return False
    wanted = ipaddress.ip_address(address)
    if wanted not in ipaddress.ip_network(block["cidr"], strict=False):
        return False
    return not any(wanted in ipaddress.ip_network(one, strict=False) for one in block.get("except") or ())


def _has_port(entry: Manifest, port: int) -> bool:
    if entry.get("protocol", "TCP") != "TCP":
        return False
    first = entry.get("port")
    if first is None:
        return True
    return isinstance(first, int) and first <= port <= entry.get("endPort", first)
