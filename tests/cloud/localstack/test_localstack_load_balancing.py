"""Load balancers as the emulator keeps them: what a change of rules means for target groups."""

from __future__ import annotations

from typing import Any

import pytest

from harness.subject.aws import Aws

VPC = "vpc-0a1b2c3d4e5f67890"
NOT_FOUND = [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404", "ContentType": "text/plain"}}]


def forward(arn: str) -> list[dict[str, Any]]:
    return [{"Type": "forward", "TargetGroupArn": arn}]


@pytest.mark.usefixtures("node")
def test_target_groups_know_the_load_balancers_whose_rules_forward_to_them(aws: Aws) -> None:
    """Also after a rule was changed or deleted: it decides who may reach targets, and whether they are in use."""
    ec2, elbv2 = aws.client("ec2"), aws.client("elbv2")
    subnets = [
        subnet["SubnetId"] for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [VPC]}])["Subnets"]
    ]
    balancer = elbv2.create_load_balancer(Name="shared", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    first, second = (
        elbv2.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=VPC, TargetType="ip")["TargetGroups"][0][
            "TargetGroupArn"
        ]
        for name in ("first", "second")
    )
    listener = elbv2.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=80, DefaultActions=NOT_FOUND)
    rule = elbv2.create_rule(
        ListenerArn=listener["Listeners"][0]["ListenerArn"],
        Priority=1,
        Conditions=[{"Field": "path-pattern", "PathPatternConfig": {"Values": ["/*"]}}],
        Actions=forward(first),
    )["Rules"][0]["RuleArn"]

    def users() -> tuple[list[str], list[str]]:
        found = elbv2.describe_target_groups(TargetGroupArns=[first, second])["TargetGroups"]
        users = {group["TargetGroupArn"]: group.get("LoadBalancerArns", []) for group in found}
        return users[first], users[second]

    assert users() == ([balancer], [])
    elbv2.modify_rule(RuleArn=rule, Actions=forward(second))
    assert users() == ([], [balancer])
    elbv2.delete_rule(RuleArn=rule)
    assert users() == ([], [])
