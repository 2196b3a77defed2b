"""Whether `initialize` has anything left to do, read from the kernel's tables.

The netlink library takes longer to import than everything else of `initialize`, and pods wait for it whenever the
agent's pod is replaced (AGT-818). This recognises what an earlier run has left (AGT-508), and nothing cleverer.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

from podid_agent.config import IPV4_ADDRESS, IPV6_ADDRESS

__all__ = ["LINK_NAME", "is_set_up"]

LINK_NAME = "pod-id-link0"

_SIOCGIFFLAGS, _SIOCGIFADDR, _SIOCGIFNETMASK = 0x8913, 0x8915, 0x891B
_IFF_UP = 0x1
_IFA_F_UNUSABLE = 0x08 | 0x40
"""Found twice, or not yet looked for elsewhere."""
_RTF_UP, _RTF_LOCAL = 0x1, 0x80000000


def is_set_up() -> bool:
    """Whether the link is up and has both addresses and both routes."""
    try:
        return _has_ipv4() and _has_ipv6()
    except (OSError, ValueError, IndexError):
        return False


def _has_ipv4() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        (flags,) = struct.unpack_from("H", _ask(asked, _SIOCGIFFLAGS))
        # A struct sockaddr_in: family, port, address.
        address, mask = (_ask(asked, number)[4:8] for number in (_SIOCGIFADDR, _SIOCGIFNETMASK))
    own = socket.inet_aton(IPV4_ADDRESS)
    if not flags & _IFF_UP or address != own or mask != b"\xff" * 4:
        return False
    (number,) = struct.unpack("=I", own)
    # Interface, destination, gateway, flags, references, uses, metric, mask; of the main table only.
    routes = (line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:])
    return any(
        (route[0], int(route[1], 16), int(route[7], 16)) == (LINK_NAME, number, 0xFFFFFFFF)
        and int(route[3], 16) & _RTF_UP
        for route in routes
    )


def _ask(sock: socket.socket, number: int) -> bytes:
    """Return what an ioctl says about the link, behind its name."""
    return fcntl.ioctl(sock, number, struct.pack("16s24x", LINK_NAME.encode()))[16:]


def _has_ipv6() -> bool:
    own = ipaddress.IPv6Address(IPV6_ADDRESS).packed.hex()
    # Address, interface, length, scope, flags, name.
    addresses = (line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines())
    if not any(
        (address[0], address[2], address[5]) == (own, "80", LINK_NAME) and not int(address[4], 16) & _IFA_F_UNUSABLE
        for address in addresses
    ):
        return False
    # Destination, length, …, flags, name; of all tables, so that the one of local addresses is to be left out.
    routes = (line.split() for line in Path("/proc/net/ipv6_route").read_text().splitlines())
    return any(
        (route[0], route[1], route[-1]) == (own, "80", LINK_NAME)
        and int(route[-2], 16) & (_RTF_UP | _RTF_LOCAL) == _RTF_UP
        for route in routes
    )
