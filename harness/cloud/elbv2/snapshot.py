"""What the data plane knows of load balancers: read from JSON in the shapes that AWS's Describe calls have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.cloud.documents import entries, members

__all__ = [
    "Action",
    "HealthCheck",
    "Listener",
    "LoadBalancer",
    "Rule",
    "Snapshot",
    "Target",
    "TargetGroup",
    "read_snapshot",
    "target_key",
]


def target_key(group_arn: str, target: str, port: int) -> str:
    """Return how a target is called in reports of its health: an IP may be in several groups, on several ports."""
    return f"{group_arn} {target}:{port}"


@dataclass(frozen=True, slots=True)
class Target:
    """A registered target."""

    address: str
    port: int
    is_reachable: bool
    """Whether security groups let the load balancer reach it."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How a group's targets are checked."""

    path: str = "/"
    port: str = "traffic-port"
    interval: float = 30
    timeout: float = 5
    healthy_threshold: int = 5
    unhealthy_threshold: int = 2
    matcher: str = "200"
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """A target group."""

    arn: str
    check: HealthCheck
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Action:
    """What is done with a request; one of the three."""

    forward: tuple[tuple[str, int], ...] = ()
    """(target group, weight) pairs."""
    fixed_response: Mapping[str, str] | None = None
    redirect: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: every condition that is there must hold, by any of its values."""

    action: Action
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener for HTTP."""

    port: int
    is_open: bool
    """Whether a security group of the load balancer lets anybody in."""
    rules: tuple[Rule, ...]
    """In the order of their priority; the last is the default."""


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """A load balancer."""

    dns_name: str
    listeners: tuple[Listener, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All load balancers, and the target groups by ARN."""

    load_balancers: tuple[LoadBalancer, ...] = ()
    groups: Mapping[str, TargetGroup] | None = None

    def group(self, arn: str) -> TargetGroup | None:
        """Return a target group."""
        return (self.groups or {}).get(arn)

    def used_groups(self) -> list[TargetGroup]:
        """Return the groups that a rule forwards to."""
        rules = [rule for one in self.load_balancers for listener in one.listeners for rule in listener.rules]
        arns = dict.fromkeys(arn for rule in rules for arn, _ in rule.action.forward)
        return [group for arn in arns if (group := self.group(arn))]


def read_snapshot(data: Any) -> Snapshot:
    """Read what the emulator sends."""
    document = members(data)
    groups = [_group(members(entry)) for entry in entries(document.get("TargetGroups"))]
    balancers = tuple(_load_balancer(members(entry)) for entry in entries(document.get("LoadBalancers")))
    return Snapshot(balancers, {group.arn: group for group in groups})


def _load_balancer(entry: Mapping[str, Any]) -> LoadBalancer:
    listeners = [_listener(members(one)) for one in entries(entry.get("Listeners"))]
    return LoadBalancer(str(entry["DNSName"]), tuple(listeners))


def _listener(entry: Mapping[str, Any]) -> Listener:
    rules = [members(rule) for rule in entries(entry.get("Rules"))]
    ordered = sorted(rules, key=lambda rule: (rule["Priority"] == "default", _number(rule["Priority"])))
    return Listener(int(entry["Port"]), bool(entry["IsOpen"]), tuple(_rule(rule) for rule in ordered))


def _number(value: Any) -> int:
    return int(value) if str(value).isdigit() else 0


def _rule(entry: Mapping[str, Any]) -> Rule:
    found: dict[str, list[str]] = {}
    for condition in map(members, entries(entry.get("Conditions"))):
        field = str(condition.get("Field"))
        configured = members(condition.get(_CONFIGURED.get(field, ""))).get("Values")
        found[field] = [str(value) for value in entries(configured) or entries(condition.get("Values"))]
    return Rule(
        _action(entries(entry.get("Actions"))),
        hosts=tuple(found.get("host-header", ())),
        paths=tuple(found.get("path-pattern", ())),
        methods=tuple(found.get("http-request-method", ())),
    )


_CONFIGURED = {
    "host-header": "HostHeaderConfig",
    "http-request-method": "HttpRequestMethodConfig",
    "path-pattern": "PathPatternConfig",
}


def _action(actions: list[Any]) -> Action:
    """Read the action that ends a request: the last one."""
    action: Mapping[str, Any] = members(actions[-1]) if actions else {}
    if fixed := members(action.get("FixedResponseConfig")):
        return Action(fixed_response={key: str(value) for key, value in fixed.items()})
    if redirect := members(action.get("RedirectConfig")):
        return Action(redirect={key: str(value) for key, value in redirect.items()})
    pairs = [
        (str(group["TargetGroupArn"]), int(group.get("Weight", 1)))
        for group in map(members, entries(members(action.get("ForwardConfig")).get("TargetGroups")))
    ]
    if not pairs and action.get("TargetGroupArn"):
        pairs = [(str(action["TargetGroupArn"]), 1)]
    return Action(forward=tuple(pairs))


def _group(entry: Mapping[str, Any]) -> TargetGroup:
    default = HealthCheck()
    check = HealthCheck(
        path=str(entry.get("HealthCheckPath") or default.path),
        port=str(entry.get("HealthCheckPort") or default.port),
        interval=float(entry.get("HealthCheckIntervalSeconds") or default.interval),
        timeout=float(entry.get("HealthCheckTimeoutSeconds") or default.timeout),
        healthy_threshold=int(entry.get("HealthyThresholdCount") or default.healthy_threshold),
        unhealthy_threshold=int(entry.get("UnhealthyThresholdCount") or default.unhealthy_threshold),
        matcher=str(members(entry.get("Matcher")).get("HttpCode") or default.matcher),
        is_enabled=bool(entry.get("HealthCheckEnabled", True)),
    )
    targets = [
        Target(str(target["Id"]), int(target["Port"]), bool(target["IsReachable"]))
        for target in map(members, entries(entry.get("Targets")))
    ]
    return TargetGroup(str(entry["TargetGroupArn"]), check, tuple(targets))
