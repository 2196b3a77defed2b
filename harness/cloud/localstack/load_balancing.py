"""Elastic Load Balancing v2 over moto: what it lacks or gets wrong (``emulator.md`` 7, 8); Shield and WAF beside it.

moto keeps load balancers, listeners, rules and groups; names are corrected where they are made. Targets and their
health are ours. :func:`snapshot` is everything that the data plane needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.cloud.documents import entries, members
from harness.cloud.elbv2.names import dns_name, resource_id
from harness.cloud.elbv2.security import is_open, lets_in
from harness.cloud.elbv2.targets import GroupFacts
from harness.cloud.localstack import internals
from harness.cloud.localstack.call import Call
from harness.cloud.localstack.composition import emulator
from harness.cloud.localstack.emulator import Emulator
from harness.cloud.localstack.network import ingress_rules
from harness.cloud.ports import Refusal

__all__ = ["elbv2", "shield", "snapshot", "waf_regional", "wafv2"]

Request = Mapping[str, Any]
Result = Mapping[str, Any]

_CONDITIONS = {"host-header", "http-request-method", "path-pattern"}
_ACTIONS = {"fixed-response", "forward", "redirect"}
_BY_MOTO = """AddTags CreateTargetGroup DescribeAccountLimits DescribeCapacityReservation DescribeListenerAttributes
    DescribeListenerCertificates DescribeListeners DescribeLoadBalancerAttributes DescribeLoadBalancers
    DescribeRules DescribeSSLPolicies DescribeTags DescribeTargetGroupAttributes DescribeTargetGroups
    ModifyListenerAttributes ModifyLoadBalancerAttributes ModifyTargetGroup ModifyTargetGroupAttributes RemoveTags
    SetIpAddressType SetRulePriorities SetSecurityGroups SetSubnets"""


def _backend(context: Any) -> Any:
    call: Call = context.get(internals.CALL)
    return internals.elbv2_backend(call.principal.account, call.region)


# --- load balancers, listeners, rules -------------------------------------------------------------------------------


def _create_load_balancer(context: Any, request: Request) -> Result:
    result = internals.call_moto(context, request)
    balancer = _backend(context).load_balancers[result["LoadBalancers"][0]["LoadBalancerArn"]]
    call: Call = context.get(internals.CALL)
    if balancer.dns_name.startswith(f"{balancer.name}-1."):
        balancer.dns_name = dns_name(balancer.name, balancer.scheme, call.region, emulator().ids)
    result["LoadBalancers"][0]["DNSName"] = balancer.dns_name
    return result


def _create_listener(context: Any, request: Request) -> Result:
    _refuse_unknown_actions(request.get("DefaultActions"))
    result = internals.call_moto(context, request)
    answered = result["Listeners"][0]
    listener = _listener(_backend(context), answered["ListenerArn"])
    # moto names the default rule after an address in memory.
    default = listener.rules[0]
    default.arn = f"{default.arn.rpartition('/')[0]}/{resource_id(emulator().ids)}"
    _clear_policy(listener, answered)
    return result


def _modify_listener(context: Any, request: Request) -> Result:
    _refuse_unknown_actions(request.get("DefaultActions"))
    result = internals.call_moto(context, request)
    answered = result["Listeners"][0]
    _clear_policy(_listener(_backend(context), answered["ListenerArn"]), answered)
    return result


def _listener(backend: Any, arn: str) -> Any:
    return next(
        listener
        for balancer in list(backend.load_balancers.values())
        for listener in list(balancer.listeners.values())
        if listener.arn == arn
    )


def _clear_policy(listener: Any, answered: dict[str, Any]) -> None:
    """Take back the TLS policy that moto gives to listeners without TLS."""
    if listener.protocol == "HTTP":
        listener.ssl_policy = None
        answered.pop("SslPolicy", None)


def _write_rule(context: Any, request: Request) -> Result:
    _refuse_unknown_actions(request.get("Actions"))
    for condition in map(members, entries(request.get("Conditions"))):
        if condition.get("Field") not in _CONDITIONS:
            raise _unsupported(f"conditions by {condition.get('Field')}", _CONDITIONS)
    return internals.call_moto(context, request)


def _refuse_unknown_actions(actions: Any) -> None:
    for action in map(members, entries(actions)):
        if action.get("Type") not in _ACTIONS:
            raise _unsupported(f"actions of type {action.get('Type')}", _ACTIONS)


def _unsupported(what: str, known: set[str]) -> Refusal:
    text = f"The lab's load balancers have no {what}; they have {', '.join(sorted(known))}."
    return Refusal("NotImplemented", text, 501)


# --- targets --------------------------------------------------------------------------------------------------------


def _register(context: Any, request: Request) -> Result:
    emulator().targets.register(_facts(_backend(context), request), request.get("Targets"))
    return {}


def _deregister(context: Any, request: Request) -> Result:
    emulator().targets.deregister(_facts(_backend(context), request), request.get("Targets"))
    return {}


def _describe_health(context: Any, request: Request) -> Result:
    found = emulator().targets.describe(_facts(_backend(context), request), request.get("Targets"))
    return {"TargetHealthDescriptions": found}


def _delete_group(context: Any, request: Request) -> Result:
    result = internals.call_moto(context, request)
    emulator().targets.forget(str(request.get("TargetGroupArn")))
    return result


def _facts(backend: Any, request: Request) -> GroupFacts:
    group = backend.target_groups.get(request.get("TargetGroupArn"))
    if group is None:
        raise Refusal("TargetGroupNotFound", "One or more target groups not found", 400)
    vpc = internals.ec2_backend(backend.account_id, backend.region_name).vpcs.get(group.vpc_id)
    networks = [str(one["cidr_block"]) for one in vpc.get_cidr_block_association_set()] if vpc else []
    return GroupFacts(
        arn=str(group.arn),
        port=int(group.port),
        target_type=str(group.target_type),
        networks=networks,
        vpc_id=str(group.vpc_id),
        deregistration_delay=float(group.attributes["deregistration_delay.timeout_seconds"]),
        is_used=bool(group.load_balancer_arns),
    )


def _relating(operation: internals.Operation) -> internals.Operation:
    """Run an operation that changes where requests go; then note at every target group which load balancers use it.

    moto notes what a new listener and a new rule bring, not what a changed or a deleted one does.
    """

    def run(context: internals.Context, request: Request) -> Result:
        result = operation(context, request)
        backend = _backend(context)
        used: dict[str, list[str]] = {}
        for balancer in list(backend.load_balancers.values()):
            for arn in _forwarded_by(balancer):
                used.setdefault(arn, []).append(balancer.arn)
        for group in list(backend.target_groups.values()):
            group.load_balancer_arns = used.get(group.arn, [])
        return result

    return run


def _forwarded_by(balancer: Any) -> list[str]:
    """Return the target groups that some rule of a load balancer forwards to."""
    rules = [rule for listener in list(balancer.listeners.values()) for rule in list(listener.rules.values())]
    return list(dict.fromkeys(str(arn) for rule in rules for action in rule.actions for arn in _forwarded(action.data)))


def _forwarded(action: Mapping[str, Any]) -> list[Any]:
    configured = entries(members(action.get("ForwardConfig")).get("TargetGroups"))
    arns = [members(group).get("TargetGroupArn") for group in configured]
    return arns or ([action["TargetGroupArn"]] if action.get("TargetGroupArn") else [])


def _always(answer: Mapping[str, Any]) -> internals.Operation:
    """Return an operation that gives one answer to everybody."""

    def operation(_context: internals.Context, _request: Mapping[str, Any]) -> Mapping[str, Any]:
        return answer

    return operation


_OPERATIONS: Mapping[str, internals.Operation] = {
    **dict.fromkeys(_BY_MOTO.split(), internals.call_moto),
    "CreateListener": _relating(_create_listener),
    "CreateLoadBalancer": _create_load_balancer,
    "CreateRule": _relating(_write_rule),
    "DeleteListener": _relating(internals.call_moto),
    "DeleteLoadBalancer": _relating(internals.call_moto),
    "DeleteRule": _relating(internals.call_moto),
    "DeleteTargetGroup": _delete_group,
    "DeregisterTargets": _deregister,
    "DescribeTargetHealth": _describe_health,
    "DescribeTrustStores": _always({"TrustStores": []}),
    "ModifyIpPools": _always({}),
    "ModifyListener": _relating(_modify_listener),
    "ModifyRule": _relating(_write_rule),
    "RegisterTargets": _register,
}

elbv2 = internals.provider("elbv2", "default", lambda: _OPERATIONS)
_INACTIVE = {"SubscriptionState": "INACTIVE"}
shield = internals.provider("shield", "default", lambda: {"GetSubscriptionState": _always(_INACTIVE)})
waf_regional = internals.provider("waf-regional", "default", lambda: {"GetWebACLForResource": _always({})})
wafv2 = internals.provider("wafv2", "default", lambda: {"GetWebACLForResource": _always({})})


# --- what the data plane is told ------------------------------------------------------------------------------------


def snapshot(lab: Emulator) -> dict[str, Any]:
    """Return all load balancers with what belongs to them, in the shapes of AWS's answers."""
    balancers: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    for account, region in internals.elbv2_scopes():
        scope = _Scope(lab, account, region)
        balancers += [scope.load_balancer(one) for one in list(scope.backend.load_balancers.values())]
        groups += [scope.group(group) for group in list(scope.backend.target_groups.values())]
    return {"LoadBalancers": balancers, "TargetGroups": groups}


