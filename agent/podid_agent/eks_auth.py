"""Calls of EKS Auth's AssumeRoleForPodIdentity (section 7)."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from yarl import URL

from podid_agent import __version__
from podid_agent.aws_settings import AWSSettings
from podid_agent.call_slots import CallSlots, Trigger
from podid_agent.credentials import PodCredentials
from podid_agent.eks_auth_answer import MAX_BODY_BYTES, read_answer
from podid_agent.errors import CannotCallError, CredentialsError, RefusedError, UnreachableError
from podid_agent.journal import Journal
from podid_agent.metrics import Metrics
from podid_agent.node_credentials import NodeCredentials
from podid_agent.node_keys import AccessKeys, NodeCredentialsError
from podid_agent.retry import RetryBudget, retry_delay

__all__ = ["EKSAuthClient"]

_ATTEMPT_TIMEOUT = 1.0
_CONNECT_TIMEOUT = 0.5
_CALL_TIMEOUT = 10.0
_MAX_CALLS = 256
_OPERATION = "operation error EKS Auth: AssumeRoleForPodIdentity, "

_CONNECTION_LOST = "EKS Auth closed the connection without an answer"

# In this order: aiohttp's errors are subclasses of one another.
_FAILURES: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    ((aiohttp.ClientConnectorDNSError,), "NameResolution", "the name of EKS Auth cannot be resolved"),
    ((aiohttp.ConnectionTimeoutError,), "ConnectTimeout", "no connection to EKS Auth within 500 ms"),
    ((TimeoutError,), "RequestTimeout", "no answer from EKS Auth within 1000 ms"),
    (
        (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError),
        "ProxyError",
        "the proxy does not connect to EKS Auth",
    ),
    ((aiohttp.ClientSSLError, ssl.SSLError), "TLSError", "the TLS handshake with EKS Auth failed"),
    (
        (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, ConnectionResetError),
        "ConnectionReset",
        _CONNECTION_LOST,
    ),
)


@dataclass(slots=True)
class _Progress:
    """What the log line of a call tells beside its outcome."""

    attempts: int = 0
    request_id: str = ""


class EKSAuthClient:
    """Fetches credentials for tokens; to be created and used inside one running event loop."""

    def __init__(
        self,
        cluster_name: str,
        settings: AWSSettings,
        node_credentials: NodeCredentials,
        *,
        metrics: Metrics,
        journal: Journal,
        on_outcome: Callable[[CredentialsError | None], object] = lambda _: None,
    ) -> None:
        """Open a connection pool; :meth:`close` it at the end.

        ``on_outcome`` is told what each call ended in, None for a success.
        """
        self._cluster_name = cluster_name
        self._settings = settings
        self._node_credentials = node_credentials
        self._metrics = metrics
        self._journal = journal
        self._on_outcome = on_outcome
        self._budget = RetryBudget()
        self._slots = CallSlots(_MAX_CALLS)
        self._session = aiohttp.ClientSession(
            # The slots bound the connections; idle ones serve the next burst (AGT-723).
            connector=aiohttp.TCPConnector(limit=0, ssl=settings.tls, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=_ATTEMPT_TIMEOUT, sock_connect=_CONNECT_TIMEOUT),
            headers={"User-Agent": f"podid-agent/{__version__}", "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connection pool."""
        await self._session.close()

    def reload_node_credentials(self) -> None:
        """Load the agent's own credentials anew before the next call (AGT-457)."""
        self._node_credentials.reload()

    async def assume_role_for_pod_identity(self, token: bytes, trigger: Trigger) -> PodCredentials:
        """Return credentials for a token.

        Raises:
            CredentialsError: There are none; see :mod:`podid_agent.errors`.
        """
        await self._slots.acquire(trigger)
        started = time.monotonic()
        progress = _Progress()
        outcome = "network"
        self._metrics.upstream_in_flight.inc()
        try:
            async with asyncio.timeout(_CALL_TIMEOUT):
                credentials = await self._call(token, progress)
            outcome = "success"
            self._on_outcome(None)
            self._journal.debug(
                "Successfully fetched credentials from EKS Auth",
                {
                    "fetched_role_arn": credentials.role_arn,
                    "fetched_role_id": credentials.role_id,
                    "association-id": credentials.association_id,
                },
            )
        except CredentialsError as error:
            outcome = error.outcome
            self._on_outcome(error)
            raise
        except TimeoutError as error:
            outcome = "timeout"
            raise UnreachableError("RequestTimeout", "no answer from EKS Auth within 10 s") from error
        else:
            return credentials
        finally:
            self._slots.release()
            self._metrics.upstream_in_flight.dec()
            self._record(trigger, outcome, progress, time.monotonic() - started)

    def _record(self, trigger: Trigger, outcome: str, progress: _Progress, seconds: float) -> None:
        self._metrics.upstream_calls.labels(trigger, self._metrics.code_label(outcome)).inc()
        self._metrics.upstream_duration.labels(trigger).observe(seconds)
        if outcome == "success":
            self._metrics.last_upstream_success.set_to_current_time()
        self._journal.info(
            "Calling EKS Auth to fetch credentials",
            {
                "trigger": trigger,
                "attempts": progress.attempts,
                "request_time_ms": round(seconds * 1000, 1),
                "outcome": outcome,
                "request-id": progress.request_id,
                "cluster-name": self._cluster_name,
                "service": "EKS Auth",
                "operation": "AssumeRoleForPodIdentity",
            },
        )

    async def _call(self, token: bytes, progress: _Progress) -> PodCredentials:
        keys = await self._keys()
        price = 0
        while True:
            progress.attempts += 1
            try:
                credentials = await self._attempt(token, keys, progress)
            except (RefusedError, UnreachableError) as error:
                self._count_attempt(error.outcome)
                if not error.retryable or progress.attempts >= self._settings.max_attempts:
                    raise
                price = self._budget.spend(after_timeout=isinstance(error, UnreachableError) and error.timed_out)
                if not price:
                    raise
                await asyncio.sleep(retry_delay(progress.attempts))
                keys = await self._keys()
            except CredentialsError as error:
                self._count_attempt(error.outcome)
                raise
            else:
                self._count_attempt("success")
                self._budget.refund(price)
                return credentials

    def _count_attempt(self, outcome: str) -> None:
        self._metrics.upstream_attempts.labels(self._metrics.code_label(outcome)).inc()

    async def _keys(self) -> AccessKeys:
        if self._settings.endpoint is None:
            raise _cannot_call(
                "failed to resolve service endpoint, endpoint rule error, Invalid Configuration: Missing Region"
            )
        try:
            return await self._node_credentials.get()
        except NodeCredentialsError as error:
            raise _cannot_call(f"get identity: get credentials: {error}") from error

    async def _attempt(self, token: bytes, keys: AccessKeys, progress: _Progress) -> PodCredentials:
        url = f"{self._settings.endpoint}/clusters/{self._cluster_name}/assume-role-for-pod-identity"
        text = token.decode("utf-8", "replace")
        body = json.dumps({"token": text}, separators=(",", ":")).encode()
        headers = _sign(url, body, keys, self._settings.region)
        try:
            async with self._session.post(
                URL(url, encoded=True), data=body, headers=headers, proxy=self._settings.proxy, allow_redirects=False
            ) as response:
                answer = await _read_body(response)
                progress.request_id = response.headers.get("x-amzn-requestid", "").replace(text, "***")
                return read_answer(response.status, response.headers, answer)
        except CredentialsError as error:
            error.hide(text, keys.access_key, keys.secret_key, keys.token)
            raise
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise _unreachable(error) from error


