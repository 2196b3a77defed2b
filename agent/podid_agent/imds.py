"""The node role from the instance metadata service, version 2 (AGT-134, AGT-135).

botocore has this too, but it takes credentials that end within some minutes for a sign of an outage, and goes on using
them up to 25 minutes longer, past their end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import cast

from podid_agent.http1_client import CallError, HTTPClient
from podid_agent.node_keys import AccessKeys, LoadedKeys, NodeCredentialsError

__all__ = ["InstanceMetadata"]

_TIMEOUT = 1.0
_ROLES = "/latest/meta-data/iam/security-credentials/"
_MEMBERS = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")


class InstanceMetadata:
    """Asks the metadata service, without any proxy (AGT-734)."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take the endpoint from the variables that all SDKs know."""
        self._disabled = environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
        ipv6 = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower() == "ipv6"
        default = "http://[fd00:ec2::254]" if ipv6 else "http://169.254.169.254"
        self._endpoint = (environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or default).rstrip("/")

    async def load(self) -> LoadedKeys:
        """Return the keys of the node role.

        Raises:
            NodeCredentialsError: There is no service, no role, or no sense in the answer.
        """
        if self._disabled:
            raise NodeCredentialsError("none in environment, shared files or web identity, and IMDS is disabled")
        try:
            async with HTTPClient(timeout=_TIMEOUT) as client:
                lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
                session = await self._ask(client, "PUT", "/latest/api/token", lifetime)
                proof = {"X-aws-ec2-metadata-token": session.strip()}
                role = (await self._ask(client, "GET", _ROLES, proof)).strip().partition("\n")[0]
                return _read(await self._ask(client, "GET", f"{_ROLES}{role}", proof))
        except (CallError, ValueError) as error:
            # Not the error's text: it could quote an answer.
            reason = error.kind if isinstance(error, CallError) else type(error).__name__
            raise NodeCredentialsError(f"no EC2 IMDS role found ({reason})") from error

    async def _ask(self, client: HTTPClient, method: str, path: str, headers: Mapping[str, str]) -> str:
        answer = await client.call(method, f"{self._endpoint}{path}", headers)
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        return answer.body.decode()


def _read(text: str) -> LoadedKeys:
    """Read an answer.

    Raises:
        ValueError: It holds no credentials.
    """
    answer: object = json.loads(text)
    if not isinstance(answer, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for every senseless answer
    members = [cast("dict[str, object]", answer).get(name) for name in _MEMBERS]
    if not all(isinstance(member, str) and member for member in members):
        raise ValueError("a member is missing")
    access_key, secret_key, token, expiration = map(str, members)
    return LoadedKeys(AccessKeys(access_key, secret_key, token), datetime.fromisoformat(expiration).timestamp())
