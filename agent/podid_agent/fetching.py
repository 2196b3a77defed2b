"""Credentials for tokens: from the cache, from a call under way, or from a new call (section 4.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from podid_agent.cache import LEAST_LIFE, CredentialCache, Entry
from podid_agent.call_slots import Trigger
from podid_agent.credentials import PodCredentials
from podid_agent.errors import CredentialsError, ExpiringError, RefusedError, UnreachableError
from podid_agent.logs import Logger
from podid_agent.metrics import Metrics
from podid_agent.tokens import TokenClaims

__all__ = ["Fetch", "Fetcher", "Granted", "Source"]

Fetch = Callable[[bytes, Trigger], Awaitable[PodCredentials]]
"""Calls EKS Auth with a token; raises CredentialsError."""

Source = Literal["cache", "upstream", "coalesced", "local"]
"""Where an answer came from; ``local`` is a refusal without a look at the cache."""


@dataclass(frozen=True, slots=True)
class Granted:
    """Credentials, and where they came from."""

    credentials: PodCredentials
    source: Source


class Fetcher:
    """Owns the calls under way: they belong to tokens, not to the clients that started them (AGT-425)."""

    def __init__(
        self,
        fetch: Fetch,
        cache: CredentialCache | None,
        metrics: Metrics,
        logger: Logger,
        request_timeout: float,
    ) -> None:
        """Serve from ``cache``, or call for each request if it is None.

        Args:
            fetch: Makes a call.
            cache: None turns caching and coalescing off (AGT-401, AGT-429).
            metrics: Counts.
            logger: Gets what happens to entries.
            request_timeout: Seconds a request waits for a call; 0 is until its end.
        """
        self._fetch = fetch
        self._cache = cache
        self._metrics = metrics
        self._logger = logger
        self._request_timeout = request_timeout or None
        self._calls: dict[bytes, asyncio.Task[PodCredentials]] = {}
        self._independent: set[asyncio.Task[PodCredentials]] = set()

    def claims(self, token: bytes) -> TokenClaims | None:
        """Return what is known of a token, so that it need not be parsed again."""
        entry = self._cache.peek(token) if self._cache is not None else None
        return entry.claims if entry else None

    def cached(self, token: bytes) -> PodCredentials | None:
        """Return credentials that can be served at once."""
        entry = self._cache.use(token) if self._cache is not None else None
        if entry is None:
            return None
        self._metrics.cache_requests.labels("hit").inc()
        self._logger.trace("Using cached credentials")
        return entry.credentials

    async def fetch(self, token: bytes, claims: TokenClaims) -> Granted:
        """Return credentials that are not cached.

        Raises:
            CredentialsError: The call failed, or has not ended in time (AGT-720).
        """
        call = self._calls.get(token)
        coalesced = call is not None
        self._metrics.cache_requests.labels("coalesced" if coalesced else "miss").inc()
        if call is None:
            call = self._start(token, claims)
        done, _ = await asyncio.wait({call}, timeout=self._request_timeout)
        if not done:
            raise UnreachableError("RequestTimeout", f"EKS Auth did not answer within {self._request_timeout:g} s")
        return Granted(call.result(), "coalesced" if coalesced else "upstream")

    def is_under_way(self, token: bytes) -> bool:
        """Whether a call for the token is being made."""
        return token in self._calls

    def start_renewal(self, entry: Entry, on_end: Callable[[Entry, PodCredentials | CredentialsError], None]) -> None:
        """Call for an entry that is due; requests that need it meanwhile share the call (AGT-427)."""
        self._own(entry.token, self._renew(entry, on_end))

    async def close(self) -> None:
        """Cancel the calls under way."""
        calls = [*self._calls.values(), *self._independent]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _start(self, token: bytes, claims: TokenClaims) -> asyncio.Task[PodCredentials]:
        if self._cache is None:
            call = asyncio.ensure_future(self._fetch(token, "request"))
            self._independent.add(call)
            call.add_done_callback(self._independent.discard)
            call.add_done_callback(_retrieve)
            return call
        self._metrics.cache_state.labels("miss").inc()
        return self._own(token, self._fetch_and_store(self._cache, token, claims))

    def _own(self, token: bytes, work: Coroutine[Any, Any, PodCredentials]) -> asyncio.Task[PodCredentials]:
        call = self._calls[token] = asyncio.create_task(work)
        call.add_done_callback(lambda _: self._calls.pop(token, None))
        call.add_done_callback(_retrieve)
        return call
