"""How EKS Auth is called: request, attempts, time, trust (sections 7.1 and 7.2 of the contract)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509

from harness.cloud.ports import Credential, Principal, Refusal
from harness.cloud.sigv4 import RawRequest, verify
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import Agent, AgentCommand, Pending
from harness.subject.eks_auth import ROUTE, Answer, Call, FakeEKSAuth, changed, grant, held, refusal
from harness.subject.issuer import self_signed
from harness.subject.pod_token import make_token
from harness.subject.stopwatch import Stopwatch
from suites.agent.conftest import StartAgent

THROTTLED = refusal(400, "ThrottlingException")

# --- The request ----------------------------------------------------------------------------------------------------


@requirement("AGT-701", "AGT-709")
def test_a_call_is_a_post_of_the_token(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """To the cluster's path, as JSON with this one member, from a client that says who it is."""
    assert agent.get(token).status == 200

    call = eks_auth.call_with(token)
    check("AGT-701", expected=ROUTE, observed=call.path, what="path")
    check("AGT-701", expected="application/json", observed=call.headers.get("content-type"), what="type")
    check("AGT-701", expected={"token": token}, observed=json.loads(call.body), what="body")
    check("AGT-701", expected=[], observed=eks_auth.rejected, what="other requests")
    client = call.headers.get("user-agent", "")
    check(
        "AGT-709",
        expected="podid-agent/VERSION",
        observed=client,
        holds=bool(re.match(r"podid-agent/\d+\.\d+", client)),
    )


class _Keys:
    """The one set of keys that the agent was started with."""

    def find(self, access_key_id: str) -> Credential | None:
        if access_key_id != "AKIDNODE":
            return None
        principal = Principal(
            "role-session", "arn:aws:sts::123456789012:assumed-role/node/i-1", "123456789012", "AROA:i-1"
        )
        return Credential(access_key_id, "CANARY-NODE-SECRET", None, principal, datetime.now(UTC), None)


class _Now:
    def now(self) -> datetime:
        return datetime.now(UTC)


def _refusal_of_signature(call: Call) -> str:
    """Return why AWS would not take a call's signature; empty if it would."""
    request = RawRequest("POST", call.path, "", list(call.headers.items()), call.body)
    try:
        verify(request, _Keys(), _Now(), service="eks-auth", region="eu-west-1")
    except Refusal as reason:
        return str(reason)
    return ""


