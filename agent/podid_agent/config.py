"""The options of `server`: flags, defaults and the checks that come before anything is bound (section 1.1)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from podid_agent.flags import Flag, parse_bool, parse_duration, parse_int

__all__ = ["DEFAULT_BIND_HOSTS", "IPV4_ADDRESS", "IPV6_ADDRESS", "SERVER_FLAGS", "ConfigurationError", "ServerConfig"]

IPV4_ADDRESS = "169.254.170.23"
IPV6_ADDRESS = "fd00:ec2::23"
DEFAULT_BIND_HOSTS = (IPV4_ADDRESS, IPV6_ADDRESS)

_CLUSTER_NAME = re.compile(r"[0-9A-Za-z][A-Za-z0-9_-]{0,99}")


class ConfigurationError(Exception):
    """Options that cannot work; the text says what is wrong and what to change, in one line (AGT-124)."""


def _cache_key(text: str) -> str:
    if text not in {"token", "pod-uid"}:
        raise ValueError('use "token" or "pod-uid"')
    return text


_FIELDS = {"max-credential-retention-before-renewal": "retention"}

_uint16 = partial(parse_int, bits=16, signed=False)

SERVER_FLAGS = (
    Flag("cluster-name", str, "Name of the EKS cluster", "c", "string"),
    Flag("port", _uint16, "Port of the credentials listeners", "p", "uint16", "80"),
    Flag("probe-port", _uint16, "Port of the probes, on localhost only", "", "uint16", "2703"),
    Flag("metrics-address", str, "Address of the metrics listener", "", "string", '"0.0.0.0"'),
    Flag("metrics-port", _uint16, "Port of the metrics listener", "", "uint16", "2705"),
    Flag(
        "max-credential-retention-before-renewal",
        parse_duration,
        "Longest time before cached credentials are renewed; 0 turns caching off",
        "",
        "duration",
        "3h0m0s",
    ),
    Flag("max-cache-size", parse_int, "Most cached credentials; 0 turns caching off", "", "int", "2000"),
    Flag("max-service-qps", parse_int, "Background renewals per second", "", "int", "3"),
    Flag(
        "bind-hosts",
        str,
        "Host to serve credentials on, repeatable",
        "b",
        "string",
        "[169.254.170.23,[fd00:ec2::23]]",
        repeatable=True,
    ),
    Flag(
        "rotate-credentials",
        parse_bool,
        "Read own credentials from the shared credentials file, again and again",
        boolean=True,
    ),
    Flag("endpoint", str, "URL that replaces the EKS Auth endpoint", "", "string"),
    Flag("cache-key", _cache_key, "What identifies a cache entry", "", "string", '"token"'),
    Flag(
        "request-timeout",
        parse_duration,
        "Longest wait of a request for EKS Auth; 0 waits as long as the attempts take",
        "",
        "duration",
        "1.8s",
    ),
    Flag(
        "jwks-cache",
        str,
        "File that keeps the cluster's signing keys, with --cache-key pod-uid; empty keeps none",
        "",
        "string",
        '"/var/lib/eks-pod-identity-agent/jwks-cache.json"',
    ),
    Flag("disable-metrics", parse_bool, "Open no metrics listener", boolean=True),
)


class ServerConfig(NamedTuple):
    """Checked options of `server`."""

    cluster_name: str
    """Name in the EKS Auth path."""

    port: int = 80
    probe_port: int = 2703
    metrics_address: str = "0.0.0.0"  # noqa: S104 - upstream's default, scraped from outside the node
    metrics_port: int = 2705
    retention: float = 3 * 3600.0
    """Seconds before cached credentials are renewed; 0 is no cache."""

    max_cache_size: int = 2000
    max_service_qps: int = 3
    bind_hosts: tuple[str, ...] = DEFAULT_BIND_HOSTS
    """Addresses without brackets."""

    hosts_are_default: bool = True
    """Nobody named the hosts, so one that the node lacks may be skipped (AGT-523)."""

    rotate_credentials: bool = False
    endpoint: str = ""
    request_timeout: float = 1.8
    """Seconds; 0 waits for the call's end."""

    cache_key: str = "token"
    jwks_cache: str = "/var/lib/eks-pod-identity-agent/jwks-cache.json"
    disable_metrics: bool = False

    @property
    def keyed_by_pod(self) -> bool:
        """Whether cache entries belong to pods rather than to tokens (section 9.1)."""
        return self.cache_key == "pod-uid"

    @property
    def caching(self) -> bool:
        """Whether credentials are cached at all (AGT-401)."""
        return bool(self.retention and self.max_cache_size)

    @classmethod
    def from_flags(cls, values: Mapping[str, list[object]]) -> ServerConfig:
        """Build the options from parsed flags.

        Raises:
            ConfigurationError: The combination cannot work.
        """
        if "cluster-name" not in values:
            raise ConfigurationError('required flag(s) "cluster-name" not set')

        # Any ends here: the parsers of the flags fixed the types.
        fields: dict[str, Any] = {
            _FIELDS.get(flag.name, flag.name.replace("-", "_")): values[flag.name][-1]
            for flag in SERVER_FLAGS
            if flag.name in values
        }
        if "bind-hosts" in values:
            fields["bind_hosts"] = tuple(_bind_address(str(host)) for host in values["bind-hosts"])
            fields["hosts_are_default"] = False
        if fields.get("max_service_qps", 1) <= 0:
            del fields["max_service_qps"]  # AGT-122: means the default
        config = cls(**fields)
        config._check()
        return config

    def _check(self) -> None:
        if not _CLUSTER_NAME.fullmatch(self.cluster_name):
            raise ConfigurationError(
                f'"{self.cluster_name}" is no cluster name; give --cluster-name 1 to 100 letters, digits, "-" and "_", '
                "beginning with a letter or digit"
            )
        if self.max_cache_size < 0:
            raise ConfigurationError(f"cache size {self.max_cache_size} is negative; set --max-cache-size to 0 or more")
        if self.retention < 0:
            raise ConfigurationError(
                "retention is negative; set --max-credential-retention-before-renewal to 0 or more"
            )
        if self.request_timeout < 0:
            raise ConfigurationError("request timeout is negative; set --request-timeout to 0 or more")
        if self.endpoint and not re.match(r"https?://[^/]", self.endpoint):
            raise ConfigurationError(f'"{self.endpoint}" is no http or https URL; correct --endpoint')
        if self.caching and self.max_service_qps * int(self.retention) < self.max_cache_size // 2:
            raise ConfigurationError(
                f"Refresh QPS is too small ({self.max_service_qps}) or credentials renewal to small "
                f"({self.retention:.2f}s) to keep up with cache's size ({self.max_cache_size}); raise "
                "--max-service-qps or --max-credential-retention-before-renewal, or lower --max-cache-size"
            )


def _bind_address(host: str) -> str:
    """Return the address of a ``-b`` value without brackets (AGT-119, AGT-120, AGT-526)."""
    text = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if text == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise ConfigurationError(
            f'bind host "{host}" is no address; repeat -b for several, and give IPv6 as [fd00:ec2::23]'
        ) from error
    if not address.is_loopback and str(address) not in DEFAULT_BIND_HOSTS:
        raise ConfigurationError(
            f'bind host "{host}" would hand credentials to other machines; '
            f"use loopback, {IPV4_ADDRESS} or {IPV6_ADDRESS}"
        )
    return str(address)
