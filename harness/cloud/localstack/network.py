"""The VPC that the bound clusters stand in, as EC2 tells it: nodes are instances, pods' addresses their interfaces'.

All of it exists from the first call that can see it on (``emulator.md`` 7.1): a lab in which nobody asks EC2 pays
nothing. Likewise pods' addresses are looked up when somebody asks for interfaces, so that an answer is never late.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from harness.cloud.actions import ParsedCall
from harness.cloud.eks import ClusterError, Eks, Scope
from harness.cloud.elbv2.security import IngressRule
from harness.cloud.imds import ImdsNode
from harness.cloud.localstack import internals
from harness.cloud.localstack.kubernetes import BoundClusters
from harness.cloud.ports import Refusal

__all__ = ["Network", "ingress_rules"]

LOG = logging.getLogger(__name__)

_VPC_ID = "vpc-0a1b2c3d4e5f67890"
"""The article's."""
_POD_NETWORK = "10.244.0.0/16"
_ZONES = ("a", "b")
_SHOWS_ADDRESSES = {"DescribeInstances", "DescribeNetworkInterfaces"}


_NOTHING_THERE: Mapping[str, Mapping[str, Any]] = {
    "DescribeCoipPools": {"CoipPools": []},
    "DescribeIpamPools": {"IpamPools": []},
    "GetCoipPoolUsage": {"CoipAddressUsages": []},
}
"""Answers to what load balancer controllers ask and moto does not know."""


class Network:
    """Makes EC2 agree with the nodes and pods that there are; safe for use by several threads."""

    def __init__(self, nodes: MutableMapping[str, ImdsNode], eks: Eks, clusters: BoundClusters) -> None:
        """Keep what to agree with.

        Args:
            nodes: Registered nodes by address; read at each call, and changed with their metadata options.
            eks: Knows the clusters.
            clusters: Reaches them.
        """
        self._nodes = nodes
        self._eks = eks
        self._clusters = clusters
        self._lock = threading.Lock()

    def ensure(self, account: str, region: str) -> None:
        """Make the VPC, its subnets, and an instance for each node, if they are not there."""
        nodes = self._nodes_of(account, region)
        if not nodes:
            return
        with self._lock:
            backend = internals.ec2_backend(account, region)
            if _VPC_ID not in backend.vpcs:
                _create_network(backend, nodes[0])
            known = {instance.id: instance for instance in _instances(backend)}
            for node in nodes:
                instance = known.get(node.instance_id) or _create_instance(backend, node)
                _show_metadata(instance.metadata_options, node)

    def before(self, call: ParsedCall) -> None:
        """Prepare an allowed call of EC2.

        Raises:
            Refusal: It would delete a security group that something uses.
        """
        if call.operation in _SHOWS_ADDRESSES:
            self.follow_pods(call.account, call.region)
        if call.operation == "DeleteSecurityGroup":
            _refuse_if_used(call.account, call.region, call.text("GroupId"))

    def answer(self, call: ParsedCall) -> Mapping[str, Any] | None:
        """Return the answer to an allowed call of EC2 that moto does not know, or knows otherwise than nodes are."""
        if call.operation != "ModifyInstanceMetadataOptions":
            return _NOTHING_THERE.get(call.operation)
        identifier, asked = call.text("InstanceId"), call.parameters
        for node in self._nodes_of(call.account, call.region):
            if node.instance_id == identifier:
                tokens = str(asked.get("HttpTokens") or _tokens(node))
                # What is not named stays as it is.
                changed = replace(
                    node,
                    tokens_required=tokens == "required",
                    hop_limit=int(asked.get("HttpPutResponseHopLimit") or node.hop_limit),
                    is_enabled=str(asked.get("HttpEndpoint") or _endpoint(node)) == "enabled",
                )
                self._nodes[node.address] = changed
                return {"InstanceId": identifier, "InstanceMetadataOptions": {"State": "pending", **_options(changed)}}
        return None

    def follow_pods(self, account: str, region: str) -> None:
        """Give every node's interface the addresses of its node's pods, and no others (LBC-ENI-SYNC)."""
        instances = {instance.id: instance for instance in _instances(internals.ec2_backend(account, region))}
        for name in {node.cluster for node in self._nodes_of(account, region)}:
            try:
                pods = self._clusters.pod_addresses(self._eks.clusters.get(Scope(account, region), name))
            except (ClusterError, Refusal) as error:
                LOG.warning("the pods of cluster %s are not known: %s", name, error)
                continue
            for node in self._nodes_of(account, region):
                if node.cluster == name and node.instance_id in instances:
                    _assign(instances[node.instance_id].nics[0], node.address, pods.get(node.name, []))

    def _nodes_of(self, account: str, region: str) -> list[ImdsNode]:
        return [node for node in list(self._nodes.values()) if (node.account, node.region) == (account, region)]


def ingress_rules(group: Any) -> list[IngressRule]:
    """Return the rules of one of moto's security groups for incoming traffic."""
    return [
        IngressRule(
            str(rule.ip_protocol),
            rule.from_port,
            rule.to_port,
            networks=_values(rule.ip_range, "CidrIp"),
            groups=_values(rule.source_group, "GroupId"),
        )
        for rule in list(group.ingress_rules)
    ]


