"""Manners in an account of AWS that is somebody else's: what a run makes carries its mark, the rest stays as it is.

One place sees every call of the harness's clients, as :mod:`harness.tenancy` does for a cluster: the guide's names
become the run's on their way to AWS, what is created gets tags, a path and a permissions boundary, and a call that
would change what is not this run's never leaves (HRN-EXT-09, HRN-EXT-10).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from botocore import xform_name

from harness.errors import MissingPrerequisite
from harness.tenancy import Mark

__all__ = ["GUIDE_ACCOUNT", "GUIDE_REGION", "AccountTenancy", "Made", "Record", "is_allowed"]

Parameters = dict[str, Any]

GUIDE_ACCOUNT = "123456789012"
GUIDE_REGION = "eu-west-1"
_READS = re.compile(r"(BatchGet|Describe|Get|Head|List|Query|Scan|Simulate)[A-Z]")
_NOT_IN_TAGS = re.compile(r"[^\w .:/=+@-]")


@dataclass(frozen=True, slots=True)
class _Write:
    """How an operation that changes something is made this run's."""

    names: str = ""
    """Member that names what is changed: a name of the guide becomes one of the run."""
    knows: str = ""
    """Member that must identify something that this run made, as AWS chose its name."""
    tags: Literal["", "Tags", "tags"] = ""
    """Member that takes tags: a list of pairs, or in EKS a mapping."""
    has_path: bool = False
    makes: str = ""
    removes: str = ""


_WRITES: Mapping[str, _Write] = {
    "iam CreateRole": _Write("RoleName", tags="Tags", has_path=True, makes="role"),
    "iam DeleteRole": _Write("RoleName", removes="role"),
    "iam UpdateAssumeRolePolicy": _Write("RoleName"),
    "iam AttachRolePolicy": _Write("RoleName"),
    "iam DetachRolePolicy": _Write("RoleName"),
    "iam CreatePolicy": _Write("PolicyName", tags="Tags", has_path=True, makes="policy"),
    "iam DeletePolicy": _Write(knows="PolicyArn", removes="policy"),
    "iam CreatePolicyVersion": _Write(knows="PolicyArn"),
    "iam SetDefaultPolicyVersion": _Write(knows="PolicyArn"),
    "iam DeletePolicyVersion": _Write(knows="PolicyArn"),
    "iam CreateOpenIDConnectProvider": _Write(tags="Tags", makes="OIDC provider"),
    "iam DeleteOpenIDConnectProvider": _Write(knows="OpenIDConnectProviderArn", removes="OIDC provider"),
    "s3 CreateBucket": _Write("Bucket", makes="bucket"),
    "s3 PutBucketTagging": _Write("Bucket"),
    "s3 DeleteBucket": _Write("Bucket", removes="bucket"),
    "s3 PutObject": _Write("Bucket"),
    "s3 DeleteObject": _Write("Bucket"),
    "eks CreatePodIdentityAssociation": _Write(tags="tags", makes="association"),
    "eks UpdatePodIdentityAssociation": _Write(knows="associationId"),
    "eks DeletePodIdentityAssociation": _Write(knows="associationId", removes="association"),
    "secretsmanager CreateSecret": _Write("Name", tags="Tags", makes="secret"),
    "secretsmanager DeleteSecret": _Write("SecretId", removes="secret"),
    "dynamodb CreateTable": _Write("TableName", tags="Tags", makes="table"),
    "dynamodb DeleteTable": _Write("TableName", removes="table"),
    "dynamodb PutItem": _Write("TableName"),
    # They make sessions, and change nothing.
    "sts AssumeRole": _Write(),
    "sts AssumeRoleWithWebIdentity": _Write(),
}
"""Service and operation → what becomes of it; another one that does not only read is refused."""
_NAMES = ("RoleName", "PolicyName", "Bucket", "SecretId", "TableName")
_IDENTIFIERS: Mapping[str, Callable[[Parameters, Parameters], tuple[str, str]]] = {
    "role": lambda asked, _: (asked["RoleName"], asked["RoleName"]),
    "policy": lambda asked, answer: (asked["PolicyName"], answer["Policy"]["Arn"]),
    "OIDC provider": lambda asked, answer: (
        asked["Url"].removeprefix("https://"),
        answer["OpenIDConnectProviderArn"],
    ),
    "bucket": lambda asked, _: (asked["Bucket"], asked["Bucket"]),
    "association": lambda asked, answer: (
        f"{asked['namespace']}/{asked['serviceAccount']}",
        answer["association"]["associationId"],
    ),
    "secret": lambda asked, _: (asked["Name"], asked["Name"]),
    "table": lambda asked, _: (asked["TableName"], asked["TableName"]),
}
"""Kind → its name, and what identifies it when it is removed, of a call's members and answer."""


