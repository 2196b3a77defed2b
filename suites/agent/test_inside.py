"""What needs hours, or a look at what the agent holds: its interpreter's clocks are moved, and its memory is read.

For agents in Python only. Nothing of the agent is imported: the interpreter itself lets the suite in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run, not_applicable
from harness.conformance.recording import check
from harness.limits import Limit
from harness.subject.agent import Agent, AgentCommand
from harness.subject.eks_auth import FakeEKSAuth, grant, held, refusal
from harness.subject.interpreter import Interpreter
from harness.subject.pod_token import make_token

RETENTION = "--max-credential-retention-before-renewal"
HOUR = 3600.0
FIRST_MINUTE, THIRD_TRY = Limit("FIRST_MINUTE", 0.8), Limit("THIRD_TRY", 1.5)
NEXT_RENEWALS = Limit("NEXT_RENEWALS", 2.5)
"""Real time in which an agent would show that it is too early by the time that it is told."""
DAYS_OFF = 14 * 24 * HOUR
"""How long tokens live here: days pass."""
SECRETS = r"CANARY-(?:SECRET|SESSION)-\w+"
LISTENERS = tuple(f"127.0.0.{number}" for number in range(1, 9))
"""So many that no limit of rate is in the way."""

StartInside = Callable[..., tuple[Agent, Interpreter]]


@pytest.fixture
def start_inside(
    agent_command: AgentCommand, eks_auth: FakeEKSAuth, patient: Sequence[str], tmp_path: Path
) -> Iterator[StartInside]:
    """Starts an agent with flags of its own, and gives a way into it."""
    if not agent_command.is_ours:
        not_applicable("feature-excluded", "only an agent in Python lets its clocks be moved and its memory be read")
    with ExitStack() as stack:

        def start(*flags: str, counts_calls: bool = False) -> tuple[Agent, Interpreter]:
            inside = Interpreter(tmp_path, counts_calls=counts_calls)
            serving = agent_command.serving(
                eks_auth.url, *patient, *flags, hosts=LISTENERS, env=inside.environment, verbosity="info"
            )
            agent = stack.enter_context(serving)
            agent.require_alive()
            if not inside.is_there:
                could_not_run(
                    "prerequisite", "the command does not start a Python of this machine: use the plain agent"
                )
            return agent, inside

        yield start


@pytest.fixture
def token() -> str:
    return make_token(exp=int(time.time() + DAYS_OFF))


def _pods(count: int) -> list[str]:
    return [make_token(exp=int(time.time() + DAYS_OFF)) for _ in range(count)]


def _ask_all(agent: Agent, tokens: Sequence[str]) -> list[int]:
    """Return the status that each gets, on listeners by turns."""
    pending = [agent.send(token, address=LISTENERS[number % 8]) for number, token in enumerate(tokens)]
    return [request.reply().status for request in pending]


def _are_asked_for_a_while(agent: Agent, tokens: Sequence[str]) -> None:
    """See that all are served, until the agent has had the time to see which renewals are due."""
    watch = agent.stopwatch()

    def seconds() -> float:
        assert _ask_all(agent, tokens) == [200] * len(tokens)
        return watch.seconds

    wait.until(
        seconds, lambda passed: passed > 0.6, what="the agent to look for due renewals", timeout=limits.RETENTION
    )


# --- Nothing is kept that is over -----------------------------------------------------------------------------------


@requirement("AGT-409")
def test_credentials_that_are_over_are_nowhere_in_the_process(start_inside: StartInside, eks_auth: FakeEKSAuth) -> None:
    """Not those that were pushed out, replaced, refused at a renewal, or have expired; those in the cache are."""
    agent, inside = start_inside(RETENTION, "1h", "--max-cache-size", "4", "--max-service-qps", "50")
    out, replaced, refused, expired, kept = _pods(5)
    eks_auth.script(out, grant("out"))
    eks_auth.script(replaced, grant("replaced"), grant("renewed"))
    eks_auth.script(refused, grant("refused"), refusal(404, "ResourceNotFoundException"))
    eks_auth.script(expired, grant("expired", time.time() + HOUR / 2), refusal(400, "InvalidRequestException"))
    eks_auth.script(kept, grant("kept"), refusal(400, "InvalidRequestException"))

    assert [agent.get(token).status for token in (out, replaced, refused, expired, kept)] == [200] * 5
    before = inside.find(SECRETS)
    inside.pass_(HOUR)
    wait.until(
        lambda: agent.metric("pod_identity_cache_entries"),
        lambda entries: entries == 2,
        what="one entry to be refused, and one to expire",
        timeout=limits.RENEWAL,
    )
    eks_auth.wait_for_calls(replaced, 2, timeout=limits.RENEWAL)
    eks_auth.wait_for_calls(kept, 2, timeout=limits.RENEWAL)
    after = wait.until(
        lambda: inside.find(SECRETS),
        lambda found: len(found) <= 4,
        what="the others to be forgotten",
        timeout=limits.SUBJECT_ACTS,
    )

    held = ["replaced", "refused", "expired", "kept"]
    check("AGT-409", expected=_secrets(held), observed=before, what="after one was pushed out")
    check("AGT-409", expected=_secrets(["renewed", "kept"]), observed=after, what="an hour later")


def _secrets(names: Sequence[str]) -> list[str]:
    return sorted(f"CANARY-{part}-{name}" for name in names for part in ("SECRET", "SESSION"))


@requirement("AGT-1106")
def test_a_hit_parses_and_serialises_nothing_again(
    start_inside: StartInside, eks_auth: FakeEKSAuth, token: str
) -> None:
    """Hundreds of hits, on connections of their own, cost one look at the token and one serialisation."""
    agent, inside = start_inside(counts_calls=True)
    eks_auth.script(token, grant("once"))
    assert agent.get(token).status == 200

    statuses = {status for _ in range(10) for status in _ask_all(agent, [token] * 40)}

    once = ("podid_agent.tokens.parse_token", "podid_agent.credentials.PodCredentials._to_json")
    check("AGT-1106", expected=(dict.fromkeys(once, 1), {200}), observed=(inside.calls(once), statuses))


@requirement("AGT-1106")
def test_a_hit_leaves_nothing_behind(start_inside: StartInside, token: str) -> None:
    """After thousands there is no more in memory than after hundreds."""
    agent, inside = start_inside()
    one = f"GET /v1/credentials HTTP/1.1\r\nHost: 169.254.170.23\r\nAuthorization: {token}\r\n"
    batch = (f"{one}\r\n" * 99 + f"{one}Connection: close\r\n\r\n").encode()

    def hit(rounds: int) -> int:
        """Send a hundred hits to each listener, so many times, and return what is then in use."""
        for _ in range(rounds):
            for connection in [agent.send_bytes(batch, address=address) for address in LISTENERS]:
                assert {reply.status for reply in connection.replies()} == {200}
        return inside.blocks()

    hit(1)
    few = hit(1)
    many = hit(3)

    # The log's and the client's own ups and downs are some dozens; one object a hit would be 2,400.
    check(
        "AGT-1106", expected="as much as before", observed=many - few, holds=many - few < 240, what="pieces of memory"
    )


# --- Clocks ---------------------------------------------------------------------------------------------------------


@requirement("AGT-410")
@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forth"])
def test_a_step_of_the_wall_clock_serves_nothing_expired(
    start_inside: StartInside, eks_auth: FakeEKSAuth, token: str, step: float
) -> None:
    """Credentials with ten minutes of life are over ten minutes later, or at once, whatever the wall clock says."""
    agent, inside = start_inside()
    eks_auth.script(token, grant("old", inside.now() + 600), grant("new"))
    assert "AKID-old" in agent.get(token).text

    inside.step_wall_clock(step)
    inside.pass_(590)
    text = agent.get(token).text

    assert "AKID-new" in text


@requirement("AGT-410")
@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forth"])
def test_a_step_of_the_wall_clock_does_not_stop_renewals(
    start_inside: StartInside, eks_auth: FakeEKSAuth, token: str, step: float
) -> None:
    """What was due after ten minutes is renewed after eleven at the latest."""
    agent, inside = start_inside(RETENTION, "10m", "--max-cache-size", "100")
    eks_auth.script(token, grant("old", inside.now() + 6 * HOUR), grant("new"))
    assert agent.get(token).status == 200

    inside.step_wall_clock(step)
    inside.pass_(660)

    eks_auth.wait_for_calls(token, 2, timeout=limits.RENEWAL)


@requirement("AGT-458")
def test_the_next_try_comes_after_one_to_two_minutes(start_inside: StartInside, eks_auth: FakeEKSAuth) -> None:
    """Not before a minute, all within the second one, and not all at once."""
    agent, inside = start_inside(RETENTION, "10m", "--max-cache-size", "100", "--max-service-qps", "200")
    tokens = _pods(20)
    for token in tokens:
        eks_auth.script(token, grant(), refusal(400, "InvalidRequestException"))
    assert set(_ask_all(agent, tokens)) == {200}

    def tries() -> list[int]:
        return [len(eks_auth.calls_with(token)) - 1 for token in tokens]

    inside.pass_(600)
    wait.until(tries, lambda seen: set(seen) == {1}, what="twenty renewals that fail", timeout=limits.RETENTION)
    failed = 'cache_errors{code="InvalidRequestException",type="Recoverable"} 20'
    wait.until(agent.metrics_text, lambda text: failed in text, what="the agent to know", timeout=limits.SUBJECT_ACTS)
    inside.pass_(55)
    wait.never(tries, lambda seen: set(seen) != {1}, what="a try within the first minute", during=FIRST_MINUTE)
    inside.pass_(35)
    half = wait.never(tries, lambda seen: max(seen) > 2, what="a third try", during=THIRD_TRY)
    inside.pass_(35)
    wait.until(tries, lambda seen: min(seen) == 2, what="a second try of each", timeout=limits.RENEWAL)

    # After a minute and a half one half has been tried again: none or all would be one chance in a million.
    assert 0 < half.count(2) < 20


@requirement("AGT-464")
def test_what_no_client_can_use_any_more_is_not_renewed(
    start_inside: StartInside, eks_auth: FakeEKSAuth, token: str
) -> None:
    """A client got credentials for an hour and never came back: after that hour there are no more calls."""
    agent, inside = start_inside(RETENTION, "10m")

    def calls() -> int:
        return len(eks_auth.calls_with(token))

    eks_auth.script(token, grant(expiration=inside.now() + HOUR))
    assert agent.get(token).status == 200
    for number in range(2, 7):
        eks_auth.script(token, grant(expiration=inside.now() + 600 + HOUR))
        inside.pass_(600)
        wait.until(
            calls, lambda seen, number=number: seen >= number, what=f"renewal {number - 1}", timeout=limits.SUBJECT_ACTS
        )
    inside.pass_(605)
    wait.never(calls, lambda seen: seen > 6, what="a renewal for nobody", during=THIRD_TRY)
    inside.pass_(1200)
    seen = wait.never(calls, lambda seen: seen > 6, what="a renewal for nobody", during=THIRD_TRY)

    check("AGT-464", expected=6, observed=seen, what="calls")


@requirement("AGT-427")
def test_a_request_waits_for_the_renewal_that_is_under_way(
    start_inside: StartInside, eks_auth: FakeEKSAuth, token: str
) -> None:
    """Where the old credentials cannot be served any more, the renewal's are, and there is no other call."""
    agent, inside = start_inside(RETENTION, "1h")
    eks_auth.script(token, grant(expiration=inside.now() + 120))
    assert agent.get(token).status == 200
    name, calls = "pod_identity_cache_requests_total", "pod_identity_upstream_calls_total"

    with held(grant("renewed", inside.now() + HOUR)) as (answer, release):
        eks_auth.script(token, answer)
        inside.pass_(61)
        eks_auth.wait_for_calls(token, 2)
        inside.pass_(50)
        request = agent.send(token)
        wait.until(
            lambda: agent.metric(name, result="coalesced"), what="a request that waits", timeout=limits.SUBJECT_ACTS
        )
        release.set()
        reply = request.reply()

    check("AGT-427", expected=200, observed=reply.status, what="status")
    check("AGT-427", expected="those of the renewal", observed=reply.text, holds="AKID-renewed" in reply.text)
    made = {trigger: agent.metric(calls, trigger=trigger, outcome="success") for trigger in ("request", "renewal")}
    check("AGT-427", expected={"request": 1.0, "renewal": 1.0}, observed=made, what="calls")


