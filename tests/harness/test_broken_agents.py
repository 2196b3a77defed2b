"""The agent's suite on subjects that no agent is: tests fail, quickly, and nothing is an error of the harness."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.conformance.record import Run, read_run

ROOT = Path(__file__).parents[2]

# Answers whatever comes, on all three ports, with the bytes of its first argument; without any, never.
SCRIPT = """
import socket, sys, threading
answer, flags = sys.argv[1].encode().decode("unicode_escape").encode(), sys.argv[2:]

def serve(server):
    while True:
        client, _ = server.accept()
        client.recv(65536)
        if not answer:
            kept.append(client)
            continue
        client.sendall(answer)
        client.close()

kept = []
hosts = [value for flag, value in zip(flags, flags[1:]) if flag == "-b"]
ports = {flag: int(value) for flag, value in zip(flags, flags[1:]) if flag.endswith("port")}
listen = [(host, ports["--port"]) for host in hosts]
for address in listen + [("127.0.0.1", ports[f"--{name}-port"]) for name in ("probe", "metrics")]:
    threading.Thread(target=serve, args=(socket.create_server(address),)).start()
"""


def judge(tmp_path: Path, *arguments: str, chapter: str = "") -> tuple[int, Run]:
    """Run a few tests of the suite, or of one of its files; return pytest's exit code and the record."""
    command = [sys.executable, "-m", "pytest", f"suites/agent/{chapter}", "-q", f"--report-dir={tmp_path}", *arguments]
    # Half of the time would go into preparing assertions, whose texts nobody reads here.
    command += [f"--history={tmp_path}/history", "--assert=plain"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PODID_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    (directory,) = tmp_path.glob("*-*")
    return done.returncode, read_run(directory)


@pytest.mark.parametrize("answer", [r"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""], ids=["200", "silence"])
def test_an_agent_that_always_says_the_same_fails(tmp_path: Path, answer: str) -> None:
    script = tmp_path / "agent.py"
    script.write_text(SCRIPT)
    command = f"{sys.executable} {script} '{answer}'"

    code, run = judge(
        tmp_path,
        f"--agent-command={command}",
        "--subject=mutant:constant",
        "--only=AGT-403",
        chapter="test_cache.py",
    )

    assert code == 1
    outcomes = {entry.id: entry.outcome for entry in run.requirements}
    assert outcomes["AGT-403"] == "failed"
    assert {test.outcome for test in run.tests} <= {"failed", "passed"}


def test_a_command_that_is_no_agent_fails(tmp_path: Path) -> None:
    code, run = judge(tmp_path, "--agent-command=false", *(f"--only=AGT-{number}" for number in (102, 115, 403, 450)))

    outcomes = {entry.id: entry.outcome for entry in run.requirements if entry.outcome}
    assert code == 1
    # Somebody else's agent is not held to what only ours promises.
    assert (outcomes["AGT-115"], run.subject) == ("not-applicable", "upstream")
    assert {outcomes[name] for name in ("AGT-102", "AGT-403", "AGT-450")} == {"failed"}


def test_a_command_that_does_not_exist_is_the_caller_s_fault(tmp_path: Path) -> None:
    code, run = judge(tmp_path, "--agent-command=/nonexistent/agent", "--only=AGT-102")

    assert code == 3
    assert {test.outcome for test in run.tests} == {"error"}