def _call(service: str, operation: str) -> str:
    """Return an operation as SDKs name it, such as ``iam create_role``."""
    return f"{service} {cast('Any', xform_name)(operation)}"


def is_allowed(call: str) -> bool:
    """Tell whether a run may call an operation in somebody's account, such as ``iam create_role``."""
    service, _, method = call.partition(" ")
    reads = _READS.match(method.title().replace("_", ""))
    return bool(reads) or call in {_call(service, name.partition(" ")[2]) for name in _WRITES}


@dataclass(slots=True)
class Made:
    """A resource that a run made."""

    kind: str
    name: str
    identifier: str
    made_at: str
    removed_at: str = ""

    def __str__(self) -> str:
        """Name it with its times."""
        return f"{self.kind} {self.name} ({self.made_at} to {self.removed_at or 'now: NOT REMOVED'})"


class Record:
    """What a run made and removed in an account, and which operations it called; on disk after every change."""

    def __init__(self, file: Path) -> None:
        """Attach to a file, which need not exist."""
        self._file = file
        data: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"made": [], "calls": []}
        self.made = [Made(**entry) for entry in data["made"]]
        self.calls: set[str] = set(data["calls"])

    def note(self, operation: str, kinds: tuple[str, str], asked: Parameters, answer: Parameters) -> None:
        """Take note of a call that AWS did.

        Args:
            operation: Service and operation, such as ``iam create_role``.
            kinds: Kind of what it made, and of what it removed; empty for none.
            asked: Its members.
            answer: AWS's answer.
        """
        makes, removes = kinds
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if makes:
            self.made.append(Made(makes, *_IDENTIFIERS[makes](asked, answer), now))
        for one in self.made if removes else ():
            if one.kind == removes and one.identifier in asked.values():
                one.removed_at = one.removed_at or now
        if makes or removes or operation not in self.calls:
            self.calls.add(operation)
            self._write()

    def _write(self) -> None:
        made = [{name: getattr(one, name) for name in Made.__slots__} for one in self.made]
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"made": made, "calls": sorted(self.calls)}, indent=1))
        new.replace(self._file)

    def knows(self, identifier: str) -> bool:
        """Tell whether something was made by this run."""
        return any(one.identifier == identifier for one in self.made)

    def left(self) -> list[Made]:
        """Return what was made and not removed."""
        return [one for one in self.made if not one.removed_at]