def _values(entry: Any, name: str) -> tuple[str, ...]:
    return (str(entry[name]),) if entry and entry.get(name) else ()


def _create_network(backend: Any, node: ImdsNode) -> None:
    """Make the VPC around the nodes' network, pods' network included, with a public subnet in each of two zones."""
    around = ipaddress.ip_network(f"{node.address}/16", strict=False)
    vpc = internals.create_vpc(backend, _VPC_ID, str(around))
    backend.associate_vpc_cidr_block(vpc.id, _POD_NETWORK, False)
    backend.create_tags([vpc.id], {"Name": node.cluster})
    first = ipaddress.ip_network(f"{node.address}/20", strict=False)
    others = (network for network in around.subnets(new_prefix=20) if network != first)
    for zone, network in zip(_ZONES, [first, next(others)], strict=True):
        subnet = backend.create_subnet(vpc.id, str(network), availability_zone=f"{backend.region_name}{zone}")
        tags = {"Name": f"{node.cluster}-public-{zone}", "kubernetes.io/role/elb": "1"}
        backend.create_tags([subnet.id], tags)
    gateway = backend.create_internet_gateway()
    backend.attach_internet_gateway(gateway.id, vpc.id)
    (table,) = backend.describe_route_tables(filters={"vpc-id": [vpc.id], "association.main": ["true"]})
    backend.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)


def _tokens(node: ImdsNode) -> str:
    return "required" if node.tokens_required else "optional"


def _endpoint(node: ImdsNode) -> str:
    return "enabled" if node.is_enabled else "disabled"


def _options(node: ImdsNode) -> dict[str, Any]:
    """Return a node's metadata options as EC2 tells them."""
    return {
        "HttpTokens": _tokens(node),
        "HttpPutResponseHopLimit": node.hop_limit,
        "HttpEndpoint": _endpoint(node),
    }


def _show_metadata(options: Any, node: ImdsNode) -> None:
    """Let moto tell a node's metadata options as they are now."""
    options.http_tokens, options.http_endpoint = _tokens(node), _endpoint(node)
    options.http_put_response_hop_limit = node.hop_limit


def _create_instance(backend: Any, node: ImdsNode) -> Any:
    subnet = next(
        subnet
        for subnet in _subnets(backend)
        if subnet.vpc_id == _VPC_ID and subnet.availability_zone == node.availability_zone
    )
    group = _nodes_group(backend, node.cluster)
    role = node.role_arn.rpartition("/")[2]
    (instance,) = backend.run_instances(
        "ami-0a1b2c3d4e5f67890",
        1,
        "",
        [],
        security_group_ids=[group.id],
        subnet_id=subnet.id,
        private_ip=node.address,
        instance_type="m5.large",
        is_instance_type_default=False,
        region_name=backend.region_name,
        associate_public_ip=False,
        iam_instance_profile={
            "Arn": f"arn:aws:iam::{node.account}:instance-profile/{role}",
            "Id": "AIPAIOSFODNN7EXAMPLE",
        },
        metadata_options=_options(node),
        tags={"instance": {f"kubernetes.io/cluster/{node.cluster}": "owned", "Name": node.name}},
    ).instances
    # Nobody has seen it yet: from here on it has the id that the kubelet tells.
    backend.tags[node.instance_id] = backend.tags.pop(instance.id, {})
    instance.id = node.instance_id
    return instance


def _nodes_group(backend: Any, cluster: str) -> Any:
    """Return the cluster's security group, as EKS makes it: the only one of its nodes' interfaces."""
    name = f"eks-cluster-sg-{cluster}"
    if found := backend.get_security_group_from_name(name, vpc_id=_VPC_ID):
        return found
    group = backend.create_security_group(
        name, "EKS created security group applied to ENI that is attached to EKS Control Plane", vpc_id=_VPC_ID
    )
    backend.create_tags([group.id], {f"kubernetes.io/cluster/{cluster}": "owned", "Name": name})
    return group


def _assign(interface: Any, own: str, pods: list[str]) -> None:
    addresses = [{"Primary": True, "PrivateIpAddress": own}]
    interface.private_ip_addresses = addresses + [{"Primary": False, "PrivateIpAddress": pod} for pod in sorted(pods)]


def _instances(backend: Any) -> Iterator[Any]:
    for reservation in list(backend.reservations.values()):
        yield from list(reservation.instances)


def _subnets(backend: Any) -> Iterator[Any]:
    for zone in list(backend.subnets.values()):
        yield from list(zone.values())


def _refuse_if_used(account: str, region: str, group_id: str) -> None:
    """Refuse what moto would do: delete a group that an interface, a load balancer or another group's rule has."""
    backend = internals.ec2_backend(account, region)
    interfaces = [interface for instance in _instances(backend) for interface in instance.nics.values()]
    groups = [group for groups in list(backend.groups.values()) for group in list(groups.values())]
    users = [
        *(group.id for interface in interfaces for group in interface.group_set),
        *(
            name
            for balancer in list(internals.elbv2_backend(account, region).load_balancers.values())
            for name in balancer.security_groups or ()
        ),
        *(name for group in groups if group.id != group_id for rule in ingress_rules(group) for name in rule.groups),
    ]
    if group_id in users:
        raise Refusal("DependencyViolation", f"resource {group_id} has a dependent object", 400)
