"""``/v1/credentials``: the checks of a request in their order, and its answer (sections 2.2 to 2.5)."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping
from typing import Any

from podid_agent.clock import Clock
from podid_agent.config import DEFAULT_BIND_HOSTS
from podid_agent.errors import CannotCallError, CredentialsError, InvalidAnswerError
from podid_agent.fetching import Fetcher, Source
from podid_agent.http1_request import Request
from podid_agent.http1_response import NOT_FOUND, Response, text_error
from podid_agent.journal import FailureSummary, Journal
from podid_agent.metrics import Metrics
from podid_agent.rate_limit import TokenBucket
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
        self._listener = listener
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
        exchange = _Exchange(client, self._listener)
        token = request.authorization
        try:
            claims = self._check(request, token)
            key = self._pod_uid(token) if self._keyed_by_pod else token
        except _RefusedLocallyError as refusal:
            return self._answer(exchange, text_error(refusal.status, str(refusal)), "local", error=str(refusal))
        exchange.identity = claims.identity
        credentials = self._fetcher.cached(key, token)
        if credentials is not None:
            exchange.association_id = credentials.association_id
            return self._answer(exchange, Response(200, credentials.body, "application/json"), "cache")
        return self._fetch(exchange, key, token, claims)

    def _check(self, request: Request, token: bytes) -> TokenClaims:
        host = called_host(request.host)
        if host not in DEFAULT_BIND_HOSTS:
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
        exchange.association_id = granted.credentials.association_id
        return self._answer(exchange, Response(200, granted.credentials.body, "application/json"), granted.source)

    def _answer(self, exchange: _Exchange, response: Response, source: Source, error: str = "") -> Response:
        seconds = time.monotonic() - exchange.started
        self._metrics.http_response.labels(str(response.status)).inc()
        self._metrics.request_duration.labels(str(response.status), source).observe(seconds)
        if error and not self._failures.allows(error):
            return response
        fields: dict[str, object] = {
            "client-addr": exchange.client,
            "bind-addr": exchange.listener,
            "status": response.status,
            "source": source,
            "cache-hit": int(source == "cache"),
            "request_time_ms": round(seconds * 1000, 3),
            **exchange.identity,
        }
        if exchange.association_id:
            fields["association-id"] = exchange.association_id
        if error:
            self._journal.error(f"Error fetching credentials: {error}", fields)
        else:
            self._journal.info(f"handling new request request from {exchange.client}", fields)
        return response


class _Exchange:
    """What is known of a request while it is answered."""

    __slots__ = ("association_id", "client", "identity", "listener", "started")

    def __init__(self, client: str, listener: str) -> None:
        self.client = client
        self.listener = listener
        self.started = time.monotonic()
        self.identity: Mapping[str, str] = {}
        self.association_id = ""


def called_host(host: str) -> str:
    """Remove one port and one pair of brackets from a Host value (AGT-223)."""
    if host.startswith("["):
        inside, bracket, rest = host[1:].partition("]")
        return inside if bracket and (not rest or (rest.startswith(":") and ":" not in rest[1:])) else host
    name, colon, _ = host.rpartition(":")
    # More than one colon is an address without brackets, and so without a port.
    return name if colon and ":" not in name else host
