"""The running emulator as tests see it."""

from __future__ import annotations

import http.client
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from harness.cloud.localstack.bootstrap import AccessKey, Bootstrap
from harness.cloud.localstack.control import Control

ACCOUNT = "123456789012"
OTHER_ACCOUNT = "987654321098"
REGION = "eu-west-1"
CLUSTER = "pod-identity-lab"
INSTANCE = "i-0abc123def4567890"
DAEMON_SET = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "eks-pod-identity-agent", "namespace": "kube-system"},
    "spec": {},
}


@cache
def _session() -> Any:
    """One for all clients: it reads each service model once."""
    return boto3.Session()


@dataclass(frozen=True)
class Answer:
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: str


@dataclass(frozen=True)
class Aws:
    """A running emulator."""

    endpoint: str
    imds: str
    directory: Path
    bootstrap: Bootstrap
    authority: Path
    control: Control
    process: subprocess.Popen[bytes]

    def client(self, service: str, key: Any = None, *, region: str = REGION, **config: Any) -> Any:
        """Return a boto3 client of the administrator, or of a key or STS credentials."""
        if key is None:
            key = self.bootstrap.account(ACCOUNT).administrator
        if isinstance(key, AccessKey):
            names = {"aws_access_key_id": key.access_key_id, "aws_secret_access_key": key.secret_access_key}
        else:
            lower = {name[0].lower() + name[1:]: value for name, value in key.items()}
            names = {
                "aws_access_key_id": lower["accessKeyId"],
                "aws_secret_access_key": lower["secretAccessKey"],
                "aws_session_token": lower["sessionToken"],
            }
        configuration = Config(
            signature_version="v4" if service != "s3" else "s3v4",
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            **config,
        )
        return _session().client(service, endpoint_url=self.endpoint, region_name=region, config=configuration, **names)

    def other_account(self, service: str) -> Any:
        """Return a boto3 client of the second account's administrator."""
        return self.client(service, self.bootstrap.account(OTHER_ACCOUNT).administrator)

    def send(
        self,
        method: str,
        path: str,
        *,
        host: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request as it stands, signed by nobody."""
        address = urlsplit(self.endpoint)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
        try:
            connection.request(method, path, body, {**(headers or {}), **({"Host": host} if host else {})})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read().decode())
        finally:
            connection.close()

    def send_signed(
        self,
        service: str,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        signing_name: str = "",
        key: Any = None,
    ) -> Answer:
        """Send a request of the administrator as no SDK would make it, under the real host name of the URL."""
        key = key or self.bootstrap.account(ACCOUNT).administrator
        request = AWSRequest(method, url, {"Content-Type": "application/json", **(headers or {})}, body)
        credentials = Credentials(key.access_key_id, key.secret_access_key)
        SigV4Auth(credentials, signing_name or service, REGION).add_auth(request)
        address = urlsplit(url)
        target = f"{address.path}?{address.query}" if address.query else address.path
        return self.send(method, target, host=address.netloc, body=body, headers=dict(request.headers.items()))

    def open_imds(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Ask the instance metadata service; returns status and body."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.imds + path, method=method, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def node_credentials(self) -> dict[str, str]:
        """Return what the instance metadata service gives the node."""
        _, token = self.open_imds("/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")  # noqa: S106 - a time
        base = "/latest/meta-data/iam/security-credentials/"
        _, role = self.open_imds(base, X_aws_ec2_metadata_token=token)
        data = json.loads(self.open_imds(base + role, X_aws_ec2_metadata_token=token)[1])
        return {
            "accessKeyId": data["AccessKeyId"],
            "secretAccessKey": data["SecretAccessKey"],
            "sessionToken": data["Token"],
        }


def user_key(aws: Aws, name: str, *statements: Mapping[str, Any]) -> AccessKey:
    """Make a user with these permissions and return a key of it."""
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    if statements:
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        iam.put_user_policy(UserName=name, PolicyName="inline", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return AccessKey(key["AccessKeyId"], key["SecretAccessKey"])


def refused(call: Callable[[], object]) -> tuple[int, str, str]:
    """Return status, code and text with which AWS refuses a call; fails when it does not."""
    with pytest.raises(ClientError) as error:
        call()
    response: Any = error.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]
