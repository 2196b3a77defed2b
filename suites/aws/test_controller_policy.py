"""A load balancer controller's policy of sixteen statements: it allows what is done with it, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.cloud.actions import ParsedCall, plan
from harness.cloud.iam import CallContext, Decision, PolicySet
from harness.cloud.judging import judge
from harness.cloud.ports import NamedPolicy
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.cloud_ports import StoredIam
from harness.subject.iam_requests import ACCOUNT, POD
from harness.subject.stored_resources import Stored

SERVICE = "elasticloadbalancing.amazonaws.com"
OWNED = "example.com/cluster"
"""The tag by which the controller knows what is its own."""
GROUPS = "arn:aws:ec2:*:*:security-group/*"
ELB = "arn:aws:elasticloadbalancing:*:*:"
REQUESTED, UNREQUESTED = {f"aws:RequestTag/{OWNED}": "false"}, {f"aws:RequestTag/{OWNED}": "true"}
STORED_TAG = {f"aws:ResourceTag/{OWNED}": "false"}


def elb(*names: str) -> list[str]:
    return [f"elasticloadbalancing:{name}" for name in names]


def ec2(*names: str) -> list[str]:
    return [f"ec2:{name}" for name in names]


CONTROLLER: dict[str, dict[str, Any]] = {
    "LinkedRole": {
        "Action": ["iam:CreateServiceLinkedRole"],
        "Resource": "*",
        "Condition": {"StringEquals": {"iam:AWSServiceName": SERVICE}},
    },
    "Look": {
        "Action": [
            *ec2("DescribeVpcs", "DescribeSubnets", "DescribeSecurityGroups", "DescribeInstances", "DescribeTags"),
            *ec2("DescribeAccountAttributes", "DescribeAddresses", "DescribeNetworkInterfaces", "DescribeCoipPools"),
            *ec2("DescribeAvailabilityZones", "DescribeInternetGateways", "GetCoipPoolUsage"),
            *ec2("GetSecurityGroupsForVpc"),
            *elb("DescribeLoadBalancers", "DescribeListeners", "DescribeRules", "DescribeTargetGroups", "DescribeTags"),
            *elb("DescribeTargetHealth", "DescribeLoadBalancerAttributes", "DescribeTargetGroupAttributes"),
            *elb("DescribeSSLPolicies", "DescribeListenerCertificates", "DescribeTrustStores"),
        ],
        "Resource": "*",
    },
    "Protections": {
        "Action": ["shield:GetSubscriptionState", "wafv2:GetWebACLForResource", "waf-regional:GetWebACLForResource"],
        "Resource": "*",
    },
    "OpenGroups": {"Action": ec2("AuthorizeSecurityGroupEgress"), "Resource": "*"},
    "MakeGroups": {"Action": ec2("CreateSecurityGroup"), "Resource": "*"},
    "TagNewGroups": {
        "Action": ec2("CreateTags"),
        "Resource": GROUPS,
        "Condition": {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}, "Null": REQUESTED},
    },
    "TagOwnGroups": {
        "Action": ec2("CreateTags", "DeleteTags"),
        "Resource": GROUPS,
        "Condition": {"Null": {**UNREQUESTED, **STORED_TAG}},
    },
    "OwnGroups": {
        "Action": ec2("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress", "DeleteSecurityGroup"),
        "Resource": "*",
        "Condition": {"Null": STORED_TAG},
    },
    "Make": {
        "Action": elb("CreateLoadBalancer", "CreateTargetGroup"),
        "Resource": "*",
        "Condition": {"Null": REQUESTED},
    },
    "Listen": {"Action": elb("CreateListener", "DeleteListener", "CreateRule", "DeleteRule"), "Resource": "*"},
    "TagOwn": {
        "Action": elb("AddTags", "RemoveTags"),
        "Resource": [ELB + kind for kind in ("targetgroup/*/*", "loadbalancer/net/*/*", "loadbalancer/app/*/*")],
        "Condition": {"Null": {**UNREQUESTED, **STORED_TAG}},
    },
    "TagListeners": {
        "Action": elb("AddTags", "RemoveTags"),
        "Resource": [f"{ELB}listener{rule}/{kind}/*/*/*" for rule in ("", "-rule") for kind in ("net", "app")],
    },
    "ChangeOwn": {
        "Action": elb(
            "ModifyLoadBalancerAttributes", "SetIpAddressType", "SetSecurityGroups", "SetSubnets", "DeleteLoadBalancer",
            "ModifyTargetGroup", "ModifyTargetGroupAttributes", "DeleteTargetGroup",
        ),
        "Resource": "*",
        "Condition": {"Null": STORED_TAG},
    },
    "TagNew": {
        "Action": elb("AddTags"),
        "Resource": [ELB + kind for kind in ("targetgroup/*/*", "loadbalancer/net/*/*", "loadbalancer/app/*/*")],
        "Condition": {
            "StringEquals": {"elasticloadbalancing:CreateAction": ["CreateTargetGroup", "CreateLoadBalancer"]},
            "Null": REQUESTED,
        },
    },
    "Targets": {"Action": elb("RegisterTargets", "DeregisterTargets"), "Resource": f"{ELB}targetgroup/*/*"},
    "Rules": {"Action": elb("ModifyListener", "ModifyRule", "SetRulePriorities"), "Resource": "*"},
}  # fmt: skip
"""A load balancer controller's policy: sixteen statements in the shape of the one that its project hands out."""
HERE = f"eu-west-1:{ACCOUNT}"
BALANCER = f"arn:aws:elasticloadbalancing:{HERE}:loadbalancer/app/k8s-nginx/50dc6c495c0c9188"
OTHER = f"arn:aws:elasticloadbalancing:{HERE}:loadbalancer/app/other/0000000000000000"
LISTENER = f"arn:aws:elasticloadbalancing:{HERE}:listener/app/k8s-nginx/50dc6c495c0c9188/f2f7dc8efc522ab2"
RULE = LISTENER.replace(":listener/", ":listener-rule/") + "/9683b2d02a6cabee"
TARGETS = f"arn:aws:elasticloadbalancing:{HERE}:targetgroup/k8s-nginx/73e2d6bc24d8a067"
OWN = Stored(
    stored_tags={arn: {OWNED: "lab"} for arn in (BALANCER, TARGETS, f"arn:aws:ec2:{HERE}:security-group/sg-0b2")}
)
TAGS = [{"Key": OWNED, "Value": "lab"}]
OTHER_TAG = [{"Key": "a", "Value": "b"}]