def _sign(url: str, body: bytes, keys: AccessKeys, region: str) -> dict[str, str]:
    request = AWSRequest(method="POST", url=url, data=body, headers={"Content-Type": "application/json"})
    SigV4Auth(ReadOnlyCredentials(keys.access_key, keys.secret_key, keys.token), "eks-auth", region).add_auth(request)
    return dict(request.headers.items())


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """Read a body, and at most one byte more than is allowed (AGT-722)."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            # The rest would have to be read before the connection could be used again.
            response.close()
            break
    return bytes(body[: MAX_BODY_BYTES + 1])


def _cannot_call(reason: str) -> CannotCallError:
    return CannotCallError(f"unable to fetch credentials from EKS Auth: {_OPERATION}{reason}")


def _unreachable(error: aiohttp.ClientError | OSError) -> UnreachableError:
    """Name the kind of a failure, without what may hold URLs or credentials (AGT-269)."""
    for types, kind, reason in _FAILURES:
        if isinstance(error, types):
            # A name that does not exist will not exist a moment later either (AGT-713).
            unknown_name = kind == "NameResolution" and _errno(error) in {socket.EAI_NONAME, socket.EAI_NODATA}
            return UnreachableError(kind, reason, retryable=not unknown_name)
    if _errno(error) in {errno.ECONNRESET, errno.EPIPE}:
        return UnreachableError("ConnectionReset", _CONNECTION_LOST)
    if _errno(error) == errno.ECONNREFUSED:
        return UnreachableError("ConnectionRefused", "EKS Auth refused the connection")
    return UnreachableError("ConnectionError", f"the connection to EKS Auth failed ({type(error).__name__})")


def _errno(error: aiohttp.ClientError | OSError) -> int | None:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return cause.errno if isinstance(cause, OSError) else None
