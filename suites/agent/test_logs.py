"""What the agent writes, and what it never writes (section 6.3 of the contract)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import Agent, AgentCommand
from harness.subject.eks_auth import Answer, FakeEKSAuth, changed, grant, refusal
from harness.subject.pod_token import CANARY, make_token
from suites.agent.conftest import StartAgent

LEVELS = {"panic", "fatal", "error", "warning", "info", "debug", "trace"}
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@pytest.fixture(scope="module")
def logging_agent(agent_command: AgentCommand, eks_auth: FakeEKSAuth, patient: Sequence[str]) -> Iterator[Agent]:
    """An agent at trace level with a session token of its own and a short retention, so that it renews as well."""
    flags = ("--max-cache-size", "6", "--max-credential-retention-before-renewal", "1s")
    env = {"AWS_SESSION_TOKEN": f"{CANARY}-NODE-SESSION"}
    with agent_command.serving(eks_auth.url, *patient, *flags, env=env) as agent:
        yield agent


def _new_lines(agent: Agent, logged: int) -> list[dict[str, Any]]:
    return agent.log_lines()[logged:]


@requirement("AGT-660", "AGT-661", "AGT-662", "AGT-669")
def test_every_line_is_an_object_and_none_has_a_secret(
    logging_agent: Agent, eks_auth: FakeEKSAuth, agent_command: AgentCommand
) -> None:
    """After success, renewals, refusals with line breaks in them, nonsense and bad requests."""
    agent = logging_agent
    nasty = 'a\nb"\\\u2028{"level":"info"}\r\x1b[0m'
    good, gone, odd, broken = (make_token() for _ in range(4))
    eks_auth.script(good, grant("good"))
    eks_auth.script(gone, refusal(400, "AccessDeniedException", nasty, request_id='r"\\{}'))
    eks_auth.script(odd, Answer(403, json.dumps({"code": nasty, "message": nasty}).encode()))
    eks_auth.script(broken, changed("credentials.expiration", f"{CANARY}\n"))
    statuses = [agent.get(token).status for token in (good, gone, odd, broken, "junk", make_token(exp=1))]
    statuses.append(agent.get(good, host="a%0ab").status)
    agent.raw(b"GET /\r\n\r\n")
    eks_auth.wait_for_calls(good, 2, timeout=limits.RENEWAL.after(agent_command.sweep))

    # AWS's agent passes the nonsense on (AGT-280); what it logs then is looked at all the same.
    assert statuses[:3] + statuses[4:] == [200, 400, 403, 400, 400, 403]
    lines = agent.log_text().splitlines()
    parsed = agent.log_lines()
    check("AGT-660", expected=len(lines), observed=len(parsed), what="lines that are JSON objects")
    formless = [line for line in parsed if not _has_form(line)]
    check("AGT-660", expected=[], observed=formless[:3], what="lines without level, msg and time")
    check("AGT-662", expected=len(lines), observed=len(parsed))
    forged = [line for line in lines if line.startswith(('b"', '{"level":"info"}'))]
    check("AGT-662", expected=[], observed=forged, what="lines that EKS Auth wrote")
    said = [line for line in (agent.log_text() + agent.stderr_text()).splitlines() if CANARY in line]
    check("AGT-661", expected=[], observed=said)
    others = [line for line in agent.stderr_text().splitlines() if "Setting logging verbosity level to" not in line]
    unlogged = [line for line in others if line not in agent.log_text()]
    check("AGT-669", expected=[], observed=unlogged)


def _has_form(line: dict[str, Any]) -> bool:
    return (
        line.get("level") in LEVELS
        and isinstance(line.get("msg"), str)
        and bool(RFC3339.fullmatch(str(line.get("time"))))
    )


@requirement("AGT-664", "AGT-665", "AGT-666")
def test_request_and_call_have_a_line_each(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """The request's has its fate and what the token claims, the call's how it went."""
    eks_auth.script(token, refusal(503, "ServiceUnavailableException"), grant(request_id="R-2"))
    logged = len(agent.log_lines())
    assert [agent.get(token).status for _ in range(2)] == [200, 200]

    lines = [line for line in _new_lines(agent, logged) if line.get("level") == "info"]
    calls = [line for line in lines if "trigger" in line]
    requests = [line for line in lines if "status" in line]
    facts = [{name: line.get(name) for name in ("trigger", "attempts", "outcome", "request-id")} for line in calls]
    # Two, but for a machine so slow that an attempt ran out of time.
    attempts = len(eks_auth.calls_with(token))
    assert attempts >= 2
    expected = [{"trigger": "request", "attempts": attempts, "outcome": "success", "request-id": "R-2"}]
    check("AGT-665", expected=expected, observed=facts)
    timed = all(isinstance(line.get("request_time_ms"), int | float) for line in lines)
    check("AGT-665", expected="a duration", observed=calls, holds=timed, what="duration")
    fates = [{name: line.get(name) for name in ("status", "source", "association-id")} for line in requests]
    expected = [
        {"status": 200, "source": "upstream", "association-id": "a-1"},
        {"status": 200, "source": "cache", "association-id": "a-1"},
    ]
    check("AGT-664", expected=expected, observed=fates)
    check("AGT-664", expected="a duration", observed=requests, holds=timed, what="duration")
    claims = {"ns-1", "sa-1", "pod-1"}
    named = [{name: value for name, value in line.items() if value in claims} for line in requests if line]
    check(
        "AGT-664",
        expected=[sorted(claims)] * 2,
        observed=[sorted(map(str, entry.values())) for entry in named],
        what="identity",
    )
    marked = bool(named) and all("claimed" in name for entry in named for name in entry)
    check("AGT-666", expected="fields marked as claimed", observed=[sorted(entry) for entry in named], holds=marked)


@requirement("AGT-664")
@pytest.mark.parametrize(
    ("token", "host", "status"),
    [("junk", "169.254.170.23", 400), (None, "169.254.170.23", 400), ("x", "evil-host", 403)],
    ids=["token", "none", "host"],
)
def test_a_refused_request_has_a_line_as_well(agent: Agent, token: str | None, host: str, status: int) -> None:
    """With its status and source, unless such lines are being summarised."""
    logged = len(agent.log_lines())
    assert agent.get(token, host=host).status == status

    lines = [line for line in _new_lines(agent, logged) if "status" in line]
    summarised = wait.until(
        lambda: [line for line in _new_lines(agent, logged) if "status" in line or "count" in line],
        what="a line or a summary",
        timeout=limits.SUBJECT_ACTS,
    )
    assert [(line.get("status"), line.get("source")) for line in lines] == [(status, "local")] or "count" in summarised[
        0
    ]


MESSAGES = {
    r"Pod Identity Agent version \S+",
    r"Starting server\.\.\.",
    r"Overriding EKS Auth default endpoint with http://.+",
    r"handling new request request from 127\.0\.0\.1:\d+",
    r"Calling EKS Auth to fetch credentials",
    r"Successfully fetched credentials from EKS Auth",
    r"Storing creds in cache",
    r"Using cached credentials",
    r"Error fetching credentials: .+",
    r"Could not renew, will try to keep existing creds\. Error is recoverable: .+",
    r"Removing credentials from cache, got non recoverable error: .+",
    r"Credentials evicted",
    r"Shutting down server\.\.\.",
    r"Server gracefully stopped",
}
FIELDS = {
    "association-id",
    "bind-addr",
    "cache-hit",
    "client-addr",
    "cluster-name",
    "fetched_role_arn",
    "fetched_role_id",
    "from",
    "operation",
    "refreshTtl",
    "request-id",
    "request_time_ms",
    "service",
    "ttl",
}


@requirement("AGT-663")
def test_known_messages_and_fields_are_kept(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, agent_command: AgentCommand
) -> None:
    """Whoever watches AWS's agent finds the same words."""
    flags = ("--max-cache-size", "2", "--max-credential-retention-before-renewal", "1s")
    agent = start_agent(eks_auth.url, *flags)
    kept, dropped, third, bad = (make_token() for _ in range(4))
    eks_auth.script(kept, grant(), refusal(400, "InvalidRequestException"))
    eks_auth.script(dropped, grant(), refusal(400, "AccessDeniedException"))
    eks_auth.script(bad, refusal(400, "InvalidTokenException"))
    statuses = [agent.get(token).status for token in (kept, dropped, dropped, bad)]
    for token in (kept, dropped):
        eks_auth.wait_for_calls(token, 2, timeout=limits.RENEWAL.after(agent_command.sweep))
    statuses.append(agent.get(third).status)
    agent.end()
    agent.wait()

    assert statuses == [200, 200, 200, 400, 200]
    messages = {str(line.get("msg")) for line in agent.log_lines()}
    missing = {pattern for pattern in MESSAGES if not any(re.fullmatch(pattern, text, re.DOTALL) for text in messages)}
    assert missing == set()
    assert FIELDS - {name for line in agent.log_lines() for name in line} == set()


