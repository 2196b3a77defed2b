"""The lab's network: one bridge inside the AWS sandbox, to which the host and every cluster node are attached.

::

    host  podid-xxxxxxxx ──┐
                           bridge (AWS sandbox): .2 AWS, registry; 169.254.169.254 IMDS
    cluster sandbox eth0 ──┘  .16, .17, … nodes

In a lab with IPv6 AWS and nodes have a second address, with the same number in the lab's /64; the host has none.

Nothing else appears on the host: no rule, no route beyond the one of the interface, no named namespace.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from harness.cluster.base import Node
from harness.errors import HarnessFault, MissingPrerequisite

__all__ = ["IMDS_ADDRESS", "LabNetwork", "choose_subnet", "route_pods"]

IMDS_ADDRESS = "169.254.169.254"
_CANDIDATES = ipaddress.ip_network("10.213.0.0/16")
_BRIDGE = "lab0"


@dataclass(frozen=True, slots=True)
class LabNetwork:
    """Addresses of one lab; all derived from its networks."""

    lab: str
    subnet: str
    """A /24 of IPv4."""
    ipv6: str = ""
    """A /64 of IPv6, in a lab that has it."""

    def _address(self, number: int) -> str:
        return str(ipaddress.ip_network(self.subnet)[number])

    def _ipv6_address(self, number: int) -> str:
        return str(ipaddress.ip_network(self.ipv6)[number])

    @property
    def host_address(self) -> str:
        """Address of the host's end."""
        return self._address(1)

    @property
    def aws_address(self) -> str:
        """Address of AWS and of the registry."""
        return self._address(2)

    @property
    def aws_addresses(self) -> dict[int, str]:
        """Version of IP → address of AWS."""
        return {4: self.aws_address} | ({6: self._ipv6_address(2)} if self.ipv6 else {})

    def node_address(self, index: int) -> str:
        """Address of the node with this index among all nodes of the lab (0 is the first cluster's first)."""
        return self._address(16 + index)

    def node_ipv6(self, index: int) -> str:
        """Address of that node in a lab with IPv6."""
        return self._ipv6_address(16 + index)

    @property
    def host_interface(self) -> str:
        """Name of the host's interface: at most 15 characters, unique per lab."""
        return "podid-" + hashlib.sha256(f"{self.lab}/{self.subnet}".encode()).hexdigest()[:8]

    def wire_aws(self, pid: int) -> None:
        """Create the bridge in the AWS sandbox ``pid`` and attach the host to it."""
        inside = ["nsenter", f"--target={pid}", "--net"]
        # A new namespace takes this over from the host, where Docker sets it. What nobody in the lab answers must get
        # silence, as behind a VPC's router, and not "unreachable".
        _run([*inside, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])
        _ip([*inside, "ip"], "link set lo up")
        # Without an address of its own it has the lowest of its ports', another one when a node comes, and drops what
        # is sent to the former one: who talked to AWS is not heard until their kernel asks anew, up to a minute later.
        _ip([*inside, "ip"], f"link add {_BRIDGE} address {_hardware(self.aws_address)} type bridge")
        _ip([*inside, "ip"], f"address add {self.aws_address}/24 dev {_BRIDGE}")
        _ip([*inside, "ip"], f"address add {IMDS_ADDRESS}/32 dev {_BRIDGE}")
        if self.ipv6:
            # Nobody else can have it, and it must be there when AWS starts: no detection of duplicates.
            _ip([*inside, "ip"], f"address add {self.aws_addresses[6]}/64 dev {_BRIDGE} nodad")
            # Silence again: IPv6 says "unreachable" for want of a route, forwarding or not.
            _ip([*inside, "ip"], "-6 route add blackhole default")
        _ip([*inside, "ip"], f"link set {_BRIDGE} up")
        _ip(["ip"], f"link add {self.host_interface} type veth peer name host netns {pid}")
        _ip([*inside, "ip"], f"link set host master {_BRIDGE} up")
        _ip(["ip"], f"address add {self.host_address}/24 dev {self.host_interface}")
        _ip(["ip"], f"link set {self.host_interface} up")

    def wire_node(self, aws_pid: int, pid: int, index: int) -> None:
        """Attach the cluster sandbox ``pid`` to the bridge as ``eth0``."""
        at_aws = ["nsenter", f"--target={aws_pid}", "--net", "ip"]
        inside = ["nsenter", f"--target={pid}", "--net", "ip"]
        port = f"node{index}"
        _ip(inside, "link set lo up")
        # The kernel takes its time to remove the links of a namespace that ended: a former cluster's may be left.
        subprocess.run([*at_aws, "link", "delete", port], capture_output=True, check=False)
        # And who talked to that one still knows its hardware address, so the next cluster at its address has the same.
        hardware = _hardware(self.node_address(index))
        _ip(at_aws, f"link add {port} type veth peer name eth0 address {hardware} netns {pid}")
        _ip(at_aws, f"link set {port} master {_BRIDGE} up")
        _ip(inside, f"address add {self.node_address(index)}/24 dev eth0")
        _ip(inside, "link set eth0 up")
        # The API server advertises the address of the default route. Nothing routes further: the lab has no way out.
        _ip(inside, f"route add default via {self.aws_address}")
        if self.ipv6:
            _ip(inside, f"address add {self.node_ipv6(index)}/64 dev eth0 nodad")
            _ip(inside, f"route add default via {self.aws_addresses[6]}")


def route_pods(pid: int, pods: Sequence[str], node: Node) -> None:
    """Lead the sandbox ``pid`` to the pods of another node.

    Args:
        pid: First process of the sandbox.
        pods: The pods' networks.
        node: Their node.
    """
    for network in pods:
        gateway = node.ipv6 if ":" in network else node.address
        _ip(["nsenter", f"--target={pid}", "--net", "ip"], f"route replace {network} via {gateway}")


def choose_subnet() -> str:
    """Return a /24 that no route of the host touches.

    Raises:
        MissingPrerequisite: Every candidate is taken.
    """
    routes = json.loads(_ip(["ip"], "-json route show table all"))
    taken = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in routes
        if route.get("dst", "default") != "default" and ":" not in route["dst"] and route.get("type") != "broadcast"
    ]
    for candidate in _CANDIDATES.subnets(new_prefix=24):
        if not any(candidate.overlaps(network) for network in taken if isinstance(network, ipaddress.IPv4Network)):
            return str(candidate)
    raise MissingPrerequisite(
        f"no free /24 in {_CANDIDATES} for the lab's network",
        hint="see: ip route; podid down removes labs that are no longer needed",
    )


def _hardware(address: str) -> str:
    """Return the hardware address of who has an IPv4 address: always the same."""
    return "0a:58:" + ipaddress.IPv4Address(address).packed.hex(":")


def _ip(command: list[str], arguments: str) -> str:
    return _run([*command, *arguments.split()])


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise HarnessFault(f"cannot set up the lab's network: {' '.join(command)}: {result.stderr.strip()}")
    return result.stdout
