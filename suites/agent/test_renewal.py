"""Renewal of cached credentials in the background (section 4.3 of the contract).

AWS's agent looks for due entries once a minute; with it every test here takes that much longer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.errors import SubjectFault
from harness.limits import Limit
from harness.subject.agent import Agent, AgentCommand
from harness.subject.eks_auth import Answer, FakeEKSAuth, changed, grant, held, refusal
from harness.subject.pod_token import make_token
from harness.subject.stopwatch import Stopwatch
from suites.agent.conftest import StartAgent

RETENTION = "--max-credential-retention-before-renewal"
FAR = 1999999999.5


@dataclass(frozen=True)
class Long:
    """An agent with a retention of 14 s, and what was stored in it when the module began."""

    agent: Agent
    watch: Stopwatch
    stored_at: float
    spread: list[str]
    """Tokens whose credentials live for years."""
    short: str
    """Its credentials lived 22 s."""
    failing: str
    """Likewise, and each renewal of them fails."""
    expiring: str
    """A token that itself lived 5 s."""


@pytest.fixture(scope="module")
def long(agent_command: AgentCommand, eks_auth: FakeEKSAuth, patient: Sequence[str]) -> Iterator[Long]:
    flags = ("--max-service-qps", "200", RETENTION, "14s", "--max-cache-size", "1000")
    with agent_command.serving(eks_auth.url, *patient, *flags) as agent:
        tokens = [make_token() for _ in range(63)]
        expiring = make_token(exp=int(time.time()) + 5)
        *spread, short, failing, spare = tokens
        eks_auth.script(short, grant(expiration=time.time() + 22), grant("renewed"))
        eks_auth.script(failing, grant(expiration=time.time() + 24), refusal(400, "InvalidRequestException"))
        entries = Long(agent, agent.stopwatch(), time.monotonic(), [*spread, spare], short, failing, expiring)
        # A subject that does not serve is found out by the tests.
        with suppress(SubjectFault):
            for batch in ((short, failing), (*spread, spare, expiring)):
                for request in [agent.send(token) for token in batch]:
                    request.reply()
        yield entries


@pytest.fixture(autouse=True)
def _stored_early(long: Long) -> None:
    """Let the 14 s pass while the other tests run."""


@pytest.fixture(scope="module")
def quick(agent_command: AgentCommand, eks_auth: FakeEKSAuth, patient: Sequence[str]) -> Iterator[Agent]:
    """An agent with a retention of a second, and no other limit that matters."""
    flags = ("--max-service-qps", "200", RETENTION, "1s", "--max-cache-size", "300")
    with agent_command.serving(eks_auth.url, *patient, *flags) as agent:
        yield agent


@requirement("AGT-450", "AGT-451", "AGT-454")
def test_a_due_entry_is_renewed_without_a_request(
    quick: Agent, eks_auth: FakeEKSAuth, token: str, agent_command: AgentCommand
) -> None:
    """The call has the entry's token, what it grants replaces the entry, and it counts as a hit."""
    watch = quick.stopwatch()
    eks_auth.script(token, grant("one"), grant("two"))
    hits = quick.metric("pod_identity_cache_state", state="hit")
    assert "AKID-one" in quick.get(token).text

    first, second = eks_auth.wait_for_calls(token, 2, timeout=limits.RENEWAL.after(agent_command.sweep))[:2]
    late = watch.kept_waiting
    counted = wait.until(
        lambda: quick.metric("pod_identity_cache_state", state="hit") - hits,
        what="a renewal that counts",
        timeout=limits.SUBJECT_ACTS,
    )
    served = quick.get(token).text

    delay = second.received_at - first.received_at
    check("AGT-450", expected="within 1 s and a sweep", observed=delay, holds=delay - late < 1 + agent_command.sweep)
    check("AGT-451", expected="0.9 to 2 s", observed=delay, holds=0.85 < delay < 2 + late)
    check("AGT-454", expected=True, observed="AKID-two" in served)
    check("AGT-454", expected="more hits", observed=counted, holds=counted >= 1, what="hits")


@requirement("AGT-405")
def test_an_entry_is_served_during_its_renewal(
    quick: Agent, eks_auth: FakeEKSAuth, token: str, agent_command: AgentCommand
) -> None:
    """The old credentials are there at once although EKS Auth has not answered."""
    with held(grant("new")) as (answer, release):
        eks_auth.script(token, grant("old"), answer)
        assert quick.get(token).status == 200
        eks_auth.wait_for_calls(token, 2, timeout=limits.RENEWAL.after(agent_command.sweep))

        texts = [quick.get(token).text for _ in range(3)]
        release.set()

    assert all("AKID-old" in text for text in texts)


