import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from webhook_fake_api import FakeApi, serve_fake_api
from webhook_process import WebhookProcess, identities, running_webhook


@dataclass(frozen=True)
class Certificates:
    """A directory as a mounted Secret, with the CA beside it."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def flags(self) -> list[str]:
        return [f"--tls-cert={self.directory / 'tls.crt'}", f"--tls-key={self.directory / 'tls.key'}"]


def create_certificates(directory: Path, *arguments: str) -> Certificates:
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "podid_webhook.certs", f"--output-dir={directory}", *arguments]
    subprocess.run(command, check=True, capture_output=True)
    return Certificates(directory)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with serve_fake_api() as api:
        yield api


@pytest.fixture(scope="module")
def kubeconfig(api: FakeApi, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kubeconfig(api, tmp_path_factory.mktemp("kube") / "config")


def write_kubeconfig(api: FakeApi, path: Path) -> Path:
    config = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "clusters": [{"name": "fake", "cluster": {"server": api.url}}],
        "users": [{"name": "fake", "user": {"token": "t-1"}}],
    }
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def webhook(
    api: FakeApi, certificates: Certificates, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebhookProcess]:
    """A webhook of the EKS profile with identities from a file and from a ConfigMap."""
    identities_file = tmp_path_factory.mktemp("identities") / "identities.json"
    identities_file.write_text(identities("demo/s3-reader"))
    arguments = [
        *certificates.flags,
        f"--kubeconfig={kubeconfig}",
        f"--watch-container-credentials-config={identities_file}",
        "--watch-container-credentials-config-map=kube-system/pod-identity-associations",
        "--aws-default-region=eu-west-1",
        "--sts-regional-endpoint=true",
    ]
    with running_webhook(arguments, certificates.ca) as webhook:
        webhook.wait_until_ready()
        yield webhook