@requirement("AGT-668")
def test_repeated_failures_are_summarised(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """At most ten lines a second for one message, and the rest as a count."""
    agent = start_agent(eks_auth.url)
    one = "GET /v1/credentials HTTP/1.1\r\nHost: evil\r\n"
    started = time.monotonic()
    replies = agent.raw((f"{one}\r\n" * 299 + f"{one}Connection: close\r\n\r\n").encode())
    elapsed = time.monotonic() - started

    def told() -> tuple[int, int]:
        lines = agent.log_lines()
        single = sum(line.get("status") == 403 for line in lines)
        return single, sum(int(line["count"]) for line in lines if "count" in line)

    single, summarised = wait.until(
        told, lambda seen: sum(seen) >= 300, what="each failure to be told or counted", timeout=limits.SUBJECT_ACTS
    )

    assert len(replies) == 300
    assert single + summarised == 300
    assert 1 <= single <= 10 * (int(elapsed) + 2)


@requirement("AGT-110", "AGT-660")
def test_the_level_is_a_threshold(start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str) -> None:
    """At error, a request that is served leaves no line, and one that is not leaves an error."""
    agent = start_agent(eks_auth.url, verbosity="ERROR")

    served = agent.get(token).status
    quiet = agent.log_text()
    refused = agent.get("junk").status

    check("AGT-110", expected=(200, ""), observed=(served, quiet))
    levels = [line.get("level") for line in agent.log_lines()]
    check("AGT-660", expected=(400, ["error"]), observed=(refused, levels))
