"""Sockets of the agent, and the errors of binding them in Go's words (section 5.2)."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from typing import NamedTuple

from podid_agent.config import ServerConfig

__all__ = ["BindError", "Sockets", "bind", "format_address", "listen"]


class BindError(Exception):
    """An address that cannot be listened on; the text is Go's."""

    def __init__(self, host: str, port: int, number: int) -> None:
        """Describe error ``number`` of the operating system."""
        super().__init__(f"listen tcp {format_address(host, port)}: bind: {os.strerror(number).lower()}")
        self.is_missing_address = number in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on one address.

    Raises:
        BindError: It cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise BindError(host, port, error.errno or 0) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        # At once: until it listens, another socket with SO_REUSEADDR could bind the same address (AGT-121).
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise BindError(host, port, error.errno or 0) from error
    sock.setblocking(False)
    return sock


class Sockets(NamedTuple):
    """Everything a server listens on; whoever connects now is answered as soon as somebody accepts."""

    credentials: Mapping[str, socket.socket]
    """By bind host."""

    missing: Mapping[str, BindError]
    """Default hosts that the node lacks (AGT-523)."""

    probes: socket.socket
    metrics: socket.socket | None


def bind(config: ServerConfig) -> Sockets:
    """Listen on everything, so that a start that fails has served nobody.

    Raises:
        BindError: An address that must be there cannot be listened on.
    """
    credentials: dict[str, socket.socket] = {}
    missing: dict[str, BindError] = {}
    for host in config.bind_hosts:
        try:
            credentials[host] = listen(host, config.port)
        except BindError as error:
            if not (config.hosts_are_default and error.is_missing_address):
                raise
            missing[host] = error
    if missing and not credentials:
        raise next(iter(missing.values()))
    return Sockets(
        credentials,
        missing,
        probes=listen("127.0.0.1", config.probe_port),
        metrics=None if config.disable_metrics else listen(config.metrics_address, config.metrics_port),
    )


def format_address(host: str, port: int) -> str:
    """Join host and port, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
