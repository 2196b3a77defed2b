"""The DaemonSet and the image's Dockerfile (section 8.2 of the contract): those of this repository, read as files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.conformance.marks import requirement
from harness.conformance.outcomes import not_applicable
from harness.conformance.recording import check

AGENT = Path(__file__).parents[2] / "agent"


@pytest.fixture(autouse=True)
def _ours(pytestconfig: pytest.Config) -> None:
    """Leave the manifests of somebody else's agent alone: they are not here."""
    if pytestconfig.getoption("--subject") == "upstream":
        not_applicable("subject", "the manifests in agent/deploy are those of this repository's agent")


@pytest.fixture(scope="module")
def daemon_set() -> dict[str, Any]:
    (document,) = yaml.safe_load_all((AGENT / "deploy" / "daemonset.yaml").read_text())
    return document


@pytest.fixture(scope="module")
def pod(daemon_set: dict[str, Any]) -> dict[str, Any]:
    return daemon_set["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def server(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    return container


@pytest.fixture(scope="module")
def init(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["initContainers"]
    return container


@requirement("AGT-802", "AGT-809", "AGT-810")
def test_the_pod_is_one_of_the_node(daemon_set: dict[str, Any], pod: dict[str, Any]) -> None:
    """Host network, priority, tolerations, grace and updates are those of AWS's chart; there is no API token."""
    observed = {
        "hostNetwork": pod.get("hostNetwork"),
        "priorityClassName": pod.get("priorityClassName"),
        "terminationGracePeriodSeconds": pod.get("terminationGracePeriodSeconds"),
        "tolerations": pod.get("tolerations"),
        "updateStrategy": daemon_set["spec"].get("updateStrategy"),
    }
    expected = {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [{"operator": "Exists"}],
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
    }
    check("AGT-802", expected=expected, observed=observed)
    account = (pod.get("automountServiceAccountToken"), pod.get("serviceAccountName"), pod.get("volumes"))
    check("AGT-809", expected=(False, None, None), observed=account)
    labels = daemon_set["spec"]["template"]["metadata"]["labels"]
    check("AGT-810", expected=True, observed="eks.amazonaws.com/skip-pod-identity-webhook" in labels)


@requirement("AGT-803", "AGT-811", "AGT-819")
def test_arguments_and_environment_are_aws_s(server: dict[str, Any]) -> None:
    """The first six arguments are, and the log level is left at info."""
    args: list[str] = server["args"]
    check("AGT-803", expected=["--port", "80", "--cluster-name"], observed=args[:3], what="beginning")
    named = bool(re.fullmatch(r"[0-9A-Za-z][A-Za-z0-9_-]{0,99}", args[3]))
    check("AGT-803", expected="a cluster name", observed=args[3], holds=named, what="name")
    check("AGT-803", expected=["--probe-port", "2703"], observed=args[4:6], what="probe port")
    check(
        "AGT-811",
        expected=True,
        observed=any(entry["name"] == "AWS_REGION" and entry["value"] for entry in server["env"]),
    )
    levels = [word for word in args if word.startswith(("-v", "--verbosity"))]
    check("AGT-819", expected=[], observed=levels)


@requirement("AGT-804")
@pytest.mark.parametrize(("probe", "path"), [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")])
def test_probes_ask_port_2703_at_localhost(server: dict[str, Any], probe: str, path: str) -> None:
    """By the name of that port."""
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    get = server[probe]["httpGet"]

    assert (get["host"], get["path"], ports.get(get["port"], get["port"])) == ("localhost", path, 2703)


@requirement("AGT-805", "AGT-806", "AGT-812")
@pytest.mark.parametrize(("name", "capability"), [("init", "NET_ADMIN"), ("server", "NET_BIND_SERVICE")])
def test_each_container_has_one_capability(
    pod: dict[str, Any], init: dict[str, Any], server: dict[str, Any], name: str, capability: str
) -> None:
    """No privilege, a root file system nobody writes to, seccomp, small requests and a limit."""
    container = {"init": init, "server": server}[name]
    context = container["securityContext"]
    check("AGT-805", expected={"drop": ["ALL"], "add": [capability]}, observed=context.get("capabilities"))
    check("AGT-805", expected=False, observed=context.get("privileged", False), what="privileged")
    seccomp = context.get("seccompProfile") or pod["securityContext"].get("seccompProfile")
    observed = (context.get("readOnlyRootFilesystem"), context.get("allowPrivilegeEscalation"), seccomp)
    check("AGT-806", expected=(True, False, {"type": "RuntimeDefault"}), observed=observed)
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    cpu, memory, limit = int(requests["cpu"].rstrip("m")), _mebibytes(requests["memory"]), _mebibytes(limits["memory"])
    # 8 KiB an entry (AGT-1104) make 16 MiB of 2,000 entries, over what the process takes anyway.
    observed = {"cpu": cpu, "memory": memory, "limit": limit}
    small = cpu <= 100 and memory <= 128 and memory + 16 <= limit <= 512
    check("AGT-812", expected="small requests, and a limit with room for 2,000 entries", observed=observed, holds=small)


def _mebibytes(quantity: str) -> int:
    found = re.fullmatch(r"(\d+)Mi", quantity)
    assert found, quantity
    return int(found[1])


@requirement("AGT-808")
def test_port_80_is_not_taken_from_other_pods(server: dict[str, Any]) -> None:
    """On the host network a declared port is the node's."""
    assert 80 not in {port.get("hostPort", port["containerPort"]) for port in server["ports"]}
    assert "NET_BIND_SERVICE" in server["securityContext"]["capabilities"]["add"]
