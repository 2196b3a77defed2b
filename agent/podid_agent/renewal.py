"""Renewing cached credentials in the background (section 4.3)."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable

from podid_agent.cache import CredentialCache, Entry
from podid_agent.clock import Clock
from podid_agent.credentials import PodCredentials
from podid_agent.errors import CredentialsError, RefusedError
from podid_agent.fetching import Fetcher
from podid_agent.journal import Journal
from podid_agent.metrics import Metrics
from podid_agent.rate_limit import TokenBucket

__all__ = ["Renewals", "ThrottlePause"]

_TICK = 0.25
_FROM = {"from": "renewal-thread"}


class ThrottlePause:
    """How long renewals keep away after EKS Auth throttled: 1 s, doubling to 60 s (AGT-467)."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """Start without a pause."""
        self._monotonic = monotonic
        self._seconds = 0.0
        self._until = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether renewals must wait."""
        return self._monotonic() < self._until

    def note(self, error: CredentialsError | None) -> None:
        """Learn from the outcome of any call, None for a success."""
        if error is None:
            self._seconds = 0.0
        # Throttles of calls that were under way together count as one.
        elif isinstance(error, RefusedError) and error.throttled and not self.is_on:
            self._seconds = min(60.0, max(1.0, self._seconds * 2))
            self._until = self._monotonic() + self._seconds


class Renewals:
    """Looks through the cache every quarter of a second, and renews what is due, soonest expiry first (AGT-461).

    A scan of a full cache of 2,000 entries takes less than a millisecond, and has no second structure that could
    disagree with the cache.
    """

    def __init__(
        self,
        cache: CredentialCache,
        fetcher: Fetcher,
        *,
        qps: int,
        pause: ThrottlePause,
        clock: Clock,
        metrics: Metrics,
        journal: Journal,
        on_forbidden: Callable[[], object] = lambda: None,
    ) -> None:
        """Renew at most ``qps`` entries per second; tell ``on_forbidden`` of refusals with status 403 (AGT-457)."""
        self._cache = cache
        self._fetcher = fetcher
        self._bucket = TokenBucket(qps, qps, clock.monotonic)
        self._pause = pause
        self._clock = clock
        self._metrics = metrics
        self._journal = journal
        self._on_forbidden = on_forbidden

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 - one bad entry must not end all renewals (AGT-155)
                self._journal.error("Renewals failed", {**_FROM, "error": repr(error)})
            await asyncio.sleep(_TICK)

    def tick(self) -> None:
        """Remove what has expired and start what is due and allowed."""
        self._cache.remove_expired()
        due = self._due()
        now = self._clock.monotonic()
        self._metrics.cache_entries.set(len(self._cache))
        self._metrics.renewals_due.set(len(due))
        self._metrics.renewal_lag.set(max((now - entry.due_at for entry in due), default=0))
        for entry in sorted(due, key=lambda entry: entry.ends_at):
            if self._pause.is_on or not self._bucket.take():
                return
            entry.renewing = True
            self._fetcher.start_renewal(self._cache, entry, self._ended)

    def _due(self) -> list[Entry]:
        """Return entries to renew, after settling those that need no renewal any more."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        due: list[Entry] = []
        for entry in self._cache:
            if entry.renewing or entry.due_at > now or self._fetcher.is_under_way(entry.token):
                continue
            if entry.claims.expires_at is not None and wall >= entry.claims.expires_at:
                self._journal.info("Credentials evicted: the token has expired", {**_FROM, **entry.claims.identity})
                self._cache.remove(entry, "token_expired")
            elif entry.served_until <= now:
                # No client can be alive any more; a new one makes a call of its own (AGT-464).
                entry.due_at = math.inf
            else:
                due.append(entry)
        return due

    def _ended(self, entry: Entry, token: bytes, outcome: PodCredentials | CredentialsError) -> None:
        entry.renewing = False
        if isinstance(outcome, CredentialsError):
            self._failed(entry, token, outcome)
        elif self._cache.renew(entry, outcome):
            self._metrics.cache_state.labels("hit").inc()
        else:
            entry.due_at = self._next_try(entry)

    def _failed(self, entry: Entry, token: bytes, error: CredentialsError) -> None:
        fields = {**_FROM, **entry.claims.identity, "error": str(error)}
        # A refusal of a token that a newer one has replaced meanwhile says nothing about the pod (AGT-920).
        dropped = isinstance(error, RefusedError) and error.is_about_the_pod and token == entry.token
        self._metrics.cache_errors.labels(
            "NonRecoverable" if dropped else "Recoverable", self._metrics.code_label(error.code)
        ).inc()
        if dropped:
            # The usual end of a pod or an association, so no error (AGT-667).
            self._journal.info(
                f"Removing credentials from cache, got non recoverable error: {error.code}; "
                "the pod or its association is gone, or its token has expired",
                fields,
            )
            self._cache.remove(entry, "refused")
            return
        if error.status == 403:
            self._on_forbidden()
        entry.due_at = self._next_try(entry)
        self._journal.warning(
            f"Could not renew, will try to keep existing creds. Error is recoverable: {error.code}", fields
        )

    def _next_try(self, entry: Entry) -> float:
        delay = 60 * (1 + random.random())  # noqa: S311 - spreading load is no cryptography
        return min(self._clock.monotonic() + delay, entry.ends_at)