RECOVERABLE = {
    "400": refusal(400, "InvalidRequestException"),
    "parameter": refusal(400, "InvalidParameterException"),
    "throttled": refusal(429, "ThrottlingException"),
    "500": refusal(500, "InternalServerException"),
    "503": refusal(503, "ServiceUnavailableException"),
    "HTML": Answer(502, b"<html>"),
    "closed": Answer(cut=True),
}


@requirement("AGT-405", "AGT-455", "AGT-623")
def test_a_failure_that_can_pass_keeps_the_entry(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, agent_command: AgentCommand, patient: Sequence[str]
) -> None:
    """Whatever went wrong, the old credentials are served on, and the failure is counted with its code."""
    flags = ("--max-service-qps", "200", RETENTION, "1s")
    agent = start_agent(eks_auth.url, *patient, *flags, "--max-cache-size", "20", env={"AWS_MAX_ATTEMPTS": "1"})
    tokens = {name: make_token() for name in RECOVERABLE}
    for name, token in tokens.items():
        eks_auth.script(token, grant(name), RECOVERABLE[name])
        assert agent.get(token).status == 200
    failures = wait.until(
        lambda: {key: value for key, value in agent.metrics().items() if key[0] == "pod_identity_cache_errors"},
        lambda found: sum(found.values()) >= len(tokens),
        what=f"{len(tokens)} renewals that failed",
        timeout=limits.RENEWAL.after(agent_command.sweep),
    )

    served = {name: f"AKID-{name}" in agent.get(token).text for name, token in tokens.items()}
    calls = {name: len(eks_auth.calls_with(token)) for name, token in tokens.items()}
    check("AGT-405", expected=dict.fromkeys(tokens, True), observed=served)
    check("AGT-455", expected=(dict.fromkeys(tokens, True), dict.fromkeys(tokens, 2)), observed=(served, calls))
    counted = {
        dict(labels).get("code"): value for (_, labels), value in failures.items() if ("type", "Recoverable") in labels
    }
    codes = {
        "InvalidRequestException": 1,
        "InvalidParameterException": 1,
        "ThrottlingException": 1,
        "InternalServerException": 1,
        "ServiceUnavailableException": 1,
        "Unknown": 2,
    }
    check("AGT-623", expected=codes, observed={code: value for code, value in counted.items() if value})


@requirement("AGT-456", "AGT-623")
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "ResourceNotFoundException"),
        (400, "ExpiredTokenException"),
        (400, "InvalidTokenException"),
        (400, "AccessDeniedException"),
    ],
)
def test_a_refusal_of_the_pod_drops_the_entry(
    quick: Agent, eks_auth: FakeEKSAuth, token: str, agent_command: AgentCommand, *, status: int, code: str
) -> None:
    """The next request asks EKS Auth and gets its refusal."""
    eks_auth.script(token, grant(), refusal(status, code))
    before = quick.metric("pod_identity_cache_errors", type="NonRecoverable", code=code)
    assert quick.get(token).status == 200

    reply = wait.until(
        lambda: quick.get(token),
        lambda reply: reply.status != 200,
        what="a refusal",
        timeout=limits.RENEWAL.after(agent_command.sweep),
    )

    expected = (status, f"[R]: ({code}): m, fault: client\n")
    check("AGT-456", expected=expected, observed=(reply.status, reply.text))
    calls = len(eks_auth.calls_with(token))
    check("AGT-456", expected="a renewal and a request after the first", observed=calls, holds=calls >= 3, what="calls")
    counted = quick.metric("pod_identity_cache_errors", type="NonRecoverable", code=code) - before
    check("AGT-623", expected=1.0, observed=counted)


@requirement("AGT-457")
@pytest.mark.parametrize("code", ["ExpiredTokenException", "AccessDeniedException", "UnrecognizedClientException"])
def test_a_403_at_renewal_keeps_the_entry(quick: Agent, eks_auth: FakeEKSAuth, token: str, code: str) -> None:
    """It speaks about the node's credentials, whatever its code."""
    before = quick.metric("pod_identity_cache_errors", type="Recoverable", code=code)
    eks_auth.script(token, grant("kept"), refusal(403, code))
    assert quick.get(token).status == 200
    wait.until(
        lambda: quick.metric("pod_identity_cache_errors", type="Recoverable", code=code) - before,
        what="a renewal that failed",
        timeout=limits.RENEWAL,
    )

    assert "AKID-kept" in quick.get(token).text
    assert len(eks_auth.calls_with(token)) == 2


