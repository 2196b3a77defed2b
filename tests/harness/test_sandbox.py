"""A sandbox's programs are told from those of another sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cluster.native.sandbox import MARK, Sandbox
from harness.errors import HarnessFault

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="environment: sandboxes are made of Linux's namespaces")


@pytest.fixture
def running() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a program that belongs to the sandbox of a directory."""
    started: list[subprocess.Popen[bytes]] = []

    def start(directory: Path, seconds: str = "60") -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", seconds], env={MARK: str(directory)}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """One whose two programs have one executable, as Python's have."""
    programs = [{"name": name, "argv": ["sleep", seconds]} for name, seconds in (("one", "60"), ("other", "61"))]
    (tmp_path / "spec.json").write_text(json.dumps({"programs": programs}))
    return Sandbox(tmp_path)


def test_program_of_a_further_node_survives_its_namesake(
    running: Callable[..., subprocess.Popen[bytes]], sandbox: Sandbox
) -> None:
    """A further node's sandbox lies below its cluster's, and both have a kubelet."""
    first, further = running(sandbox.directory), running(sandbox.directory / "workers" / "001")

    sandbox.kill_program("one")

    assert first.wait(10) < 0
    assert further.poll() is None


def test_program_is_known_by_its_whole_command_line(
    running: Callable[..., subprocess.Popen[bytes]], sandbox: Sandbox
) -> None:
    one, other = running(sandbox.directory), running(sandbox.directory, "61")

    sandbox.kill_program("other")

    assert other.wait(10) < 0
    assert one.poll() is None


def test_program_that_does_not_run_cannot_be_killed(sandbox: Sandbox) -> None:
    with pytest.raises(HarnessFault, match="does not run"):
        sandbox.kill_program("absent")
