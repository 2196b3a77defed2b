"""How to reach the Kubernetes API: in-cluster configuration or a kubeconfig, and one small client on top.

The webhook lists and watches two kinds of objects; a Kubernetes library would be most of its image and of its start.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import aiohttp
import yaml

from podid_webhook.jsontext import Json, JsonObject, decode

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeConfigError(Exception):
    """There is no usable Kubernetes configuration."""


class ApiError(Exception):
    """The API server answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class KubeConfig:
    """One API server and the identity to use with it."""

    server: str
    tls: ssl.SSLContext | None
    """None for a plain http server."""
    tls_server_name: str | None = None
    token: Callable[[], str | None] = field(default=lambda: None)
    """Read for every request: projected tokens are replaced while in use."""


def load_kube_config(kubeconfig: str, kube_api: str) -> KubeConfig:
    """Find the configuration as upstream's flags say.

    Args:
        kubeconfig: Path of a kubeconfig, or empty.
        kube_api: URL of an API server that overrides the kubeconfig's, or empty. Both empty mean in-cluster.

    Raises:
        KubeConfigError: If it is missing, incomplete or uses what is not supported (exec and auth-provider plugins).
    """
    try:
        if kubeconfig:
            return _from_file(Path(kubeconfig), kube_api)
        if kube_api:
            tls = _tls_context() if kube_api.startswith("https://") else None
            return KubeConfig(server=kube_api.rstrip("/"), tls=tls)
        return _in_cluster()
    except (OSError, yaml.YAMLError, binascii.Error, ValueError) as error:
        raise KubeConfigError(f"{kubeconfig or 'in-cluster configuration'}: {error}") from error


def _in_cluster() -> KubeConfig:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise KubeConfigError(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: not in a cluster; give --kubeconfig"
        )
    tls = _tls_context(cafile=_SERVICE_ACCOUNT / "ca.crt")
    bracketed = f"[{host}]" if ":" in host else host
    return KubeConfig(f"https://{bracketed}:{port}", tls, token=_token_file(_SERVICE_ACCOUNT / "token"))


def _tls_context(*, cafile: Path | None = None, cadata: str | None = None) -> ssl.SSLContext:
    """Trust the given CA, or else those of the system."""
    tls = ssl.create_default_context(cafile=cafile, cadata=cadata)
    # From Python 3.13 on the default refuses certificates without an authority key identifier, among others; clusters
    # with such certificates work with Go's clients.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return tls


def _token_file(path: Path) -> Callable[[], str]:
    path.read_text()  # fails now rather than at every request
    return lambda: path.read_text().strip()


class _Section:
    """A mapping of a kubeconfig, with typed access to its members."""

    def __init__(self, value: Json, where: str, directory: Path) -> None:
        if not isinstance(value, dict):
            raise KubeConfigError(f"{where} is missing or no mapping")
        self._value = value
        self.where = where
        self._directory = directory

    def text(self, key: str) -> str:
        value = self._value.get(key)
        if value is not None and not isinstance(value, str):
            raise KubeConfigError(f"{self.where}.{key} must be a string")
        return value or ""

    def flag(self, key: str) -> bool:
        return self._value.get(key) is True

    def has(self, key: str) -> bool:
        return self._value.get(key) is not None

    def path(self, key: str) -> Path | None:
        return self._directory / text if (text := self.text(key)) else None

    def pem(self, key: str) -> bytes | None:
        """Return what ``<key>-data`` holds in base64 or the file at ``<key>``; the data wins, as in kubectl."""
        if data := self.text(f"{key}-data"):
            return base64.b64decode(data, validate=True)
        return path.read_bytes() if (path := self.path(key)) else None

    def named(self, collection: str, name: str, kind: str) -> "_Section":
        items = self._value.get(collection)
        for item in items if isinstance(items, list) else []:
            if isinstance(item, dict) and item.get("name") == name:
                return _Section(item.get(kind) or {}, f"{kind} {name!r}", self._directory)
        raise KubeConfigError(f"no {kind} named {name!r}")


def _from_file(path: Path, kube_api: str) -> KubeConfig:
    root = _Section(cast("Json", yaml.safe_load(path.read_text())), str(path), path.parent)
    context = root.named("contexts", root.text("current-context"), "context")
    cluster = root.named("clusters", context.text("cluster"), "cluster")
    user = root.named("users", context.text("user"), "user") if context.text("user") else _Section({}, "user", path)
    for plugin in ("exec", "auth-provider"):
        if user.has(plugin):
            raise KubeConfigError(
                f"{user.where} uses {plugin!r}, which the webhook does not run; use a token or certificate"
            )
    server = (kube_api or cluster.text("server")).rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise KubeConfigError(f"{cluster.where}.server must be an http or https URL, not {server!r}")
    tls = _client_tls(cluster, user) if server.startswith("https://") else None
    return KubeConfig(server, tls, cluster.text("tls-server-name") or None, _user_token(user))


def _client_tls(cluster: _Section, user: _Section) -> ssl.SSLContext:
    ca = cluster.pem("certificate-authority")
    tls = _tls_context(cadata=ca.decode() if ca else None)
    if cluster.flag("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    certificate, key = user.pem("client-certificate"), user.pem("client-key")
    if certificate and key:
        # OpenSSL loads a pair from files only.
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(certificate + b"\n" + key)
            pair.flush()
            tls.load_cert_chain(pair.name)
    return tls


def _user_token(user: _Section) -> Callable[[], str | None]:
    if token := user.text("token"):
        return lambda: token
    if path := user.path("tokenFile"):
        return _token_file(path)
    return lambda: None


class KubeApi:
    """Get requests to one API server."""

    def __init__(self, config: KubeConfig, session: aiohttp.ClientSession) -> None:
        self._config = config
        self._session = session

    async def get(self, path: str, parameters: dict[str, str], limit: aiohttp.ClientTimeout) -> JsonObject:
        """Get one JSON object.

        Raises:
            ApiError: If the answer has another status than 200.
            aiohttp.ClientError, OSError, TimeoutError: If there is no answer.
            JsonError: If the answer is not JSON.
        """
        async with self.stream(path, parameters, limit) as response:
            answer = decode(await response.read())
        if not isinstance(answer, dict):
            raise ApiError(response.status, "the answer is no JSON object")
        return answer

    @asynccontextmanager
    async def stream(
        self, path: str, parameters: dict[str, str], limit: aiohttp.ClientTimeout
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a request and hand over the answer with its body still to be read; raises as `get` does."""
        headers = {"Accept": "application/json", "User-Agent": "podid-webhook"}
        if token := self._config.token():
            headers["Authorization"] = f"Bearer {token}"
        async with self._session.get(
            self._config.server + path,
            params=parameters,
            headers=headers,
            timeout=limit,
            ssl=self._config.tls or True,
            server_hostname=self._config.tls_server_name,
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise ApiError(response.status, f"GET {path}: {response.reason}")
            yield response
