"""Sockets of the agent, and the errors of binding them in Go's words (section 5.2)."""

from __future__ import annotations

import errno
import os
import socket

__all__ = ["BindError", "format_address", "listen"]


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


def format_address(host: str, port: int) -> str:
    """Join host and port, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
