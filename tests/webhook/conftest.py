from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from webhook_fake_api import FakeApi, serve_fake_api
from webhook_process import (
    Certificates,
    WebhookProcess,
    create_certificates,
    identities,
    running_webhook,
    write_kubeconfig,
)

# The same examples at every run, and no limit on how long a slow machine takes for one.
hypothesis.settings.register_profile(
    "podid", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("podid")


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


@pytest.fixture(scope="module")
def webhook(
    certificates: Certificates, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
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