@requirement("AGT-467")
def test_throttling_stops_renewals_for_longer_each_time(start_inside: StartInside, eks_auth: FakeEKSAuth) -> None:
    """For eight seconds after the fourth time, with a dozen of them due; a request goes on at once."""
    agent, inside = start_inside(RETENTION, "10m", "--max-cache-size", "100", "--max-service-qps", "1")
    pods = _pods(12)
    for token in pods:
        eks_auth.script(token, grant(), refusal(429, "ThrottlingException"))
    assert set(_ask_all(agent, pods)) == {200}

    def throttled() -> float:
        return agent.metric("pod_identity_upstream_calls_total", trigger="renewal", outcome="ThrottlingException")

    inside.pass_(600)
    for number, pause in ((1, 1), (2, 2), (3, 4), (4, 0)):
        wait.until(
            throttled, lambda seen, number=number: seen >= number, what=f"refusal {number}", timeout=limits.RENEWAL
        )
        inside.pass_(pause)
    after_four = wait.never(throttled, lambda seen: seen > 4, what="a renewal", during=NEXT_RENEWALS)
    inside.pass_(8)
    after_the_pause = wait.until(throttled, lambda seen: seen > 4, what="the next renewal", timeout=limits.RENEWAL)
    status = agent.get(_pods(1)[0]).status

    check("AGT-467", expected=4, observed=after_four, what="renewals until the fourth refusal")
    check("AGT-467", expected=5, observed=after_the_pause, what="eight seconds later")
    check("AGT-467", expected=200, observed=status, what="a request meanwhile")


