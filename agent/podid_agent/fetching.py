"""Credentials for tokens: from the cache, from a call under way, or from a new call (section 4.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from podid_agent.cache import LEAST_LIFE, CredentialCache, Entry
from podid_agent.call_slots import Trigger
from podid_agent.credentials import PodCredentials
from podid_agent.errors import CredentialsError, ExpiringError, UnreachableError
from podid_agent.journal import Journal
from podid_agent.metrics import Metrics
from podid_agent.tokens import TokenClaims

if TYPE_CHECKING:
    from podid_agent.local_validation import Validate

__all__ = ["Fetch", "Fetcher", "Granted", "RenewalEnd", "Source"]

Fetch = Callable[[bytes, Trigger], Coroutine[Any, Any, PodCredentials]]
"""Calls EKS Auth with a token; raises CredentialsError."""

RenewalEnd = Callable[[Entry, bytes, PodCredentials | CredentialsError], None]
"""Told what a renewal with a token ended in."""

Source = Literal["cache", "upstream", "coalesced", "local"]
"""Where an answer came from; ``local`` is a refusal without a look at the cache."""


class Granted(NamedTuple):
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
        journal: Journal,
        request_timeout: float,
        *,
        validate: Validate | None = None,
    ) -> None:
        """Serve from ``cache``, or call for each request if it is None.

        Args:
            fetch: Makes a call.
            cache: None turns caching and coalescing off (AGT-401, AGT-429).
            metrics: Counts.
            journal: Gets what happens to entries.
            request_timeout: Seconds a request waits for a call; 0 is until its end.
            validate: Verifies other tokens of a cached pod; None where the token is the key.
        """
        self._fetch = fetch
        self._cache = cache
        self._metrics = metrics
        self._hits = metrics.cache_requests.labels("hit")
        self._journal = journal
        self._request_timeout = request_timeout or None
        self._validate = validate
        self._calls: dict[bytes, asyncio.Task[PodCredentials]] = {}
        self._independent: set[asyncio.Task[PodCredentials]] = set()

    def claims(self, token: bytes) -> TokenClaims | None:
        """Return what is known of a token that is a key, so that it need not be parsed again."""
        entry = self._cache.peek(token) if self._cache is not None else None
        return entry.claims if entry else None

    def cached(self, key: bytes, token: bytes) -> Entry | None:
        """Return an entry that can be served at once."""
        entry = self._cache.use(key, token) if self._cache is not None else None
        if entry is None:
            return None
        self._hits.inc()
        self._journal.trace("Using cached credentials")
        return entry

    async def fetch(self, key: bytes, token: bytes, claims: TokenClaims) -> Granted:
        """Return credentials that cannot be served at once.

        Raises:
            CredentialsError: The call failed, or has not ended in time (AGT-720).
        """
        if self._validate and await self._is_newer_token(self._validate, key, token, claims):
            entry = self.cached(key, token)
            if entry is not None:
                return Granted(entry.credentials, "cache")
        # By token, whatever the key is: nobody may wait for the answer to another's token (AGT-919).
        call = self._calls.get(token)
        coalesced = call is not None
        self._metrics.cache_requests.labels("coalesced" if coalesced else "miss").inc()
        if call is None:
            call = self._start(key, token, claims)
        done, _ = await asyncio.wait({call}, timeout=self._request_timeout)
        if not done:
            raise UnreachableError("RequestTimeout", f"EKS Auth did not answer within {self._request_timeout:g} s")
        return Granted(call.result(), "coalesced" if coalesced else "upstream")

    async def _is_newer_token(self, validate: Validate, key: bytes, token: bytes, claims: TokenClaims) -> bool:
        """Verify a token of a cached pod, and bind the entry to it if it is good (AGT-905, AGT-908)."""
        entry = self._cache.peek(key) if self._cache is not None else None
        if entry is None or self._cache is None or not self._cache.may_change_token(entry):
            return False
        result = await validate(token, entry.token)
        self._metrics.local_validation.labels(result).inc()
        if result != "success" or self._cache.peek(key) is not entry:
            return False
        self._cache.bind(entry, token, claims)
        return True

    def is_under_way(self, token: bytes) -> bool:
        """Whether a call for the token is being made."""
        return token in self._calls

    def start_renewal(self, cache: CredentialCache, entry: Entry, on_end: RenewalEnd) -> None:
        """Call for an entry that is due; requests that need it meanwhile share the call (AGT-427)."""
        self._own(entry.token, self._renew(cache, entry, on_end))

    async def close(self) -> None:
        """Cancel the calls under way."""
        calls = [*self._calls.values(), *self._independent]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _start(self, key: bytes, token: bytes, claims: TokenClaims) -> asyncio.Task[PodCredentials]:
        if self._cache is None:
            call = asyncio.create_task(self._fetch(token, "request"))
            self._independent.add(call)
            call.add_done_callback(self._independent.discard)
            call.add_done_callback(_retrieve)
            return call
        self._metrics.cache_state.labels("miss").inc()
        return self._own(token, self._fetch_and_store(self._cache, key, token, claims))

    def _own(self, token: bytes, work: Coroutine[Any, Any, PodCredentials]) -> asyncio.Task[PodCredentials]:
        call = self._calls[token] = asyncio.create_task(work)
        call.add_done_callback(lambda _: self._calls.pop(token, None))
        call.add_done_callback(_retrieve)
        return call

    async def _fetch_and_store(
        self, cache: CredentialCache, key: bytes, token: bytes, claims: TokenClaims
    ) -> PodCredentials:
        credentials = await self._fetch(token, "request")
        life = cache.life(credentials)
        _check_life(life)
        entry = cache.store(key, token, claims, credentials)
        nanoseconds = {"ttl": round(life * 1e9), "refreshTtl": round((entry.due_at - entry.ends_at + life) * 1e9)}
        self._journal.debug("Storing creds in cache", {"fetched_role_arn": credentials.role_arn, **nanoseconds})
        return credentials

    async def _renew(self, cache: CredentialCache, entry: Entry, on_end: RenewalEnd) -> PodCredentials:
        token = entry.token
        try:
            credentials = await self._fetch(token, "renewal")
            _check_life(cache.life(credentials))
        except CredentialsError as error:
            on_end(entry, token, error)
            raise
        on_end(entry, token, credentials)
        return credentials


def _check_life(seconds: float) -> None:
    if seconds <= LEAST_LIFE:
        raise ExpiringError(f"fetched credentials are expired or will expire within the next {seconds:.2f} seconds")


def _retrieve(call: asyncio.Task[PodCredentials]) -> None:
    """Look at the outcome: asyncio complains of failures that nobody saw, and all who waited may have gone."""
    if not call.cancelled():
        call.exception()
