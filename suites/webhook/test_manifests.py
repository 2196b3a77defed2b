"""Sections 10.1 and 10.5 of the contract: the registration, and the deployment behind it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run
from harness.conformance.recording import Evidence, attach
from harness.errors import SubjectFault

ROOT = Path(__file__).parents[2]
SKIP_LABEL = "eks.amazonaws.com/skip-pod-identity-webhook"
Object = dict[str, Any]


class Manifests:
    """The objects of a directory of YAML files."""

    def __init__(self, directory: Path) -> None:
        self.objects: list[Object] = [
            item for path in sorted(directory.glob("*.yaml")) for item in yaml.safe_load_all(path.read_text()) if item
        ]

    def of(self, *kinds: str) -> list[Object]:
        return [item for item in self.objects if item.get("kind") in kinds]

    def the(self, kind: str) -> Object:
        found = self.of(kind)
        if len(found) != 1:
            raise SubjectFault(f"{len(found)} objects of kind {kind}, expected one")
        return found[0]

    @property
    def registration(self) -> Object:
        webhooks = self.the("MutatingWebhookConfiguration").get("webhooks") or [{}]
        attach(Evidence("object", "MutatingWebhookConfiguration", webhooks))
        return webhooks[0]

    @property
    def template(self) -> Object:
        return self.the("Deployment")["spec"]["template"]

    @property
    def container(self) -> Object:
        return self.template["spec"]["containers"][0]

    @property
    def arguments(self) -> dict[str, str]:
        texts = [*self.container.get("command", []), *self.container.get("args", [])]
        return {name: value for name, _, value in (text.partition("=") for text in texts)}


@pytest.fixture(scope="module")
def manifests(pytestconfig: pytest.Config) -> Manifests:
    given = pytestconfig.getoption("--webhook-manifests")
    if not given and pytestconfig.getoption("--subject") == "upstream":
        could_not_run("prerequisite", "give --webhook-manifests, the directory of the subject's manifests")
    return Manifests(Path(given) if given else ROOT / "webhook/deploy")


@requirement("WHK-801")
def test_rule(manifests: Manifests) -> None:
    """The creation of pods, v1 of the core group, and nothing else."""
    assert manifests.registration.get("rules") == [
        {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    ]


@requirement("WHK-802")
def test_absent_webhook_blocks_nothing(manifests: Manifests) -> None:
    """The failure policy is Ignore."""
    assert manifests.registration.get("failurePolicy") == "Ignore"


@requirement("WHK-803")
def test_no_side_effects(manifests: Manifests) -> None:
    """Dry runs may be sent to the webhook."""
    assert manifests.registration.get("sideEffects") == "None"


@requirement("WHK-804")
def test_registration_leads_to_the_service(manifests: Manifests) -> None:
    """It names the Service that is deployed, at /mutate, on a port that leads to the webhook's, and a CA bundle."""
    client = manifests.registration.get("clientConfig", {})
    service = client.get("service", {})
    deployed = manifests.the("Service")
    ports = [port for port in deployed["spec"]["ports"] if port["port"] == service.get("port", 443)]

    assert service.get("path") == "/mutate"
    assert service.get("name") == deployed["metadata"]["name"]
    assert service.get("namespace") == deployed["metadata"].get("namespace", "default")
    assert deployed["spec"]["selector"].items() <= manifests.template["metadata"]["labels"].items()
    assert len(ports) == 1
    # A container need not declare its ports.
    declared = {entry.get("name"): entry["containerPort"] for entry in manifests.container.get("ports", [])}
    target = ports[0].get("targetPort", ports[0]["port"])
    assert str(declared.get(target, target)) == manifests.arguments.get("--port", "443")
    # Filled in when it is installed, or by cert-manager.
    annotations = manifests.the("MutatingWebhookConfiguration")["metadata"].get("annotations", {})
    assert "caBundle" in client or "cert-manager.io/inject-ca-from" in annotations
    assert "url" not in client


@requirement("WHK-805")
def test_versions_of_reviews(manifests: Manifests) -> None:
    """v1 before v1beta1."""
    assert manifests.registration.get("admissionReviewVersions") == ["v1", "v1beta1"]


@requirement("WHK-806")
def test_pods_with_the_skip_label_are_left_out(manifests: Manifests) -> None:
    """By the presence of the label, whatever its value."""
    selector = manifests.registration.get("objectSelector", {})
    expressions = [(entry.get("key"), entry.get("operator")) for entry in selector.get("matchExpressions", [])]

    assert expressions == [(SKIP_LABEL, "DoesNotExist")]
    assert not selector.get("matchLabels")


@requirement("WHK-807")
def test_reinvocation(manifests: Manifests) -> None:
    """It asks to be called again when a later webhook changed the pod."""
    assert manifests.registration.get("reinvocationPolicy") == "IfNeeded"


