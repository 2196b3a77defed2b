"""What a denied caller is told (``iam.md`` 14.1, 14.2 and 14.4)."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from harness.cloud.denials import access_denied
from harness.cloud.iam import Decision, Layer
from harness.conformance.marks import requirement
from harness.subject.iam_requests import ACCOUNT, ANONYMOUS, EKS, OBJECT, POD, SESSION, USER

NODE = f"arn:aws:sts::{ACCOUNT}:assumed-role/lab-node/i-0a1b2c3d4e5f60718"
TENANT = f"arn:aws:sts::{ACCOUNT}:assumed-role/notes-app/eks-pod-identi-notes-0b51c7b2-5a0e-4f6e-9d0a-3c5b1f0c9e11"
CLUSTER = f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/pod-identity-lab"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/target"


def denial(
    action: str = "s3:GetObject", resource: str = OBJECT, *, layer: Layer = "identity", explicit: bool = False
) -> Decision:
    return Decision(
        allowed=False,
        explicit=explicit,
        layer=layer,
        action=action,
        resource=resource,
        principal=SESSION,
        cross_account=False,
    )


@requirement("IAM-MSG-03")
@pytest.mark.parametrize(
    ("layer", "implicit", "explicit"),
    [
        (
            "identity",
            "because no identity-based policy allows the s3:GetObject action",
            "with an explicit deny in an identity-based policy",
        ),
        (
            "resource",
            "because no resource-based policy allows the s3:GetObject action",
            "with an explicit deny in a resource-based policy",
        ),
        (
            "boundary",
            "because no permissions boundary allows the s3:GetObject action",
            "with an explicit deny in a permissions boundary",
        ),
        (
            "session",
            "because no session policy allows the s3:GetObject action",
            "with an explicit deny in a session policy",
        ),
        (
            "scp",
            "because no service control policy allows the s3:GetObject action",
            "with an explicit deny in a service control policy",
        ),
        (
            "endpoint",
            "because no VPC endpoint policy allows the s3:GetObject action",
            "with an explicit deny in a VPC endpoint policy",
        ),
        (
            "trust",
            "because no role trust policy allows the s3:GetObject action",
            "with an explicit deny in the role trust policy",
        ),
    ],
)
def test_the_reason_names_the_layer(layer: Layer, implicit: str, explicit: str) -> None:
    assert denial(layer=layer).reason() == implicit
    assert denial(layer=layer, explicit=True).reason() == explicit


@requirement("IAM-MSG-03")
def test_a_resource_control_policy_only_denies_explicitly() -> None:
    assert denial(layer="rcp", explicit=True).reason() == "with an explicit deny in a resource control policy"


class Form(NamedTuple):
    service: str
    action: str
    resource: str
    shown: str | None
    status: int
    code: str
    ending: str


BECAUSE = "because no identity-based policy allows the"
ELB = f"arn:aws:elasticloadbalancing:eu-west-1:{ACCOUNT}:loadbalancer/app/x/*"
SECRET = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:demo/app-config-Qm3vXa"
QUEUE = f"arn:aws:sqs:eu-west-1:{ACCOUNT}:jobs"
TOPIC = f"arn:aws:sns:eu-west-1:{ACCOUNT}:news"
FORMS = [
    Form("s3", "s3:GetObject", OBJECT, None, 403, "AccessDenied",
         f's3:GetObject on resource: "arn:aws:s3:::notes/a" {BECAUSE} s3:GetObject action'),
    Form("s3", "s3:ListAllMyBuckets", "arn:aws:s3:::*", None, 403, "AccessDenied",
         f"s3:ListAllMyBuckets {BECAUSE} s3:ListAllMyBuckets action"),
    Form("sts", "sts:TagSession", ROLE, None, 403, "AccessDenied", f"sts:TagSession on resource: {ROLE}"),
    Form("iam", "iam:GetRole", ROLE, None, 403, "AccessDenied",
         f"iam:GetRole on resource: {ROLE} {BECAUSE} iam:GetRole action"),
    Form("iam", "iam:ListRoles", "*", None, 403, "AccessDenied",
         f"iam:ListRoles on resource: arn:aws:iam::123456789012:role/ {BECAUSE} iam:ListRoles action"),
    Form("elbv2", "elasticloadbalancing:AddTags", ELB, None, 403, "AccessDenied",
         f"elasticloadbalancing:AddTags on resource: {ELB} {BECAUSE} elasticloadbalancing:AddTags action"),
    Form("elbv2", "elasticloadbalancing:DescribeRules", "*", None, 403, "AccessDenied",
         f"elasticloadbalancing:DescribeRules {BECAUSE} elasticloadbalancing:DescribeRules action"),
    Form("secretsmanager", "secretsmanager:GetSecretValue", SECRET, "demo/app-config", 400, "AccessDeniedException",
         f"secretsmanager:GetSecretValue on resource: demo/app-config {BECAUSE} secretsmanager:GetSecretValue action"),
    Form("secretsmanager", "secretsmanager:ListSecrets", "*", None, 400, "AccessDeniedException",
         f"secretsmanager:ListSecrets {BECAUSE} secretsmanager:ListSecrets action"),
    Form("dynamodb", "dynamodb:ListTables", "*", None, 400, "AccessDeniedException",
         f"dynamodb:ListTables {BECAUSE} dynamodb:ListTables action"),
    Form("cloudtrail", "cloudtrail:LookupEvents", "*", None, 400, "AccessDeniedException",
         f"cloudtrail:LookupEvents {BECAUSE} cloudtrail:LookupEvents action"),
    Form("eks", "eks:DescribeCluster", CLUSTER, None, 403, "AccessDeniedException",
         f"eks:DescribeCluster on resource: {CLUSTER} {BECAUSE} eks:DescribeCluster action"),
    Form("eks", "iam:PassRole", ROLE, None, 403, "AccessDeniedException",
         f"iam:PassRole on resource: {ROLE} {BECAUSE} iam:PassRole action"),
    Form("eks-auth", "eks-auth:AssumeRoleForPodIdentity", CLUSTER, None, 400, "AccessDeniedException",
         f"eks-auth:AssumeRoleForPodIdentity on resource: {CLUSTER} "
         f"{BECAUSE} eks-auth:AssumeRoleForPodIdentity action"),
    Form("sqs", "sqs:SendMessage", QUEUE, None, 403, "AccessDeniedException",
         f"sqs:sendmessage on resource: {QUEUE} {BECAUSE} sqs:sendmessage action"),
    Form("sns", "sns:Publish", TOPIC, None, 403, "AuthorizationError",
         f"SNS:Publish on resource: {TOPIC} {BECAUSE} SNS:Publish action"),
]  # fmt: skip


@requirement("IAM-MSG-03")
@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.service}-{form.action}")
def test_each_service_denies_in_its_own_form(form: Form) -> None:
    refusal = access_denied(form.service, POD, denial(form.action, form.resource), form.shown)

    assert (refusal.status, refusal.code) == (form.status, form.code)
    assert refusal.message == (
        f"User: arn:aws:sts::123456789012:assumed-role/reader/job-1 is not authorized to perform: {form.ending}"
    )


@requirement("IAM-MSG-03")
def test_ec2_has_its_own_code_and_sentence() -> None:
    refusal = access_denied("ec2", POD, denial("ec2:DescribeVpcs", "*", layer="boundary", explicit=True))

    assert (refusal.status, refusal.code) == (403, "UnauthorizedOperation")
    assert refusal.message == (
        "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/reader/job-1 "
        "is not authorized to perform: ec2:DescribeVpcs with an explicit deny in a permissions boundary"
    )


@requirement("IAM-MSG-05")
def test_s3_tells_strangers_nothing() -> None:
    foreign = denial()._replace(cross_account=True)

    assert access_denied("s3", USER, foreign).message == "Access Denied"
    assert access_denied("s3", ANONYMOUS, denial()).message == "Access Denied"
    assert access_denied("eks", USER, foreign).message.startswith("User: ")


@requirement("IAM-MSG-04")
def test_a_service_is_called_by_its_name() -> None:
    refused = denial("sts:AssumeRole", ROLE, layer="trust")._replace(principal="pods.eks.amazonaws.com")

    assert access_denied("sts", EKS, refused).message == (
        "User: pods.eks.amazonaws.com is not authorized to perform: sts:AssumeRole "
        "on resource: arn:aws:iam::123456789012:role/target"
    )


def told(service: str, caller: str, decision: Decision, shown: str | None = None) -> str:
    return access_denied(service, POD, decision._replace(principal=caller), shown).message


@requirement("IAM-MSG-01", "IAM-MSG-02")
def test_the_guide_lists_a_foreign_prefix() -> None:
    assert told("s3", TENANT, denial("s3:ListBucket", "arn:aws:s3:::abac-demo-bucket")) == (
        "User: arn:aws:sts::123456789012:assumed-role/notes-app/"
        "eks-pod-identi-notes-0b51c7b2-5a0e-4f6e-9d0a-3c5b1f0c9e11 is not authorized to perform: s3:ListBucket "
        'on resource: "arn:aws:s3:::abac-demo-bucket" because no identity-based policy allows the s3:ListBucket action'
    )


@requirement("IAM-MSG-01", "IAM-MSG-03")
def test_the_guide_reads_a_secret_with_the_role_of_the_node() -> None:
    assert told("secretsmanager", NODE, denial("secretsmanager:GetSecretValue", SECRET), "demo/app-config") == (
        "User: arn:aws:sts::123456789012:assumed-role/lab-node/i-0a1b2c3d4e5f60718 is not authorized to perform: "
        "secretsmanager:GetSecretValue on resource: demo/app-config "
        "because no identity-based policy allows the secretsmanager:GetSecretValue action"
    )


@requirement("IAM-MSG-01", "API-405")
def test_the_guide_forgets_the_permission_of_the_node() -> None:
    assert told("eks-auth", NODE, denial("eks-auth:AssumeRoleForPodIdentity", CLUSTER)) == (
        "User: arn:aws:sts::123456789012:assumed-role/lab-node/i-0a1b2c3d4e5f60718 is not authorized to perform: "
        "eks-auth:AssumeRoleForPodIdentity "
        "on resource: arn:aws:eks:eu-west-1:123456789012:cluster/pod-identity-lab "
        "because no identity-based policy allows the eks-auth:AssumeRoleForPodIdentity action"
    )
