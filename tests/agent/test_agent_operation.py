"""Probes, metrics, logs and the end of the process (AGT sections 1.3 and 6)."""

from __future__ import annotations

import re
import socket
import threading
import time
from pathlib import Path

import pytest
from agent_process import Agent, make_token, read_replies, running_agent, wait_until
from fake_eks_auth import FakeEKSAuth, grant, refusal


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize("where", ["probe_port", "metrics_port"])
def test_probes_answer_with_nothing(agent: Agent, path: str, where: str) -> None:
    """AGT-601, AGT-602, AGT-606."""
    reply = agent.probe(path, getattr(agent, where))

    assert (reply.status, reply.body) == (200, b"")


def test_other_paths_of_the_probe_port_are_not_found(agent: Agent) -> None:
    """AGT-605."""
    assert [agent.probe(path).status for path in ("/", "/metrics", "/v1/credentials")] == [404, 404, 404]


def test_probes_leak_no_descriptor(agent: Agent) -> None:
    """AGT-611."""
    descriptors = Path(f"/proc/{agent.process.pid}/fd")
    agent.probe("/readyz")
    before = len(list(descriptors.iterdir()))

    for _ in range(200):
        agent.probe("/readyz")

    assert len(list(descriptors.iterdir())) <= before + 3


def test_upstream_counters_have_plain_names(agent: Agent, token: str) -> None:
    """AGT-620 to AGT-622, AGT-626."""
    names = [
        'pod_identity_http_response{code="200"}',
        'pod_identity_cache_state{state="miss"}',
        'pod_identity_cache_requests_total{result="miss"}',
        'pod_identity_cache_requests_total{result="hit"}',
        'pod_identity_upstream_calls_total{outcome="success",trigger="request"}',
    ]
    before = [agent.metric(name) for name in names]

    agent.get(token)
    agent.get(token)

    assert [agent.metric(name) - old for name, old in zip(names, before, strict=True)] == [2, 1, 1, 1, 1]
    text = agent.probe("/metrics", agent.metrics_port).text
    assert "# TYPE pod_identity_http_response counter\n" in text
    assert "# TYPE pod_identity_cache_state counter\n" in text
    assert "# TYPE pod_identity_cache_errors counter\n" in text


def test_own_metrics_are_there_from_the_start(agent: Agent) -> None:
    """AGT-624, AGT-625."""
    text = agent.probe("/metrics", agent.metrics_port).text

    for series in (
        'pod_identity_cache_evictions_total{reason="token_expired"} 0.0',
        'pod_identity_upstream_calls_total{outcome="ThrottlingException",trigger="renewal"} 0.0',
        'pod_identity_build_info{profile="G1",version="0.1.0"} 1.0',
        'pod_identity_listener_up{listener="127.0.0.1"} 1.0',
        "pod_identity_cache_capacity 2000.0",
        "process_open_fds ",
    ):
        assert series in text


