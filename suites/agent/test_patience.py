"""What takes half a minute or more to be seen (sections 1.2 and 2.1 of the contract)."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import HOST, Agent
from harness.subject.eks_auth import FakeEKSAuth
from harness.subject.pod_token import make_token
from suites.agent.conftest import StartAgent


@requirement("AGT-215")
def test_slow_and_idle_clients_are_closed_after_half_a_minute(agent: Agent, token: str) -> None:
    """One stops within a header, one after an answer; others are served meanwhile."""
    request = f"GET /v1/credentials HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\n\r\n".encode()
    with agent.connection() as slow, agent.connection() as idle:
        slow.sendall(request[:40])
        idle.sendall(request)
        answer = idle.recv(65536)
        started = time.monotonic()
        statuses = [agent.get(make_token()).status for _ in range(3)]
        meanwhile = time.monotonic() - started
        closed_after = {name: _seconds_until_closed(sock, started) for name, sock in (("slow", slow), ("idle", idle))}

    assert answer.startswith(b"HTTP/1.1 200 ")
    check("AGT-215", expected=[200, 200, 200], observed=statuses, what="others")
    check("AGT-215", expected="at once", observed=meanwhile, holds=meanwhile < 5)
    right = all(25 <= seconds <= 40 for seconds in closed_after.values())
    check("AGT-215", expected="about 30 s", observed=closed_after, holds=right)


def _seconds_until_closed(sock: socket.socket, started: float) -> float:
    sock.settimeout(50)
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - started


@requirement("AGT-153")
def test_a_client_that_never_ends_is_cut_after_25_seconds(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str
) -> None:
    """The process ends with 0 all the same, and a warning says how many there were."""
    agent = start_agent(eks_auth.url)
    head = f"POST /v1/credentials HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\nContent-Length: 9\r\n\r\n"
    with agent.connection() as endless:
        endless.sendall(head.encode())
        exit_code, lasted = _end(agent, token)

    check("AGT-153", expected=0, observed=exit_code, what="exit code")
    check("AGT-153", expected="25 s", observed=lasted, holds=24 < lasted < 30)
    warnings = [line.get("count") for line in agent.log_lines() if line.get("level") == "warning"]
    check("AGT-153", expected=[1], observed=warnings, what="clients that were cut, as the log counts them")


@requirement("AGT-153")
def test_a_client_that_never_asks_holds_nobody_up(start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str) -> None:
    """It may still ask when the agent is told to end; after five seconds it is nobody that has to be counted."""
    agent = start_agent(eks_auth.url)
    with agent.connection():
        exit_code, lasted = _end(agent, token)

    check("AGT-153", expected=0, observed=exit_code, what="exit code")
    check("AGT-153", expected="5 s", observed=lasted, holds=4 < lasted < 10)
    warnings = [line["msg"] for line in agent.log_lines() if line.get("level") == "warning"]
    check("AGT-153", expected=[], observed=warnings, what="warnings")


def _end(agent: Agent, token: str) -> tuple[int, float]:
    """Tell the agent to end once it has noted every client; return its exit code, and after how many seconds."""
    # Answered after it was accepted and read: what came before it has been, too.
    assert agent.get(token).status == 200
    agent.end()
    started = time.monotonic()
    exit_code = agent.wait(timeout=40)
    return exit_code, time.monotonic() - started


@requirement("AGT-145")
def test_rotated_credentials_are_read_again_after_a_minute(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, tmp_path: Path
) -> None:
    """They are those of profile default in the shared file; while there is none, requests are refused."""
    file = tmp_path / "credentials"
    env = {
        "AWS_SHARED_CREDENTIALS_FILE": str(file),
        "AWS_ACCESS_KEY_ID": "AKIDENV",
        "AWS_PROFILE": "",
    }
    agent = start_agent(eks_auth.url, "--rotate-credentials", env=env)

    def signer() -> str:
        token = make_token()
        if agent.get(token).status != 200:
            return ""
        return eks_auth.call_with(token).headers["authorization"].partition("Credential=")[2].partition("/")[0]

    lacking = signer()
    _write_keys(file, "AKIDFIRST")
    first = wait.until(signer, what="credentials from the new file", timeout=limits.KEYS_REREAD)
    _write_keys(file, "AKIDSECOND")
    rewritten_at = time.monotonic()
    at_once = signer()
    second = wait.until(signer, lambda found: found != "AKIDFIRST", what="the second keys", timeout=limits.KEYS_REREAD)
    after = time.monotonic() - rewritten_at

    check("AGT-145", expected="", observed=lacking, what="without a file")
    check("AGT-145", expected=["AKIDFIRST", "AKIDFIRST", "AKIDSECOND"], observed=[first, at_once, second])
    check("AGT-145", expected="once a minute", observed=after, holds=after > 30)


def _write_keys(file: Path, access_key_id: str) -> None:
    file.write_text(
        f"[other]\naws_access_key_id = AKIDOTHER\naws_secret_access_key = s\n"
        f"[default]\naws_access_key_id = {access_key_id}\naws_secret_access_key = s\n"
    )
