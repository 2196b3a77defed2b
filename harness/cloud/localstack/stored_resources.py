"""What is stored behind the services, as the mapping from calls to checks asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.cloud.actions import Bucket, Key
from harness.cloud.eks import Eks
from harness.cloud.localstack import internals
from harness.cloud.localstack.iam_store import StoredIam
from harness.cloud.ports import NamedPolicy

__all__ = ["StoredResources"]

_TAGS: Mapping[str, Callable[[str, str, str], Mapping[Any, Any]]] = {
    "dynamodb": lambda account, region, arn: internals.dynamodb_tags(account, region, arn.split("/")[1]),
    "ec2": lambda account, region, arn: internals.ec2_backend(account, region).tags.get(arn.rpartition("/")[2], {}),
    "elasticloadbalancing": lambda account, region, arn: internals.elbv2_backend(
        account, region
    ).tagging_service.get_tag_dict_for_resource(arn),
    "kms": internals.kms_tags,
    "ssm": lambda account, region, arn: internals.parameter_tags(
        account, region, arn.split(":", 5)[5].removeprefix("parameter/")
    ),
}
"""Tags by service, of an account, a region and a resource's ARN."""


class StoredResources:
    """Stored resources for the mapping from calls to checks."""

    def __init__(self, eks: Eks, iam: StoredIam) -> None:
        """Keep the stores."""
        self._eks = eks
        self._iam = iam

    def bucket(self, name: str) -> Bucket | None:
        """Return a bucket of any account."""
        found: Any = internals.s3_bucket(name) if name else None
        if found is None:
            return None
        policy = NamedPolicy(f"arn:aws:s3:::{name}", str(found.policy)) if found.policy else None
        return Bucket(name, str(found.bucket_account_id), policy)

    def iam_path(self, account: str, kind: str, name: str) -> str:
        """Return the path of a role, user, group or instance profile; ``/`` when it is not there."""
        return self._iam.path(account, kind, name)

    def secret(self, account: str, region: str, secret_id: str) -> str | None:
        """Return the full ARN of the secret with this name or (partial) ARN."""
        for secret in internals.secrets(account, region):
            arn = str(secret.arn)
            if secret_id in {str(secret.name), arn} or arn.rpartition("-")[0] == secret_id:
                return arn
        return None

    def secret_policy(self, arn: str) -> NamedPolicy | None:
        """Return the resource policy of the secret with this full ARN."""
        stored = _secret(arn)
        policy: Any = getattr(stored, "policy", None)
        if not policy:
            return None
        return NamedPolicy(arn, policy if isinstance(policy, str) else json.dumps(policy))

    def secret_key(self, arn: str) -> str:
        """Return the key that the secret with this full ARN names; empty for none."""
        return str(getattr(_secret(arn), "kms_key_id", None) or "")

    def find_secrets(self, account: str, region: str, filters: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        """Return the names of the secrets that all filters of ListSecrets match."""
        found = internals.matching_secrets(account, region, filters)
        return [str(secret.name) for secret in found if not secret.is_deleted()]

    def tags(self, arn: str, version: str = "") -> Mapping[str, str]:
        """Return the stored tags of a resource, or of a version of it; empty without such a resource."""
        if arn.count(":") < 5:
            return {}
        _, _, service, region, account, resource = arn.split(":", 5)
        stored: Mapping[Any, Any] = {}
        if service == "eks":
            stored = self._eks.tags_of(arn) or {}
        elif service == "iam":
            entity = self._iam.role(arn) or self._iam.user(arn)
            stored = entity.tags if entity else {}
        elif service == "s3":
            bucket, _, key = resource.partition("/")
            stored = internals.s3_object_tags(bucket, key, version)
        elif service == "secretsmanager":
            secret = _secret(arn)
            stored = {tag["Key"]: tag["Value"] for tag in secret.tags or ()} if secret else {}
        elif service in _TAGS:
            stored = _TAGS[service](account, region, arn)
        return {str(key): str(value) for key, value in dict(stored).items()}

    def vpc_of(self, group_arn: str) -> str:
        """Return the id of the VPC of a security group; empty when it is not there."""
        _, _, _, region, account, resource = group_arn.split(":", 5)
        groups = internals.ec2_backend(account, region).groups
        group_id = resource.rpartition("/")[2]
        return next((str(vpc) for vpc, of_vpc in groups.items() if vpc and group_id in of_vpc), "")

    def partition_key(self, arn: str) -> str:
        """Return the name of the partition key of a DynamoDB table or index; empty when it is not there."""
        _, _, _, region, account, resource = [*arn.split(":", 5), *[""] * 6][:6]
        table, _, index = resource.removeprefix("table/").partition("/index/")
        schema = internals.dynamodb_key_schema(account, region, table, index) if account and region else []
        return next((str(key["AttributeName"]) for key in schema if key["KeyType"] == "HASH"), "")

    def kms_key(self, account: str, region: str, named: str, ciphertext: bytes) -> Key | None:
        """Return the key with this id, ARN, alias or alias' ARN, or, if none is named, the key of a ciphertext."""
        found = internals.kms_key(account, region, named, ciphertext)
        return Key(found[0], NamedPolicy(f"key policy of {found[0]}", found[1])) if found else None

    def addon_arn(self, cluster_arn: str, name: str) -> str:
        """Return the ARN of an add-on, with ``*`` for its identifier when it is not there."""
        cluster = self._eks.clusters.with_arn(cluster_arn)
        addon = self._eks.addons.find(cluster, name) if cluster else None
        if addon:
            return addon.arn
        return f"{cluster_arn.replace(':cluster/', ':addon/', 1)}/{name}/*"


def _secret(arn: str) -> Any | None:
    """Return moto's secret with exactly this ARN."""
    if arn.count(":") < 6:
        return None
    _, _, service, region, account, _, _ = arn.split(":", 6)
    if service != "secretsmanager" or not account.isdigit():
        return None
    return next((secret for secret in internals.secrets(account, region) if str(secret.arn) == arn), None)