class _Scope:
    """The load balancers of one account and region."""

    def __init__(self, lab: Emulator, account: str, region: str) -> None:
        self._lab = lab
        self._scope = account, region
        self.backend = internals.elbv2_backend(account, region)
        self._ec2 = internals.ec2_backend(account, region)
        self._interfaces: dict[str, Any] | None = None

    def load_balancer(self, balancer: Any) -> dict[str, Any]:
        rules = [rule for group in self._groups(balancer.security_groups) for rule in ingress_rules(group)]
        listeners = [
            {
                "Port": int(listener.port),
                "IsOpen": is_open(rules, int(listener.port)),
                "Rules": [_rule(rule) for rule in list(listener.rules.values())],
            }
            for listener in list(balancer.listeners.values())
            # Without certificates there is no TLS to end.
            if listener.protocol == "HTTP"
        ]
        return {"DNSName": balancer.dns_name, "Listeners": listeners}

    def group(self, group: Any) -> dict[str, Any]:
        senders = [
            name
            for arn in group.load_balancer_arns
            if (balancer := self.backend.load_balancers.get(arn))
            for name in balancer.security_groups or ()
        ]
        targets = [
            {"Id": one.id, "Port": one.port, "IsReachable": self._lets_in(one.id, one.port, senders)}
            for one in self._lab.targets.registered(group.arn)
        ]
        return {
            "TargetGroupArn": group.arn,
            "HealthCheckEnabled": group.health_check_enabled,
            "HealthCheckPath": group.health_check_path,
            "HealthCheckPort": group.health_check_port,
            "HealthCheckIntervalSeconds": group.health_check_interval_seconds,
            "HealthCheckTimeoutSeconds": group.health_check_timeout_seconds,
            "HealthyThresholdCount": group.healthy_threshold_count,
            "UnhealthyThresholdCount": group.unhealthy_threshold_count,
            "Matcher": dict(group.matcher or {}),
            "Targets": targets,
        }

    def _lets_in(self, address: str, port: int, senders: list[str]) -> bool:
        interface = self._interface_of(address)
        if interface is None:
            return False
        rules = [rule for group in interface.group_set for rule in ingress_rules(group)]
        return lets_in(rules, port, senders)

    def _interface_of(self, address: str) -> Any | None:
        if self._interfaces is None:
            self._interfaces = self._addresses()
        if address not in self._interfaces:
            # A pod that nobody asked EC2 about yet.
            self._lab.network.follow_pods(*self._scope)
            self._interfaces = {address: None} | self._addresses()
        return self._interfaces[address]

    def _addresses(self) -> dict[str, Any]:
        return {
            str(entry["PrivateIpAddress"]): interface
            for reservation in list(self._ec2.reservations.values())
            for instance in reservation.instances
            for interface in instance.nics.values()
            for entry in interface.private_ip_addresses
        }

    def _groups(self, names: Any) -> list[Any]:
        found = [self._ec2.get_security_group_from_id(name) for name in names or ()]
        return [group for group in found if group]


def _rule(rule: Any) -> dict[str, Any]:
    return {
        "Priority": str(rule.priority),
        "Conditions": [dict(condition) for condition in rule.conditions],
        "Actions": [dict(action.data) for action in rule.actions],
    }
