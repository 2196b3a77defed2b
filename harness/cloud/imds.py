"""The instance metadata service: what a node's 169.254.169.254 answers (``emulator.md`` section 9). Pure."""

from __future__ import annotations

import json
import string
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from harness.cloud.ports import Clock, Credential, Ids, Refusal

__all__ = ["Answer", "Imds", "ImdsNode", "ImdsRequest"]

_TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
_TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN_HEADER = "x-aws-ec2-metadata-token"  # noqa: S105 - a header's name
_MAX_TTL = 21600
_ROTATE_BEFORE = timedelta(minutes=55)
"""Clients refresh at 15 to 60 minutes before the end; what they get then must be new."""
_TOKEN_ALPHABET = string.ascii_letters + string.digits + "-_"


@dataclass(frozen=True, slots=True)
class ImdsNode:
    """A node and the instance it stands for."""

    name: str
    address: str
    """Source address of its requests, pods behind it included."""
    instance_id: str
    role_arn: str
    """Role of its instance profile; empty without one."""
    cluster: str
    account: str
    region: str
    availability_zone: str
    tokens_required: bool = True
    hop_limit: int = 1
    """TTL of the answer that carries a token."""
    is_enabled: bool = True
    mac: str = "02:00:00:00:00:01"
    vpc_id: str = "vpc-0a1b2c3d4e5f67890"


@dataclass(frozen=True, slots=True)
class ImdsRequest:
    """A request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    peer: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer."""

    status: int
    body: str = ""
    content_type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hop_limit: int | None = None
    """TTL of the packets that carry it; None for no limit."""


@dataclass(frozen=True, slots=True)
class _Token:
    instance_id: str
    expires_at: datetime


