"""The chart and the plain manifests are two forms of the same objects."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from podid_webhook.options import parse_options

from harness import binaries
from harness.lab.paths import cache_directory
from harness.progress import Progress

ROOT = Path(__file__).parents[2]
CHART = ROOT / "webhook" / "chart"
PKI = {"pki.caBundle": "an authority", "pki.cert": "a certificate", "pki.key": "a key"}
Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def helm() -> Path:
    """Helm: the machine's, or ours, which is built once."""
    if found := shutil.which("helm"):
        return Path(found)
    with Progress() as progress:
        return binaries.ensure(cache_directory(), progress, [binaries.HELM])["helm"]


def template(helm: Path, **values: str) -> subprocess.CompletedProcess[str]:
    """Render the chart for kube-system."""
    options = [f"--set={key}={value}" for key, value in values.items()]
    command = [helm, "template", "x", CHART, "--namespace=kube-system", "--kube-version=1.34.4", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rendered(helm: Path, values: dict[str, str]) -> Objects:
    """Return what the chart makes of values."""
    done = template(helm, **values)
    assert done.returncode == 0, done.stderr
    return by_kind_and_name(done.stdout)


def by_kind_and_name(*texts: str) -> Objects:
    objects = [item for text in texts for item in yaml.safe_load_all(text) if item]
    return {(item["kind"], item["metadata"]["name"]): item for item in objects}


def without_ownership(item: dict[str, Any]) -> dict[str, Any]:
    """Drop what Helm needs to know its own objects by."""
    owned = ("app.kubernetes.io/", "helm.sh/")
    metadata = {key: value for key, value in item["metadata"].items() if key != "labels"}
    labels = {key: value for key, value in item["metadata"].get("labels", {}).items() if not key.startswith(owned)}
    return {**item, "metadata": metadata | ({"labels": labels} if labels else {})}


def test_chart_makes_the_objects_of_the_manifests(helm: Path) -> None:
    """With the region of the manifests and a certificate, object by object and field by field."""
    chart = rendered(helm, PKI | {"config.defaultAwsRegion": "eu-west-1"})
    plain = by_kind_and_name(*(path.read_text() for path in sorted((ROOT / "webhook/deploy").glob("*.yaml"))))
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in PKI.items()}
    plain["Secret", "pod-identity-webhook"]["data"] = {
        "tls.crt": encoded["pki.cert"],
        "tls.key": encoded["pki.key"],
    }
    (registration,) = plain["MutatingWebhookConfiguration", "pod-identity-webhook"]["webhooks"]
    registration["clientConfig"]["caBundle"] = encoded["pki.caBundle"]

    assert chart.keys() == plain.keys()
    for key, item in plain.items():
        assert without_ownership(chart[key]) == without_ownership(item), key


def test_values_reach_the_flags(helm: Path) -> None:
    """The values of AWS's flags, and further arguments as they are."""
    values = {
        "config.annotationPrefix": "own.example",
        "config.tokenAudience": "own-audience",
        "config.stsRegionalEndpoint": "false",
        "config.watchConfigMap": "true",
        "config.ports.webhook": "9443",
        "config.extraArgs[0]": "--service-account-lookup-grace-period=1s",
        "fullnameOverride": "own-name",
        "pki.existingSecret": "own-secret",
    }
    chart = rendered(helm, PKI | values)
    pod = chart["Deployment", "own-name"]["spec"]["template"]["spec"]
    options = parse_options(pod["containers"][0]["args"])

    assert options.settings.annotation_prefix == "own.example"
    assert options.settings.token_audience == "own-audience"
    assert (options.settings.region, options.settings.regional_sts) == ("", False)
    assert (options.port, options.service_name, options.watch_config_map) == (9443, "own-name", True)
    assert options.lookup_grace_period == 1
    assert pod["volumes"][0]["secret"]["secretName"] == "own-secret"
    assert ("Secret", "own-secret") not in chart
    assert chart["Role", "own-name"]["rules"][0]["resourceNames"] == [
        "pod-identity-associations",
        "pod-identity-webhook",
    ]


def test_cert_manager_fills_in_certificate_and_authority(helm: Path) -> None:
    """No certificate is asked for, and the names are those that an API server and its clients use."""
    chart = rendered(helm, {"pki.certManager.enabled": "true"})
    name = "pod-identity-webhook"
    registration = chart["MutatingWebhookConfiguration", name]

    assert registration["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": f"kube-system/{name}"}
    assert "caBundle" not in registration["webhooks"][0]["clientConfig"]
    assert ("Secret", name) not in chart
    assert chart["Certificate", name]["spec"]["secretName"] == name
    assert chart["Certificate", name]["spec"]["dnsNames"] == [
        name,
        f"{name}.kube-system",
        f"{name}.kube-system.svc",
        f"{name}.kube-system.svc.cluster.local",
    ]


def test_without_a_certificate_the_chart_says_how_to_get_one(helm: Path) -> None:
    done = template(helm)

    assert done.returncode != 0
    assert "amazon-eks-pod-identity-webhook-certs" in done.stderr


def test_chart_image_and_package_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = parse_version((ROOT / "webhook/podid_webhook/__init__.py").read_text())

    assert (chart["version"], chart["appVersion"]) == (version, version)


def parse_version(text: str) -> str:
    return next(line.split('"')[1] for line in text.splitlines() if line.startswith("__version__"))