def group_tags(tags: list[dict[str, str]]) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": "security-group", "Tags": tags}]}


STEPS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "a linked role": (
        "iam:CreateServiceLinkedRole",
        {"AWSServiceName": "elasticloadbalancing.amazonaws.com"},
        {"LinkedRole"},
    ),
    "looking": ("ec2:DescribeSecurityGroups", {}, {"Look"}),
    "looking at health": ("elbv2:DescribeTargetHealth", {"TargetGroupArn": TARGETS}, {"Look"}),
    "protections": ("wafv2:GetWebACLForResource", {"ResourceArn": BALANCER}, {"Protections"}),
    "a group": ("ec2:CreateSecurityGroup", {"VpcId": "vpc-0a1", **group_tags(TAGS)}, {"MakeGroups", "TagNewGroups"}),
    "its tags": ("ec2:CreateTags", {"Resources": ["sg-0b2"], "Tags": OTHER_TAG}, {"TagOwnGroups"}),
    "its rules": ("ec2:AuthorizeSecurityGroupIngress", {"GroupId": "sg-0b2"}, {"OwnGroups"}),
    "its way out": ("ec2:AuthorizeSecurityGroupEgress", {"GroupId": "sg-1"}, {"OpenGroups"}),
    "a balancer": ("elbv2:CreateLoadBalancer", {"Name": "k8s-nginx", "Tags": TAGS}, {"Make", "TagNew"}),
    "targets": ("elbv2:CreateTargetGroup", {"Name": "k8s-nginx", "Tags": TAGS}, {"Make", "TagNew"}),
    "tags of it": ("elbv2:AddTags", {"ResourceArns": [BALANCER], "Tags": OTHER_TAG}, {"TagOwn"}),
    "a listener": ("elbv2:CreateListener", {"LoadBalancerArn": BALANCER, "Tags": TAGS}, {"Listen", "TagListeners"}),
    "a rule": ("elbv2:CreateRule", {"ListenerArn": LISTENER, "Tags": TAGS}, {"Listen", "TagListeners"}),
    "another rule": ("elbv2:ModifyRule", {"RuleArn": RULE}, {"Rules"}),
    "its attributes": ("elbv2:ModifyLoadBalancerAttributes", {"LoadBalancerArn": BALANCER}, {"ChangeOwn"}),
    "registration": ("elbv2:RegisterTargets", {"TargetGroupArn": TARGETS}, {"Targets"}),
    "the end": ("elbv2:DeleteLoadBalancer", {"LoadBalancerArn": BALANCER}, {"ChangeOwn"}),
}
"""What the controller does, and the statements that let it."""


