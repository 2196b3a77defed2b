"""Probes and metrics (sections 6.1 and 6.2 of the contract)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import HOST, Agent
from harness.subject.eks_auth import FakeEKSAuth, grant, refusal
from harness.subject.pod_token import make_token
from suites.agent.conftest import StartAgent

RESPONSES = "pod_identity_http_response"

# --- Probes ---------------------------------------------------------------------------------------------------------


@requirement("AGT-601", "AGT-602")
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "FOO"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_answer_on_both_ports(agent: Agent, path: str, method: str) -> None:
    """Whatever the method, they are 200 with nothing in it."""
    request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    ports = (agent.probe_port, agent.metrics_port)
    replies = [agent.send_bytes(request, port=port, address="127.0.0.1").reply() for port in ports]

    check("AGT-601", expected=[200, 200], observed=[reply.status for reply in replies])
    check("AGT-602", expected=["", ""], observed=[reply.text for reply in replies])


@requirement("AGT-602")
def test_what_a_probe_asks_is_answered_by_every_listener(agent: Agent) -> None:
    """``GET /`` is 404 on each."""
    assert [agent.get(path="/", address=host).status for host in agent.hosts] == [404] * len(agent.hosts)


@requirement("AGT-605")
def test_other_paths_are_not_found(agent: Agent) -> None:
    """On either port, as on the credentials port."""
    paths = {agent.probe_port: ("/", "/metrics", "/v1/credentials"), agent.metrics_port: ("/", "/v1/credentials")}

    replies = [agent.probe(path, port) for port, names in paths.items() for path in names]

    assert {(reply.status, reply.text) for reply in replies} == {(404, "404 page not found\n")}
    assert {reply.headers["content-type"] for reply in replies} == {"text/plain; charset=utf-8"}


@requirement("AGT-606")
def test_probes_do_not_depend_on_eks_auth(start_agent: StartAgent, token: str) -> None:
    """With an endpoint that is not there, requests fail and probes do not."""
    agent = start_agent("http://127.0.0.1:9", env={"AWS_MAX_ATTEMPTS": "1"})

    assert agent.get(token).status == 500
    assert [agent.probe(path).status for path in ("/healthz", "/readyz")] == [200, 200]


@requirement("AGT-611")
def test_probes_leak_no_descriptor(agent: Agent) -> None:
    """Hundreds of them leave as many open as there were."""
    descriptors = Path(f"/proc/{agent.process.pid}/fd")
    agent.probe("/readyz")
    before = len(list(descriptors.iterdir()))

    statuses = {agent.probe("/readyz").status for _ in range(300)}

    assert statuses == {200}
    assert len(list(descriptors.iterdir())) <= before + 3


@requirement("AGT-609", "AGT-628")
def test_probes_and_scrapes_answer_under_load(agent: Agent, token: str) -> None:
    """While thousands of requests are worked off, both take less than a second, and every request is answered."""
    assert agent.get(token).status == 200
    one = f"GET /nope HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\n"
    batch = (f"{one}\r\n" * 999 + f"{one}Connection: close\r\n\r\n").encode()
    load = [agent.send_bytes(batch, address="127.0.0.2") for _ in range(8)]

    seconds: dict[str, list[float]] = {}
    for path, port in (
        ("/healthz", agent.probe_port),
        ("/readyz", agent.probe_port),
        ("/metrics", agent.metrics_port),
    ) * 3:
        watch = agent.stopwatch()
        assert agent.probe(path, port).status == 200
        seconds.setdefault(path, []).append(round(watch.seconds, 3))
    answered = sum(len(connection.replies()) for connection in load)

    probes = [*seconds["/healthz"], *seconds["/readyz"]]
    check("AGT-609", expected="less than 1 s", observed=probes, holds=max(probes) < 1)
    scrapes = seconds["/metrics"]
    check("AGT-628", expected="less than 1 s", observed=scrapes, holds=max(scrapes) < 1)
    check("AGT-628", expected=8000, observed=answered, what="requests answered")


# --- Metrics --------------------------------------------------------------------------------------------------------


@requirement("AGT-620")
def test_counters_of_aws_s_agent_have_their_plain_names(agent: Agent, token: str) -> None:
    """Series and types have no ``_total``."""
    assert agent.get(token).status == 200

    reply = agent.probe("/metrics", agent.metrics_port)

    assert reply.headers["content-type"].startswith("text/plain")
    for name, series in (("http_response", '{code="200"}'), ("cache_state", '{state="miss"}')):
        assert f"# TYPE pod_identity_{name} counter\n" in reply.text
        assert re.search(rf"^pod_identity_{name}{re.escape(series)} \d", reply.text, re.MULTILINE)
        assert f"pod_identity_{name}_total" not in reply.text
    assert "pod_identity_cache_errors_total" not in reply.text


@requirement("AGT-621")
def test_answers_are_counted_by_their_final_status(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """Own ones and passed-on ones, 404 and 429 included."""
    missing, throttled = make_token(), make_token()
    eks_auth.script(missing, refusal(404, "ResourceNotFoundException"))
    eks_auth.script(throttled, refusal(429, "ThrottlingException"))
    before = agent.metrics()

    statuses = [
        agent.get(make_token()).status,
        agent.get("junk").status,
        agent.get(host="evil").status,
        agent.get(missing).status,
        agent.get(throttled).status,
    ]

    assert statuses == [200, 400, 403, 404, 429]
    after = agent.metrics()
    keys = {status: (RESPONSES, frozenset({("code", str(status))})) for status in statuses}
    assert {status: after.get(key, 0) - before.get(key, 0) for status, key in keys.items()} == dict.fromkeys(
        statuses, 1.0
    )


@requirement("AGT-622", "AGT-626")
def test_misses_went_upstream_and_hits_are_renewals(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """A request served from the cache is no hit of the old counter, and in the new one each request counts once."""
    together = make_token()
    eks_auth.script(together, grant(delay=0.3))
    states = ("miss", "hit")
    results = ("hit", "miss", "coalesced")
    old = {state: agent.metric("pod_identity_cache_state", state=state) for state in states}
    new = {result: agent.metric("pod_identity_cache_requests_total", result=result) for result in results}

    token = make_token()
    statuses = [agent.get(token).status for _ in range(4)]
    statuses += [request.reply().status for request in [agent.send(together) for _ in range(5)]]
    statuses += [agent.get("junk").status, agent.get(token, host="evil").status]

    assert statuses == [200] * 9 + [400, 403]
    deltas = {state: agent.metric("pod_identity_cache_state", state=state) - value for state, value in old.items()}
    counted = {r: agent.metric("pod_identity_cache_requests_total", result=r) - value for r, value in new.items()}
    check("AGT-622", expected=0.0, observed=deltas["hit"], what="hits")
    check(
        "AGT-622", expected="2, and up to 4 for the followers", observed=deltas["miss"], holds=2 <= deltas["miss"] <= 6
    )
    check("AGT-626", expected={"hit": 3.0, "miss": 2.0, "coalesced": 4.0}, observed=counted)


@requirement("AGT-624")
def test_the_process_is_measured(agent: Agent) -> None:
    """With the usual names."""
    names = {name for name, _ in agent.metrics()}

    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} <= names


KNOWN = {
    "pod_identity_requests_in_flight": [{}],
    "pod_identity_rate_limited_total": [{"listener": "127.0.0.1"}],
    "pod_identity_cache_requests_total": [{"result": result} for result in ("hit", "miss", "coalesced")],
    "pod_identity_cache_entries": [{}],
    "pod_identity_cache_evictions_total": [
        {"reason": reason} for reason in ("capacity", "expired", "refused", "token_expired", "replaced")
    ],
    "pod_identity_upstream_calls_total": [
        {"trigger": trigger, "outcome": outcome}
        for trigger in ("request", "renewal")
        for outcome in ("success", "network", "timeout", "invalid", "AccessDeniedException", "ThrottlingException")
    ],
    "pod_identity_upstream_attempts_total": [{"outcome": outcome} for outcome in ("success", "network", "timeout")],
    "pod_identity_upstream_duration_seconds_count": [{"trigger": trigger} for trigger in ("request", "renewal")],
    "pod_identity_upstream_in_flight": [{}],
    "pod_identity_renewals_due": [{}],
    "pod_identity_renewal_lag_seconds": [{}],
    "pod_identity_last_upstream_success_timestamp_seconds": [{}],
    "pod_identity_node_credentials_expiry_timestamp_seconds": [{}],
    "pod_identity_request_duration_seconds_count": [
        {"code": "200", "source": source} for source in ("cache", "upstream", "coalesced")
    ]
    + [{"code": "403", "source": "local"}],
}


@requirement("AGT-625")
def test_own_metrics_are_there_from_the_start(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """An agent that nobody has asked yet shows every series whose labels are known, at zero."""
    metrics = start_agent(eks_auth.url, "--max-cache-size", "100").metrics()

    expected = {(name, frozenset(labels.items())): 0.0 for name, series in KNOWN.items() for labels in series}
    assert {key: metrics.get(key) for key in expected} == expected
    assert metrics.get(("pod_identity_cache_capacity", frozenset())) == 100
    assert metrics.get(("pod_identity_listener_up", frozenset({("listener", "127.0.0.1")}))) == 1
    builds = [
        (sorted(dict(labels)), value) for (name, labels), value in metrics.items() if name == "pod_identity_build_info"
    ]
    assert builds == [(["profile", "version"], 1)]


@requirement("AGT-627")
def test_labels_tell_nothing_about_clients(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """No label grows with tokens, pods, roles or addresses; codes that EKS Auth makes up are bounded."""
    series = len(agent.metrics())
    made_up = [make_token() for _ in range(150)]
    for number, token in enumerate(made_up):
        eks_auth.script(token, refusal(400, f"MadeUp{number:03}Exception"))
    statuses: Sequence[int] = [agent.get(token).status for token in (*made_up, make_token())]

    values = {value for (_, labels), _ in agent.metrics().items() for _, value in labels}
    tokens = {segment for token in made_up for segment in token.split(".")}
    assert set(statuses) == {200, 400}
    assert not values & {"ns-1", "sa-1", "pod-1", "a-1", "r", *tokens}
    assert not [value for value in values if "assumed-role" in value or re.fullmatch(r"127\.0\.0\.1:\d+", value)]
    assert len(agent.metrics()) - series < 4 * 100 + 100
