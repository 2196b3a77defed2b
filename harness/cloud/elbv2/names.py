"""Names of load balancers (``emulator.md`` 7.1)."""

from __future__ import annotations

from harness.cloud.ports import Ids

__all__ = ["dns_name", "resource_id"]

_DIGITS = "0123456789"


def dns_name(name: str, scheme: str, region: str, ids: Ids) -> str:
    """Return a new load balancer's DNS name: ten digits make it unique, ``internal-`` tells an internal one."""
    number = ids.letters(1, _DIGITS[1:]) + ids.letters(9, _DIGITS)
    prefix = "internal-" if scheme == "internal" else ""
    return f"{prefix}{name}-{number}.{region}.elb.amazonaws.com"


def resource_id(ids: Ids) -> str:
    """Return the last part of a new resource's ARN."""
    return ids.letters(16, "0123456789abcdef")
