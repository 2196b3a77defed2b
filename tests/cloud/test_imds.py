"""The instance metadata service (``emulator.md`` section 9)."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

import pytest

from harness.cloud.imds import Answer, Imds, ImdsNode, ImdsRequest
from harness.cloud.ports import Credential, Principal, Refusal
from harness.subject.cloud_ports import SeededIds, SettableClock

ROLE = "arn:aws:iam::123456789012:role/eks/node-role"
CREDENTIALS = "/latest/meta-data/iam/security-credentials/"
TTL = "x-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "x-aws-ec2-metadata-token"


class Instance:
    """A metadata service with one node."""

    def __init__(self, **changes: object) -> None:
        self.clock = SettableClock()
        self.issued = 0
        self.refuses = False
        values: dict[str, object] = {
            "name": "node",
            "address": "10.0.0.2",
            "instance_id": "i-0abc123def4567890",
            "role_arn": ROLE,
            "cluster": "pod-identity-lab",
            "account": "123456789012",
            "region": "eu-west-1",
            "availability_zone": "eu-west-1a",
        }
        node = ImdsNode(**(values | changes))  # type: ignore[arg-type] - values of the right types
        other = dataclasses.replace(node, address="10.0.0.3", instance_id="i-0fff")
        self.imds = Imds({node.address: node, other.address: other}.get, self.issue, self.clock, SeededIds())

    def issue(self, node: ImdsNode) -> Credential:
        if self.refuses:
            raise Refusal("AccessDenied", "no", 403)
        self.issued += 1
        principal = Principal("role-session", "arn", node.account, "id", role_arn=node.role_arn)
        now = self.clock.now()
        return Credential(f"ASIA{self.issued}", "secret", "token", principal, now, now + timedelta(hours=6))

    def call(self, path: str, method: str = "GET", peer: str = "10.0.0.2", **headers: str) -> Answer:
        return self.imds.answer(ImdsRequest(method, path, {k.replace("_", "-"): v for k, v in headers.items()}, peer))

    def token(self, ttl: str = "60") -> str:
        return self.call("/latest/api/token", "PUT", **{TTL.replace("-", "_"): ttl}).body

    def get(self, path: str, token: str | None = None) -> Answer:
        return self.call(path, **{TOKEN.replace("-", "_"): token or self.token()})


@pytest.mark.parametrize(
    ("ttl", "status"), [("1", 200), ("21600", 200), ("0", 400), ("21601", 400), ("x", 400), ("-1", 400), ("", 400)]
)
def test_token_needs_a_ttl_in_range(ttl: str, status: int) -> None:
    """EMU-IMDS-V2."""
    instance = Instance()

    assert instance.call("/latest/api/token", "PUT", **{TTL.replace("-", "_"): ttl}).status == status
    assert instance.call("/latest/api/token", "PUT").status == 400
    assert instance.call("/latest/api/token").status == 405


def test_forwarded_token_request_is_refused() -> None:
    instance = Instance()

    headers = {TTL.replace("-", "_"): "60", "x_forwarded_for": "10.1.2.3"}
    assert instance.call("/latest/api/token", "PUT", **headers).status == 403


def test_only_the_token_is_limited_in_hops() -> None:
    """EMU-IMDS-HOP."""
    instance = Instance(hop_limit=2)

    assert instance.call("/latest/api/token", "PUT", **{TTL.replace("-", "_"): "60"}).hop_limit == 2
    assert instance.get("/latest/meta-data/instance-id").hop_limit is None


def test_token_is_required_valid_and_expires() -> None:
    instance = Instance()
    token = instance.token("60")
    path = "/latest/meta-data/instance-id"

    assert instance.call(path).status == 401
    assert instance.get(path, "made-up").status == 401
    assert instance.get(path, token) == Answer(200, "i-0abc123def4567890")
    instance.clock.advance(60)
    assert instance.get(path, token).status == 401


def test_optional_tokens_serve_the_first_version_but_no_wrong_token() -> None:
    """EMU-IMDS-V1FALLBACK."""
    instance = Instance(tokens_required=False)

    assert instance.call("/latest/meta-data/instance-id").status == 200
    assert instance.get("/latest/meta-data/instance-id", "made-up").status == 401


def test_token_of_another_instance_is_invalid() -> None:
    instance = Instance()
    headers = {TOKEN.replace("-", "_"): instance.token()}

    assert instance.call("/latest/meta-data/instance-id", **headers).status == 200
    assert instance.call("/latest/meta-data/instance-id", peer="10.0.0.3", **headers).status == 401


def test_strangers_and_disabled_endpoints_get_nothing() -> None:
    assert Instance().call("/latest/api/token", "PUT", peer="10.0.0.9").status == 404
    assert Instance(is_enabled=False).call("/latest/api/token", "PUT").status == 403


def test_credentials_are_those_of_the_role() -> None:
    """EMU-IMDS-IDENTITY: the role's name has no path."""
    instance = Instance()

    assert instance.get(CREDENTIALS).body == "node-role"
    document = json.loads(instance.get(f"{CREDENTIALS}node-role").body)
    assert document == {
        "Code": "Success",
        "LastUpdated": "2026-04-10T14:00:00Z",
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIA1",
        "SecretAccessKey": "secret",
        "Token": "token",
        "Expiration": "2026-04-10T20:00:00Z",
    }
    assert instance.get(f"{CREDENTIALS}other").status == 404


def test_credentials_rotate_before_they_expire() -> None:
    """EMU-IMDS-ROTATE: whoever refreshes in the last quarter of an hour gets new ones."""
    instance = Instance()

    def key() -> str:
        return json.loads(instance.get(f"{CREDENTIALS}node-role").body)["AccessKeyId"]

    assert (key(), key()) == ("ASIA1", "ASIA1")
    instance.clock.advance(6 * 3600 - 900)
    assert key() == "ASIA2"


def test_role_that_ec2_may_not_assume_says_so() -> None:
    instance = Instance()
    instance.refuses = True

    assert json.loads(instance.get(f"{CREDENTIALS}node-role").body)["Code"] == "AssumeRoleUnauthorizedAccess"


def test_instance_without_a_role_has_no_credentials() -> None:
    assert Instance(role_arn="").get(CREDENTIALS).status == 404


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("placement/region", "eu-west-1"),
        ("placement/availability-zone", "eu-west-1a"),
        ("local-ipv4", "10.0.0.2"),
        ("hostname", "ip-10-0-0-2.eu-west-1.compute.internal"),
        ("mac", "02:00:00:00:00:01"),
        ("network/interfaces/macs/02:00:00:00:00:01/vpc-id", "vpc-0a1b2c3d4e5f67890"),
    ],
)
def test_items(path: str, value: str) -> None:
    assert Instance().get(f"/latest/meta-data/{path}") == Answer(200, value)


def test_identity_document_names_account_and_region() -> None:
    document = json.loads(Instance().get("/latest/dynamic/instance-identity/document").body)

    assert (document["accountId"], document["region"]) == ("123456789012", "eu-west-1")
    assert document["instanceId"] == "i-0abc123def4567890"


def test_unknown_paths_are_not_found() -> None:
    assert Instance().get("/latest/meta-data/nonsense").status == 404
    assert Instance().get("/").status == 404


def test_reset_forgets_tokens_and_credentials() -> None:
    instance = Instance()
    token = instance.token()
    instance.get(f"{CREDENTIALS}node-role", token)

    instance.imds.reset()

    assert instance.get("/latest/meta-data/instance-id", token).status == 401
    assert json.loads(instance.get(f"{CREDENTIALS}node-role").body)["AccessKeyId"] == "ASIA2"