@dataclass(frozen=True, slots=True)
class AccountTenancy:
    """What the harness does to its own resources in somebody else's account."""

    mark: Mark
    account: str
    region: str
    cluster: str
    """Name of the EKS cluster whose associations may be made."""
    boundary: str
    """ARN of the permissions boundary of every role that is made (HRN-EXT-10)."""
    record: Record = field(repr=False)

    @property
    def prefix(self) -> str:
        """What the name of everything begins with."""
        return f"podid-{self.mark.run}-"

    @property
    def path(self) -> str:
        """Path of what is IAM's."""
        return f"/podid/{self.mark.run}/"

    @property
    def tags(self) -> dict[str, str]:
        """The run's four tags, in characters that every service takes."""
        return {key: _NOT_IN_TAGS.sub(".", value) for key, value in self.mark.tags.items()}

    def name(self, name: str) -> str:
        """Return the run's name for one of the guide; a name of the run stays."""
        return name if name.startswith(self.prefix) else self.prefix + name

    def text(self, text: str) -> str:
        """Return a document, ARN or URL of the guide as it reads in this account, with the run's names."""
        accounts = f"(?:{GUIDE_ACCOUNT}|{self.account})"
        iam = rf"(arn:aws:iam::{accounts}:(?:role|policy)/)(?!podid/)([\w+=,.@-]+)"
        regional = rf"(arn:aws:(?:dynamodb|secretsmanager):[a-z0-9-]+:{accounts}:(?:table/|secret:))([\w/+=.@-]+)"
        session = rf"(arn:aws:sts::{accounts}:assumed-role/)([\w+=,.@-]+)"
        bucket = r"(arn:aws:s3:::|s3://)([a-z0-9][a-z0-9.-]+)"
        text = re.sub(iam, lambda found: f"{found[1]}{self.path[1:]}{self.name(found[2])}", text)
        for pattern in (regional, session, bucket):
            text = re.sub(pattern, lambda found: found[1] + self.name(found[2]), text)
        text = re.sub(rf"(arn:aws:[a-z0-9-]+:){GUIDE_REGION}:", rf"\g<1>{self.region}:", text)
        return re.sub(rf"(arn:aws:[a-z0-9-]+:[a-z0-9-]*:){GUIDE_ACCOUNT}:", rf"\g<1>{self.account}:", text)

    def adapted(self, service: str, operation: str, asked: Parameters) -> Parameters:
        """Return a call's members as this run may send them.

        Args:
            service: As SDKs name it.
            operation: Its operation, as the API has it.
            asked: Its members.

        Raises:
            MissingPrerequisite: It would change what is not this run's.
        """
        write = _WRITES.get(f"{service} {operation}")
        if write is None and not _READS.match(operation):
            self._refuse(f"{service}:{operation}", "is nothing that a run does in somebody else's account")
        sent = {key: self._translated(value) for key, value in asked.items()}
        for member in {*_NAMES, *([write.names] if write and write.names else ())} & sent.keys():
            sent[member] = sent[member] if ":" in sent[member] else self.name(sent[member])
        if write is None:
            return sent
        if write.knows and not self._is_ours(str(sent.get(write.knows))):
            self._refuse(f"{service}:{operation}", f"is about {sent.get(write.knows)}, which this run did not make")
        if sent.get("clusterName", self.cluster) != self.cluster:
            self._refuse(f"{service}:{operation}", f"is about cluster {sent['clusterName']}, not {self.cluster}")
        if write.has_path:
            sent["Path"] = self.path
        if write.tags == "tags":
            sent["tags"] = sent.get("tags", {}) | self.tags
        elif write.tags:
            sent["Tags"] = [*sent.get("Tags", []), *({"Key": key, "Value": self.tags[key]} for key in self.tags)]
        if write.makes == "role":
            sent["PermissionsBoundary"] = self.boundary
        return sent

    def _translated(self, value: Any) -> Any:
        return self.text(value) if isinstance(value, str) else value

    def _is_ours(self, identifier: str) -> bool:
        return self.record.knows(identifier) or f":policy{self.path}{self.prefix}" in identifier

    def _refuse(self, call: str, why: str) -> None:
        raise MissingPrerequisite(
            f"{call} {why}",
            hint="run this scenario in a lab, whose AWS is its own: --provider native or --provider kind",
            kind="backend-unsupported",
        )

    def watch(self, client: Any) -> None:
        """Let every call of a boto3 client pass through here."""
        client.meta.events.register("provide-client-params", self._before)
        client.meta.events.register("after-call", self._after)

    def _before(self, params: Parameters, model: Any, context: dict[str, Any], **_: object) -> Parameters:
        sent = self.adapted(model.service_model.service_name, model.name, params)
        context["podid"] = sent
        return sent

    def _after(self, http_response: Any, parsed: Parameters, model: Any, context: dict[str, Any], **_: object) -> None:
        service = model.service_model.service_name
        write = _WRITES.get(f"{service} {model.name}", _Write())
        done = http_response.status_code < 300
        kinds = (write.makes, write.removes) if done else ("", "")
        self.record.note(_call(service, model.name), kinds, context["podid"], parsed)
