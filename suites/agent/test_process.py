"""The process: what it serves, how it ends, and what cannot end it (section 1.3 of the contract)."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Sequence

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import HOST, Agent
from harness.subject.eks_auth import Answer, FakeEKSAuth, changed, grant, held
from harness.subject.http1 import has_closed, next_reply, read_replies
from harness.subject.memory import resident_bytes
from harness.subject.pod_token import make_token
from suites.agent.conftest import StartAgent

RETENTION = "--max-credential-retention-before-renewal"
KEEP_ALIVE = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


@requirement("AGT-150")
def test_one_process_serves_hosts_probes_and_metrics(agent: Agent, token: str) -> None:
    """All ports answer, and their listeners are those of one process."""
    assert [agent.get(token, address=host).status for host in agent.hosts] == [200] * len(agent.hosts)
    assert agent.probe("/readyz").status == 200
    assert "pod_identity_" in agent.metrics_text()


@requirement("AGT-152")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_lets_requests_in_flight_end(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, patient: Sequence[str], number: signal.Signals
) -> None:
    """Idle connections close, new ones are refused, who has connected is answered, the exit code is 0."""
    agent = start_agent(eks_auth.url, *patient)
    with held(grant()) as (answer, release), agent.connection() as silent, agent.connection() as idle:
        eks_auth.script(token, answer)
        idle.sendall(KEEP_ALIVE)
        assert next_reply(read_replies(idle)).status == 404
        under_way = agent.send(token)
        eks_auth.wait_for_calls(token)

        agent.end(number)

        assert has_closed(idle)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", agent.port), timeout=5).close()
        # Accepted before the others were, and not idle: it has not said anything yet.
        silent.sendall(KEEP_ALIVE)
        assert next_reply(read_replies(silent)).status == 404
        assert has_closed(silent)
        release.set()
        assert under_way.reply().status == 200
    assert agent.wait() == 0


@requirement("AGT-154")
def test_a_restart_fetches_again_and_nothing_is_on_disk(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str
) -> None:
    """Two lives are two calls; neither leaves a file."""
    for _ in range(2):
        agent = start_agent(eks_auth.url)
        assert agent.get(token).status == 200
        assert list(agent.home.iterdir()) == []
        agent.end()
        agent.wait()

    assert len(eks_auth.calls_with(token)) == 2


NONSENSE = (
    Answer(),
    Answer(200, b"junk"),
    Answer(200, b"[" * 100_000),
    Answer(200, b'{"credentials":5,"assumedRoleUser":[]}'),
    Answer(204),
    Answer(304),
    Answer(599, b"\xff\xfe"),
    Answer(999, b"{}"),
    Answer(403, b'{"message":["a"],"code":{"b":1}}'),
    Answer(cut=True),
    Answer(reset=True),
    changed("credentials"),
    changed("assumedRoleUser.arn", {}),
    changed("credentials.expiration", [1]),
    changed("credentials.sessionToken", "\ud800"),
    changed("podIdentityAssociation", 5),
    changed("assumedRoleUser.assumeRoleId"),
)


@requirement("AGT-155", "AGT-156")
def test_no_answer_of_eks_auth_ends_the_process(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """Whatever EKS Auth says, each request has an answer, and the next good one is served."""
    statuses: list[int] = []
    for answer in NONSENSE:
        token = make_token()
        eks_auth.script(token, answer)
        statuses.append(agent.get(token).status)

    good = agent.get(make_token()).status
    check(
        "AGT-156",
        expected="200 or 400 to 599",
        observed=statuses,
        holds=all(s == 200 or 400 <= s < 600 for s in statuses),
    )
    check("AGT-155", expected=(None, 200), observed=(agent.process.poll(), good))


@requirement("AGT-155")
def test_no_request_ends_the_process_or_a_listener(agent: Agent) -> None:
    """Random bytes, cut requests and hang-ups leave every listener serving."""
    dice = random.Random(20261126)
    for number in range(150):
        head = (b"", b"GET ", b"GET /v1/credentials HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\n")[number % 4]
        agent.send_bytes(head + dice.randbytes(dice.randrange(200)), address=agent.hosts[number % 2]).hang_up()

    assert [agent.get(make_token(), address=host).status for host in agent.hosts] == [200] * len(agent.hosts)
    assert agent.process.poll() is None


@requirement("AGT-156")
def test_a_client_that_has_nothing_more_to_ask_gets_its_answer(agent: Agent, token: str) -> None:
    """A connection whose one half is closed is answered before it ends."""
    with agent.connection() as client:
        client.sendall(f"GET /v1/credentials HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\n\r\n".encode())
        client.shutdown(socket.SHUT_WR)

        assert [reply.status for reply in read_replies(client)] == [200]


@requirement("AGT-157")
def test_memory_does_not_follow_what_clients_send(start_agent: StartAgent, eks_auth: FakeEKSAuth) -> None:
    """A cache of 10 entries grows by no more than them under 300 tokens of 60 KB each."""
    agent = start_agent(eks_auth.url, "--max-cache-size", "10")

    def flood(count: int) -> None:
        for _ in range(count):
            assert agent.get(make_token() + "x" * 60_000).status == 200

    flood(30)
    before = resident_bytes(agent.process.pid)
    flood(300)

    agent.require_alive()
    assert resident_bytes(agent.process.pid) - before < 9 * 2**20


@requirement("AGT-155", "AGT-459")
def test_a_renewal_that_gets_nonsense_ends_nothing(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, patient: Sequence[str]
) -> None:
    """Answers without a member, in the background, leave process and entry alone."""
    agent = start_agent(eks_auth.url, *patient, "--max-cache-size", "6", RETENTION, "1s")
    nonsense = [
        changed("credentials.accessKeyId"),
        changed("credentials"),
        Answer(200, b"junk"),
        changed("assumedRoleUser"),
    ]
    tokens = [make_token() for _ in nonsense]
    for number, (token, answer) in enumerate(zip(tokens, nonsense, strict=True)):
        eks_auth.script(token, grant(f"first-{number}"), answer)
        assert agent.get(token).status == 200
    for token in tokens:
        eks_auth.wait_for_calls(token, 2)
    recoverable = wait.until(
        lambda: agent.metric("pod_identity_cache_errors", type="Recoverable", code="Unknown"),
        lambda count: count >= len(tokens),
        what="four renewals that failed",
        timeout=limits.SUBJECT_ACTS,
    )

    served = [agent.get(token) for token in tokens]
    check("AGT-155", expected=None, observed=agent.process.poll())
    kept = [f"AKID-first-{number}" in reply.text for number, reply in enumerate(served)]
    check("AGT-459", expected=[True] * len(tokens), observed=kept, what="entries kept")
    check("AGT-459", expected=len(tokens), observed=recoverable, what="failures counted as recoverable")


@requirement("AGT-217", "AGT-425")
def test_a_client_that_leaves_takes_nothing_with_it(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """Its call goes on for whoever asks next, and others do not notice."""
    with held(grant()) as (answer, release):
        eks_auth.script(token, answer)
        leader = agent.send(token)
        eks_auth.wait_for_calls(token)
        leader.hang_up()
        other = agent.get(make_token()).status
        follower = agent.send(token)
        release.set()
        status = follower.reply().status

    check("AGT-217", expected=200, observed=other)
    check("AGT-425", expected=(200, 1), observed=(status, len(eks_auth.calls_with(token))))
