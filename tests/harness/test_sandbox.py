"""A sandbox's programs are told from those of another sandbox."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cluster.native.sandbox import MARK, Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="environment: sandboxes are made of Linux's namespaces")


@pytest.fixture
def running() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Starts a program that belongs to the sandbox of a directory."""
    started: list[subprocess.Popen[bytes]] = []

    def start(directory: Path) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "60"], env={MARK: str(directory)}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_program_of_a_further_node_survives_its_namesake(
    running: Callable[[Path], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A further node's sandbox lies below its cluster's, and both have a kubelet."""
    first, further = running(tmp_path), running(tmp_path / "workers" / "001")

    Sandbox(tmp_path).kill_program("sleep")

    assert first.wait(10) < 0
    assert further.poll() is None