@requirement("WHK-808")
def test_timeout(manifests: Manifests) -> None:
    """The time-out is given, from two to ten seconds, and the deployment's grace period is shorter."""
    period = manifests.arguments.get("--service-account-lookup-grace-period", "0s")
    seconds = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    grace = sum(float(number) * seconds[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", period))
    timeout = manifests.registration.get("timeoutSeconds", 0)

    assert 2 <= timeout <= 10
    assert grace < timeout


@requirement("WHK-809")
def test_matching(manifests: Manifests) -> None:
    """Equivalent, without a selection of namespaces."""
    assert manifests.registration.get("matchPolicy", "Equivalent") == "Equivalent"
    assert not manifests.registration.get("namespaceSelector")


@requirement("WHK-810")
def test_webhook_and_agent_are_never_mutated(manifests: Manifests) -> None:
    """Their pods have the skip label: an agent with the variables would ask itself for credentials."""
    agent = Manifests(ROOT / "agent/deploy").the("DaemonSet")["spec"]["template"]

    assert SKIP_LABEL in manifests.template["metadata"]["labels"]
    assert SKIP_LABEL in agent["metadata"]["labels"]


@requirement("WHK-873")
def test_rbac(manifests: Manifests) -> None:
    """ServiceAccounts may be read everywhere, ConfigMaps by name in one namespace, and nothing else."""
    cluster = [rule for role in manifests.of("ClusterRole") for rule in role["rules"]]
    local = [rule for role in manifests.of("Role") for rule in role["rules"]]
    named = {
        name
        for argument in ("--watch-config-map", "--watch-container-credentials-config-map")
        if (value := manifests.arguments.get(argument)) is not None
        for name in [value.rpartition("/")[2] if "/" in value else "pod-identity-webhook"]
    }

    assert cluster == [{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get", "list", "watch"]}]
    assert all(rule["resources"] == ["configmaps"] for rule in local)
    assert all(set(rule["verbs"]) == {"get", "list", "watch"} for rule in local)
    assert {name for rule in local for name in rule.get("resourceNames", ["all of them"])} == named
    assert all(
        subject
        == {"kind": "ServiceAccount", "name": manifests.template["spec"]["serviceAccountName"]}
        | {"namespace": manifests.the("Deployment")["metadata"]["namespace"]}
        for binding in manifests.of("ClusterRoleBinding", "RoleBinding")
        for subject in binding["subjects"]
    )


@requirement("WHK-874")
def test_pod_is_unprivileged(manifests: Manifests) -> None:
    """Not root, no capability, a read-only root, RuntimeDefault, and a port that anybody may open."""
    spec = manifests.template["spec"]
    context = spec.get("securityContext", {}) | manifests.container.get("securityContext", {})

    assert context.get("runAsNonRoot") is True
    assert context.get("runAsUser") != 0
    assert context.get("readOnlyRootFilesystem") is True
    assert context.get("allowPrivilegeEscalation") is False
    assert context.get("capabilities") == {"drop": ["ALL"]}
    assert context.get("seccompProfile") == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all(port["containerPort"] >= 1024 and "hostPort" not in port for port in manifests.container["ports"])
    assert int(manifests.arguments.get("--port", "443")) >= 1024
    assert [port["port"] for port in manifests.the("Service")["spec"]["ports"]] == [443]


@requirement("WHK-875")
def test_no_credentials_of_aws(manifests: Manifests) -> None:
    """Neither variables nor files nor a role: the one Secret that is mounted is the serving certificate."""
    variables = [entry["name"] for entry in manifests.container.get("env", [])]
    volumes = manifests.template["spec"].get("volumes", [])
    annotations = [item["metadata"].get("annotations", {}) for item in manifests.of("ServiceAccount")]
    secrets = [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]

    assert not [name for name in variables if name.startswith("AWS_")]
    assert "envFrom" not in manifests.container
    assert [item["type"] for item in manifests.of("Secret") if item["metadata"]["name"] in secrets] == [
        "kubernetes.io/tls"
    ]
    assert [set(volume) - {"name"} for volume in volumes] == [{"secret"}]
    assert not [keys for keys in annotations if any("role-arn" in key for key in keys)]


@requirement("WHK-876")
def test_availability(manifests: Manifests) -> None:
    """Two replicas or more on different nodes, a disruption budget, a high priority, and both probes over HTTPS."""
    deployment, spec = manifests.the("Deployment")["spec"], manifests.template["spec"]
    budget = manifests.the("PodDisruptionBudget")["spec"]
    spread = [
        *(entry["topologyKey"] for entry in spec.get("topologySpreadConstraints", [])),
        *(["kubernetes.io/hostname"] if "podAntiAffinity" in spec.get("affinity", {}) else []),
    ]

    assert deployment.get("replicas", 1) >= 2
    assert "kubernetes.io/hostname" in spread
    assert budget["selector"] == deployment["selector"]
    assert spec.get("priorityClassName") in {"system-cluster-critical", "system-node-critical"}
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        request = manifests.container.get(probe, {}).get("httpGet", {})
        assert (request.get("path"), request.get("scheme")) == (path, "HTTPS")
