"""Deterministic ports for the tests of the cloud's domain."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from harness.cloud.credentials import BASE64
from harness.cloud.ports import NamedPolicy, Organization, Role


class SettableClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = datetime(2026, 4, 10, 14, 0, tzinfo=UTC)) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the instant at which it stands."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move it."""
        self._now += timedelta(seconds=seconds)


class SeededIds:
    """The same "random" identifiers in every run."""

    def __init__(self) -> None:
        self._random = random.Random(7)  # noqa: S311 - repeatable on purpose

    def letters(self, length: int, alphabet: str) -> str:
        """Return the next letters of the sequence."""
        return "".join(self._random.choices(alphabet, k=length))

    def secret(self, kind: str, length: int) -> str:
        """Return the next letters of the sequence."""
        del kind
        return self.letters(length, BASE64)

    def uuid(self) -> str:
        """Return the next UUID of the sequence."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


@dataclass
class StoredIam:
    """Roles and users by ARN."""

    roles: dict[str, Role] = field(default_factory=dict[str, Role])
    users: Mapping[str, tuple[NamedPolicy, ...]] = field(default_factory=dict[str, tuple[NamedPolicy, ...]])
    organizations: dict[str, Organization] = field(default_factory=dict[str, Organization])

    def role(self, arn: str) -> Role | None:
        """Return the role with exactly this ARN."""
        return self.roles.get(arn)

    def user_policies(self, arn: str) -> tuple[NamedPolicy, ...] | None:
        """Return a user's policies, or None without such a user."""
        return self.users.get(arn)

    def organization(self, account: str) -> Organization | None:
        """Return the organization of an account."""
        return self.organizations.get(account)