def test_request_and_call_have_a_line_each(agent: Agent, token: str) -> None:
    """AGT-660, AGT-664 to AGT-666."""
    before = len(agent.log_lines())
    agent.get(token)

    lines = [line for line in agent.log_lines()[before:] if line["level"] == "info"]
    call, request = lines
    assert (call["msg"], call["outcome"], call["attempts"], call["trigger"], call["request-id"]) == (
        "Calling EKS Auth to fetch credentials", "success", 1, "request", "R",
    )  # fmt: skip
    assert re.fullmatch(r"handling new request request from 127\.0\.0\.1:[0-9]+", request["msg"])
    assert (request["status"], request["source"], request["claimed-pod"], request["association-id"]) == (
        200, "upstream", "pod-1", "a-1",
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", request["time"])


def test_text_of_upstream_cannot_break_a_line(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-662: the guard of the fixture parses every line."""
    eks_auth.script(token, refusal(400, "InvalidRequestException", 'a\nb"\\\u2028{'))

    assert agent.get(token).text == '[R]: (InvalidRequestException): a\nb"\\\u2028{, fault: client\n'


def test_repeated_failures_are_summarised(eks_auth: FakeEKSAuth) -> None:
    """AGT-668: at most ten lines a second for one message, and the rest as a count."""
    with running_agent(eks_auth.url) as agent:
        one = "GET /v1/credentials HTTP/1.1\r\nHost: evil\r\n"
        started = time.monotonic()
        agent.raw((f"{one}\r\n" * 299 + f"{one}Connection: close\r\n\r\n").encode())
        elapsed = time.monotonic() - started

        def summarised() -> int:
            return sum(line["count"] for line in agent.log_lines() if "count" in line)

        def single() -> int:
            return sum(line["msg"].startswith("Error fetching credentials: Access") for line in agent.log_lines())

        wait_until(lambda: single() + summarised() == 300, "each failure is told or counted")
        lines = single()

    assert 10 <= lines <= 10 * (int(elapsed) + 2)


def test_sigterm_finishes_requests_in_flight(eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-152: new connections are refused, idle ones closed, the exit code is 0."""
    hold = threading.Event()
    eks_auth.script(token, grant(hold=hold))
    with (
        running_agent(eks_auth.url, "--request-timeout", "1m") as agent,
        socket.create_connection(("127.0.0.1", agent.port)) as idle,
    ):
        answers: list[int] = []
        client = threading.Thread(target=lambda: answers.append(agent.get(token).status))
        client.start()
        eks_auth.wait_for_call(token)

        agent.process.terminate()

        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", agent.port)).close()
        hold.set()
        assert agent.wait() == 0
        client.join()
        messages = [line["msg"] for line in agent.log_lines()]

    assert answers == [200]
    assert messages[-1] == "Server gracefully stopped"
    assert messages.index("Shutting down server...") < len(messages) - 2


def test_restart_fetches_again_and_writes_no_file(eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-154."""
    for _ in range(2):
        with running_agent(eks_auth.url) as agent:
            agent.get(token)
            assert {path.name for path in agent.home.iterdir()} == {"log", "stderr"}

    assert len(eks_auth.calls_with(token)) == 2


def test_due_entry_is_renewed_and_a_refusal_reaches_the_pod(eks_auth: FakeEKSAuth, token: str) -> None:
    """AGT-450, AGT-451, AGT-454, AGT-456, AGT-623: renewed after 200 ms, then refused."""
    hold = threading.Event()
    eks_auth.script(token, grant("one"), grant("two"), refusal(404, "ResourceNotFoundException", hold=hold))
    limits = ("--max-cache-size", "1", "--max-credential-retention-before-renewal", "200ms")
    refusals = 'pod_identity_cache_errors{code="ResourceNotFoundException",type="NonRecoverable"}'
    with running_agent(eks_auth.url, *limits) as agent:
        assert "AKID-" in agent.get(token).text
        wait_until(lambda: agent.metric('pod_identity_cache_state{state="hit"}') >= 1, "a renewal")
        renewed = agent.get(token)
        hold.set()
        wait_until(lambda: agent.metric(refusals) >= 1, "a refusal")
        refused = agent.get(token)

    assert "AKID-two" in renewed.text
    assert (refused.status, refused.text) == (404, "[R]: (ResourceNotFoundException): m, fault: client\n")
    first, second = (call.received_at for call in eks_auth.calls_with(token)[:2])
    assert second - first >= 0.15


def test_metrics_can_be_turned_off(eks_auth: FakeEKSAuth) -> None:
    """AGT-527."""
    with running_agent(eks_auth.url, "--disable-metrics") as agent, pytest.raises(ConnectionRefusedError):
        agent.probe("/metrics", agent.metrics_port)


def test_replies_of_a_keep_alive_connection(agent: Agent) -> None:
    """AGT-208."""
    with socket.create_connection(("127.0.0.1", agent.port), timeout=5) as client:
        replies = read_replies(client)
        for _ in range(3):
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert next(replies).status == 404


def test_call_that_hangs_delays_no_other_token(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """AGT-426."""
    slow, quick, hold = make_token(), make_token(), threading.Event()
    eks_auth.script(slow, grant(hold=hold))
    client = threading.Thread(target=lambda: agent.get(slow))
    client.start()
    eks_auth.wait_for_call(slow)

    reply = agent.get(quick)
    was_slow = not hold.is_set() and client.is_alive()
    hold.set()
    client.join()

    assert reply.status == 200
    assert was_slow
