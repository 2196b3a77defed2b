"""The process: start everything, serve until told to stop, finish what runs."""

import asyncio
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
import uvloop

from podid_webhook import __version__
from podid_webhook.accounts import AccountLookup
from podid_webhook.cluster import ClusterView
from podid_webhook.configmaps import IdentitiesConfigMap
from podid_webhook.files import Contents, read_files, watch_files
from podid_webhook.http1 import HttpServer
from podid_webhook.identities import IdentitySource
from podid_webhook.instance import InstanceError, read_role_prefix
from podid_webhook.kube import KubeApi, KubeConfig, KubeConfigError, load_kube_config
from podid_webhook.logs import configure_logging
from podid_webhook.metrics import Metrics
from podid_webhook.options import Options, parse_options
from podid_webhook.server import MAX_BODY_BYTES, ReviewServer, https_handler, metrics_handler
from podid_webhook.tls import CertificateError, ServingCertificate
from podid_webhook.watch import Store, Watch

_SHUTDOWN_TIMEOUT = 10.0
_ROLES_CONFIG_MAP = "pod-identity-webhook"

_log = logging.getLogger(__name__)


class StartError(Exception):
    """The webhook cannot start. The message says why and what to do."""


def main() -> None:
    """Run the webhook; the process ends with 1 if it cannot start, with 2 for a wrong command line."""
    options = parse_options(sys.argv[1:])
    configure_logging(logging.DEBUG if options.verbosity >= 4 else logging.INFO)
    try:
        uvloop.run(Webhook(options).serve())
    except (StartError, CertificateError, KubeConfigError, InstanceError) as error:
        sys.exit(f"amazon-eks-pod-identity-webhook: {error}")