def decide(call: str, parameters: dict[str, Any], *, without: str = "") -> list[Decision]:
    """Return all decisions about a call under the policy, or under what is left of it."""
    service, _, operation = call.partition(":")
    kept = [{"Effect": "Allow", "Sid": sid, **statement} for sid, statement in CONTROLLER.items() if sid != without]
    document = json.dumps({"Version": "2012-10-17", "Statement": kept})
    found = plan(ParsedCall(service, operation, parameters, POD, "eu-west-1"), OWN)
    assert found is not None
    policies = PolicySet(identity=(NamedPolicy("controller", document),))
    return [
        judge(one, POD, policies, CallContext(POD, {}), iam=StoredIam(), resources=OWN).decision for one in found.checks
    ]


@requirement("IAM-ACT-05", "IAM-ACT-01")
@pytest.mark.parametrize("step", STEPS)
def test_a_controller_s_policy_allows_what_it_does(step: str) -> None:
    """Each step by the statements that are meant for it."""
    call, parameters, by = STEPS[step]

    decisions = decide(call, parameters)

    assert len(CONTROLLER) == 16
    observed = [(one.allowed, one.sid in by) for one in decisions]
    check("IAM-ACT-05", what=step, expected=[(True, True)] * len(decisions), observed=observed)
    check("IAM-ACT-01", what=step, expected=by, observed={one.sid for one in decisions})


@requirement("IAM-ACT-05")
@pytest.mark.parametrize("statement", CONTROLLER)
def test_every_statement_of_a_controller_s_policy_counts(statement: str) -> None:
    """Without it exactly the steps fail that it is meant for."""
    denied = {
        step
        for step, (call, parameters, _) in STEPS.items()
        if not all(one.allowed for one in decide(call, parameters, without=statement))
    }

    wanted = {step for step, (*_, by) in STEPS.items() if statement in by}
    assert wanted
    check("IAM-ACT-05", what=f"without {statement}", expected=sorted(wanted), observed=sorted(denied))


@requirement("IAM-ACT-02", "IAM-ACT-05")
@pytest.mark.parametrize(
    ("call", "parameters", "action"),
    [
        ("ec2:CreateSecurityGroup", {"VpcId": "vpc-0a1", **group_tags(OTHER_TAG)}, "ec2:CreateTags"),
        ("elbv2:CreateLoadBalancer", {"Name": "k8s-nginx"}, "elasticloadbalancing:CreateLoadBalancer"),
        ("elbv2:CreateTargetGroup", {"Name": "k8s-nginx", "Tags": OTHER_TAG}, "elasticloadbalancing:CreateTargetGroup"),
        ("ec2:CreateTags", {"Resources": ["sg-0b2"], "Tags": TAGS}, "ec2:CreateTags"),
        ("ec2:CreateTags", {"Resources": ["sg-1"], "Tags": OTHER_TAG}, "ec2:CreateTags"),
        ("ec2:DeleteSecurityGroup", {"GroupId": "sg-1"}, "ec2:DeleteSecurityGroup"),
        ("elbv2:DeleteLoadBalancer", {"LoadBalancerArn": OTHER}, "elasticloadbalancing:DeleteLoadBalancer"),
        ("elbv2:AddTags", {"ResourceArns": [BALANCER, OTHER], "Tags": OTHER_TAG}, "elasticloadbalancing:AddTags"),
        ("iam:CreateServiceLinkedRole", {"AWSServiceName": "autoscaling.amazonaws.com"}, "iam:CreateServiceLinkedRole"),
    ],
)  # fmt: skip
def test_a_controller_s_policy_denies_what_is_not_its_own(call: str, parameters: dict[str, Any], action: str) -> None:
    """A creation without the tag, a tag that was not there before, and what somebody else made."""
    denied = [one.action for one in decide(call, parameters) if not one.allowed]

    for identifier in ("IAM-ACT-02", "IAM-ACT-05"):
        check(identifier, what=call, expected=[action], observed=denied[:1])
