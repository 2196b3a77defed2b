"""What the suite cannot see from outside: that the manifests' arguments are ours, and that the image is locked."""

from pathlib import Path

import yaml
from podid_webhook.options import parse_options

WEBHOOK = Path(__file__).parents[2] / "webhook"


def test_arguments_are_ours_and_the_eks_profile() -> None:
    deployment = next(yaml.safe_load_all((WEBHOOK / "deploy/deployment.yaml").read_text()))
    options = parse_options(deployment["spec"]["template"]["spec"]["containers"][0]["args"])

    assert (options.settings.region, options.settings.regional_sts) == ("eu-west-1", True)
    assert (options.port, options.namespace, options.service_name) == (8443, "kube-system", "pod-identity-webhook")


def test_image_is_locked() -> None:
    """Every requirement of the image is pinned and has hashes."""
    lines = (WEBHOOK / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if "==" in line]

    assert len(pinned) >= 5
    assert all(line.endswith("\\") for line in pinned)
    assert {"aiohttp", "cryptography", "prometheus-client", "pyyaml", "uvloop"} <= {
        line.split("==")[0] for line in pinned
    }
