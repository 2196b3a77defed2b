"""Resources of AWS that carry a run's tags: found, judged, and removed in the order in which AWS lets go of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

__all__ = ["Resource", "find_tagged", "judge"]

Client = Callable[[str], Any]
_TAGS = ("podid:run", "podid:owner", "podid:repo", "podid:expires")
_PATH = "/podid/"
_GONE = {
    "InvalidGroup.NotFound",
    "LoadBalancerNotFound",
    "NoSuchBucket",
    "NoSuchEntity",
    "NoSuchTagSet",
    "ResourceNotFoundException",
    "TargetGroupNotFound",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource with all four tags."""

    kind: str
    name: str
    tags: Mapping[str, str]
    remove: Callable[[], object]
    path: str | None = None
    """Path of what is IAM's."""
    has_name: bool = True
    """Whether whoever creates it chooses a name."""

    def __str__(self) -> str:
        """Name it as messages do."""
        return f"{self.kind} {self.name}"


def judge(resource: Resource, now: datetime) -> str:
    """Return why a resource stays, empty if it may be removed (HRN-EXT-11)."""
    run = resource.tags["podid:run"]
    if resource.has_name and not resource.name.startswith(f"podid-{run}-"):
        return f"its name does not begin with podid-{run}-"
    if resource.path is not None and resource.path != f"{_PATH}{run}/":
        return f"its path is {resource.path}, not {_PATH}{run}/"
    try:
        expires = datetime.fromisoformat(resource.tags["podid:expires"])
    except ValueError:
        return f"its tag podid:expires is no instant: {resource.tags['podid:expires']!r}"
    if expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    return "" if expires < now else f"it may stay until {resource.tags['podid:expires']}"


def find_tagged(client: Client) -> Iterator[Resource]:
    """Yield the resources with all four tags, in the order in which they are to be removed (HRN-EXT-12).

    Args:
        client: Returns the boto3 client of a service.
    """
    for find in _FINDERS:
        for resource in find(client):
            if all(name in resource.tags for name in _TAGS):
                yield resource


@contextlib.contextmanager
def _tolerating_absence() -> Generator[None]:
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in _GONE:
            raise


def _pages(client: Any, operation: str, member: str, **parameters: Any) -> Iterator[Any]:
    for page in client.get_paginator(operation).paginate(**parameters):
        yield from page.get(member, [])


def _pairs(entries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {entry["Key"]: entry["Value"] for entry in entries}


def _associations(client: Client) -> Iterator[Resource]:
    eks = client("eks")
    for cluster in _pages(eks, "list_clusters", "clusters"):
        for found in _pages(eks, "list_pod_identity_associations", "associations", clusterName=cluster):
            which = {"clusterName": cluster, "associationId": found["associationId"]}
            record = eks.describe_pod_identity_association(**which)["association"]

            def remove(which: Mapping[str, str] = which) -> None:
                with _tolerating_absence():
                    eks.delete_pod_identity_association(**which)

            name = f"{cluster}/{found['associationId']}"
            yield Resource("association", name, record.get("tags", {}), remove, has_name=False)


def _load_balancing(client: Client) -> Iterator[Resource]:
    elbv2 = client("elbv2")
    for kind, operation, member, prefix in (
        ("load balancer", "describe_load_balancers", "LoadBalancers", "LoadBalancer"),
        ("target group", "describe_target_groups", "TargetGroups", "TargetGroup"),
    ):
        for found in _pages(elbv2, operation, member):
            arn, name = found[f"{prefix}Arn"], found[f"{prefix}Name"]
            (described,) = elbv2.describe_tags(ResourceArns=[arn])["TagDescriptions"]

            def remove(prefix: str = prefix, arn: str = arn) -> None:
                delete = elbv2.delete_load_balancer if prefix == "LoadBalancer" else elbv2.delete_target_group
                with _tolerating_absence():
                    delete(**{f"{prefix}Arn": arn})

            yield Resource(kind, name, _pairs(described["Tags"]), remove)


def _security_groups(client: Client) -> Iterator[Resource]:
    ec2 = client("ec2")
    for group in _pages(ec2, "describe_security_groups", "SecurityGroups"):

        def remove(identifier: str = group["GroupId"]) -> None:
            with _tolerating_absence():
                ec2.delete_security_group(GroupId=identifier)

        yield Resource("security group", group["GroupName"], _pairs(group.get("Tags", [])), remove)


def _buckets(client: Client) -> Iterator[Resource]:
    s3 = client("s3")
    for bucket in s3.list_buckets()["Buckets"]:
        name, tags = bucket["Name"], dict[str, str]()
        with _tolerating_absence():
            tags = _pairs(s3.get_bucket_tagging(Bucket=name)["TagSet"])

        def remove(name: str = name) -> None:
            with _tolerating_absence():
                for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
                    for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                        s3.delete_object(Bucket=name, Key=entry["Key"], VersionId=entry["VersionId"])
                s3.delete_bucket(Bucket=name)

        yield Resource("bucket", name, tags, remove)


def _secrets(client: Client) -> Iterator[Resource]:
    manager = client("secretsmanager")
    for secret in _pages(manager, "list_secrets", "SecretList"):

        def remove(arn: str = secret["ARN"]) -> None:
            with _tolerating_absence():
                manager.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)

        yield Resource("secret", secret["Name"], _pairs(secret.get("Tags", [])), remove)


