"""The sweeper in an account of the emulator: exactly what was tagged and has expired goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.subject.aws import CLUSTER, Aws
from harness.subject.bound_cluster import ApiServerDouble
from harness.sweep.aws import find_tagged, judge

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
EXPIRED = {
    "podid:run": "ab12cd",
    "podid:owner": "ann",
    "podid:repo": "acme/agent",
    "podid:expires": "2026-11-26T11:00:00Z",
}
RUNNING = EXPIRED | {"podid:expires": "2026-11-26T13:00:00Z"}
UNTAGGED: dict[str, str] = {}
TRUST = (Path(__file__).parents[3] / "fixtures" / "s3" / "pod-identity-trust.json").read_text()
POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}]}
)


def pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def make(aws: Aws, name: str, tags: dict[str, str]) -> None:
    """Create one resource of each kind under a name."""
    s3, iam, ec2, elbv2 = (aws.client(service) for service in ("s3", "iam", "ec2", "elbv2"))
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=name, Key="hello.txt", Body=b"1")
    s3.delete_object(Bucket=name, Key="hello.txt")
    if tags:
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": pairs(tags)})
    aws.client("secretsmanager").create_secret(Name=name, SecretString="1", Tags=pairs(tags))
    given: dict[str, Any] = {"Tags": pairs(tags)} if tags else {}
    aws.client("dynamodb").create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        **given,
    )
    iam.create_open_id_connect_provider(Url=f"https://{name}.example.com", **given)
    path = "/podid/ab12cd/"
    policy = iam.create_policy(PolicyName=name, Path=path, PolicyDocument=POLICY, Tags=pairs(tags))["Policy"]["Arn"]
    iam.create_policy_version(PolicyArn=policy, PolicyDocument=POLICY)
    role = iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=TRUST, Tags=pairs(tags))["Role"]["Arn"]
    iam.attach_role_policy(RoleName=name, PolicyArn=policy)
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=POLICY)
    aws.client("eks").create_pod_identity_association(
        clusterName=CLUSTER, namespace="demo", serviceAccount=name, roleArn=role, tags=tags
    )
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName=name, Description="a group", VpcId=vpc)["GroupId"]
    if tags:
        ec2.create_tags(Resources=[group], Tags=pairs(tags))
    elbv2.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=vpc, **given)


def found(aws: Aws) -> list[tuple[str, str]]:
    """Return kind and name of what carries all four tags."""
    return [(resource.kind, resource.name) for resource in find_tagged(aws.client)]


def counted(aws: Aws) -> dict[str, int]:
    """Count what the account has of each kind, tagged or not."""
    iam, prefix = aws.client("iam"), "/podid/"
    return {
        "associations": len(aws.client("eks").list_pod_identity_associations(clusterName=CLUSTER)["associations"]),
        "buckets": len(aws.client("s3").list_buckets()["Buckets"]),
        "secrets": len(aws.client("secretsmanager").list_secrets()["SecretList"]),
        "tables": len(aws.client("dynamodb").list_tables()["TableNames"]),
        "OIDC providers": len(iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]),
        "roles": len(iam.list_roles(PathPrefix=prefix)["Roles"]),
        "policies": len(iam.list_policies(Scope="Local", PathPrefix=prefix)["Policies"]),
        "target groups": len(aws.client("elbv2").describe_target_groups()["TargetGroups"]),
        "security groups": len(
            aws.client("ec2").describe_security_groups(Filters=[{"Name": "group-name", "Values": ["podid-*"]}])[
                "SecurityGroups"
            ]
        ),
    }


def test_expired_resources_go_and_their_twins_stay(
    aws: Aws, api: ApiServerDouble, make_role: Callable[..., str]
) -> None:
    """HRN-EXT-11, HRN-EXT-12: an untagged twin and a running run's survive; the second sweep finds nothing."""
    assert api, make_role
    for name, tags in (("expired", EXPIRED), ("twin", UNTAGGED), ("running", RUNNING)):
        make(aws, f"podid-ab12cd-{name}", tags)
    assert set(counted(aws).values()) == {3}

    order: list[str] = []
    for resource in find_tagged(aws.client):
        if not judge(resource, NOW):
            resource.remove()
            resource.remove()  # each step tolerates absence
            order.append(resource.kind)

    assert order == [
        *("association", "target group", "security group", "bucket", "secret", "table"),
        *("OIDC provider", "role", "policy"),
    ]
    assert counted(aws) == dict.fromkeys(counted(aws), 2)
    assert [resource for resource in find_tagged(aws.client) if not judge(resource, NOW)] == []
    assert {name for kind, name in found(aws) if kind not in {"association", "OIDC provider"}} == {
        "podid-ab12cd-running"
    }
