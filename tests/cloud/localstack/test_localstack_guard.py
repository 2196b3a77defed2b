"""What the process serves beside AWS, and what gets past nobody."""

from __future__ import annotations

import json
import socket
import ssl
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from harness.subject.aws import OTHER_ACCOUNT, Aws, refused


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/_localstack/health"),
        ("GET", "/_localstack/info"),
        ("GET", "/_localstack/diagnose"),
        ("GET", "/_aws/ses"),
        ("POST", "/_localstack/health?x=1"),
    ],
)
def test_developer_routes_are_refused(aws: Aws, method: str, path: str) -> None:
    status = aws.send(method, path, body=b'{"action": "kill"}').status

    assert status == 403
    assert aws.process.poll() is None


def test_health_is_public(aws: Aws) -> None:
    answer = aws.send("GET", "/_localstack/health")

    assert answer.status == 200
    assert json.loads(answer.body)["version"] == "4.14.0"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}])
def test_control_route_needs_the_secret(aws: Aws, headers: dict[str, str]) -> None:
    assert aws.send("GET", "/_podid/journal", headers=headers).status == 401
    assert aws.send("POST", "/_podid/reset", headers=headers).status == 401


def test_forged_account_header_changes_nothing(aws: Aws) -> None:
    secrets = aws.other_account("secretsmanager")
    secrets.create_secret(Name="of-the-other-account", SecretString="s")
    client = aws.client("secretsmanager")
    client.meta.events.register(
        "before-sign", lambda request, **_: request.headers.add_header("x-moto-account-id", OTHER_ACCOUNT)
    )

    assert client.list_secrets()["SecretList"] == []


def test_region_outside_the_partition_is_refused(aws: Aws) -> None:
    assert refused(lambda: aws.client("sts", region="cn-north-1").get_caller_identity())[:2] == (
        403,
        "SignatureDoesNotMatch",
    )


def test_real_host_names_answer_over_tls(aws: Aws) -> None:
    """With the real name in SNI and Host, and the lab's CA, the certificate verifies."""
    context = ssl.create_default_context(cafile=str(aws.authority))
    port = urlsplit(aws.endpoint).port
    for name in ("sts.eu-west-1.amazonaws.com", "eks-auth.eu-west-1.api.aws", "b.s3.eu-west-1.amazonaws.com"):
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            assert tls.recv(12) == b"HTTP/1.1 403"


def test_temporary_keys_of_a_user_cannot_call_iam(aws: Aws) -> None:
    credentials = aws.client("sts").get_session_token(DurationSeconds=900)["Credentials"]

    assert aws.client("s3", credentials).list_buckets()["Buckets"] == []
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        aws.client("iam", credentials).list_roles()
    with pytest.raises(ClientError, match="Cannot call GetSessionToken with session credentials"):
        aws.client("sts", credentials).get_session_token()