def _tables(client: Client) -> Iterator[Resource]:
    dynamodb = client("dynamodb")
    for name in _pages(dynamodb, "list_tables", "TableNames"):
        tags = dict[str, str]()
        with _tolerating_absence():
            arn = dynamodb.describe_table(TableName=name)["Table"]["TableArn"]
            tags = _pairs(list(_pages(dynamodb, "list_tags_of_resource", "Tags", ResourceArn=arn)))

        def remove(name: str = name) -> None:
            with _tolerating_absence():
                dynamodb.delete_table(TableName=name)

        yield Resource("table", name, tags, remove)


def _oidc_providers(client: Client) -> Iterator[Resource]:
    iam = client("iam")
    for provider in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]:
        arn = provider["Arn"]
        tags = _pairs(iam.list_open_id_connect_provider_tags(OpenIDConnectProviderArn=arn)["Tags"])

        def remove(arn: str = arn) -> None:
            with _tolerating_absence():
                iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)

        yield Resource("OIDC provider", arn.partition("/")[2], tags, remove, has_name=False)


def _roles(client: Client) -> Iterator[Resource]:
    iam = client("iam")
    for role in _pages(iam, "list_roles", "Roles", PathPrefix=_PATH):
        name = role["RoleName"]

        def remove(name: str = name) -> None:
            with _tolerating_absence():
                for policy in _pages(iam, "list_role_policies", "PolicyNames", RoleName=name):
                    iam.delete_role_policy(RoleName=name, PolicyName=policy)
                for policy in _pages(iam, "list_attached_role_policies", "AttachedPolicies", RoleName=name):
                    iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
                iam.delete_role(RoleName=name)

        tags = _pairs(iam.list_role_tags(RoleName=name)["Tags"])
        yield Resource("role", name, tags, remove, path=role["Path"])


def _policies(client: Client) -> Iterator[Resource]:
    iam = client("iam")
    for policy in _pages(iam, "list_policies", "Policies", Scope="Local", PathPrefix=_PATH):
        arn = policy["Arn"]

        def remove(arn: str = arn) -> None:
            with _tolerating_absence():
                for version in _pages(iam, "list_policy_versions", "Versions", PolicyArn=arn):
                    if not version["IsDefaultVersion"]:
                        iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
                iam.delete_policy(PolicyArn=arn)

        tags = _pairs(iam.list_policy_tags(PolicyArn=arn)["Tags"])
        yield Resource("policy", policy["PolicyName"], tags, remove, path=policy["Path"])


_FINDERS: Sequence[Callable[[Client], Iterator[Resource]]] = (
    _associations,
    _load_balancing,
    _security_groups,
    _buckets,
    _secrets,
    _tables,
    _oidc_providers,
    _roles,
    _policies,
)
