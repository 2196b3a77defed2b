"""The credentials that were granted lately, by token or by pod (sections 4.1, 4.3 and 9.1).

Pure: no I/O, and the clock comes in as an argument.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from podid_agent.clock import Clock
from podid_agent.credentials import PodCredentials
from podid_agent.http1_response import Response
from podid_agent.journal import encode_members
from podid_agent.tokens import TokenClaims

__all__ = ["LEAST_LIFE", "CredentialCache", "Entry", "log_fields", "renewal_delay"]

LEAST_LIFE = 15.0
"""Credentials with so many seconds left, or fewer, are not served (AGT-404)."""


@dataclass(slots=True, eq=False)
class Entry:
    """Credentials of one token, or of one pod."""

    key: bytes = field(repr=False)
    """What identifies it: the token, or the pod's UID."""

    token: bytes = field(repr=False)
    """The token it is bound to: the one it was fetched with, or a later one of the same pod (AGT-905)."""

    claims: TokenClaims = field(repr=False)
    """Those of that token."""

    credentials: PodCredentials
    ends_at: float
    """When they expire, on the monotonic clock."""

    due_at: float
    """When they are to be renewed, likewise."""

    served_until: float
    """When the credentials last handed to a client expire, likewise (AGT-464)."""

    renewing: bool = False
    response: Response = field(init=False, repr=False)
    """The answer with these credentials, made once for all hits (AGT-1106)."""

    log_members: str = field(init=False, repr=False)
    """Whose entry it is, as members of a log line; likewise."""

    def __post_init__(self) -> None:
        self.response = Response(200, self.credentials.body, "application/json")
        self.describe()

    def describe(self) -> None:
        """Take over whose entry it is from its claims."""
        self.log_members = encode_members(log_fields(self.claims, self.credentials))


def log_fields(claims: TokenClaims, credentials: PodCredentials) -> Mapping[str, str]:
    """Return whose credentials they are as fields of a log line."""
    association_id = credentials.association_id
    return {**claims.identity, "association-id": association_id} if association_id else claims.identity


def renewal_delay(life: float, retention: float, spread: float) -> float:
    """Return the seconds after which credentials are renewed (AGT-452, AGT-453).

    Args:
        life: Seconds until they expire.
        retention: The option.
        spread: Uniform in 0 to 1; takes away up to a tenth, so that pods started together do not renew together.
    """
    return min(retention, max(life / 2, life - 20 * 60)) * (1 - spread / 10)


class CredentialCache:
    """A bounded map that forgets the least recently used entry first (AGT-406, AGT-407)."""

    def __init__(
        self,
        capacity: int,
        retention: float,
        clock: Clock,
        on_evict: Callable[[str], object] = lambda _: None,
        spread: Callable[[], float] = random.random,
    ) -> None:
        """Start empty.

        Args:
            capacity: Most entries.
            retention: Seconds after which an entry is to be renewed, at the latest.
            clock: Both clocks.
            on_evict: Told the reason of each removal.
            spread: Draws from 0 to 1, see :func:`renewal_delay`.
        """
        self._capacity = capacity
        self._retention = retention
        self._clock = clock
        self._on_evict = on_evict
        self._spread = spread
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def peek(self, key: bytes) -> Entry | None:
        """Return an entry, usable or not, without using it."""
        return self._entries.get(key)

    def use(self, key: bytes, token: bytes) -> Entry | None:
        """Return an entry that may be served to a token, and note that it was."""
        entry = self._entries.get(key)
        if entry is None or entry.token != token or not self.is_usable(entry):
            return None
        self._entries.move_to_end(key)
        entry.served_until = entry.ends_at
        return entry

    def may_change_token(self, entry: Entry) -> bool:
        """Whether a newer token of its pod may take an entry over.

        Not once the token it is bound to has expired: the pod was gone for hours, or never asked (AGT-922).
        """
        expires_at = entry.claims.expires_at
        return self.is_usable(entry) and (expires_at is None or self._clock.wall() < expires_at)

    def bind(self, entry: Entry, token: bytes, claims: TokenClaims) -> None:
        """Let an entry belong to a newer token of its pod, which somebody has verified (AGT-905, AGT-918)."""
        entry.token, entry.claims = token, claims
        entry.describe()

    def life(self, credentials: PodCredentials) -> float:
        """Return the seconds that credentials have left by the wall clock."""
        return credentials.expires_at - self._clock.wall()

    def is_usable(self, entry: Entry) -> bool:
        """Whether an entry has more than 15 s left, by both clocks: steps of one must not revive it (AGT-410)."""
        clock = self._clock
        by_wall = entry.credentials.expires_at - clock.wall() > LEAST_LIFE
        return by_wall and entry.ends_at - clock.monotonic() > LEAST_LIFE

    def store(self, key: bytes, token: bytes, claims: TokenClaims, credentials: PodCredentials) -> Entry:
        """Add or replace what a request fetched, as used."""
        entry = self._entry(key, token, claims, credentials)
        if self._entries.pop(key, None):
            self._on_evict("replaced")
        self._entries[key] = entry
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
            self._on_evict("capacity")
        return entry

    def renew(self, entry: Entry, credentials: PodCredentials) -> bool:
        """Replace what a renewal fetched; False if the entry is gone or would expire earlier (AGT-465)."""
        if self._entries.get(entry.key) is not entry or credentials.expires_at < entry.credentials.expires_at:
            return False
        renewed = self._entry(entry.key, entry.token, entry.claims, credentials)
        renewed.served_until = entry.served_until
        self._entries[entry.key] = renewed
        return True

    def remove(self, entry: Entry, reason: str) -> None:
        """Remove an entry, unless it is gone or replaced already."""
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            self._on_evict(reason)

    def remove_expired(self) -> None:
        """Remove what can never be served again (AGT-466)."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        for entry in self:
            if entry.ends_at <= now or entry.credentials.expires_at <= wall:
                self.remove(entry, "expired")

    def _entry(self, key: bytes, token: bytes, claims: TokenClaims, credentials: PodCredentials) -> Entry:
        now = self._clock.monotonic()
        life = self.life(credentials)
        return Entry(
            key,
            token,
            claims,
            credentials,
            ends_at=now + life,
            due_at=now + renewal_delay(life, self._retention, self._spread()),
            served_until=now + life,
        )
