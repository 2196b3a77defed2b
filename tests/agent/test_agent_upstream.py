"""Where EKS Auth is, through which proxy, and whose keys sign (AGT sections 1.2 and 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from podid_agent.endpoints import eks_auth_endpoint, proxy_for
from podid_agent.node_credentials import SharedFileCredentials
from podid_agent.node_keys import NodeCredentialsError


@pytest.mark.parametrize(
    ("region", "fips", "url"),
    [
        ("eu-west-1", False, "https://eks-auth.eu-west-1.api.aws"),
        ("us-gov-west-1", True, "https://eks-auth-fips.us-gov-west-1.api.aws"),
        ("cn-north-1", False, "https://eks-auth.cn-north-1.api.amazonwebservices.com.cn"),
        ("eusc-de-east-1", False, "https://eks-auth.eusc-de-east-1.api.amazonwebservices.eu"),
        ("us-iso-east-1", False, "https://eks-auth.us-iso-east-1.api.aws.ic.gov"),
        ("us-isob-east-1", False, "https://eks-auth.us-isob-east-1.api.aws.scloud"),
        ("eu-isoe-west-1", False, "https://eks-auth.eu-isoe-west-1.api.cloud-aws.adc-e.uk"),
        ("us-isof-south-1", False, "https://eks-auth.us-isof-south-1.api.aws.hci.ic.gov"),
    ],
)
def test_default_endpoint_follows_the_partition(region: str, fips: bool, url: str) -> None:
    """AGT-703, AGT-704."""
    assert eks_auth_endpoint(region, {}, use_fips=fips) == url


@pytest.mark.parametrize(
    ("override", "environment", "url"),
    [
        ("http://flag/", {"AWS_ENDPOINT_URL": "http://all"}, "http://flag"),
        ("", {"AWS_ENDPOINT_URL": "http://all"}, "http://all"),
        ("", {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_EKS_AUTH": "http://own"}, "http://own"),
        ("", {"AWS_ENDPOINT_URL": "http://all", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, None),
    ],
)
def test_overrides_of_the_endpoint(override: str, environment: Mapping[str, str], url: str | None) -> None:
    """AGT-139, AGT-140."""
    assert eks_auth_endpoint("", environment, override=override) == url


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("https://eks-auth.eu-west-1.api.aws", "", True),
        ("https://eks-auth.eu-west-1.api.aws", "api.aws", False),
        ("https://eks-auth.eu-west-1.api.aws", ".api.aws", False),
        ("https://eks-auth.eu-west-1.api.aws", "*.api.aws", False),
        ("https://api.aws", ".api.aws", True),
        ("https://notapi.aws", "api.aws", True),
        ("https://a.test", "x, a.test:443", False),
        ("https://a.test", "a.test:80", True),
        ("https://a.test", "*", False),
        ("https://10.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.3", False),
        ("https://11.1.2.3", "10.0.0.0/8", True),
        ("https://127.0.0.1", "", False),
        ("https://localhost:1", "", False),
        ("https://[::1]", "", False),
        ("https://169.254.169.254", "", False),
        ("http://a.test", "", False),
    ],
)
def test_proxy_is_chosen_as_go_does(url: str, no_proxy: str, proxied: bool) -> None:
    """AGT-731 to AGT-734: only HTTPS_PROXY is set."""
    proxy = proxy_for(url, {"HTTPS_PROXY": "proxy.test:3128", "NO_PROXY": no_proxy})

    assert proxy == ("http://proxy.test:3128" if proxied else None)


def test_shared_file_is_read_again_after_a_minute(tmp_path: Path) -> None:
    """AGT-145: a missing file is an error, and read as soon as it appears."""
    now = 1000.0
    file = tmp_path / "credentials"
    credentials = SharedFileCredentials(file, lambda: now)

    def key() -> str:
        return asyncio.run(credentials.get()).access_key

    def write(name: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {name}\naws_secret_access_key = s\n")

    with pytest.raises(NodeCredentialsError):
        key()
    write("AKIDONE")
    assert key() == "AKIDONE"
    write("AKIDTWO")
    now += 59
    assert key() == "AKIDONE"
    now += 1

    assert key() == "AKIDTWO"
