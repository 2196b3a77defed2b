"""Calls of EKS Auth's AssumeRoleForPodIdentity (section 7)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from podid_agent.aws_settings import AWSSettings
from podid_agent.call_slots import CallSlots, Trigger
from podid_agent.credentials import PodCredentials
from podid_agent.eks_auth_answer import MAX_BODY_BYTES, read_answer
from podid_agent.errors import CannotCallError, CredentialsError, RefusedError, UnreachableError
from podid_agent.http1_client import CallError, HTTPClient, Kind
from podid_agent.journal import Journal
from podid_agent.metrics import Metrics
from podid_agent.node_credentials import NodeCredentials
from podid_agent.node_keys import AccessKeys, NodeCredentialsError
from podid_agent.retry import RetryBudget, retry_delay

__all__ = ["EKSAuthClient"]

Sign = Callable[[str, bytes, AccessKeys, str], dict[str, str]]
"""Returns the headers of a signed POST to a URL, with a body, keys and a region."""

_ATTEMPT_TIMEOUT = 1.0
_CONNECT_TIMEOUT = 0.5
_CALL_TIMEOUT = 10.0
_MAX_CALLS = 256
_OPERATION = "operation error EKS Auth: AssumeRoleForPodIdentity, "

# Without URL or credentials (AGT-269).
_REASONS: Mapping[Kind, str] = {
    "NameResolution": "the name of EKS Auth cannot be resolved",
    "ConnectTimeout": "no connection to EKS Auth within 500 ms",
    "ConnectionRefused": "EKS Auth refused the connection",
    "ConnectionReset": "EKS Auth closed the connection without an answer",
    "TLSError": "the TLS handshake with EKS Auth failed",
    "ProxyError": "the proxy does not connect to EKS Auth",
    "RequestTimeout": "no answer from EKS Auth within 1000 ms",
    "ConnectionError": "the connection to EKS Auth failed",
}


@dataclass(slots=True, eq=False)
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
        """Have a connection pool; :meth:`close` it at the end.

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
        self._signing: asyncio.Future[Sign] | None = None
        self._client = HTTPClient(
            tls=settings.tls,
            proxy=settings.proxy,
            timeout=_ATTEMPT_TIMEOUT,
            connect_timeout=_CONNECT_TIMEOUT,
            max_body_bytes=MAX_BODY_BYTES,
        )

    async def prepare(self) -> Sign:
        """Load what signs calls, in a thread: meanwhile probes are answered, and the node's credentials come in."""
        if self._signing is None:
            self._signing = asyncio.get_running_loop().run_in_executor(None, _load_signing)
        # Shielded: it belongs to all calls, not to the one that waits first.
        return await asyncio.shield(self._signing)

    def close(self) -> None:
        """Close the connection pool."""
        self._client.close()

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
            self._metrics.last_upstream_success.set(time.time())
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
        sign = await self.prepare()
        headers = sign(url, body, keys, self._settings.region)
        try:
            answer = await self._client.call("POST", url, headers, body)
            progress.request_id = answer.headers.get("x-amzn-requestid", "").replace(text, "***")
            return read_answer(answer.status, answer.headers, answer.body)
        except CredentialsError as error:
            error.hide(text, keys.access_key, keys.secret_key, keys.token)
            raise
        except CallError as error:
            raise UnreachableError(error.kind, _REASONS[error.kind], retryable=not error.is_final) from error


def _load_signing() -> Sign:
    from podid_agent.signing import sign  # noqa: PLC0415 - see prepare

    return sign


def _cannot_call(reason: str) -> CannotCallError:
    return CannotCallError(f"unable to fetch credentials from EKS Auth: {_OPERATION}{reason}")
