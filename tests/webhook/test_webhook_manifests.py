"""The manifests say what sections 10.1 and 10.5 of the contract ask for."""

from pathlib import Path
from typing import Any

import yaml
from podid_webhook.options import parse_options

WEBHOOK = Path(__file__).parents[2] / "webhook"
OBJECTS: dict[tuple[str, str], Any] = {
    (item["kind"], item["metadata"]["name"]): item
    for path in sorted((WEBHOOK / "deploy").glob("*.yaml"))
    for item in yaml.safe_load_all(path.read_text())
}
NAME = "pod-identity-webhook"
POD = OBJECTS["Deployment", NAME]["spec"]["template"]


def test_registration() -> None:
    """WHK-801 to WHK-809."""
    (webhook,) = OBJECTS["MutatingWebhookConfiguration", NAME]["webhooks"]

    assert webhook == {
        "name": "pod-identity-webhook.amazonaws.com",
        "admissionReviewVersions": ["v1", "v1beta1"],
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "timeoutSeconds": 10,
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "objectSelector": {
            "matchExpressions": [{"key": "eks.amazonaws.com/skip-pod-identity-webhook", "operator": "DoesNotExist"}]
        },
        "clientConfig": {
            "service": {"name": NAME, "namespace": "kube-system", "path": "/mutate", "port": 443},
            "caBundle": "",
        },
    }


def test_rbac_grants_nothing_else() -> None:
    """WHK-873."""
    rules = [rule for (kind, _), item in OBJECTS.items() if kind.endswith("Role") for rule in item["rules"]]

    assert sorted(rules, key=lambda rule: rule["resources"]) == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["pod-identity-associations"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get", "list", "watch"]},
    ]


def test_pods_are_hardened_and_skip_themselves() -> None:
    """WHK-810, WHK-874."""
    spec, (container,) = POD["spec"], POD["spec"]["containers"]

    assert "eks.amazonaws.com/skip-pod-identity-webhook" in POD["metadata"]["labels"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_arguments_are_ours_and_the_eks_profile() -> None:
    options = parse_options(POD["spec"]["containers"][0]["args"])

    assert (options.settings.region, options.settings.regional_sts) == ("eu-west-1", True)
    assert (options.port, options.namespace, options.service_name) == (8443, "kube-system", NAME)


def test_service_reaches_the_pods() -> None:
    """WHK-876: two pods, probes over HTTPS, and the Service's selector and port are theirs."""
    service, deployment = OBJECTS["Service", NAME]["spec"], OBJECTS["Deployment", NAME]["spec"]
    (container,) = POD["spec"]["containers"]

    assert service["selector"].items() <= POD["metadata"]["labels"].items()
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(443, "https")]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"https": 8443, "metrics": 9999}
    assert deployment["replicas"] == 2
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "https", "scheme": "HTTPS"}


def test_image_is_locked() -> None:
    """Every requirement of the image is pinned and has hashes."""
    lines = (WEBHOOK / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if "==" in line]

    assert len(pinned) >= 5
    assert all(line.endswith("\\") for line in pinned)
    assert {"aiohttp", "cryptography", "prometheus-client", "pyyaml", "uvloop"} <= {
        line.split("==")[0] for line in pinned
    }
