"""A port that nobody listens at, for a program that has to be told one."""

from __future__ import annotations

import socket

__all__ = ["free_port"]


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that is free at an address of this machine by now; somebody else may take it first."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]
