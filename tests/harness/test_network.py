"""The network of a native lab, as far as it is seen in the commands that make it."""

from __future__ import annotations

import subprocess

import pytest

from harness.cluster.native import network
from harness.cluster.native.network import LabNetwork


def test_a_node_that_comes_does_not_change_the_hardware_address_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge without an address of its own takes the lowest of its ports'; who knows the former one is not heard."""
    commands: list[str] = []
    monkeypatch.setattr(network, "_run", lambda command: commands.append(" ".join(command)))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    lab = LabNetwork("lab", "10.213.7.0/24", "")

    lab.wire_aws(1)
    lab.wire_node(1, 2, 0)

    assert [command for command in commands if "type bridge" in command] == [
        "nsenter --target=1 --net ip link add lab0 address 0a:58:0a:d5:07:02 type bridge"
    ]
    assert "address 0a:58:0a:d5:07:10 netns 2" in " ".join(commands)