@requirement("AGT-702")
def test_a_call_is_signed(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """For eks-auth, in the agent's region, with its own keys, and such that the signature verifies."""
    assert agent.get(token).status == 200

    call = eks_auth.call_with(token)
    assert _refusal_of_signature(call) == ""


@requirement("AGT-702", "AGT-705")
def test_the_endpoint_s_path_is_a_prefix(start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str) -> None:
    """Signing stays as it is."""
    agent = start_agent(f"{eks_auth.url}/pre/fix")

    status = agent.get(token).status

    calls = eks_auth.calls_with(token)
    check("AGT-705", expected=(200, [f"/pre/fix{ROUTE}"]), observed=(status, [call.path for call in calls]))
    check("AGT-702", expected=[""], observed=[_refusal_of_signature(call) for call in calls])


@requirement("AGT-706")
def test_a_target_role_costs_one_call(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """EKS Auth has chained the roles; the pod gets the target's account."""
    eks_auth.script(token, changed("assumedRoleUser.arn", "arn:aws:sts::987654321098:assumed-role/target/s"))
    calls = len(eks_auth.calls)

    reply = agent.get(token)

    assert (reply.status, '"AccountId":"987654321098"' in reply.text) == (200, True)
    assert (len(eks_auth.calls) - calls, eks_auth.rejected) == (1, [])


# --- Attempts -------------------------------------------------------------------------------------------------------


@requirement("AGT-711", "AGT-712")
@pytest.mark.parametrize(
    "failure",
    [
        *(Answer(status, b"{}") for status in (500, 502, 503, 504)),
        refusal(503, "ServiceUnavailableException"),
        THROTTLED,
        refusal(400, "TooManyRequestsException"),
        refusal(403, "RequestLimitExceeded"),
        refusal(400, "RequestTimeout"),
        Answer(502, b"<html>"),
        Answer(cut=True),
        Answer(reset=True),
    ],
    ids=[
        "500",
        "502",
        "503",
        "504",
        "unavailable",
        "throttling",
        "too many",
        "limit",
        "timeout",
        "HTML",
        "cut",
        "reset",
    ],
)
def test_a_failure_that_can_pass_is_retried(agent: Agent, eks_auth: FakeEKSAuth, token: str, failure: Answer) -> None:
    """Two failures and a success are a success."""
    eks_auth.script(token, failure, failure, grant())

    status = agent.get(token).status

    check("AGT-711", expected=(200, 3), observed=(status, len(eks_auth.calls_with(token))))
    check("AGT-712", expected=3, observed=len(eks_auth.calls_with(token)))


@requirement("AGT-714")
def test_a_429_without_a_code_is_retried(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """It is taken for throttling."""
    eks_auth.script(token, Answer(429, b"{}"), grant())

    assert (agent.get(token).status, len(eks_auth.calls_with(token))) == (200, 2)


@requirement("AGT-711")
def test_the_third_failure_is_the_answer(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """There is no fourth attempt."""
    eks_auth.script(token, *(refusal(503, "ServiceUnavailableException", f"no {number}") for number in (1, 2, 3, 4)))

    reply = agent.get(token)

    text = "[R]: (ServiceUnavailableException): no 3, fault: server\n"
    assert (reply.status, reply.text, len(eks_auth.calls_with(token))) == (503, text, 3)


@requirement("AGT-713")
@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "AccessDeniedException"),
        refusal(404, "ResourceNotFoundException"),
        refusal(400, "InvalidRequestException"),
        refusal(403, "UnrecognizedClientException"),
        Answer(501, b"{}"),
        Answer(418, b"{}"),
        Answer(200, b"{}"),
    ],
    ids=["denied", "not found", "invalid", "403", "501", "418", "bad success"],
)
def test_what_will_not_pass_is_not_retried(agent: Agent, eks_auth: FakeEKSAuth, token: str, answer: Answer) -> None:
    """The first answer is the last."""
    eks_auth.script(token, answer, grant())

    assert agent.get(token).status >= 400
    assert len(eks_auth.calls_with(token)) == 1


@requirement("AGT-715")
def test_two_throttles_cost_less_than_a_client_waits(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """Success is there within 1.8 s, pauses are below 400 ms, and no two are alike."""
    pauses: list[float] = []
    for _ in range(3):
        token = make_token()
        eks_auth.script(token, THROTTLED, THROTTLED, grant())
        watch = agent.stopwatch()
        assert agent.get(token).status == 200
        assert watch.seconds < 1.8
        times = [call.received_at for call in eks_auth.calls_with(token)]
        pauses += [later - earlier - watch.kept_waiting for earlier, later in pairwise(times)]

    assert len(pauses) == 6
    # What is seen of a pause includes the way of an answer and of a call.
    assert max(pauses) < 0.5
    assert max(pauses) - min(pauses) > 0.02


@requirement("AGT-716")
def test_a_long_outage_ends_the_retries(start_agent: StartAgent, patient: Sequence[str]) -> None:
    """200 tokens at once meet an EKS Auth that is down: a budget bounds what is tried again."""
    fake = FakeEKSAuth(otherwise=refusal(503, "ServiceUnavailableException"))
    try:
        agent = start_agent(fake.url, *patient)
        pending = [agent.send(make_token()) for _ in range(200)]
        statuses = [request.reply().status for request in pending]
    finally:
        fake.close()

    assert set(statuses) == {503}
    assert 200 < len(fake.calls) <= 300


# --- Time -----------------------------------------------------------------------------------------------------------


@requirement("AGT-710")
def test_an_attempt_has_a_second(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """An answer after 0.8 s is in time, one after 1.2 s is not waited for."""
    soon, late = make_token(), make_token()
    eks_auth.script(soon, grant("soon", delay=0.8))
    eks_auth.script(late, grant("late", delay=1.2), grant("second"))

    replies = [request.reply() for request in [agent.send(token) for token in (soon, late)]]

    assert ["AKID-soon" in replies[0].text, "AKID-second" in replies[1].text] == [True, True]
    assert [len(eks_auth.calls_with(token)) for token in (soon, late)] == [1, 2]


@requirement("AGT-722")
def test_a_body_that_trickles_counts_against_its_attempt(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """After a second it is given up, however much of it has come."""
    eks_auth.script(token, grant("slow", trickle=0.02), grant("second"))

    reply = agent.get(token)

    assert ("AKID-second" in reply.text, len(eks_auth.calls_with(token))) == (True, 2)


@requirement("AGT-722")
def test_a_body_over_a_mebibyte_is_invalid(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """Although it would be the JSON of the model."""
    eks_auth.script(token, Answer(body=grant().body + b" " * (1 << 20)))

    reply = agent.get(token)

    text = "error getting credentials to cache: invalid response from server: "
    assert (reply.status, reply.text.startswith(text)) == (500, True)


@dataclass(frozen=True)
class Endless:
    """A call of which every attempt hangs, under way since the module began."""

    agent: Agent
    pending: Pending | None
    token: str
    watch: Stopwatch
    started_at: float


@pytest.fixture(scope="module")
def endless(agent_command: AgentCommand, eks_auth: FakeEKSAuth, patient: Sequence[str]) -> Iterator[Endless]:
    token = make_token()
    with (
        held(grant()) as (answer, _),
        agent_command.serving(eks_auth.url, *patient, env={"AWS_MAX_ATTEMPTS": "30"}) as agent,
    ):
        eks_auth.script(token, answer)
        watch, started = agent.stopwatch(), time.monotonic()
        # A subject that does not serve is found out by the test.
        pending = agent.send(token) if agent.has_listened else None
        yield Endless(agent, pending, token, watch, started)


@pytest.fixture(autouse=True)
def _started_early(endless: Endless) -> None:
    """Let its ten seconds pass while the other tests run."""


# --- Connections ----------------------------------------------------------------------------------------------------


@requirement("AGT-723")
def test_connections_are_used_again(start_agent: StartAgent, patient: Sequence[str]) -> None:
    """Calls one after the other share one, and a burst leaves its own for the next."""
    fake = FakeEKSAuth()
    try:
        agent = start_agent(fake.url, *patient)
        assert [agent.get(make_token()).status for _ in range(5)] == [200] * 5
        sequential = fake.connections
        for _ in range(3):
            burst = [make_token() for _ in range(10)]
            for token in burst:
                fake.script(token, grant(delay=0.2))
            assert [request.reply().status for request in [agent.send(token) for token in burst]] == [200] * 10
    finally:
        fake.close()

    assert sequential == 1
    assert fake.connections <= fake.most_open_calls


# --- Trust ----------------------------------------------------------------------------------------------------------


LOOPBACK = x509.IPAddress(ip_address("127.0.0.1"))
ELSEWHERE = x509.DNSName("eks-auth.eu-west-1.api.aws")


@pytest.mark.parametrize(
    ("name", "is_trusted", "status"),
    [
        pytest.param(LOOPBACK, True, 200, marks=requirement("AGT-143")),
        pytest.param(LOOPBACK, False, 500, marks=requirement("AGT-268", "AGT-724")),
        pytest.param(ELSEWHERE, True, 500, marks=requirement("AGT-268", "AGT-724")),
    ],
    ids=["trusted", "unknown issuer", "another name"],
)
def test_certificate_and_name_are_verified(
    start_agent: StartAgent, token: str, tmp_path: Path, *, name: x509.GeneralName, is_trusted: bool, status: int
) -> None:
    """With the bundle that AWS_CA_BUNDLE names; whoever fails is not told the token."""
    file, context = self_signed(tmp_path, name)
    env = {"AWS_MAX_ATTEMPTS": "1", **({"AWS_CA_BUNDLE": str(file)} if is_trusted else {})}
    fake = FakeEKSAuth(tls=context)
    try:
        reply = start_agent(fake.url, env=env).get(token)
    finally:
        fake.close()

    assert reply.status == status, reply.text
    assert (reply.text.startswith("[]"), len(fake.calls)) == ((False, 1) if status == 200 else (True, 0))


@requirement("AGT-721")
def test_a_call_is_over_after_ten_seconds(endless: Endless, eks_auth: FakeEKSAuth) -> None:
    """However many attempts it would still have."""
    endless.agent.require_alive()
    assert endless.pending
    endless.pending.sock.settimeout(30)

    reply = endless.pending.reply()
    late = endless.watch.kept_waiting

    assert (reply.status, reply.text.startswith("[]")) == (500, True)
    attempts = eks_auth.calls_with(endless.token)
    assert 5 < len(attempts) < 15
    assert attempts[-1].received_at - endless.started_at - late < 10.5
