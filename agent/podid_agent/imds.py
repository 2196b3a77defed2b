"""The node role from the instance metadata service, version 2 (AGT-134, AGT-135).

botocore has this too, but it takes credentials that end within some minutes for a sign of an outage, and goes on using
them up to 25 minutes longer, past their end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import cast

import aiohttp

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
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        try:
            async with aiohttp.ClientSession(timeout=timeout, trust_env=False, raise_for_status=True) as session:
                lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
                async with session.put(f"{self._endpoint}/latest/api/token", headers=lifetime) as response:
                    proof = {"X-aws-ec2-metadata-token": (await response.text()).strip()}
                role = (await self._get(session, _ROLES, proof)).strip().partition("\n")[0]
                return _read(await self._get(session, f"{_ROLES}{role}", proof))
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            # Not the error's text: it could quote an answer.
            raise NodeCredentialsError(f"no EC2 IMDS role found ({type(error).__name__})") from error

    async def _get(self, session: aiohttp.ClientSession, path: str, proof: Mapping[str, str]) -> str:
        async with session.get(f"{self._endpoint}{path}", headers=proof) as response:
            return await response.text()


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
