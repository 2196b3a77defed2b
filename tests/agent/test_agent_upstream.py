"""How EKS Auth is reached and calls are signed (AGT sections 1.2 and 7)."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from agent_process import make_token, running_agent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fake_eks_auth import ROUTE, FakeEKSAuth, grant, refusal
from fake_imds import FakeIMDS
from podid_agent.endpoints import eks_auth_endpoint, proxy_for

PREFIX = (
    "error getting credentials to cache: unable to fetch credentials from EKS Auth: "
    "operation error EKS Auth: AssumeRoleForPodIdentity, "
)


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


def test_call_is_signed_with_the_agents_own_keys(eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-136, AGT-701, AGT-702, AGT-705, AGT-709; the path of the endpoint is a prefix."""
    env = {"AWS_SESSION_TOKEN": "CANARY-NODE-SESSION", "AWS_REGION": "us-east-2", "AWS_DEFAULT_REGION": "eu-west-1"}
    with running_agent(f"{eks_auth.url}/pre/fix/", env=env) as agent:
        assert agent.get(token).status == 200

    (call,) = eks_auth.calls_with(token)
    assert call.path == f"/pre/fix{ROUTE}"
    assert re.match(
        r"AWS4-HMAC-SHA256 Credential=AKIDNODE/\d{8}/us-east-2/eks-auth/aws4_request, ", call.headers["Authorization"]
    )
    assert call.headers["X-Amz-Security-Token"] == "CANARY-NODE-SESSION"
    assert call.headers["User-Agent"] == "podid-agent/0.1.0"


def test_without_region_every_request_is_500(token: str) -> None:
    """AGT-131, AGT-132: but the agent is ready."""
    with running_agent("", env={"AWS_REGION": ""}) as agent:
        reply = agent.get(token)

    assert reply.status == 500
    assert reply.text.startswith(PREFIX)
    assert reply.text.endswith("Invalid Configuration: Missing Region\n")


