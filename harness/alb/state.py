"""What AWS has of load balancers: read as the administrator, in the words of its Describe calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.cloud.documents import entries, members
from harness.cluster.base import Node
from harness.lab.account import AwsAccount

__all__ = ["CLUSTER_TAG", "STACK_TAG", "LoadBalancers"]

CLUSTER_TAG = "elbv2.k8s.aws/cluster"
STACK_TAG = "ingress.k8s.aws/stack"


class LoadBalancers:
    """The load balancers of an account, with what belongs to them."""

    def __init__(self, aws: AwsAccount) -> None:
        """Attach."""
        self._elbv2 = aws.client("elbv2")
        self._ec2 = aws.client("ec2")

    def at(self, dns_name: str) -> dict[str, Any]:
        """Return the description of the load balancer with a DNS name."""
        (found,) = [one for one in self._all() if one["DNSName"] == dns_name]
        return found

    def _all(self) -> list[dict[str, Any]]:
        return list(self._elbv2.describe_load_balancers()["LoadBalancers"])

    def target_groups(self, arn: str) -> list[dict[str, Any]]:
        """Return the target groups that a load balancer forwards to; AWS refuses to answer while there are none."""
        return list(self._elbv2.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"])

    def health(self, group_arn: str) -> dict[str, dict[str, str]]:
        """Return address and port → health of the targets of a group that are not draining."""
        told = self._elbv2.describe_target_health(TargetGroupArn=group_arn)["TargetHealthDescriptions"]
        found = {f"{one['Target']['Id']}:{one['Target']['Port']}": dict(one["TargetHealth"]) for one in told}
        return {target: health for target, health in found.items() if health["State"] != "draining"}

    def states(self, group_arn: str) -> dict[str, str]:
        """Return address and port → state, likewise."""
        return {target: health["State"] for target, health in self.health(group_arn).items()}

    def tags(self, *arns: str) -> dict[str, dict[str, str]]:
        """Return the tags of load balancers, target groups, listeners and rules, by ARN."""
        if not arns:
            return {}
        told = self._elbv2.describe_tags(ResourceArns=list(arns))["TagDescriptions"]
        return {entry["ResourceArn"]: {tag["Key"]: tag["Value"] for tag in entry["Tags"]} for entry in told}

    def security_groups(self, tag: str, value: str) -> list[dict[str, Any]]:
        """Return the security groups that carry a tag."""
        filters = [{"Name": f"tag:{tag}", "Values": [value]}]
        return list(self._ec2.describe_security_groups(Filters=filters)["SecurityGroups"])

    def security_group(self, group_id: str) -> dict[str, Any]:
        """Return a security group."""
        (found,) = self._ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
        return dict(found)

    def interface(self, node: Node) -> dict[str, Any]:
        """Return the network interface of a node."""
        (reservation,) = self._ec2.describe_instances(InstanceIds=[node.instance_id])["Reservations"]
        (interface,) = reservation["Instances"][0]["NetworkInterfaces"]
        return dict(interface)

    def of_stack(self, stack: str) -> list[str]:
        """Return what there is of a stack, which is an Ingress or a group of them: ARNs, and ids of security groups."""
        arns = [one["LoadBalancerArn"] for one in self._all()]
        arns += [one["TargetGroupArn"] for one in self._elbv2.describe_target_groups()["TargetGroups"]]
        found = [arn for arn, tags in self.tags(*arns).items() if tags.get(STACK_TAG) == stack]
        return found + [group["GroupId"] for group in self.security_groups(STACK_TAG, stack)]

    def graph(self, arn: str, interface: Mapping[str, Any]) -> dict[str, Any]:
        """Return a load balancer, everything that hangs on it, and the interface that its traffic goes to.

        The shape is that of evidence of kind ``graph``.
        """
        nodes: list[dict[str, str]] = []
        edges: list[dict[str, str]] = []

        def add(identity: str, kind: str, name: str, *after: str) -> None:
            nodes.append({"id": identity, "kind": kind, "name": name})
            edges.extend({"from": one, "to": identity} for one in after)

        (balancer,) = self._elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"]
        add(arn, "load balancer", balancer["LoadBalancerName"])
        for group in map(self.security_group, balancer["SecurityGroups"]):
            add(group["GroupId"], "security group", group["GroupName"], arn)
        for listener in self._elbv2.describe_listeners(LoadBalancerArn=arn)["Listeners"]:
            name = f"{listener['Protocol']} {listener['Port']}"
            add(listener["ListenerArn"], "listener", name, arn)
            for rule in self._elbv2.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]:
                add(rule["RuleArn"], f"rule {rule['Priority']}", _conditions(rule), listener["ListenerArn"])
                edges += [{"from": rule["RuleArn"], "to": group} for group in _forwarded(rule)]
        for group in self.target_groups(arn):
            add(group["TargetGroupArn"], "target group", group["TargetGroupName"])
            for target, state in self.states(group["TargetGroupArn"]).items():
                add(f"{group['TargetGroupArn']} {target}", f"target, {state}", target, group["TargetGroupArn"])
        for name in (group["GroupId"] for group in interface["Groups"]):
            group = self.security_group(name)
            senders = [pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]]
            add(name, "security group of the node", group["GroupName"], *senders)
            add(interface["NetworkInterfaceId"], "interface", interface["NetworkInterfaceId"], name)
        return {"nodes": nodes, "edges": edges}


def _conditions(rule: Mapping[str, Any]) -> str:
    """Return a rule's conditions in one line; a default rule has none, and answers itself or forwards."""
    # The values stand in the condition itself or in the member that is named after its field, such as HostHeaderConfig.
    holders = [holder for condition in rule["Conditions"] for holder in (condition, *map(members, condition.values()))]
    values = [str(value) for holder in holders for value in entries(holder.get("Values"))]
    return " ".join(dict.fromkeys(values)) or str(rule["Actions"][-1]["Type"])


def _forwarded(rule: Mapping[str, Any]) -> list[str]:
    """Return the target groups that a rule forwards to; an action with several may name none by itself."""
    groups = [group for action in rule["Actions"] for group in action.get("ForwardConfig", {}).get("TargetGroups", ())]
    own = [action["TargetGroupArn"] for action in rule["Actions"] if "TargetGroupArn" in action]
    return list(dict.fromkeys([*(str(group["TargetGroupArn"]) for group in groups), *own]))
