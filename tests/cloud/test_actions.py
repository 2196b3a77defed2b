"""Which questions a call raises (``iam.md`` sections 9 and 10)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.cloud.actions import ParsedCall, Plan, plan, with_stored_tags
from harness.cloud.ports import NamedPolicy, Principal
from harness.subject.stored_resources import EVERY_TAG, STORED, Stored

ACCOUNT = "123456789012"
CLUSTER = f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/pod-identity-lab"
CALLER = Principal("user", f"arn:aws:iam::{ACCOUNT}:user/ops/ana", ACCOUNT, "AIDA")
ANONYMOUS = Principal("anonymous", "", "", "")


def planned(service: str, operation: str, caller: Principal = CALLER, **parameters: Any) -> Plan | None:
    return plan(ParsedCall(service, operation, parameters, caller, "eu-west-1"), STORED)


def checks(service: str, operation: str, **parameters: Any) -> list[tuple[str, str]]:
    found = planned(service, operation, **parameters)
    assert found is not None
    return [(entry.check.action, entry.check.resource) for entry in found.checks]


def context(service: str, operation: str, **parameters: Any) -> dict[str, Any]:
    found = planned(service, operation, **parameters)
    assert found is not None
    return dict(with_stored_tags(found.checks[0], EVERY_TAG, STORED).context)


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("ListBuckets", {}, [("s3:ListAllMyBuckets", "arn:aws:s3:::*")]),
        ("ListObjectsV2", {"Bucket": "notes"}, [("s3:ListBucket", "arn:aws:s3:::notes")]),
        ("HeadBucket", {"Bucket": "notes"}, [("s3:ListBucket", "arn:aws:s3:::notes")]),
        ("HeadObject", {"Bucket": "notes", "Key": "a"}, [("s3:GetObject", "arn:aws:s3:::notes/a")]),
        (
            "GetObject",
            {"Bucket": "notes", "Key": "k", "VersionId": "3"},
            [("s3:GetObjectVersion", "arn:aws:s3:::notes/k")],
        ),
        (
            "PutObject",
            {"Bucket": "notes", "Key": "k", "Tagging": "a=1", "ACL": "private"},
            [
                ("s3:PutObject", "arn:aws:s3:::notes/k"),
                ("s3:PutObjectTagging", "arn:aws:s3:::notes/k"),
                ("s3:PutObjectAcl", "arn:aws:s3:::notes/k"),
            ],
        ),
        (
            "CopyObject",
            {"Bucket": "notes", "Key": "k", "CopySource": "/src/k%202?versionId=9"},
            [("s3:PutObject", "arn:aws:s3:::notes/k"), ("s3:GetObjectVersion", "arn:aws:s3:::src/k 2")],
        ),
        (
            "DeleteObjects",
            {"Bucket": "notes", "Delete": {"Objects": [{"Key": "a"}, {"Key": "b", "VersionId": "4"}]}},
            [("s3:DeleteObject", "arn:aws:s3:::notes/a"), ("s3:DeleteObjectVersion", "arn:aws:s3:::notes/b")],
        ),
        ("DeleteBucketEncryption", {"Bucket": "notes"}, [("s3:PutEncryptionConfiguration", "arn:aws:s3:::notes")]),
        ("DeleteBucketPolicy", {"Bucket": "notes"}, [("s3:DeleteBucketPolicy", "arn:aws:s3:::notes")]),
        (
            "GetObject",
            {"Bucket": "notes", "Key": "team-a/../team-b/ü +x%.txt"},
            [("s3:GetObject", "arn:aws:s3:::notes/team-a/../team-b/ü +x%.txt")],
        ),
        ("CreateBucket", {"Bucket": "new"}, [("s3:CreateBucket", "arn:aws:s3:::new")]),
        ("GetObject", {"Bucket": "absent", "Key": "k"}, []),
    ],
)
def test_s3(operation: str, parameters: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """IAM-EX-R01 to R09, R17, R18."""
    assert checks("s3", operation, **parameters) == expected


def test_list_keys_are_there_only_when_sent() -> None:
    """An empty prefix is a prefix; none at all is none."""
    assert context("s3", "ListObjectsV2", Bucket="notes", Prefix="", Delimiter="/", MaxKeys=5) == {
        "s3:prefix": "",
        "s3:delimiter": "/",
        "s3:max-keys": "5",
        "s3:ResourceAccount": ACCOUNT,
        "aws:ResourceAccount": ACCOUNT,
    }
    assert "s3:prefix" not in context("s3", "ListObjectsV2", Bucket="notes")
    assert "s3:prefix" not in context("s3", "HeadBucket", Bucket="notes")


def test_bucket_brings_its_owner_and_policy() -> None:
    found = planned("s3", "GetObject", Bucket="notes", Key="k")

    assert found is not None
    assert found.checks[0].resource_policy == STORED.buckets["notes"].policy
    assert found.checks[0].check.resource_account == ACCOUNT
    assert found.if_object_is_missing is not None
    assert found.if_object_is_missing.check.action == "s3:ListBucket"


def test_source_of_a_copy_keeps_its_own_owner() -> None:
    found = planned("s3", "CopyObject", Bucket="notes", Key="k", CopySource="src/x")

    assert found is not None
    assert [entry.check.resource_account for entry in found.checks] == [ACCOUNT, "987654321098"]


def test_absent_bucket_is_not_told_to_anonymous_callers() -> None:
    found = planned("s3", "GetObject", ANONYMOUS, Bucket="absent", Key="k")

    assert found is not None
    assert [entry.check.action for entry in found.checks] == ["s3:ListBucket"]


def test_request_tags_of_an_object_are_keys() -> None:
    found = context("s3", "PutObject", Bucket="notes", Key="k", Tagging="a=1&b=")

    assert (found["s3:RequestObjectTag/a"], found["s3:RequestObjectTagKeys"]) == ("1", ("a", "b"))


def test_association_needs_pass_role_on_its_role_only() -> None:
    """IAM-EX-R13."""
    role, target = f"arn:aws:iam::{ACCOUNT}:role/r", "arn:aws:iam::987654321098:role/t"
    request = {"clusterName": "pod-identity-lab", "roleArn": role, "targetRoleArn": target, "tags": {"a": "b"}}
    found = planned("eks", "CreatePodIdentityAssociation", **request)

    assert found is not None
    assert [(entry.check.action, entry.check.resource) for entry in found.checks] == [
        ("eks:CreatePodIdentityAssociation", CLUSTER),
        ("iam:PassRole", role),
    ]
    assert with_stored_tags(found.checks[0], EVERY_TAG, STORED).context == {
        "aws:RequestTag/a": "b",
        "aws:TagKeys": ("a",),
        "aws:ResourceTag/env": "lab",
    }
    assert found.checks[1].check.context == {
        "iam:PassedToService": "pods.eks.amazonaws.com",
        "iam:AssociatedResourceArn": CLUSTER,
    }


@pytest.mark.parametrize(
    ("operation", "parameters", "resource"),
    [
        ("ListClusters", {}, "*"),
        ("DescribeCluster", {"name": "pod-identity-lab"}, CLUSTER),
        ("ListPodIdentityAssociations", {"clusterName": "pod-identity-lab"}, CLUSTER),
        (
            "DescribePodIdentityAssociation",
            {"clusterName": "pod-identity-lab", "associationId": "a-1"},
            f"arn:aws:eks:eu-west-1:{ACCOUNT}:podidentityassociation/pod-identity-lab/a-1",
        ),
        (
            "DescribeAddon",
            {"clusterName": "pod-identity-lab", "addonName": "x"},
            f"arn:aws:eks:eu-west-1:{ACCOUNT}:addon/pod-identity-lab/x/*",
        ),
        ("TagResource", {"resourceArn": CLUSTER, "tags": {"a": "b"}}, CLUSTER),
    ],
)
def test_eks(operation: str, parameters: dict[str, Any], resource: str) -> None:
    assert checks("eks", operation, **parameters) == [(f"eks:{operation}", resource)]


def test_eks_auth_asks_about_the_cluster_of_eks() -> None:
    found = checks("eks-auth", "AssumeRoleForPodIdentity", clusterName="pod-identity-lab", token="a.b.c")

    assert found == [("eks-auth:AssumeRoleForPodIdentity", CLUSTER)]
    assert context("eks-auth", "AssumeRoleForPodIdentity", clusterName="pod-identity-lab") == {
        "aws:ResourceTag/env": "lab"
    }


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("ListRoles", {}, [("iam:ListRoles", "*")]),
        ("CreateRole", {"RoleName": "r", "Path": "/p/"}, [("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/p/r")]),
        ("GetRole", {"RoleName": "reader"}, [("iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/team/reader")]),
        ("CreatePolicy", {"PolicyName": "p"}, [("iam:CreatePolicy", f"arn:aws:iam::{ACCOUNT}:policy/p")]),
        ("GetPolicy", {"PolicyArn": "arn:aws:iam::aws:policy/X"}, [("iam:GetPolicy", "arn:aws:iam::aws:policy/X")]),
        ("GetUser", {}, [("iam:GetUser", CALLER.arn)]),
        (
            "CreateOpenIDConnectProvider",
            {"Url": "https://oidc.eks.eu-west-1.amazonaws.com/id/X"},
            [
                (
                    "iam:CreateOpenIDConnectProvider",
                    f"arn:aws:iam::{ACCOUNT}:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/X",
                )
            ],
        ),
        (
            "AddRoleToInstanceProfile",
            {"InstanceProfileName": "n", "RoleName": "reader"},
            [
                ("iam:AddRoleToInstanceProfile", f"arn:aws:iam::{ACCOUNT}:instance-profile/n"),
                ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/team/reader"),
            ],
        ),
    ],
)
def test_iam(operation: str, parameters: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert checks("iam", operation, **parameters) == expected


def test_attaching_names_the_policy() -> None:
    assert context("iam", "AttachRolePolicy", RoleName="r", PolicyArn="arn:p")["iam:PolicyARN"] == "arn:p"


def test_secret_is_checked_by_full_arn_and_shown_as_written() -> None:
    """IAM-EX-R10."""
    found = planned("secretsmanager", "GetSecretValue", SecretId="demo/app-config")

    assert found is not None
    (entry,) = found.checks
    assert entry.check.resource == f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:demo/app-config-Qm3vXa"
    assert entry.shown == "demo/app-config"


def test_absent_secret_is_checked_under_its_name() -> None:
    assert checks("secretsmanager", "GetSecretValue", SecretId="x") == [
        ("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:x")
    ]


def test_secret_brings_its_policy() -> None:
    found = planned("secretsmanager", "GetSecretValue", SecretId="demo/app-config")

    assert found is not None
    assert found.checks[0].resource_policy == NamedPolicy(STORED.secrets["demo/app-config"], "{}")


@pytest.mark.parametrize(
    ("parameters", "listing"),
    [
        ({"SecretIdList": ["demo/app-config"]}, []),
        ({"Filters": [{"Key": "name", "Values": ["demo/"]}]}, [("secretsmanager:ListSecrets", "*", None)]),
    ],
    ids=["named", "found"],
)
def test_batch_asks_for_itself_and_for_every_secret(
    parameters: dict[str, Any], listing: list[tuple[str, str, None]]
) -> None:
    """IAM-EX-R11: who filters must be allowed to list."""
    found = planned("secretsmanager", "BatchGetSecretValue", **parameters)

    assert found is not None
    assert [(entry.check.action, entry.check.resource, entry.key) for entry in found.checks] == [
        ("secretsmanager:BatchGetSecretValue", "*", None),
        *listing,
        ("secretsmanager:GetSecretValue", STORED.secrets["demo/app-config"], "demo/app-config"),
    ]


def test_secret_under_a_key_of_its_own_needs_the_key() -> None:
    sealed = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:demo/sealed-Qm3vXa"
    call = ParsedCall("secretsmanager", "GetSecretValue", {"SecretId": "demo/sealed"}, CALLER, "eu-west-1")
    found = plan(call, replace(STORED, secrets={"demo/sealed": sealed}))

    assert found is not None
    reading, opening = found.checks
    assert (reading.check.resource, reading.denial) == (sealed, "")
    assert (opening.check.action, opening.denial) == ("kms:Decrypt", "Access to KMS is not allowed")
    assert opening.check.context["kms:ViaService"] == "secretsmanager.eu-west-1.amazonaws.com"


def test_secret_with_tags_needs_the_right_to_tag() -> None:
    """EMU-GATE-CREATETAGS."""
    new = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:new-??????"

    assert checks("secretsmanager", "CreateSecret", Name="new") == [("secretsmanager:CreateSecret", new)]
    assert checks("secretsmanager", "CreateSecret", Name="new", Tags=[{"Key": "a", "Value": "b"}]) == [
        ("secretsmanager:CreateSecret", new),
        ("secretsmanager:TagResource", new),
    ]


@pytest.mark.parametrize(
    ("operation", "parameters", "resources"),
    [
        ("GetParameter", {"Name": "/demo/flag"}, ["parameter/demo/flag"]),
        ("GetParameter", {"Name": "flag:3"}, ["parameter/flag"]),
        ("GetParameter", {"Name": f"arn:aws:ssm:eu-west-1:{ACCOUNT}:parameter/demo/flag:3"}, ["parameter/demo/flag"]),
        ("GetParameters", {"Names": ["/a", "b"]}, ["parameter/a", "parameter/b"]),
        ("GetParametersByPath", {"Path": "/demo", "Recursive": True}, ["parameter/demo"]),
        ("DescribeParameters", {}, ["*"]),
        ("AddTagsToResource", {"ResourceType": "Parameter", "ResourceId": "/demo/flag"}, ["parameter/demo/flag"]),
    ],
)
def test_ssm(operation: str, parameters: dict[str, Any], resources: list[str]) -> None:
    expected = [(f"ssm:{operation}", f"arn:aws:ssm:eu-west-1:{ACCOUNT}:{resource}") for resource in resources]

    assert checks("ssm", operation, **parameters) == expected


def test_tags_that_are_put_on_an_object_are_keys_of_the_request() -> None:
    tags = {"TagSet": [{"Key": "team", "Value": "a"}, {"Key": "empty", "Value": ""}]}

    found = context("s3", "PutObjectTagging", Bucket="notes", Key="k", Tagging=tags)

    assert found["s3:RequestObjectTag/team"] == "a"
    assert found["s3:RequestObjectTag/empty"] == ""
    assert found["s3:RequestObjectTagKeys"] == ("team", "empty")


def test_unsigned_callers_may_ask_sts_for_a_web_identity_s_role_only() -> None:
    anonymous = Principal("anonymous", "", "", "")

    def asked(operation: str, caller: Principal = CALLER) -> Plan | None:
        return plan(ParsedCall("sts", operation, {}, caller, "eu-west-1"), Stored())

    assert asked("AssumeRoleWithWebIdentity", anonymous) == Plan()
    assert asked("AssumeRole", anonymous) is None
    assert asked("GetCallerIdentity", anonymous) is None
    assert asked("GetSessionToken") == Plan()
    assert checks("sts", "GetAccessKeyInfo") == [("sts:GetAccessKeyInfo", "*")]


@pytest.mark.parametrize(("service", "operation"), [("sts", "GetCallerIdentity"), ("sts", "AssumeRole")])
def test_some_calls_ask_nothing_here(service: str, operation: str) -> None:
    assert planned(service, operation) == Plan()


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("s3", "PutBucketAccelerateConfiguration"),
        ("s3", "SelectObjectContent"),
        ("iam", "SimulatePrincipalPolicy"),
        ("iam", "CreateLoginProfile"),
        ("sts", "AssumeRoot"),
        ("eks", "CreateNodegroup"),
        ("eks-auth", "Other"),
        ("ec2", "RunInstances"),
        ("cloudtrail", "CreateTrail"),
        ("secretsmanager", "RotateSecret"),
        ("ssm", "SendCommand"),
        ("dynamodb", "ExecuteStatement"),
        ("kms", "CreateGrant"),
        ("sqs", "ListQueues"),
    ],
)
def test_unmapped_operations_have_no_plan(service: str, operation: str) -> None:
    """EMU-GATE-CLOSED."""
    assert planned(service, operation) is None


# --- EC2 and Elastic Load Balancing ---------------------------------------------------------------------------------

BALANCER = f"arn:aws:elasticloadbalancing:eu-west-1:{ACCOUNT}:loadbalancer/app/k8s-demo-nginx-380f880b9d"
CLUSTER_TAG = {"Key": "elbv2.k8s.aws/cluster", "Value": "pod-identity-lab"}


def test_a_load_balancer_with_tags_is_two_questions() -> None:
    """IAM-ACT-02: the create, and the tagging with what it is part of."""
    found = planned("elbv2", "CreateLoadBalancer", Name="k8s-demo-nginx-380f880b9d", Tags=[CLUSTER_TAG])

    assert found
    create, tagging = (one.check for one in found.checks)
    assert (create.action, create.resource) == ("elasticloadbalancing:CreateLoadBalancer", f"{BALANCER}/*")
    assert (tagging.action, tagging.resource) == ("elasticloadbalancing:AddTags", f"{BALANCER}/*")
    assert tagging.context["elasticloadbalancing:CreateAction"] == "CreateLoadBalancer"
    assert create.context["aws:RequestTag/elbv2.k8s.aws/cluster"] == "pod-identity-lab"
    assert "elasticloadbalancing:CreateAction" not in create.context


def test_listeners_and_rules_are_created_on_their_parent_and_tagged_as_themselves() -> None:
    listener = f"arn:aws:elasticloadbalancing:eu-west-1:{ACCOUNT}:listener/app/name/1/2"

    assert checks("elbv2", "CreateListener", LoadBalancerArn=f"{BALANCER}/1", Tags=[CLUSTER_TAG]) == [
        ("elasticloadbalancing:CreateListener", f"{BALANCER}/1"),
        ("elasticloadbalancing:AddTags", f"{BALANCER.replace(':loadbalancer/', ':listener/')}/1/*"),
    ]
    assert checks("elbv2", "CreateRule", ListenerArn=listener, Tags=[CLUSTER_TAG])[1] == (
        "elasticloadbalancing:AddTags",
        f"{listener.replace(':listener/', ':listener-rule/')}/*",
    )


def test_a_security_group_with_tags_is_asked_for_on_its_vpc_too() -> None:
    specification = {"ResourceType": "security-group", "Tags": [CLUSTER_TAG]}
    arn = f"arn:aws:ec2:eu-west-1:{ACCOUNT}"

    assert checks("ec2", "CreateSecurityGroup", VpcId="vpc-0a1", TagSpecifications=[specification]) == [
        ("ec2:CreateSecurityGroup", f"{arn}:security-group/*"),
        ("ec2:CreateSecurityGroup", f"{arn}:vpc/vpc-0a1"),
        ("ec2:CreateTags", f"{arn}:security-group/*"),
    ]


def test_changes_see_the_tags_that_are_stored() -> None:
    group = f"arn:aws:ec2:eu-west-1:{ACCOUNT}:security-group/sg-1"
    STORED.stored_tags[group] = {"elbv2.k8s.aws/cluster": "pod-identity-lab"}

    found = planned("ec2", "DeleteSecurityGroup", GroupId="sg-1")

    assert found
    assert found.checks[0].check.resource == group
    keys = with_stored_tags(found.checks[0], EVERY_TAG, STORED).context
    assert keys["aws:ResourceTag/elbv2.k8s.aws/cluster"] == "pod-identity-lab"
    assert keys["ec2:ResourceTag/elbv2.k8s.aws/cluster"] == "pod-identity-lab"


@pytest.mark.parametrize(("service", "operation"), [("elbv2", "CreateTrustStore"), ("ec2", "RunInstances")])
def test_what_load_balancers_do_not_need_stays_unknown(service: str, operation: str) -> None:
    assert planned(service, operation) is None


def test_parameter_store_is_no_way_around_secrets_manager() -> None:
    assert planned("ssm", "GetParameter", Name="/aws/reference/secretsmanager/demo/app-config") is None
