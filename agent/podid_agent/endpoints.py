"""Where EKS Auth is, and through which proxy (AGT-139 to AGT-141, AGT-703, AGT-704, section 7.3)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["eks_auth_endpoint", "proxy_for"]

_SUFFIXES = (
    (r"us-isob-", "api.aws.scloud"),
    (r"us-isof-|eu-isof-", "api.aws.hci.ic.gov"),
    (r"eu-isoe-", "api.cloud-aws.adc-e.uk"),
    (r"us-iso-", "api.aws.ic.gov"),
    (r"eusc-", "api.amazonwebservices.eu"),
    (r"cn-", "api.amazonwebservices.com.cn"),
)


def eks_auth_endpoint(
    region: str, environment: Mapping[str, str], *, override: str = "", use_fips: bool = False
) -> str | None:
    """Return the URL of EKS Auth without a trailing slash, or None if there is neither a region nor an override."""
    configured = ""
    if environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        configured = environment.get("AWS_ENDPOINT_URL_EKS_AUTH") or environment.get("AWS_ENDPOINT_URL", "")
    if override or configured:
        return (override or configured).rstrip("/")
    if not region:
        return None
    suffix = next((suffix for pattern, suffix in _SUFFIXES if re.match(pattern, region)), "api.aws")
    return f"https://eks-auth{'-fips' if use_fips else ''}.{region}.{suffix}"


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy for a URL as Go's net/http chooses it, or None (AGT-731 to AGT-734)."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    variable = f"{parts.scheme}_proxy"
    proxy = environment.get(variable.upper()) or environment.get(variable, "")
    no_proxy = environment.get("NO_PROXY") or environment.get("no_proxy", "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not proxy or _is_local(host) or any(_exempts(entry, host, port) for entry in no_proxy.split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_link_local)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _exempts(entry: str, host: str, port: int) -> bool:
    """Whether one entry of NO_PROXY names the host: ``*``, a CIDR, an address or a domain, with or without port."""
    entry = entry.strip().lower()
    if entry in {"", "*"}:
        return entry == "*"
    address = _address(host)
    try:
        if address is not None and address in ipaddress.ip_network(entry, strict=False):
            return True
    except ValueError:
        pass  # no address and no CIDR: a domain, or something with a port
    with_port = re.fullmatch(r"(?P<host>\[[^\]]*\]|[^:]*):(?P<port>[0-9]+)", entry)
    if with_port is not None:
        if int(with_port["port"]) != port:
            return False
        entry = with_port["host"].strip("[]")
    if address is not None:
        return _address(entry) == address
    domain = entry.removeprefix("*")
    return host.endswith(domain) if domain.startswith(".") else host == domain or host.endswith(f".{domain}")
