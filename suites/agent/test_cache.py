"""The cache, and requests that arrive together (sections 4.1 and 4.2 of the contract)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.agent import Agent, AgentCommand
from harness.subject.eks_auth import Answer, FakeEKSAuth, grant, held, refusal
from harness.subject.pod_token import make_token
from suites.agent.conftest import StartAgent

RETENTION = "--max-credential-retention-before-renewal"


@pytest.fixture(scope="module")
def uncached(agent_command: AgentCommand, eks_auth: FakeEKSAuth, patient: Sequence[str]) -> Iterator[Agent]:
    """An agent without a cache."""
    with agent_command.serving(eks_auth.url, *patient, "--max-cache-size", "0") as agent:
        yield agent


@pytest.fixture(scope="module")
def small(agent_command: AgentCommand, eks_auth: FakeEKSAuth, patient: Sequence[str]) -> Iterator[Agent]:
    """An agent that caches three tokens' credentials."""
    with agent_command.serving(eks_auth.url, *patient, "--max-cache-size", "3") as agent:
        yield agent


def _counts(eks_auth: FakeEKSAuth, *tokens: str) -> list[int]:
    return [len(eks_auth.calls_with(token)) for token in tokens]


# --- Serving --------------------------------------------------------------------------------------------------------


@requirement("AGT-401")
def test_without_a_size_nothing_is_cached(uncached: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """Each request is a call, and credentials with 5 s left are served."""
    eks_auth.script(token, grant(expiration=time.time() + 5))

    statuses = [uncached.get(token).status for _ in range(2)]

    assert (statuses, len(eks_auth.calls_with(token))) == ([200, 200], 2)


@requirement("AGT-401")
def test_without_a_retention_nothing_is_cached(start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str) -> None:
    """Zero turns the cache off as well."""
    agent = start_agent(eks_auth.url, RETENTION, "0")

    statuses = [agent.get(token).status for _ in range(2)]

    assert (statuses, len(eks_auth.calls_with(token))) == ([200, 200], 2)


@requirement("AGT-278", "AGT-279")
def test_without_a_cache_errors_are_not_said_to_be_its(uncached: Agent, eks_auth: FakeEKSAuth) -> None:
    """The texts lack what the cache puts before them."""
    incomplete, bad_arn = make_token(), make_token()
    eks_auth.script(incomplete, Answer(200, b"{}"))
    eks_auth.script(bad_arn, Answer(200, grant().body.replace(b"arn:aws:sts::123456789012:assumed-role/r/s", b"nope")))

    first, second = uncached.get(incomplete), uncached.get(bad_arn)

    begins = first.text.startswith("invalid response from server: ")
    check(
        "AGT-278", expected="500 invalid response from server: …", observed=f"{first.status} {first.text}", holds=begins
    )
    text = "unable to parse arn from assumed role: arn: invalid prefix\n"
    check("AGT-279", expected=(500, text), observed=(second.status, second.text))


@requirement("AGT-402", "AGT-403")
def test_each_token_has_its_own_credentials(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """Tokens 1, 2, 1 make two calls; also tokens that differ in the signature only."""
    one = make_token()
    two = f"{one}x"
    eks_auth.script(one, grant("one"))
    eks_auth.script(two, grant("two"))

    bodies = [agent.get(token).text for token in (one, two, one)]

    names = [body.partition("AKID-")[2][:3] for body in bodies]
    check("AGT-402", expected=["one", "two", "one"], observed=names)
    check("AGT-403", expected=[1, 1], observed=_counts(eks_auth, one, two))


@requirement("AGT-404")
def test_an_entry_is_not_served_to_its_last_second(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """With more than 15 s left it is, with less the request waits for new credentials."""
    watch = agent.stopwatch()
    eks_auth.script(token, grant("old", expiration=time.time() + 19), grant("new"))

    first = [agent.get(token).text for _ in range(2)]
    assert all("AKID-old" in text for text in first)
    wait.until(
        lambda: agent.get(token).text, lambda text: "AKID-new" in text, what="new credentials", timeout=limits.RENEWAL
    )

    first_call, second_call = eks_auth.wait_for_calls(token, 2)[:2]
    assert second_call.received_at - first_call.received_at - watch.kept_waiting < 6


@requirement("AGT-406", "AGT-407")
def test_a_full_cache_gives_up_the_least_recently_used(small: Agent, eks_auth: FakeEKSAuth) -> None:
    """A, B, C are stored, A is read, D is added: A is still there, B is not."""
    a, b, c, d = (make_token() for _ in range(4))

    statuses = [small.get(token).status for token in (a, b, c, a, d, a, b)]

    assert statuses == [200] * 7
    first, second, _, fourth = _counts(eks_auth, a, b, c, d)
    check("AGT-407", expected=(1, 2, 1), observed=(first, second, fourth))
    check("AGT-406", expected="more than four calls for four tokens", observed=first + second, holds=first + second > 2)


@requirement("AGT-406")
def test_a_cache_holds_no_more_than_its_size(small: Agent, eks_auth: FakeEKSAuth) -> None:
    """The first of four tokens costs a second call."""
    tokens = [make_token() for _ in range(4)]

    statuses = [small.get(token).status for token in (*tokens, tokens[3], tokens[0])]

    assert statuses == [200] * 6
    assert _counts(eks_auth, *tokens) == [2, 1, 1, 1]


# --- Together -------------------------------------------------------------------------------------------------------


@requirement("AGT-420")
def test_followers_share_the_leader_s_call(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """Fifteen requests during a call get its credentials without one of their own."""
    eks_auth.script(token, grant(delay=0.5))
    leader = agent.send(token)
    eks_auth.wait_for_calls(token)

    followers = [agent.send(token) for _ in range(15)]
    bodies = {pending.reply().body for pending in (leader, *followers)}

    assert (len(bodies), len(eks_auth.calls_with(token))) == (1, 1)


@requirement("AGT-408", "AGT-421")
def test_a_thousand_at_once_make_one_call(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, patient: Sequence[str]
) -> None:
    """1,002 first requests over three listeners, none over its rate limit, are all answered by the one call."""
    token, addresses = make_token(), ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    agent = start_agent(eks_auth.url, *patient, hosts=addresses)
    eks_auth.script(token, grant(delay=0.6))
    pending = [agent.send(token, address=address) for _ in range(334) for address in addresses]

    statuses = [request.reply().status for request in pending]

    check("AGT-421", expected={200: 1002}, observed={status: statuses.count(status) for status in set(statuses)})
    check("AGT-421", expected=1, observed=len(eks_auth.calls_with(token)), what="calls")
    check("AGT-408", expected=1, observed=len(eks_auth.calls_with(token)))


@requirement("AGT-267", "AGT-422", "AGT-423")
def test_waiters_share_a_failure_and_the_next_request_calls_again(
    agent: Agent, eks_auth: FakeEKSAuth, token: str
) -> None:
    """Sixteen get the one refusal; it is not kept for a seventeenth."""
    eks_auth.script(token, refusal(400, "AccessDeniedException", delay=0.4))
    pending = [agent.send(token) for _ in range(16)]

    answers = {(reply.status, reply.text) for reply in (request.reply() for request in pending)}
    calls = len(eks_auth.calls_with(token))
    # Only now: waiters of AWS's agent call for themselves, and one of them would get these.
    eks_auth.script(token, grant())
    after = agent.get(token).status

    check("AGT-422", expected={(400, "[R]: (AccessDeniedException): m, fault: client\n")}, observed=answers)
    check("AGT-422", expected=1, observed=calls, what="calls")
    for identifier in ("AGT-267", "AGT-423"):
        check(identifier, expected=(200, calls + 1), observed=(after, len(eks_auth.calls_with(token))))


@requirement("AGT-424")
def test_waiters_are_woken_by_the_end_of_the_call(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """Sixteen have their answers at once, not at the next look; the best of three rounds counts, for slow machines."""

    def lateness() -> float:
        token = make_token()
        eks_auth.script(token, grant(delay=0.45))
        pending = [agent.send(token) for _ in range(16)]
        call = eks_auth.wait_for_calls(token)[0]
        watch = agent.stopwatch()
        for request in pending:
            request.reply()
        return time.monotonic() - call.received_at - 0.45 - watch.kept_waiting

    assert min(lateness() for _ in range(3)) < 0.08


@requirement("AGT-426")
def test_a_call_that_hangs_delays_no_other_token(agent: Agent, eks_auth: FakeEKSAuth) -> None:
    """One token waits, others are served, from EKS Auth and from the cache."""
    slow, quick = make_token(), make_token()
    with held(grant()) as (answer, release):
        eks_auth.script(slow, answer)
        waiting = agent.send(slow)
        eks_auth.wait_for_calls(slow)

        statuses = [agent.get(token).status for token in (quick, quick, make_token())]
        release.set()

    assert (statuses, waiting.reply().status) == ([200, 200, 200], 200)


@requirement("AGT-428")
def test_calls_under_way_are_bounded(start_agent: StartAgent, patient: Sequence[str]) -> None:
    """Of 500 tokens at once, no more than 256 are asked for at a time, and all are served.

    Up to three rounds, since on a slow machine the stand-in may need longer for its answers than an attempt may last.
    """
    fake = FakeEKSAuth(otherwise=grant(delay=0.3))
    statuses: set[int] = set()
    try:
        agent = start_agent(fake.url, *patient, hosts=("127.0.0.1", "127.0.0.2"))
        for _ in range(3):
            pending = [agent.send(make_token(), address=agent.hosts[number % 2]) for number in range(500)]
            statuses = {request.reply().status for request in pending}
            if statuses == {200}:
                break
    finally:
        fake.close()

    assert statuses == {200}
    assert fake.most_open_calls <= 256


@requirement("AGT-429")
def test_without_a_cache_nothing_is_shared(uncached: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """Eight requests at once are eight calls."""
    eks_auth.script(token, grant(delay=0.2))
    pending = [uncached.send(token) for _ in range(8)]

    statuses = [request.reply().status for request in pending]

    assert (statuses, len(eks_auth.calls_with(token))) == ([200] * 8, 8)


# --- The longest wait -----------------------------------------------------------------------------------------------


@requirement("AGT-720")
def test_a_request_that_waits_too_long_is_told_so_and_the_call_goes_on(
    start_agent: StartAgent, eks_auth: FakeEKSAuth, token: str
) -> None:
    """After 1.8 s it is 500; the second attempt, which ends later, fills the cache."""
    with held(grant("never")) as (hangs, _):
        eks_auth.script(token, hangs, grant("late", delay=0.95))
        agent = start_agent(eks_auth.url)
        watch = agent.stopwatch()
        refused = agent.get(token)
        elapsed, waited = watch.elapsed, watch.seconds
        served = wait.until(
            lambda: agent.get(token), lambda reply: reply.status == 200, what="credentials", timeout=limits.SUBJECT_ACTS
        )

    assert refused.status == 500
    assert refused.text.startswith("[]: (RequestTimeout): ")
    assert elapsed > 1.7
    assert waited < 2.0 + 0.5
    assert "AKID-late" in served.text
    assert len(eks_auth.calls_with(token)) == 2


@requirement("AGT-425")
def test_a_call_belongs_to_its_token(agent: Agent, eks_auth: FakeEKSAuth, token: str) -> None:
    """Its client leaves; a second one gets its result."""
    eks_auth.script(token, grant(delay=0.6))
    leader = agent.send(token)
    eks_auth.wait_for_calls(token)
    leader.hang_up()

    assert agent.get(token).status == 200
    assert len(eks_auth.calls_with(token)) == 1
