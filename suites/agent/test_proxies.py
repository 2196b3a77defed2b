"""Which endpoint is called, and through which proxy (sections 1.2, 7.1 and 7.3 of the contract).

A recording proxy shows the endpoint of every region without DNS and without a certificate.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.eks_auth import ROUTE, FakeEKSAuth
from suites.agent.conftest import StartAgent


class RecordingProxy:
    """Notes the request line of whoever comes, and refuses."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client:
                client.settimeout(5)
                try:
                    self.lines.append(client.recv(65536).split(b"\r\n")[0].decode("latin-1"))
                    client.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                except OSError:
                    continue

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.fixture
def proxy() -> Iterator[RecordingProxy]:
    recording = RecordingProxy()
    yield recording
    recording.close()


@pytest.mark.parametrize(
    ("env", "host"),
    [
        *(
            pytest.param({"AWS_REGION": region}, host, marks=requirement("AGT-703"), id=region)
            for region, host in {
                "us-gov-west-1": "eks-auth.us-gov-west-1.api.aws",
                "cn-north-1": "eks-auth.cn-north-1.api.amazonwebservices.com.cn",
                "eusc-de-east-1": "eks-auth.eusc-de-east-1.api.amazonwebservices.eu",
                "us-iso-east-1": "eks-auth.us-iso-east-1.api.aws.ic.gov",
                "us-isob-east-1": "eks-auth.us-isob-east-1.api.aws.scloud",
                "eu-isoe-west-1": "eks-auth.eu-isoe-west-1.api.cloud-aws.adc-e.uk",
                "us-isof-south-1": "eks-auth.us-isof-south-1.api.aws.hci.ic.gov",
            }.items()
        ),
        pytest.param(
            {}, "eks-auth.eu-west-1.api.aws", marks=requirement("AGT-144", "AGT-703", "AGT-731"), id="eu-west-1"
        ),
        pytest.param(
            {"AWS_USE_FIPS_ENDPOINT": "true"},
            "eks-auth-fips.eu-west-1.api.aws",
            marks=requirement("AGT-141", "AGT-704"),
            id="FIPS",
        ),
    ],
)
def test_the_endpoint_follows_region_and_partition(
    start_agent: StartAgent, token: str, proxy: RecordingProxy, env: Mapping[str, str], host: str
) -> None:
    """It is reached through HTTPS_PROXY with CONNECT; the proxy's refusal is a 500."""
    agent = start_agent("", env={"HTTPS_PROXY": proxy.url, "AWS_MAX_ATTEMPTS": "1", **env})

    assert agent.get(token).status == 500
    assert proxy.lines == [f"CONNECT {host}:443 HTTP/1.1"]


@pytest.mark.parametrize(
    ("endpoint", "variable", "line"),
    [
        ("http://eks-auth.test:1", "HTTP_PROXY", f"POST http://eks-auth.test:1{ROUTE} HTTP/1.1"),
        ("http://eks-auth.test:1", "http_proxy", f"POST http://eks-auth.test:1{ROUTE} HTTP/1.1"),
        ("https://eks-auth.test:1", "https_proxy", "CONNECT eks-auth.test:1 HTTP/1.1"),
    ],
)
@requirement("AGT-144", "AGT-731")
def test_the_scheme_chooses_the_proxy(
    start_agent: StartAgent, token: str, proxy: RecordingProxy, *, endpoint: str, variable: str, line: str
) -> None:
    """In upper and in lower case."""
    agent = start_agent(endpoint, env={variable: proxy.url, "AWS_MAX_ATTEMPTS": "1"})

    assert agent.get(token).status >= 500
    for identifier in ("AGT-144", "AGT-731"):
        check(identifier, expected=[line], observed=proxy.lines)


@requirement("AGT-731")
def test_the_other_scheme_s_proxy_is_not_used(start_agent: StartAgent, token: str, proxy: RecordingProxy) -> None:
    """HTTP_PROXY alone says nothing about https."""
    agent = start_agent("https://eks-auth.test:1", env={"HTTP_PROXY": proxy.url, "AWS_MAX_ATTEMPTS": "1"})

    assert agent.get(token).status == 500
    assert proxy.lines == []


@requirement("AGT-144", "AGT-732")
@pytest.mark.parametrize(
    ("endpoint", "no_proxy", "is_proxied"),
    [
        ("http://eks-auth.test:1", "eks-auth.test", False),
        ("http://eks-auth.test:1", "x, test", False),
        ("http://eks-auth.test:1", ".test", False),
        ("http://192.0.2.1:1", "192.0.2.0/24", False),
        ("http://192.0.2.1:1", "192.0.2.1", False),
        ("http://eks-auth.test:1", "auth.test,other.test", True),
        ("http://192.0.2.1:1", "192.0.3.0/24", True),
    ],
    ids=["host", "domain", "dot", "CIDR", "address", "other host", "other CIDR"],
)
def test_no_proxy_exempts(
    start_agent: StartAgent, token: str, proxy: RecordingProxy, *, endpoint: str, no_proxy: str, is_proxied: bool
) -> None:
    """Hosts, domains, addresses and ranges that it names are called directly, and no others."""
    agent = start_agent(endpoint, env={"HTTP_PROXY": proxy.url, "NO_PROXY": no_proxy, "AWS_MAX_ATTEMPTS": "1"})

    status = agent.get(token).status

    assert status >= 500
    for identifier in ("AGT-144", "AGT-732"):
        check(identifier, expected=is_proxied, observed=bool(proxy.lines))


@requirement("AGT-733")
def test_loopback_is_never_proxied(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, proxy: RecordingProxy
) -> None:
    """Although nothing exempts it."""
    agent = start_agent(eks_auth.url, env={"HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url})

    assert agent.get(token).status == 200
    assert eks_auth.call_with(token)
    assert proxy.lines == []


@requirement("AGT-733")
def test_localhost_is_never_proxied(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, proxy: RecordingProxy
) -> None:
    """The name is treated as its address."""
    agent = start_agent(eks_auth.url.replace("127.0.0.1", "localhost"), env={"HTTP_PROXY": proxy.url})

    assert agent.get(token).status == 200
    assert eks_auth.call_with(token)
    assert proxy.lines == []


@requirement("AGT-734")
def test_imds_is_never_asked_through_a_proxy(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, proxy: RecordingProxy
) -> None:
    """Without any other credentials the chain ends at IMDS, whose address is link-local."""
    env = {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_EC2_METADATA_DISABLED": "",
        # A port at which no metadata service listens, should this machine have one.
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://169.254.169.254:{proxy.url.rpartition(':')[2]}",
        "HTTP_PROXY": proxy.url,
    }
    agent = start_agent(eks_auth.url, env=env)

    assert agent.get(token).status == 500
    assert proxy.lines == []
