"""The image is locked to what is declared, and has what manifests start."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from podid_agent.config import SERVER_FLAGS, ServerConfig
from podid_agent.flags import parse_flags

AGENT = Path(__file__).parents[2] / "agent"


def test_arguments_of_the_manifest_are_taken() -> None:
    """AGT-803: and leave the addresses to the agent."""
    (daemon_set,) = yaml.safe_load_all((AGENT / "deploy" / "daemonset.yaml").read_text())
    (server,) = daemon_set["spec"]["template"]["spec"]["containers"]

    config = ServerConfig.from_flags(parse_flags(server["args"], SERVER_FLAGS).values)

    assert config.bind_hosts == ("169.254.170.23", "fd00:ec2::23")
    assert (config.port, config.probe_port, config.metrics_port) == (80, 2703, 2705)


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
