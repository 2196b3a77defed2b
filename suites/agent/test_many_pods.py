"""A node full of pods: how many calls their start costs, and how much memory their credentials (chapter 11)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.conformance.ceilings import Ceilings
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import HOST, Agent
from harness.subject.eks_auth import FakeEKSAuth, grant
from harness.subject.memory import resident_bytes
from harness.subject.pod_token import make_token
from suites.agent.conftest import StartAgent

PODS, TURNS = 500, 16
LISTENERS = tuple(f"127.0.0.{number}" for number in range(1, TURNS + 1))
"""Each takes five hundred requests at once, so that the limit of rate is in nobody's way."""
TOKEN_BYTES = 1200
"""About what a projected token has."""
ENTRIES = 2000
MIB = 1024**2


def _requests(tokens: Iterable[str]) -> bytes:
    """Return requests for one connection, one after the other."""
    lines = [f"GET /v1/credentials HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {token}\r\n" for token in tokens]
    return ("\r\n".join(lines) + "Connection: close\r\n\r\n").encode()


def _statuses(agent: Agent, tokens: Sequence[str], addresses: Sequence[str], connections: int) -> list[int]:
    """Ask for all tokens on so many connections to each address, and return the answers' status codes."""
    shares = [tokens[number::connections] for number in range(connections)]
    pending = [agent.send_bytes(_requests(share), address=address) for address in addresses for share in shares]
    return [reply.status for connection in pending for reply in connection.replies()]


@requirement("AGT-1103")
def test_five_hundred_pods_that_start_cost_five_hundred_calls(start_agent: StartAgent) -> None:
    """Each asks sixteen times at once, on a listener each time, and every request is answered.

    An attempt that the stand-in was too slow for, and that was made again, is part of the same call.
    """
    fake = FakeEKSAuth(otherwise=grant())
    try:
        agent = start_agent(fake.url, "--request-timeout", "0", hosts=LISTENERS, verbosity="info")
        tokens = [make_token() for _ in range(PODS)]
        statuses = _statuses(agent, tokens, LISTENERS, connections=20)
        called = [call.token for call in fake.calls]
        calls = _sum(agent, "pod_identity_upstream_calls_total")
        repeated = _sum(agent, "pod_identity_upstream_attempts_total") - calls
    finally:
        fake.close()

    check("AGT-1103", expected=(PODS, PODS), observed=(calls, len(set(called))), what="calls, and their tokens")
    most = PODS + repeated
    check("AGT-1103", expected=f"{PODS} to {most:.0f}", observed=len(called), holds=len(called) <= most, what="arrived")
    answered = {status: statuses.count(status) for status in set(statuses)}
    check("AGT-1103", expected={200: PODS * TURNS}, observed=answered, what="answers")


def _sum(agent: Agent, name: str) -> float:
    return sum(value for (series, _), value in agent.metrics().items() if series == name)


@requirement("RES-AGENT-IDLE")
def test_an_idle_agent_is_small(start_agent: StartAgent, patient: Sequence[str], ceilings: Ceilings) -> None:
    """As it is once it has answered its first pod."""
    fake = FakeEKSAuth(otherwise=grant())
    try:
        agent = start_agent(fake.url, *patient)
        assert agent.get(make_token()).status == 200
        ceilings.hold("RES-AGENT-IDLE", resident_bytes(agent.process.pid) / MIB)
    finally:
        fake.close()


@requirement("AGT-1104", "RES-AGENT-FULL")
def test_an_entry_takes_little_memory(start_agent: StartAgent, patient: Sequence[str], ceilings: Ceilings) -> None:
    """At most 8 KiB each, and the second thousand takes no more than the first."""
    fake = FakeEKSAuth(otherwise=grant("x" * 100))
    try:
        addresses = LISTENERS[:4]
        agent = start_agent(fake.url, *patient, hosts=addresses, verbosity="info")
        # What a first request brings with it, once and for all.
        assert set(_statuses(agent, _long_tokens(40), addresses, connections=2)) == {200}
        sizes = [resident_bytes(agent.process.pid)]
        for _ in range(2):
            tokens = _long_tokens(ENTRIES // 2)
            answered = [
                status
                for number, address in enumerate(addresses)
                for status in _statuses(agent, tokens[number :: len(addresses)], [address], connections=10)
            ]
            assert (len(answered), set(answered)) == (len(tokens), {200})
            sizes.append(resident_bytes(agent.process.pid))
    finally:
        fake.close()

    empty, half, full = sizes
    per_entry = (full - empty) / ENTRIES / 1024
    check("AGT-1104", expected="8 KiB or less", observed=round(per_entry, 2), holds=per_entry <= 8, what="an entry")
    grown = {"first thousand": (half - empty) // 1024, "second thousand": (full - half) // 1024}
    ceilings.hold("RES-AGENT-FULL", full / MIB)
    check("AGT-1104", expected="in line", observed=grown, holds=full - half <= 1.2 * (half - empty), what="KiB")


def _long_tokens(count: int) -> list[str]:
    short = [make_token() for _ in range(count)]
    return [token + "x" * (TOKEN_BYTES - len(token)) for token in short]