class Imds:
    """Metadata of all nodes of a lab, told apart by the address they ask from; safe for use by several threads."""

    def __init__(
        self,
        find_node: Callable[[str], ImdsNode | None],
        issue: Callable[[ImdsNode], Credential],
        clock: Clock,
        ids: Ids,
    ) -> None:
        """Begin without tokens.

        Args:
            find_node: Node by source address.
            issue: Makes new credentials of a node's role; raises Refusal if the role cannot be assumed.
            clock: The lab's time.
            ids: Source of tokens.
        """
        self._find_node = find_node
        self._issue = issue
        self._clock = clock
        self._ids = ids
        self._lock = threading.Lock()
        self._tokens: dict[str, _Token] = {}
        self._credentials: dict[tuple[str, str], Credential] = {}

    def reset(self) -> None:
        """Forget tokens and credentials."""
        with self._lock:
            self._tokens.clear()
            self._credentials.clear()

    def answer(self, request: ImdsRequest) -> Answer:
        """Answer one request."""
        node = self._find_node(request.peer)
        if node is None or not node.is_enabled:
            return Answer(403 if node else 404)
        path = request.path.partition("?")[0]
        if path == _TOKEN_PATH:
            return self._new_token(request, node) if request.method == "PUT" else Answer(405, headers={"Allow": "PUT"})
        if request.method not in {"GET", "HEAD"}:
            return Answer(405, headers={"Allow": "GET, HEAD"})
        if refusal := self._refused(request, node):
            return refusal
        return self._metadata(path, node)

    def _new_token(self, request: ImdsRequest, node: ImdsNode) -> Answer:
        if "x-forwarded-for" in request.headers:
            return Answer(403)
        ttl = request.headers.get(_TTL_HEADER, "")
        if not (ttl.isascii() and ttl.isdigit() and len(ttl) < 6 and 1 <= int(ttl) <= _MAX_TTL):
            return Answer(400, hop_limit=node.hop_limit)
        token = self._ids.letters(54, _TOKEN_ALPHABET) + "=="
        now = self._clock.now()
        with self._lock:
            self._tokens = {key: known for key, known in self._tokens.items() if known.expires_at > now}
            self._tokens[token] = _Token(node.instance_id, now + timedelta(seconds=int(ttl)))
        return Answer(200, token, headers={_TTL_HEADER: ttl}, hop_limit=node.hop_limit)

    def _refused(self, request: ImdsRequest, node: ImdsNode) -> Answer | None:
        token = request.headers.get(_TOKEN_HEADER)
        if token is None:
            return Answer(401) if node.tokens_required else None
        known = self._tokens.get(token)
        if known and known.instance_id == node.instance_id and known.expires_at > self._clock.now():
            return None
        return Answer(401)

    def _metadata(self, path: str, node: ImdsNode) -> Answer:
        if path == "/latest/dynamic/instance-identity/document":
            return Answer(200, json.dumps(_identity_document(node), indent=2))
        prefix = "/latest/meta-data/"
        if not path.startswith(prefix):
            return Answer(404)
        item = path.removeprefix(prefix)
        roles = "iam/security-credentials"
        role = node.role_arn.rpartition("/")[2]
        if node.role_arn and item in {roles, f"{roles}/"}:
            return Answer(200, role)
        if node.role_arn and item == f"{roles}/{role}":
            return Answer(200, json.dumps(self._credentials_document(node), indent=2))
        if node.role_arn and item == "iam/info":
            return Answer(200, json.dumps(self._iam_info(node), indent=2))
        text = _items(node).get(item)
        return Answer(404) if text is None else Answer(200, text)

    def _credentials_document(self, node: ImdsNode) -> dict[str, str]:
        try:
            credential = self._current(node)
        except Refusal:
            return {
                "Code": "AssumeRoleUnauthorizedAccess",
                "Message": "EC2 cannot assume the role. Please see documentation on trust policies of instance roles.",
                "LastUpdated": _iso(self._clock.now()),
            }
        return {
            "Code": "Success",
            "LastUpdated": _iso(credential.issued_at),
            "Type": "AWS-HMAC",
            "AccessKeyId": credential.access_key_id,
            "SecretAccessKey": credential.secret_access_key,
            "Token": credential.session_token or "",
            "Expiration": _iso(credential.expires_at or credential.issued_at),
        }

    def _current(self, node: ImdsNode) -> Credential:
        """Return the node's credentials, new ones when the old come near their end."""
        key = (node.instance_id, node.role_arn)
        with self._lock:
            known = self._credentials.get(key)
            if known and known.expires_at and known.expires_at - self._clock.now() > _ROTATE_BEFORE:
                return known
            self._credentials[key] = self._issue(node)
            return self._credentials[key]

    def _iam_info(self, node: ImdsNode) -> dict[str, str]:
        partition, name = node.role_arn.split(":")[1], node.role_arn.rpartition("/")[2]
        return {
            "Code": "Success",
            "LastUpdated": _iso(self._clock.now()),
            "InstanceProfileArn": f"arn:{partition}:iam::{node.account}:instance-profile/{name}",
            "InstanceProfileId": "AIPA" + node.instance_id.removeprefix("i-").upper()[:17],
        }


def _items(node: ImdsNode) -> dict[str, str]:
    hostname = f"ip-{node.address.replace('.', '-')}.{node.region}.compute.internal"
    return {
        "hostname": hostname,
        "instance-id": node.instance_id,
        "instance-type": "m5.large",
        "local-hostname": hostname,
        "local-ipv4": node.address,
        "mac": node.mac,
        f"network/interfaces/macs/{node.mac}/vpc-id": node.vpc_id,
        "network/interfaces/macs/": f"{node.mac}/",
        "placement/availability-zone": node.availability_zone,
        "placement/region": node.region,
        "services/domain": "amazonaws.com",
        "services/partition": "aws",
    }


def _identity_document(node: ImdsNode) -> dict[str, str]:
    return {
        "accountId": node.account,
        "architecture": "x86_64",
        "availabilityZone": node.availability_zone,
        "instanceId": node.instance_id,
        "instanceType": "m5.large",
        "privateIp": node.address,
        "region": node.region,
        "version": "2017-09-30",
    }


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
