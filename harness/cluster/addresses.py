"""Addresses in the clusters that we raise: their pods', their services', and IPv6's of their nodes. Pure.

Each cluster has the same ones: its network is its own. IPv6's repeat the numbers of IPv4's, and are unique local.
"""

from __future__ import annotations

import ipaddress

from harness.cluster.base import ClusterSpec

__all__ = ["api_services", "cluster_dns", "ipv6_beside", "pod_networks", "pods_of", "service_networks"]

_PODS = {4: "10.244.0.0/16", 6: "fd0a:f4::/48"}
_PODS_OF_NODE = {4: "10.244.{}.0/24", 6: "fd0a:f4:0:{:x}::/64"}
# A /108 is the largest that the API server takes.
_SERVICES = {4: "10.96.0.0/16", 6: "fd0a:60::/108"}


def pod_networks(spec: ClusterSpec) -> list[str]:
    """Return the networks of all pods, one for each version of IP; nodes have a part of each."""
    return [_PODS[version] for version in spec.ip_versions]


def pods_of(spec: ClusterSpec, number: int) -> list[str]:
    """Return the networks of the pods on the node with this number; the first node's is 0."""
    return [_PODS_OF_NODE[version].format(number) for version in spec.ip_versions]


def service_networks(spec: ClusterSpec) -> list[str]:
    """Return the networks of services."""
    return [_SERVICES[version] for version in spec.ip_versions]


def api_services(spec: ClusterSpec) -> list[str]:
    """Return the addresses that the service ``kubernetes`` can have."""
    return [str(ipaddress.ip_network(network)[1]) for network in service_networks(spec)]


def cluster_dns(spec: ClusterSpec) -> str:
    """Return the address of the service ``kube-dns``."""
    return str(ipaddress.ip_network(service_networks(spec)[0])[10])


def ipv6_beside(subnet: str) -> str:
    """Return the /64 that nodes have beside this network of IPv4: unique local, and as unlike other labs' as that."""
    first, second, third, _ = ipaddress.IPv4Network(subnet).network_address.packed
    return f"fd{first:02x}:{second:02x}{third:02x}::/64"