@requirement("AGT-411", "AGT-459")
@pytest.mark.parametrize(
    "answer",
    [Answer(200, b"junk"), changed("credentials.accessKeyId"), changed("credentials")],
    ids=["junk", "id", "all"],
)
def test_nonsense_at_renewal_keeps_the_entry(
    quick: Agent, eks_auth: FakeEKSAuth, token: str, agent_command: AgentCommand, answer: Answer
) -> None:
    """It never takes the place of what was good."""
    before = quick.metric("pod_identity_cache_errors", type="Recoverable", code="Unknown")
    eks_auth.script(token, grant("kept"), answer)
    assert quick.get(token).status == 200
    wait.until(
        lambda: quick.metric("pod_identity_cache_errors", type="Recoverable", code="Unknown") - before,
        what="a renewal that failed",
        timeout=limits.RENEWAL.after(agent_command.sweep),
    )

    served = "AKID-kept" in quick.get(token).text
    for identifier in ("AGT-411", "AGT-459"):
        check(identifier, expected=(True, 2), observed=(served, len(eks_auth.calls_with(token))))


@requirement("AGT-465")
def test_a_renewal_shortens_no_life(quick: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """What ends earlier than what is there does not take its place."""
    eks_auth.script(token, grant("long"), grant("short", time.time() + 600))
    assert "AKID-long" in quick.get(token).text
    eks_auth.wait_for_calls(token, 2, timeout=limits.RENEWAL)
    idle = "pod_identity_upstream_in_flight 0.0\n"
    wait.until(quick.metrics_text, lambda text: idle in text, what="the renewal's end", timeout=limits.RENEWAL)

    assert "AKID-long" in quick.get(token).text
    assert len(eks_auth.calls_with(token)) == 2


@requirement("AGT-465")
def test_a_renewal_revives_no_entry(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str, patient: Sequence[str]
) -> None:
    """An entry that is pushed out while its renewal is under way stays out."""
    agent = start_agent(eks_auth.url, *patient, RETENTION, "1s", "--max-cache-size", "1")
    with held(grant("revived")) as (answer, release):
        eks_auth.script(token, grant("old"), answer, grant("new"))
        assert agent.get(token).status == 200
        eks_auth.wait_for_calls(token, 2, timeout=limits.RENEWAL)
        assert agent.get(make_token()).status == 200
        release.set()
        wait.until(
            lambda: agent.metric("pod_identity_upstream_calls_total", trigger="renewal", outcome="success"),
            what="the renewal's end",
            timeout=limits.RENEWAL,
        )

    assert "AKID-new" in agent.get(token).text
    assert len(eks_auth.calls_with(token)) == 3


@requirement("AGT-460", "AGT-461", "AGT-462")
def test_renewals_keep_to_their_rate_soonest_expiry_first(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, patient: Sequence[str]
) -> None:
    """Twice as many entries as may be renewed: ten a second start, also when each takes 400 ms; none is passed over."""
    qps, count = 10, 40
    flags = ("--max-service-qps", str(qps), RETENTION, "2s", "--max-cache-size", str(count))
    agent = start_agent(eks_auth.url, *patient, *flags)
    tokens = [make_token() for _ in range(count)]
    for number, token in enumerate(tokens):
        # Each expires a minute before the one that was stored before it.
        expiration = FAR - 60 * number
        eks_auth.script(token, grant(expiration=expiration), grant(expiration=expiration, delay=0.4))
    for request in [agent.send(token) for token in tokens]:
        assert request.reply().status == 200
    all_due_at = time.monotonic() + 2.3

    def renewals() -> list[tuple[float, int]]:
        found = [(call.received_at, n) for n, token in enumerate(tokens) for call in eks_auth.calls_with(token)[1:]]
        return sorted(found)

    end = wait.until(
        time.monotonic,
        lambda now: now > all_due_at + 2.5,
        what="two and a half seconds of backlog",
        timeout=limits.RENEWAL,
    )
    seen = [entry for entry in renewals() if entry[0] < end]
    times = [at for at, _ in seen]

    excess = [
        (round(later - earlier, 2), last - first + 1)
        for first, earlier in enumerate(times)
        for last, later in enumerate(times[first:], first)
        if last - first + 1 > (qps * (later - earlier) + qps) * 1.1 + 1
    ]
    check("AGT-460", expected=[], observed=excess[:5], what="windows with too many starts")
    window = end - all_due_at
    during = sum(at > all_due_at for at in times)
    enough = during >= 0.9 * qps * window - 1
    check(
        "AGT-460",
        expected=f"{0.9 * qps * window:.0f} or more",
        observed=during,
        holds=enough,
        what="starts while behind",
    )
    check("AGT-462", expected=f"{0.9 * qps * window:.0f} or more", observed=during, holds=enough)

    known = {number for at, number in seen if at <= all_due_at}
    order: list[int] = []
    for at, number in seen:
        if at > all_due_at and number not in known:
            known.add(number)
            order.append(number)
    # The last stored expire first. Requests of one round overtake each other on the way: without an order half of all
    # pairs would be the wrong way round.
    overtaken = sum(earlier < later for earlier, later in combinations(order, 2))
    in_order = len(order) > 1 and overtaken <= 0.2 * len(order) * (len(order) - 1) / 2
    check("AGT-461", expected="soonest expiry first", observed=order, holds=in_order)


@requirement("AGT-667")
def test_a_refusal_because_the_pod_is_gone_is_no_error(quick: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """It is told at info."""
    eks_auth.script(token, grant(), refusal(404, "ResourceNotFoundException", "gone-for-good"))
    logged = len(quick.log_lines())
    assert quick.get(token).status == 200
    eks_auth.wait_for_calls(token, 2)

    def told() -> list[str]:
        lines = [line for line in quick.log_lines()[logged:] if str(line.get("msg")).startswith("Removing credentials")]
        return [str(line.get("level")) for line in lines]

    assert set(wait.until(told, what="a line about it", timeout=limits.SUBJECT_ACTS)) == {"info"}


# --- What needs ten seconds, and more: last, so that they have passed -----------------------------------------------


def _delays(eks_auth: FakeEKSAuth, tokens: Sequence[str], timeout: Limit) -> list[float]:
    calls = [eks_auth.wait_for_calls(token, 2, timeout)[:2] for token in tokens]
    return [second.received_at - first.received_at for first, second in calls]


@requirement("AGT-452")
def test_short_lived_credentials_are_renewed_at_half_their_life(long: Long, eks_auth: FakeEKSAuth) -> None:
    """A life of 22 s is over in half at 11 s, before the retention can be (12.6 s); up to a tenth is taken off."""
    long.agent.require_alive()

    (delay,) = _delays(eks_auth, [long.short], limits.RETENTION)

    assert 9.3 < delay < 12 + long.watch.kept_waiting


@requirement("AGT-453")
def test_due_times_are_spread(long: Long, eks_auth: FakeEKSAuth) -> None:
    """Entries stored together are renewed over the last tenth of the retention."""
    long.agent.require_alive()

    delays = _delays(eks_auth, long.spread, limits.RETENTION)

    assert min(delays) > 12.4
    assert max(delays) < 15.5 + long.watch.kept_waiting
    assert max(delays) - min(delays) > 0.6


@requirement("AGT-463")
def test_an_expired_token_is_not_used(long: Long, eks_auth: FakeEKSAuth) -> None:
    """Its entry was due after the token's end, when all others were renewed."""
    long.agent.require_alive()
    eks_auth.wait_for_calls(long.spread[0], 2, limits.RETENTION)
    wait.until(time.monotonic, lambda now: now > long.stored_at + 15, what="fifteen seconds", timeout=limits.RETENTION)

    assert len(eks_auth.calls_with(long.expiring)) == 1


@requirement("AGT-466", "AGT-622")
def test_expired_entries_vanish_by_themselves(long: Long, eks_auth: FakeEKSAuth, agent_command: AgentCommand) -> None:
    """The entry that could not be renewed is removed at its end, without a request."""
    long.agent.require_alive()
    # Ours tells why; the entry of the expired token went for another reason.
    if agent_command.is_ours:
        name, labels = "pod_identity_cache_evictions_total", {"reason": "expired"}
    else:
        name, labels = "pod_identity_cache_state", {"state": "evicted"}
    wait.until(
        lambda: long.agent.metric(name, **labels),
        what="an entry that vanishes",
        timeout=limits.RETENTION.after(agent_command.sweep),
    )
    evicted = long.agent.metric("pod_identity_cache_state", state="evicted")

    for identifier in ("AGT-466", "AGT-622"):
        check(identifier, expected="1 or more", observed=evicted, holds=evicted >= 1)
    assert len(eks_auth.calls_with(long.failing)) == 2