# --- Long runs ------------------------------------------------------------------------------------------------------


@requirement("AGT-468")
def test_an_outage_of_half_an_hour_is_seen_by_no_pod(start_inside: StartInside, eks_auth: FakeEKSAuth) -> None:
    """Eight hours, with EKS Auth down in the middle: pods that ask get credentials all the time."""
    agent, inside = start_inside(RETENTION, "20m", "--max-service-qps", "50")
    pods = _pods(4)
    calls: dict[str, int] = {}
    for name, steps, minutes in (("before", 8, 30), ("outage", 3, 10), ("after", 7, 30)):
        began = len(eks_auth.calls)
        for _ in range(steps):
            up = grant(expiration=inside.now() + 6 * HOUR)
            for pod in pods:
                eks_auth.script(pod, refusal(503, "ServiceUnavailableException") if name == "outage" else up)
            _are_asked_for_a_while(agent, pods)
            inside.pass_(minutes * 60)
        calls[name] = len(eks_auth.calls) - began

    check("AGT-468", expected="calls all the time", observed=calls, holds=all(calls.values()))


@requirement("AGT-1104")
def test_a_day_of_work_adds_nothing_to_memory(start_inside: StartInside, eks_auth: FakeEKSAuth) -> None:
    """Pods whose credentials are renewed all the time, joined by others that come and go: no hour needs more."""
    agent, inside = start_inside(RETENTION, "20m", "--max-cache-size", "100", "--max-service-qps", "200")
    pods = _pods(25)
    sizes: list[int] = []
    for _ in range(16):
        for token in pods:
            eks_auth.script(token, grant("day", inside.now() + 6 * HOUR))
        _are_asked_for_a_while(agent, pods)
        _ask_all(agent, _pods(50))
        inside.pass_(1.5 * HOUR)
        sizes.append(inside.blocks())

    # The least of the last ones, since one may have been taken amid renewals; what is kept is in all of them.
    settled, end = max(sizes[4:8]), min(sizes[-4:])
    check("AGT-1104", expected="no growth after the first hours", observed=sizes, holds=end < settled * 1.01)
