"""Ports of loopback for the programs under test."""

from __future__ import annotations

import random
import socket

__all__ = ["free_ports"]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, below those that the kernel gives to outgoing connections meanwhile."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, 32_768)  # noqa: S311 - spreads parallel runs, guards nothing
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        if port not in ports:
            ports.append(port)
    return ports
