"""What the environment and the shared files say about the agent's own dealings with AWS (section 1.2)."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from podid_agent.config import DEFAULT_BIND_HOSTS
from podid_agent.endpoints import eks_auth_endpoint, proxy_for
from podid_agent.journal import Journal

__all__ = ["AWSSettings", "SettingsError", "has_shared_files", "load_settings", "shared_credentials_file"]

_NAMES_OF_SHARED_FILES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "BOTO_CONFIG",
)
_SHARED_FILES = ("~/.aws/config", "~/.aws/credentials", "~/.boto", "/etc/boto.cfg")

# botocore would send even these through HTTP_PROXY (AGT-734).
_NEVER_PROXIED = ("localhost", "127.0.0.1", "169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254")


class SettingsError(Exception):
    """Settings that cannot be used; the text says which."""


class AWSSettings(NamedTuple):
    """How EKS Auth is reached and calls are signed."""

    region: str
    """Empty if nobody named one."""

    endpoint: str | None
    """URL without trailing slash; None if it cannot be derived."""

    proxy: str | None
    max_attempts: int
    tls: ssl.SSLContext | None
    """None where nothing is encrypted."""


def load_settings(environment: MutableMapping[str, str], endpoint: str, journal: Journal) -> AWSSettings:
    """Read the settings, and prepare the environment for botocore.

    Args:
        environment: Usually ``os.environ``, which botocore reads later.
        endpoint: The ``--endpoint`` option, may be empty.
        journal: Gets a warning for a setting that is ignored.

    Raises:
        SettingsError: An unknown profile, an unreadable trust store, a bad number of attempts (AGT-133).
    """
    _ignore_own_address(environment, journal)
    shared = _read_shared_files() if has_shared_files(environment) else _without_shared_files(environment)
    _exempt_from_proxies(environment)
    # botocore itself does not know AWS_REGION, and asking IMDS is not wanted (AGT-130).
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or shared.region
    url = eks_auth_endpoint(region, environment, override=endpoint, use_fips=shared.use_fips)
    proxy = proxy_for(url, environment) if url else None
    # Reading the system's authorities takes a while, so it is left where nothing would be verified.
    encrypted = any(address and address.startswith("https:") for address in (url, proxy))
    return AWSSettings(
        region=region,
        endpoint=url,
        proxy=proxy,
        max_attempts=_max_attempts(environment.get("AWS_MAX_ATTEMPTS", "")),
        tls=_tls_context(shared.ca_bundle) if encrypted or shared.ca_bundle else None,
    )


def has_shared_files(environment: Mapping[str, str]) -> bool:
    """Whether there are files of AWS's tools, or variables that name some."""
    if any(environment.get(name) for name in _NAMES_OF_SHARED_FILES):
        return True
    return any(os.path.exists(os.path.expanduser(path)) for path in _SHARED_FILES)  # noqa: PTH110, PTH111 - no home is no error


class _Shared(NamedTuple):
    """What a profile may say, and variables say with precedence."""

    region: str
    ca_bundle: str
    use_fips: bool


def _without_shared_files(environment: Mapping[str, str]) -> _Shared:
    use_fips = environment.get("AWS_USE_FIPS_ENDPOINT", "").lower() == "true"
    return _Shared("", environment.get("AWS_CA_BUNDLE", ""), use_fips)


def _read_shared_files() -> _Shared:
    # The node of a cloud has none, and a sixth of the start would go into importing this (AGT-1105).
    import botocore.exceptions  # noqa: PLC0415
    import botocore.session  # noqa: PLC0415

    try:
        session = botocore.session.Session()
        profile = session.get_scoped_config()
        ca_bundle: object = session.get_config_variable("ca_bundle")
        use_fips = bool(session.get_config_variable("use_fips_endpoint"))
    except botocore.exceptions.BotoCoreError as error:
        raise SettingsError(str(error)) from error
    return _Shared(str(profile.get("region", "")), str(ca_bundle or ""), use_fips)


def _tls_context(ca_bundle: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_bundle or None)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"AWS_CA_BUNDLE {ca_bundle} cannot be read: {error}") from error
    # From Python 3.13 on the default refuses certificates without an authority key identifier, among others; private
    # CAs and proxies that look into TLS issue such, and Go's clients take them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _max_attempts(text: str) -> int:
    if not text:
        return 3
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f'AWS_MAX_ATTEMPTS "{text}" is no positive number')
    return int(text)


def _ignore_own_address(environment: MutableMapping[str, str], journal: Journal) -> None:
    """Drop the variables of a pod with Pod Identity: the agent would ask itself (AGT-138)."""
    name = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
    url = environment.get(name, "")
    if urlsplit(url).hostname in DEFAULT_BIND_HOSTS:
        del environment[name]
        journal.warning(f"Ignoring {name}: it names this agent", {"url": url})


def _exempt_from_proxies(environment: MutableMapping[str, str]) -> None:
    given = environment.get("no_proxy") or environment.get("NO_PROXY", "")
    entries = ",".join([*([given] if given else []), *_NEVER_PROXIED])
    environment["no_proxy"] = environment["NO_PROXY"] = entries


def shared_credentials_file(environment: Mapping[str, str]) -> Path:
    """Return the path of the shared credentials file (AGT-145)."""
    return Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