def test_without_credentials_of_its_own_every_request_is_500(eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-137, AGT-275, AGT-138: the address of the agent itself is not asked either."""
    env = {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    }
    with running_agent(eks_auth.url, env=env) as agent:
        reply = agent.get(token)
        warnings = [line["msg"] for line in agent.log_lines() if line["level"] == "warning"]

    assert reply.status == 500
    assert reply.text.startswith(f"{PREFIX}get identity: get credentials: ")
    assert warnings == ["Ignoring AWS_CONTAINER_CREDENTIALS_FULL_URI: it names this agent"]
    assert eks_auth.calls_with(token) == []


def test_rotated_credentials_come_from_the_shared_file(eks_auth: FakeEKSAuth) -> None:
    """AGT-145: a missing file is 500, and read as soon as it appears, whatever the environment says."""
    first, second = make_token(), make_token()
    with running_agent(eks_auth.url, "--rotate-credentials", "true") as agent:
        missing = agent.get(first)
        (agent.home / ".aws").mkdir()
        (agent.home / ".aws/credentials").write_text(
            "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = CANARY-FILE\n"
        )
        found = agent.get(second)

    assert (missing.status, found.status) == (500, 200)
    assert "Credential=AKIDFILE/" in eks_auth.calls_with(second)[0].headers["Authorization"]


def test_one_attempt_without_cache(eks_auth: FakeEKSAuth) -> None:
    """AGT-142, AGT-401, AGT-429: each request is a call, and the 15 s rule is off."""
    one, two = make_token(), make_token()
    eks_auth.script(one, refusal(503, "ServiceUnavailableException"))
    eks_auth.script(two, grant(expiration=time.time() + 5))
    with running_agent(eks_auth.url, "--max-cache-size", "0", env={"AWS_MAX_ATTEMPTS": "1"}) as agent:
        assert agent.get(one).status == 503
        assert [agent.get(two).status for _ in range(2)] == [200, 200]

    assert len(eks_auth.calls_with(one)) == 1
    assert len(eks_auth.calls_with(two)) == 2


@contextmanager
def _recording_proxy() -> Iterator[tuple[int, list[str]]]:
    """A proxy that notes the request line and refuses."""
    lines: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    lines.append(client.recv(65536).split(b"\r\n")[0].decode())
                    client.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], lines
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("endpoint", "env", "line"),
    [
        ("", {}, "CONNECT eks-auth.eu-west-1.api.aws:443 HTTP/1.1"),
        ("", {"AWS_USE_FIPS_ENDPOINT": "true"}, "CONNECT eks-auth-fips.eu-west-1.api.aws:443 HTTP/1.1"),
        ("http://eks-auth.test:1", {}, f"POST http://eks-auth.test:1{ROUTE} HTTP/1.1"),
    ],
    ids=["https", "fips", "http"],
)
def test_proxy_sees_the_endpoint(token: str, endpoint: str, env: Mapping[str, str], line: str) -> None:
    """AGT-141, AGT-144, AGT-703, AGT-704, AGT-731."""
    with _recording_proxy() as (port, lines):
        proxy = f"http://127.0.0.1:{port}"
        full = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "AWS_MAX_ATTEMPTS": "1", **env}
        with running_agent(endpoint, env=full) as agent:
            reply = agent.get(token)

    assert lines == [line]
    expected = "[]: (ProxyError)" if not endpoint else "[]: (UnknownError)"
    assert reply.text.startswith(expected)


def test_imds_is_never_asked_through_a_proxy(eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-734: without any other credentials the chain ends at IMDS."""
    with _recording_proxy() as (port, lines):
        env = {
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
            "AWS_EC2_METADATA_DISABLED": "",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://169.254.169.254:{port}",
            "HTTP_PROXY": f"http://127.0.0.1:{port}",
        }
        with running_agent(eks_auth.url, env=env) as agent:
            assert agent.get(token).status == 500

    assert lines == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key of a server on 127.0.0.1 that no trust store knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "EKS Auth")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("tls")
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def test_ca_bundle_is_the_trust_store(certificate: tuple[Path, Path], token: str) -> None:
    """AGT-143, AGT-724: and without it the certificate is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    fake = FakeEKSAuth(context)
    try:
        with running_agent(fake.url, env={"AWS_CA_BUNDLE": str(certificate[0])}) as agent:
            trusted = agent.get(token)
        with running_agent(fake.url, env={"AWS_MAX_ATTEMPTS": "1"}) as agent:
            untrusted = agent.get(token)
    finally:
        fake.close()

    assert trusted.status == 200
    assert (untrusted.status, untrusted.text) == (
        500, "[]: (TLSError): the TLS handshake with EKS Auth failed, fault: unknown\n",
    )  # fmt: skip


def test_node_role_is_renewed_in_time(eks_auth: FakeEKSAuth) -> None:
    """AGT-134, AGT-135: keys with less than a minute left are not used again; the next ones sign."""
    imds = FakeIMDS(life=30)
    first, second = make_token(), make_token()
    try:
        with running_agent(eks_auth.url, env=imds.environment) as agent:
            assert [agent.get(token).status for token in (first, second)] == [200, 200]
    finally:
        imds.close()

    signers = [eks_auth.calls_with(token)[0].headers["Authorization"] for token in (first, second)]
    numbers = [int(re.findall(r"Credential=AKIDIMDS(\d+)/", signer)[0]) for signer in signers]
    assert numbers[0] < numbers[1]
    assert imds.rejected == []


def test_imds_that_hangs_does_not_hold_requests(eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-726."""
    imds = FakeIMDS(life=3600, delay=60)
    try:
        with running_agent(eks_auth.url, env=imds.environment) as agent:
            started = time.monotonic()
            reply = agent.get(token)
            elapsed = time.monotonic() - started
    finally:
        imds.close()

    assert reply.status == 500
    assert elapsed < 30
