"""The `server` command: everything put together, started and drained (section 1.3)."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from typing import TYPE_CHECKING

import uvloop

from podid_agent.aws_settings import AWSSettings, SettingsError, load_settings, shared_credentials_file
from podid_agent.cache import CredentialCache
from podid_agent.clock import Clock
from podid_agent.config import ServerConfig
from podid_agent.credentials_endpoint import CredentialsEndpoint
from podid_agent.eks_auth import EKSAuthClient
from podid_agent.failure_summary import FailureSummary
from podid_agent.fetching import Fetcher
from podid_agent.http1_server import HTTPServer, Peer
from podid_agent.imds import InstanceMetadata
from podid_agent.journal import Journal
from podid_agent.library_logs import forward_library_logs
from podid_agent.listeners import BindError, Sockets, format_address, listen
from podid_agent.metrics import Metrics
from podid_agent.node_credentials import ChainCredentials, NodeCredentials, SharedFileCredentials
from podid_agent.probes import Probes
from podid_agent.renewal import Renewals, ThrottlePause

if TYPE_CHECKING:
    from podid_agent.local_validation import LocalValidator

__all__ = ["run_server"]

_DRAIN_TIMEOUT = 25.0
_BIND_RETRY = 5.0


def run_server(config: ServerConfig, sockets: Sockets, journal: Journal) -> int:
    """Serve on sockets that are listening until SIGTERM or SIGINT; return the exit code."""
    forward_library_logs(journal)
    try:
        settings = load_settings(os.environ, config.endpoint, journal)
    except SettingsError as error:
        journal.fatal("Unable to initialize aws configuration, exiting", {"error": str(error)})
        return 1
    if config.endpoint:
        journal.info(f"Overriding EKS Auth default endpoint with {config.endpoint}")
    uvloop.run(_Agent(config, settings, journal).run(sockets))
    return 0


async def _finish_start(client: EKSAuthClient) -> None:
    """Load the rest; what is there then stays for good, and the collector need not look at it again and again."""
    try:
        await client.prepare()
    finally:
        gc.freeze()
        gc.enable()


class _Agent:
    """One agent: its listeners share one cache, one set of calls and one renewal limiter (AGT-408)."""

    def __init__(self, config: ServerConfig, settings: AWSSettings, journal: Journal) -> None:
        self._config = config
        self._settings = settings
        self._journal = journal
        self._clock = Clock()
        self._metrics = Metrics("G2" if config.keyed_by_pod else "G1")
        self._failures = FailureSummary(journal)
        self._servers: dict[str, HTTPServer] = {}
        """Bound credentials listeners by host."""

        self._self_checks: set[Peer] = set()
        """Connections with which probes ask the listeners."""

        self._servers_beside: list[HTTPServer] = []
        """Probes and metrics."""

    async def run(self, sockets: Sockets) -> None:
        """Serve until told to stop."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        pause = ThrottlePause(self._clock.monotonic)
        client = EKSAuthClient(
            self._config.cluster_name,
            self._settings,
            self._node_credentials(),
            metrics=self._metrics,
            journal=self._journal,
            on_outcome=pause.note,
        )
        cache = self._cache()
        validator = self._validator()
        fetcher = Fetcher(
            client.assume_role_for_pod_identity,
            cache,
            self._metrics,
            self._journal,
            self._config.request_timeout,
            validate=validator.validate if validator else None,
        )
        background: list[asyncio.Task[None]] = []
        try:
            await self._start_listeners(sockets, fetcher)
            background.append(asyncio.create_task(_finish_start(client)))
            background.append(asyncio.create_task(self._bind_missing_hosts(fetcher)))
            if cache is not None:
                renewals = Renewals(
                    cache,
                    fetcher,
                    qps=self._config.max_service_qps,
                    pause=pause,
                    clock=self._clock,
                    metrics=self._metrics,
                    journal=self._journal,
                    on_forbidden=client.reload_node_credentials,
                )
                background.append(asyncio.create_task(renewals.run()))
            await stop.wait()
            await self._drain()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await fetcher.close()
            client.close()
            if validator:
                await validator.close()

    def _validator(self) -> LocalValidator | None:
        if not (self._config.keyed_by_pod and self._config.caching):
            return None
        # The default has no use for either, nor for cryptography.
        from podid_agent.cluster_keys import ClusterKeys  # noqa: PLC0415
        from podid_agent.local_validation import LocalValidator  # noqa: PLC0415

        keys = ClusterKeys(os.environ, self._config.jwks_cache, self._clock, self._journal)
        keys.start()
        return LocalValidator(keys, self._journal)

    def _node_credentials(self) -> NodeCredentials:
        if self._config.rotate_credentials:
            self._journal.info(
                "Credentials rotation enabled. Creds will be fetched and rotated from shared credentials file"
            )
            return SharedFileCredentials(shared_credentials_file(os.environ), self._clock.monotonic)
        return ChainCredentials(
            InstanceMetadata(os.environ), self._clock, self._journal, self._metrics.node_credentials_expiry.set
        )

    def _cache(self) -> CredentialCache | None:
        self._metrics.cache_capacity.set(self._config.max_cache_size if self._config.caching else 0)
        if not self._config.caching:
            return None
        return CredentialCache(self._config.max_cache_size, self._config.retention, self._clock, self._evicted)

    def _evicted(self, reason: str) -> None:
        self._metrics.cache_evictions.labels(reason).inc()
        if reason != "replaced":
            self._metrics.cache_state.labels("evicted").inc()
            self._journal.debug("Credentials evicted", {"reason": reason})

    async def _start_listeners(self, sockets: Sockets, fetcher: Fetcher) -> None:
        for host, error in sockets.missing.items():
            self._metrics.listener_up.labels(host).set(0)
            self._journal.warning(f"Not serving on {host} until the node has it: {error}", {"bind-addr": host})
        beside = [(sockets.probes, Probes(self._bound_addresses, self._self_checks))]
        if sockets.metrics is not None:
            beside.append((sockets.metrics, Probes(self._bound_addresses, self._self_checks, self._metrics)))
        for sock, probes in beside:
            server = HTTPServer(probes.handle, self._journal, max_connections=256)
            await server.start(sock)
            self._servers_beside.append(server)
        for host, sock in sockets.credentials.items():
            await self._serve(host, sock, fetcher)

    async def _serve(self, host: str, sock: socket.socket, fetcher: Fetcher) -> None:
        endpoint = CredentialsEndpoint(
            host,
            fetcher=fetcher,
            clock=self._clock,
            metrics=self._metrics,
            journal=self._journal,
            failures=self._failures,
            caching=self._config.caching,
            keyed_by_pod=self._config.keyed_by_pod,
        )
        server = HTTPServer(endpoint.handle, self._journal, always_admitted=self._self_checks)
        await server.start(sock)
        self._servers[host] = server
        self._metrics.listener_up.labels(host).set(1)
        self._journal.info("Starting server...", {"bind-addr": format_address(host, self._config.port)})

    def _bound_addresses(self) -> list[tuple[str, int]]:
        return [(host, self._config.port) for host in self._servers]

    async def _bind_missing_hosts(self, fetcher: Fetcher) -> None:
        """Serve default hosts as soon as the node has them (AGT-525)."""
        while missing := [host for host in self._config.bind_hosts if host not in self._servers]:
            await asyncio.sleep(_BIND_RETRY)
            for host in missing:
                try:
                    sock = listen(host, self._config.port)
                except BindError as error:
                    self._journal.debug(f"Still not serving on {host}: {error}", {"bind-addr": host})
                else:
                    await self._serve(host, sock, fetcher)

    async def _drain(self) -> None:
        """Finish requests in flight, for 25 s at most (AGT-152, AGT-153)."""
        self._journal.info("Shutting down server...")
        for server in self._servers.values():
            server.stop_accepting()
        waiting = [asyncio.create_task(server.wait_until_drained()) for server in self._servers.values()]
        _, late = await asyncio.wait(waiting, timeout=_DRAIN_TIMEOUT)
        for task in late:
            task.cancel()
        cut = sum(server.abort() for server in self._servers.values())
        if cut:
            self._journal.warning(f"Cut {cut} connections that did not end within {_DRAIN_TIMEOUT:g} s", {"count": cut})
        for server in self._servers_beside:
            server.stop_accepting()
            server.abort()
        for host in self._servers:
            self._journal.info("Server gracefully stopped", {"bind-addr": format_address(host, self._config.port)})