class Webhook:
    """One webhook process, put together from its options."""

    def __init__(self, options: Options) -> None:
        """Load what must be there at the start.

        Raises:
            CertificateError: If there is no usable certificate.
            KubeConfigError: If there is no usable Kubernetes configuration.
            InstanceError: If role ARNs are to be composed and the account cannot be found out.
            StartError: If the identities file cannot be read or its directory is missing.
        """
        self._options = options
        self._certificate = ServingCertificate(options.tls_cert, options.tls_key, options.tls_policy)
        self._kube: KubeConfig = load_kube_config(options.kubeconfig, options.kube_api)
        self._file_source: IdentitySource | None = None
        self._map_source: IdentitySource | None = None
        self._file_contents: Contents = ()
        if options.identities_file is not None:
            self._file_source = IdentitySource(f"identities file {options.identities_file}")
            self._file_contents = _first_read(options.identities_file)
            self._file_source.load(self._file_contents[0])
        if options.identities_config_map is not None:
            name = options.identities_config_map
            self._map_source = IdentitySource(f"identities ConfigMap {name.namespace}/{name.name}")
        self._sources = [source for source in (self._file_source, self._map_source) if source is not None]
        role_prefix = read_role_prefix(os.environ) if options.compose_role_arn else ""
        self._view = ClusterView(options.settings.annotation_prefix, self._sources, role_prefix)
        if options.lookup_grace_period >= 10:
            _log.warning("--service-account-lookup-grace-period is not below the API server's time-out of 10 s")

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish running reviews for up to 10 s (WHK-851).

        Raises:
            StartError: If a port is taken.
        """
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            api = KubeApi(self._kube, session)
            watches = self._watches(api)
            tasks = await stack.enter_async_context(_background())
            for watch in watches:
                tasks.append(asyncio.create_task(watch.run()))
            tasks.extend(self._file_watches())
            metrics = self._metrics(watches)
            await stack.enter_async_context(self._servers(api, metrics, watches))
            stopping = asyncio.create_task(stop.wait())
            # A background task never ends by itself: if one does, it failed, and so must the process.
            done, _ = await asyncio.wait((stopping, *tasks), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for task in done:
                task.result()
            _log.info("stopping")

    def _watches(self, api: KubeApi) -> list[Watch]:
        def watch(path: str, store: Store, name: str = "") -> Watch:
            return Watch(api, path, store, name=name, jitter=random.random)

        options = self._options
        watches = [watch("/api/v1/serviceaccounts", self._view.accounts)]
        if options.identities_config_map is not None and self._map_source is not None:
            name = options.identities_config_map
            path = f"/api/v1/namespaces/{name.namespace}/configmaps"
            watches.append(watch(path, IdentitiesConfigMap(self._map_source), name.name))
        if options.watch_config_map:
            path = f"/api/v1/namespaces/{options.namespace}/configmaps"
            watches.append(watch(path, self._view.roles, _ROLES_CONFIG_MAP))
        return watches

    def _file_watches(self) -> list[asyncio.Task[None]]:
        certificate = self._certificate
        tasks = [asyncio.create_task(watch_files(certificate.paths, certificate.contents, certificate.changed))]
        path, source = self._options.identities_file, self._file_source
        if path is not None and source is not None:

            def load(contents: Contents) -> None:
                source.load(contents[0])

            tasks.append(asyncio.create_task(watch_files([path], self._file_contents, load)))
        return tasks

    def _readiness(self, accounts: Watch) -> list[str]:
        reasons: list[str] = []
        if not accounts.listed:
            reasons.append(f"service accounts: {accounts.problem}")
        reasons.extend(f"{source.name}: not read yet" for source in self._sources if not source.loaded)
        if self._certificate.expires_at <= datetime.now(UTC):
            reasons.append(f"the serving certificate expired at {self._certificate.expires_at.isoformat()}")
        return reasons

    @asynccontextmanager
    async def _servers(self, api: KubeApi, metrics: Metrics, watches: Sequence[Watch]) -> AsyncGenerator[None, None]:
        options = self._options
        lookup = AccountLookup(api, self._view.accounts, options.lookup_grace_period)
        reviews = ReviewServer(self._view, options.settings, metrics, random.randint, lookup)
        https = HttpServer(
            https_handler(reviews, partial(self._readiness, watches[0]), debugging=options.debugging_handlers),
            MAX_BODY_BYTES,
        )
        plain = HttpServer(metrics_handler(metrics, self._view, debugging=options.debugging_handlers), MAX_BODY_BYTES)
        try:
            plain_socket = _listen(options.metrics_port, "--metrics-port")
            await plain.start(plain_socket)
            https_socket = _listen(options.port, "--port")
            await https.start(https_socket, self._certificate.context)
            _log.info(
                "podid-webhook %s serves https on port %d and metrics on port %d",
                __version__,
                https_socket.getsockname()[1],
                plain_socket.getsockname()[1],
            )
            yield
        finally:
            await asyncio.gather(https.close(_SHUTDOWN_TIMEOUT), plain.close(_SHUTDOWN_TIMEOUT))

    def _metrics(self, watches: Sequence[Watch]) -> Metrics:
        metrics = Metrics()
        certificate, accounts, sources = self._certificate, self._view.accounts, self._sources
        prefix = "pod_identity_webhook"
        metrics.gauge(f"{prefix}_used", "1 once any service account was cached.", lambda: float(accounts.used))
        metrics.gauge(
            f"{prefix}_certificate_expiry_seconds",
            "End of the serving certificate's validity, epoch seconds.",
            lambda: certificate.expires_at.timestamp(),  # noqa: PLW0108 - of the certificate at that time,
        )
        metrics.gauges(
            f"{prefix}_identities",
            "Identities loaded.",
            "source",
            {source.name: (lambda s=source: float(len(s.identities))) for source in sources},
        )
        metrics.gauges(
            f"{prefix}_identities_last_load_seconds",
            "When identities were loaded last, epoch seconds.",
            "source",
            {source.name: (lambda s=source: s.loaded_at) for source in sources},
        )
        metrics.gauges(
            f"{prefix}_identities_last_load_success",
            "1 if the last load was good.",
            "source",
            {source.name: (lambda s=source: float(s.last_load_ok)) for source in sources},
        )
        metrics.gauges(
            f"{prefix}_cache_synced",
            "1 while the watch of the collection is up.",
            "collection",
            {watch.path: (lambda w=watch: float(not w.problem)) for watch in watches},
        )
        return metrics


@asynccontextmanager
async def _background() -> AsyncGenerator[list[asyncio.Task[None]], None]:
    tasks: list[asyncio.Task[None]] = []
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _first_read(path: Path) -> Contents:
    if not path.parent.is_dir():
        raise StartError(f"--watch-container-credentials-config: there is no directory {path.parent}")
    try:
        return read_files([path])
    except OSError as error:
        raise StartError(f"--watch-container-credentials-config: {error}") from error


def _listen(port: int, flag: str) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise StartError(f"{flag}: cannot listen on port {port}: {error}") from error
