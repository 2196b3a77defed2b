"""The shape of the agent's own credentials, wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["AccessKeys", "LoadedKeys", "NodeCredentialsError"]


class NodeCredentialsError(Exception):
    """There are none; the text says why, without a secret."""


@dataclass(frozen=True, slots=True, eq=False)
class AccessKeys:
    """One set of keys."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class LoadedKeys(NamedTuple):
    """Keys, and when they end."""

    keys: AccessKeys
    expires_at: float | None
    """Seconds since the epoch; None if they do not end."""
