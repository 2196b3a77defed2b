"""Whether security groups let traffic through (``controllers.md`` 3.7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["IngressRule", "is_open", "lets_in"]


@dataclass(frozen=True, slots=True)
class IngressRule:
    """A rule of a security group for incoming traffic."""

    protocol: str
    """``tcp``, or ``-1`` for all."""
    from_port: int | None
    to_port: int | None
    networks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """Security groups that are let in."""

    def covers(self, port: int) -> bool:
        """Tell whether it is about TCP to this port."""
        if self.protocol == "-1":
            return True
        if self.protocol not in {"tcp", "6"} or self.from_port is None or self.to_port is None:
            return False
        return self.from_port <= port <= self.to_port


def is_open(rules: Iterable[IngressRule], port: int) -> bool:
    """Tell whether anybody may come in at a port; who, is not the lab's to enforce: all its clients are one network."""
    return any(rule.covers(port) and (rule.networks or rule.groups) for rule in rules)


def lets_in(rules: Iterable[IngressRule], port: int, groups: Iterable[str]) -> bool:
    """Tell whether what carries one of these security groups may come in at a port."""
    wanted = set(groups)
    return any(
        rule.covers(port) and (not wanted.isdisjoint(rule.groups) or "0.0.0.0/0" in rule.networks) for rule in rules
    )
