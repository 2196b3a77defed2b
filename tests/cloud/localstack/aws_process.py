"""The running emulator as the tests of this folder see it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

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
        session = boto3.Session(region_name=region, **names)
        return session.client(service, endpoint_url=self.endpoint, config=configuration)

    def other_account(self, service: str) -> Any:
        return self.client(service, self.bootstrap.account(OTHER_ACCOUNT).administrator)
