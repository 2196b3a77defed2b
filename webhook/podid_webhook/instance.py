"""The account and partition that the node runs in, for ``--compose-role-arn`` (WHK-410).

They are in the instance identity document of the metadata service, which needs no credentials.
"""

import http.client
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from podid_webhook.jsontext import decode

_ENDPOINT = "http://169.254.169.254"
_ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""Moves the endpoint, as for AWS's SDKs."""
_TIMEOUT_SECONDS = 5
_PARTITIONS = {
    "cn-": "aws-cn",
    "us-gov-": "aws-us-gov",
    "us-iso-": "aws-iso",
    "us-isob-": "aws-iso-b",
    "eusc-": "aws-eusc",
}


class InstanceError(Exception):
    """The metadata service did not give the instance identity document."""


def role_prefix(account: str, region: str) -> str:
    """Return what makes an ARN of a role's path and name."""
    partition = next((value for prefix, value in _PARTITIONS.items() if region.startswith(prefix)), "aws")
    return f"arn:{partition}:iam::{account}:role/"


def read_role_prefix(environment: Mapping[str, str]) -> str:
    """Ask the metadata service, and return the prefix of the ARNs of the account's roles.

    Raises:
        InstanceError: If it does not answer, or not with the document.
    """
    endpoint = urlsplit(environment.get(_ENDPOINT_VARIABLE) or _ENDPOINT)
    try:
        token = _ask(endpoint, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}).decode()
        path = "/latest/dynamic/instance-identity/document"
        document = decode(_ask(endpoint, "GET", path, {"X-aws-ec2-metadata-token": token}))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InstanceError(f"no instance identity document from {endpoint.geturl()}: {error}") from error
    account, region = (
        (document.get("accountId"), document.get("region")) if isinstance(document, dict) else (None, None)
    )
    if not isinstance(account, str) or not isinstance(region, str):
        raise InstanceError(f"the instance identity document of {endpoint.geturl()} lacks accountId or region")
    return role_prefix(account, region)


def _ask(endpoint: SplitResult, method: str, path: str, headers: Mapping[str, str]) -> bytes:
    connection = http.client.HTTPConnection(endpoint.hostname or "", endpoint.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"{method} {path} is answered with {answer.status}")
    return body
