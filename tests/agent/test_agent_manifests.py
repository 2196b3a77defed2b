"""The DaemonSet says what section 8.2 of the contract asks for, and the image is locked to what is declared."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from podid_agent.config import SERVER_FLAGS, ServerConfig
from podid_agent.flags import parse_flags

AGENT = Path(__file__).parents[2] / "agent"
(DAEMON_SET,) = yaml.safe_load_all((AGENT / "deploy" / "daemonset.yaml").read_text())
TEMPLATE: Any = DAEMON_SET["spec"]["template"]
POD: Any = TEMPLATE["spec"]
(INIT,), (SERVER,) = POD["initContainers"], POD["containers"]


def test_it_runs_on_every_linux_node() -> None:
    """AGT-801, AGT-802, AGT-809, AGT-810."""
    assert (DAEMON_SET["metadata"]["namespace"], DAEMON_SET["metadata"]["name"]) == (
        "kube-system", "eks-pod-identity-agent",
    )  # fmt: skip
    assert DAEMON_SET["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
    assert DAEMON_SET["spec"]["selector"]["matchLabels"].items() <= TEMPLATE["metadata"]["labels"].items()
    assert "eks.amazonaws.com/skip-pod-identity-webhook" in TEMPLATE["metadata"]["labels"]
    assert POD["tolerations"] == [{"operator": "Exists"}]
    assert (POD["hostNetwork"], POD["priorityClassName"], POD["terminationGracePeriodSeconds"]) == (
        True, "system-node-critical", 30,
    )  # fmt: skip
    assert POD["automountServiceAccountToken"] is False
    assert "volumes" not in POD


def test_each_container_has_one_capability() -> None:
    """AGT-805, AGT-806, AGT-812."""
    assert POD["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    for container, capability in ((INIT, "NET_ADMIN"), (SERVER, "NET_BIND_SERVICE")):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": [capability]},
        }
        assert container["resources"] == {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


def test_arguments_are_upstreams_and_leave_the_addresses_to_the_agent() -> None:
    """AGT-803, AGT-811, AGT-816."""
    config = ServerConfig.from_flags(parse_flags(SERVER["args"], SERVER_FLAGS).values)

    assert SERVER["args"][:6] == ["--port", "80", "--cluster-name", "pod-identity-lab", "--probe-port", "2703"]
    assert config.bind_hosts == ("169.254.170.23", "fd00:ec2::23")
    assert config.metrics_port == 2705
    assert SERVER["command"] == ["/go-runner", "/eks-pod-identity-agent", "server"]
    assert INIT["command"] == ["/go-runner", "/eks-pod-identity-agent", "initialize"]
    assert [entry["name"] for entry in SERVER["env"]] == ["AWS_REGION"]


def test_port_80_is_not_taken_from_other_pods() -> None:
    """AGT-804, AGT-808, AGT-813."""
    assert {port["name"]: port["containerPort"] for port in SERVER["ports"]} == {"probes-port": 2703, "metrics": 2705}
    assert TEMPLATE["metadata"]["annotations"] == {"prometheus.io/scrape": "true", "prometheus.io/port": "2705"}
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        expected = {"host": "localhost", "path": path, "port": "probes-port", "scheme": "HTTP"}
        assert SERVER[probe]["httpGet"] == expected


def test_image_is_locked_to_what_is_declared() -> None:
    """Every requirement of the image is pinned with hashes, in a version that pyproject.toml allows."""
    declared = tomllib.loads((AGENT / "pyproject.toml").read_text())["project"]["dependencies"]
    locked = (AGENT / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\\n    --hash=sha256:", locked, re.MULTILINE))

    assert len(pinned) == len(re.findall(r"^\w", locked, re.MULTILINE))
    for requirement in map(Requirement, declared):
        assert pinned[requirement.name] in requirement.specifier


def test_image_has_what_manifests_start() -> None:
    """AGT-816: and whatever the Dockerfile copies from its context is there."""
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (AGENT / "Dockerfile").read_text(), re.MULTILINE)
    sources = [AGENT / source for copy in copies for source in copy.split()]

    assert all(source.exists() for source in sources)
    assert {source.name for source in sources if source.is_file() and source.stat().st_mode & 0o111} == {
        "eks-pod-identity-agent", "go-runner",
    }  # fmt: skip
