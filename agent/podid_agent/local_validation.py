"""Verifying a rotated token of a cached pod here, so that an outage of EKS Auth does not cost it its credentials.

Only a token that would pass at EKS Auth may take an entry over; whatever is in doubt goes there (AGT-905 to AGT-913).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from podid_agent.journal import Journal
from podid_agent.tokens import InvalidTokenError
from podid_agent.verified_token import PodToken, read_token

__all__ = ["LocalValidator", "Result", "SigningKey", "SigningKeys", "Validate"]

AUDIENCE = "pods.eks.amazonaws.com"

Result = Literal["success", "failure", "skipped"]

Validate = Callable[[bytes, bytes], Awaitable[Result]]
"""Verifies a token against that of a cache entry."""


class SigningKey(Protocol):
    """A public key of the cluster."""

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Tell whether the key made a signature, with the one algorithm it is for."""
        ...


class SigningKeys(Protocol):
    """Where public keys come from."""

    @property
    def are_available(self) -> bool:
        """Whether there is a cluster to ask, or keys from an earlier life."""
        ...

    async def find(self, key_id: str) -> SigningKey | None:
        """Return the key with an ID, looking for new ones if need be, but not for long."""
        ...

    async def close(self) -> None:
        """Stop asking the cluster."""
        ...


class LocalValidator:
    """Verifies tokens with the cluster's keys."""

    def __init__(self, keys: SigningKeys, journal: Journal) -> None:
        """Verify with ``keys``."""
        self._keys = keys
        self._journal = journal

    async def validate(self, token: bytes, known: bytes) -> Result:
        """Tell whether a token is a genuine newer one of the pod of a known token.

        Form and times have been checked; so has the UID, which is the entry's key.
        """
        if not self._keys.are_available:
            return "skipped"
        try:
            claimed = read_token(token)
            _check_owner(claimed, read_token(known))
        except InvalidTokenError as error:
            return self._failure(str(error))
        key = await self._keys.find(claimed.key_id)
        if key is None:
            return self._failure("no key of the cluster has the token's kid")
        if not key.verifies(claimed.algorithm, claimed.signed, claimed.signature):
            return self._failure("the signature does not verify")
        return "success"

    async def close(self) -> None:
        """Stop looking for keys."""
        await self._keys.close()

    def _failure(self, reason: str) -> Result:
        self._journal.debug("Local validation failed, EKS Auth decides", {"error": reason})
        return "failure"


def _check_owner(claimed: PodToken, known: PodToken) -> None:
    if AUDIENCE not in claimed.audiences:
        raise InvalidTokenError("the token is for another audience")
    for name in ("namespace", "service_account", "pod"):
        if getattr(claimed, name) != getattr(known, name):
            raise InvalidTokenError(f"the token is of another {name.replace('_', ' ')}")
