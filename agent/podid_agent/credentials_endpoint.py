"""``/v1/credentials``: the checks of a request in their order, and its answer (sections 2.2 to 2.5)."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any

from podid_agent.cache import log_fields
from podid_agent.clock import Clock
from podid_agent.config import DEFAULT_BIND_HOSTS
from podid_agent.errors import CannotCallError, CredentialsError, InvalidAnswerError
from podid_agent.failure_summary import FailureSummary
from podid_agent.fetching import Fetcher, Source
from podid_agent.http1_request import Request
from podid_agent.http1_response import NOT_FOUND, Response, text_error
from podid_agent.journal import Journal, encode_members, encode_text
from podid_agent.metrics import Metrics
from podid_agent.rate_limit import TokenBucket
from podid_agent.series import Distribution, Series
from podid_agent.tokens import InvalidTokenError, TokenClaims, check_times, parse_token
from podid_agent.verified_token import pod_uid

__all__ = ["CredentialsEndpoint", "called_host"]

_REQUESTS_PER_SECOND = 1000
_BURST = 500
_TOO_MANY = text_error(429, "Too Many Requests")


class _RefusedLocallyError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class CredentialsEndpoint:
    """Handles the requests of one listener; listeners share everything but the rate limit (AGT-242, AGT-408)."""

    def __init__(
        self,
        listener: str,
        *,
        fetcher: Fetcher,
        clock: Clock,
        metrics: Metrics,
        journal: Journal,
        failures: FailureSummary,
        caching: bool,
        keyed_by_pod: bool,
    ) -> None:
        """Name the listener as metrics and logs show it."""
        self._fetcher = fetcher
        self._clock = clock
        self._metrics = metrics
        self._journal = journal
        self._failures = failures
        self._limiter = TokenBucket(_REQUESTS_PER_SECOND, _BURST, clock.monotonic)
        self._rate_limited = metrics.rate_limited.labels(listener)
        self._series: dict[tuple[int, Source], tuple[Series, Distribution]] = {}
        self._listener = encode_text(listener)
        self._is_logged = journal.is_enabled("info")
        self._keyed_by_pod = keyed_by_pod
        # Upstream's cache wraps these texts, so they are longer with caching on.
        self._prefix = "error getting credentials to cache: " if caching else ""

    def handle(self, request: Request, client: str) -> Response | Coroutine[Any, Any, Response]:
        """Answer at once what needs no call, and the rest later."""
        if request.path != "/v1/credentials":
            return NOT_FOUND
        if not self._limiter.take():
            self._rate_limited.inc()
            return _TOO_MANY
        exchange = _Exchange(client)
        token = request.authorization
        try:
            claims = self._check(request, token)
            key = self._pod_uid(token) if self._keyed_by_pod else token
        except _RefusedLocallyError as refusal:
            return self._answer(exchange, text_error(refusal.status, str(refusal)), "local", error=str(refusal))
        entry = self._fetcher.cached(key, token)
        if entry is not None:
            exchange.log_members = entry.log_members
            return self._answer(exchange, entry.response, "cache")
        exchange.log_members = encode_members(claims.identity)
        return self._fetch(exchange, key, token, claims)

    def _check(self, request: Request, token: bytes) -> TokenClaims:
        if request.host not in DEFAULT_BIND_HOSTS and (host := called_host(request.host)) not in DEFAULT_BIND_HOSTS:
            allowed = " ".join(DEFAULT_BIND_HOSTS)
            reason = f"Called agent through invalid address, please use either [{allowed}] address not {host}"
            raise _RefusedLocallyError(403, f"Access Denied. {reason}")
        if not token:
            raise _RefusedLocallyError(400, "Service account token cannot be empty")
        try:
            known = None if self._keyed_by_pod else self._fetcher.claims(token)
            claims = known or parse_token(token)
        except InvalidTokenError as error:
            raise _RefusedLocallyError(400, f"Service account token cannot be parsed: {error}") from error
        try:
            check_times(claims, self._clock.wall())
        except InvalidTokenError as error:
            raise _RefusedLocallyError(400, f"Service account token failed basic claim validations: {error}") from error
        return claims

    def _pod_uid(self, token: bytes) -> bytes:
        try:
            return pod_uid(token)
        except InvalidTokenError as error:
            raise _RefusedLocallyError(400, f"failed to get pod uid from service account token: {error}") from error

    async def _fetch(self, exchange: _Exchange, key: bytes, token: bytes, claims: TokenClaims) -> Response:
        self._metrics.requests_in_flight.inc()
        try:
            granted = await self._fetcher.fetch(key, token, claims)
        except CredentialsError as error:
            wrapped = isinstance(error, InvalidAnswerError | CannotCallError)
            message = f"{self._prefix if wrapped else ''}{error}"
            return self._answer(exchange, text_error(error.status, message), "upstream", error=message)
        finally:
            self._metrics.requests_in_flight.dec()
        exchange.log_members = encode_members(log_fields(claims, granted.credentials))
        return self._answer(exchange, Response(200, granted.credentials.body, "application/json"), granted.source)

    def _answer(self, exchange: _Exchange, response: Response, source: Source, error: str = "") -> Response:
        seconds = time.monotonic() - exchange.started
        answers, durations = self._series_of(response.status, source)
        answers.inc()
        durations.observe(seconds)
        if error:
            if self._failures.allows(error):
                self._journal.write(
                    "error", f"Error fetching credentials: {error}", self._members(exchange, response, source, seconds)
                )
        elif self._is_logged:
            message = f"handling new request request from {exchange.client}"
            self._journal.write("info", message, self._members(exchange, response, source, seconds))
        return response

    def _series_of(self, status: int, source: Source) -> tuple[Series, Distribution]:
        found = self._series.get((status, source))
        if found is None:
            code = str(status)
            found = (self._metrics.http_response.labels(code), self._metrics.request_duration.labels(code, source))
            self._series[status, source] = found
        return found

    def _members(self, exchange: _Exchange, response: Response, source: Source, seconds: float) -> str:
        """Return the members of a request's log line (AGT-664), put together by hand: one is written for each hit."""
        comma = ", " if exchange.log_members else ""
        return (
            f'"client-addr": {encode_text(exchange.client)}, "bind-addr": {self._listener}, '
            f'"status": {response.status}, "source": "{source}", "cache-hit": {int(source == "cache")}, '
            f'"request_time_ms": {seconds * 1000:.3f}{comma}{exchange.log_members}'
        )


class _Exchange:
    """What is known of a request while it is answered."""

    __slots__ = ("client", "log_members", "started")

    def __init__(self, client: str) -> None:
        self.client = client
        self.started = time.monotonic()
        self.log_members = ""
        """Whose request it claims to be, as members of its log line."""


def called_host(host: str) -> str:
    """Remove one port and one pair of brackets from a Host value (AGT-223)."""
    if host.startswith("["):
        inside, bracket, rest = host[1:].partition("]")
        return inside if bracket and (not rest or (rest.startswith(":") and ":" not in rest[1:])) else host
    name, colon, _ = host.rpartition(":")
    # More than one colon is an address without brackets, and so without a port.
    return name if colon and ":" not in name else host
