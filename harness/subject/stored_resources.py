"""What is stored behind the services, as a test arranges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.cloud.actions import Bucket, Key
from harness.cloud.ports import NamedPolicy

__all__ = ["EVERY_TAG", "STORED", "Stored"]

ACCOUNT = "123456789012"
HERE = (ACCOUNT, "eu-west-1")
CLUSTER = f"arn:aws:eks:eu-west-1:{ACCOUNT}:cluster/pod-identity-lab"
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234"
EVERY_TAG = tuple(
    f"{service}:{kind}tag/x"
    for service in ("aws", "ec2", "elasticloadbalancing", "iam", "s3", "secretsmanager", "ssm")
    for kind in ("resource", "existingobject")
)
"""Keys of policies that look at every kind of stored tag."""


@dataclass
class Stored:
    """Stored resources."""

    buckets: dict[str, Bucket] = field(default_factory=dict[str, Bucket])
    paths: dict[str, str] = field(default_factory=dict[str, str])
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    stored_tags: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    def bucket(self, name: str) -> Bucket | None:
        """Return a bucket of any account."""
        return self.buckets.get(name)

    def iam_path(self, account: str, kind: str, name: str) -> str:
        """Return the path of an entity."""
        return self.paths.get(f"{kind}/{name}", "/") if account == ACCOUNT else "/"

    def secret(self, account: str, region: str, secret_id: str) -> str | None:
        """Return the ARN of a secret."""
        return self.secrets.get(secret_id) if (account, region) == HERE else None

    def secret_policy(self, arn: str) -> NamedPolicy | None:
        """Return the policy of a secret."""
        return NamedPolicy(arn, "{}") if arn in self.secrets.values() else None

    def secret_key(self, arn: str) -> str:
        """Return the key of a secret."""
        return "alias/app" if arn and arn == self.secrets.get("demo/sealed") else ""

    def find_secrets(self, account: str, region: str, filters: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        """Return all secrets."""
        is_ours = (account, region, filters) == (*HERE, [{"Key": "name", "Values": ["demo/"]}])
        return list(self.secrets) if is_ours else []

    def tags(self, arn: str, version: str = "") -> Mapping[str, str]:
        """Return the tags of a resource."""
        return self.stored_tags.get(f"{arn}@{version}" if version else arn, {})

    def vpc_of(self, group_arn: str) -> str:
        """Return the VPC that all security groups are in but those that are absent."""
        return "" if group_arn.endswith("/absent") else "vpc-0a1"

    def partition_key(self, arn: str) -> str:
        """Return the partition key of a table or index."""
        return {"notes": "tenant", "by-day": "day"}.get(arn.rpartition("/")[2], "")

    def kms_key(self, account: str, region: str, named: str, ciphertext: bytes) -> Key | None:
        """Return the one key that there is."""
        is_known = named in {KEY, "alias/app", "1234"} or (not named and ciphertext == b"by 1234")
        return Key(KEY, NamedPolicy("key policy", "{}")) if is_known and (account, region) == HERE else None

    def addon_arn(self, cluster_arn: str, name: str) -> str:
        """Return the ARN of an add-on."""
        return f"{cluster_arn.replace(':cluster/', ':addon/')}/{name}/*"


NOTES = Bucket("notes", ACCOUNT, NamedPolicy("arn:aws:s3:::notes", "{}"))
STORED = Stored(
    buckets={"notes": NOTES, "src": Bucket("src", "987654321098", None)},
    paths={"role/reader": "/team/"},
    secrets={"demo/app-config": f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:demo/app-config-Qm3vXa"},
    stored_tags={CLUSTER: {"env": "lab"}, "arn:aws:s3:::notes/tagged": {"team": "a"}},
)
