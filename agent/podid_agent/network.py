"""The `initialize` command: link, addresses and routes that pods reach the agent by (section 5.1)."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import pyroute2  # pyright: ignore[reportMissingTypeStubs] - ships none
from pyroute2.netlink.exceptions import NetlinkError  # pyright: ignore[reportMissingTypeStubs] - ships none

from podid_agent.config import IPV4_ADDRESS, IPV6_ADDRESS
from podid_agent.journal import Journal
from podid_agent.network_state import LINK_NAME

__all__ = ["NetworkError", "run_initialize"]

_LINK_KINDS = ("dummy", "ifb", "bridge")
_LOOPBACK = "lo"
_MAIN_TABLE = 254
_IFA_F_NODAD = 0x02
_BIND_TIMEOUT = 5.0


class NetworkError(Exception):
    """A step that failed; the text says which."""


def run_initialize(journal: Journal) -> int:
    """Set up the network of the node; a second run changes nothing. Return the exit code."""
    try:
        with pyroute2.IPRoute() as netlink:
            _initialize(netlink, journal)
    except (NetworkError, OSError) as error:
        print(f"Unable to initalize agent: {error}", file=sys.stderr)
        return 1
    return 0


# pyroute2 is untyped: netlink is Any, and what is read from it is converted at once.
def _initialize(netlink: Any, journal: Journal) -> None:
    name, index = _link(netlink, journal)
    addresses = [IPV4_ADDRESS]
    _add_address(netlink, index, IPV4_ADDRESS)
    with _tolerated(journal, name, IPV6_ADDRESS):
        _add_address(netlink, index, IPV6_ADDRESS)
        addresses.append(IPV6_ADDRESS)
    with _step(f"bring up {name}"):
        netlink.link("set", index=index, state="up")
    _add_route(netlink, index, IPV4_ADDRESS)
    if IPV6_ADDRESS in addresses:
        with _tolerated(journal, name, IPV6_ADDRESS):
            _add_route(netlink, index, IPV6_ADDRESS)
    for address in addresses:
        _wait_until_bindable(address, journal)
        journal.info("Address is ready", {"link": name, "ip": address})


@contextmanager
def _step(what: str) -> Generator[None]:
    try:
        yield
    except NetlinkError as error:
        raise NetworkError(f"could not {what}: {_reason(error)}") from error


@contextmanager
def _tolerated(journal: Journal, link: str, address: str) -> Generator[None]:
    """Swallow a failure: nodes without IPv6 are common, and IPv4 serves them (AGT-506)."""
    try:
        yield
    except NetworkError as error:
        journal.warning(f"Going on without {address}: {error}", {"link": link, "ip": address})


def _reason(error: NetlinkError) -> str:
    return os.strerror(int(cast("int", error.code))).lower()


def _link(netlink: Any, journal: Journal) -> tuple[str, int]:
    """Find or create the link; return its name and index (AGT-501, AGT-511)."""
    with _step(f"look for {LINK_NAME}"):
        found: list[int] = netlink.link_lookup(ifname=LINK_NAME)
    if found:
        return LINK_NAME, int(found[0])
    for kind in _LINK_KINDS:
        try:
            netlink.link("add", ifname=LINK_NAME, kind=kind)
        except NetlinkError as error:
            if error.code != errno.EOPNOTSUPP:
                raise NetworkError(f"could not create {LINK_NAME}: {_reason(error)}") from error
            continue
        if kind != _LINK_KINDS[0]:
            journal.warning(f"The kernel has no dummy driver: created the link as {kind}", {"link": LINK_NAME})
        return LINK_NAME, int(netlink.link_lookup(ifname=LINK_NAME)[0])
    journal.warning("The kernel has no driver for the link: using lo", {"link": _LOOPBACK})
    return _LOOPBACK, int(netlink.link_lookup(ifname=_LOOPBACK)[0])


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _add_address(netlink: Any, index: int, address: str) -> None:
    wanted = ipaddress.ip_address(address)
    with _step(f"add address {address}"):
        for present in netlink.get_addr(family=_family(address), index=index):
            text = str(present.get("IFA_LOCAL") or present.get("IFA_ADDRESS"))
            if wanted in ipaddress.ip_interface(f"{text}/{present['prefixlen']}").network:
                return
        netlink.addr(
            "add",
            index=index,
            address=address,
            prefixlen=wanted.max_prefixlen,
            family=_family(address),
            # An address under duplicate detection cannot be bound, and on a bridge it stays so (AGT-512).
            **({"flags": _IFA_F_NODAD} if wanted.version == 6 else {}),
        )


def _add_route(netlink: Any, index: int, address: str) -> None:
    length = ipaddress.ip_address(address).max_prefixlen
    with _step(f"add route {address}"):
        for route in netlink.get_routes(family=_family(address), table=_MAIN_TABLE):
            if route.get("RTA_DST") != address or route["dst_len"] != length:
                continue
            other: object = route.get("RTA_OIF")
            if other == index:
                return
            raise NetworkError(
                f"expected route {address}/{length} to be interface index {index} but is {other}, "
                "please remove route and try again"
            )
        netlink.route(
            "add", dst=f"{address}/{length}", oif=index, table=_MAIN_TABLE, family=_family(address), scope="link"
        )


def _wait_until_bindable(address: str, journal: Journal) -> None:
    """Return when the address can be bound, or after 5 s with a warning (AGT-513)."""
    give_up_at = time.monotonic() + _BIND_TIMEOUT
    while True:
        with socket.socket(_family(address), socket.SOCK_STREAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                if time.monotonic() >= give_up_at:
                    journal.warning(f"Address cannot be bound yet: {error}", {"ip": address})
                    return
            else:
                return
        time.sleep(0.05)
