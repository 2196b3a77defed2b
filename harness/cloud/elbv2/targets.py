"""Registered targets and their health, by id and port, as AWS has it and moto has not (``emulator.md`` 7.1, 8)."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from harness.cloud.documents import entries, members
from harness.cloud.elbv2.health import REGISTERED, Health
from harness.cloud.elbv2.snapshot import target_key
from harness.cloud.ports import Clock, Refusal

__all__ = ["GroupFacts", "Registered", "Targets"]

_DRAINING = Health("draining", "Target.DeregistrationInProgress", "Target deregistration is in progress")
_NOT_REGISTERED = Health("unused", "Target.NotRegistered", "Target is not registered to the target group")
_NOT_IN_USE = Health(
    "unused", "Target.NotInUse", "Target group is not configured to receive traffic from the load balancer"
)


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What targets need to know of their group."""

    arn: str
    port: int
    target_type: str
    networks: Sequence[str]
    """CIDR blocks of its VPC."""
    vpc_id: str
    deregistration_delay: float
    is_used: bool
    """Whether a load balancer forwards to it."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A target that is registered, or that is still draining."""

    id: str
    port: int
    zone: str
    draining_until: datetime | None = None


class Targets:
    """All targets of all groups; safe for use by several threads."""

    def __init__(self, clock: Clock) -> None:
        """Begin without targets."""
        self._clock = clock
        self._lock = threading.Lock()
        self._groups: dict[str, dict[tuple[str, int], Registered]] = {}
        self._health: dict[str, Health] = {}

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._groups.clear()
            self._health.clear()

    def forget(self, arn: str) -> None:
        """Forget a group that was deleted."""
        with self._lock:
            self._groups.pop(arn, None)

    def report(self, health: Mapping[str, Mapping[str, str]]) -> None:
        """Take over what the data plane found out, by :func:`target_key`."""
        found = {key: Health(**value) for key, value in health.items()}  # pyright: ignore[reportArgumentType] - JSON
        with self._lock:
            self._health = found

    def registered(self, arn: str) -> list[Registered]:
        """Return the targets of a group that take part."""
        with self._lock:
            return [target for target in self._groups.get(arn, {}).values() if target.draining_until is None]

    def register(self, group: GroupFacts, targets: Any) -> None:
        """Register targets; known ones stay as they are, draining ones come back.

        Raises:
            Refusal: One cannot be a target of this group; none is registered.
        """
        wanted = [self._read(group, members(target)) for target in entries(targets)]
        with self._lock:
            there = self._groups.setdefault(group.arn, {})
            there |= {(target.id, target.port): target for target in wanted}

    def deregister(self, group: GroupFacts, targets: Any) -> None:
        """Let targets drain; such that are not registered are none of the call's business."""
        until = self._clock.now() + timedelta(seconds=group.deregistration_delay)
        with self._lock:
            there = self._groups.get(group.arn, {})
            for key in self._named(there, targets):
                if there[key].draining_until is None:
                    there[key] = replace(there[key], draining_until=until)

    def describe(self, group: GroupFacts, targets: Any) -> list[dict[str, Any]]:
        """Return the health of the named targets, or of all, as ``TargetHealthDescriptions``."""
        with self._lock:
            there = self._current(group.arn)
            if not entries(targets):
                return [_described(target, self._health_of(group, target)) for target in there.values()]
            answers: list[dict[str, Any]] = []
            for wanted in map(members, entries(targets)):
                found = [there[key] for key in self._named(there, [wanted])]
                answers += [_described(target, self._health_of(group, target)) for target in found]
                if not found:
                    stranger = Registered(str(wanted.get("Id")), int(wanted.get("Port") or group.port), "")
                    answers.append(_described(stranger, _NOT_REGISTERED))
            return answers

    def _current(self, arn: str) -> dict[tuple[str, int], Registered]:
        """Return a group's targets without those that have drained."""
        now = self._clock.now()
        there = self._groups.get(arn, {})
        for key, target in list(there.items()):
            if target.draining_until and target.draining_until <= now:
                del there[key]
        return there

    @staticmethod
    def _named(there: Mapping[tuple[str, int], Registered], targets: Any) -> list[tuple[str, int]]:
        """Return the keys of the named targets; without a port, all ports of an id."""
        wanted = [(str(target.get("Id")), target.get("Port")) for target in map(members, entries(targets))]
        return [key for key in there if any(key[0] == name and port in (None, key[1]) for name, port in wanted)]

    def _health_of(self, group: GroupFacts, target: Registered) -> Health:
        if target.draining_until:
            return _DRAINING
        if not group.is_used:
            return _NOT_IN_USE
        return self._health.get(target_key(group.arn, target.id, target.port), REGISTERED)

    def _read(self, group: GroupFacts, target: Mapping[str, Any]) -> Registered:
        name, zone = str(target.get("Id")), str(target.get("AvailabilityZone") or "")
        if group.target_type == "ip" and zone != "all" and not _is_within(name, group.networks):
            raise Refusal(
                "ValidationError",
                f"The IP address '{name}' is not within a range of any CIDR block of VPC '{group.vpc_id}'; "
                "to register it, AvailabilityZone must be 'all'",
                400,
            )
        return Registered(name, int(target.get("Port") or group.port), zone)


def _is_within(address: str, networks: Iterable[str]) -> bool:
    try:
        return any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in networks)
    except ValueError as error:
        raise Refusal("ValidationError", f"The IP address '{address}' is not a valid IPv4 address", 400) from error


def _described(target: Registered, health: Health) -> dict[str, Any]:
    told = {"State": health.state, "Reason": health.reason, "Description": health.description}
    where: dict[str, Any] = {"Id": target.id, "Port": target.port}
    if target.zone:
        where["AvailabilityZone"] = target.zone
    return {
        "Target": where,
        "HealthCheckPort": str(target.port),
        "TargetHealth": {key: value for key, value in told.items() if value},
    }
