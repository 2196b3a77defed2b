"""The cache and renewals on an injected clock (AGT sections 4.1 and 4.3)."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from podid_agent.cache import renewal_delay
from podid_agent.call_slots import CallSlots, Trigger
from podid_agent.credentials import PodCredentials
from podid_agent.errors import CredentialsError, UnreachableError
from podid_agent.rate_limit import TokenBucket
from podid_agent.renewal import ThrottlePause
from podid_agent.retry import RetryBudget
from podid_agent.tokens import TokenClaims
from renewal_bench import (
    UNLIMITED,
    Bench,
    Time,
    credentials,
    granting,
    make_cache,
    refused,
    refusing,
    run,
    settle,
)


@pytest.fixture
def time() -> Time:
    return Time()


def test_least_recently_used_entry_goes_first(time: Time) -> None:
    """AGT-406, AGT-407: a read is a use."""
    cache, evicted = make_cache(time)
    for token in (b"A", b"B", b"C"):
        cache.store(token, token, UNLIMITED, credentials(time, 3600))

    cache.use(b"A", b"A")
    cache.store(b"D", b"D", UNLIMITED, credentials(time, 3600))

    assert [entry.token for entry in cache] == [b"C", b"A", b"D"]
    assert evicted == ["capacity"]


def test_entry_is_served_until_fifteen_seconds_are_left(time: Time) -> None:
    """AGT-404."""
    cache, _ = make_cache(time)
    cache.store(b"A", b"A", UNLIMITED, credentials(time, 20))

    time.pass_(4.9)
    assert cache.use(b"A", b"A")
    time.pass_(0.1)
    assert cache.use(b"A", b"A") is None


@pytest.mark.parametrize("step", [-3600, 3600])
def test_step_of_the_wall_clock_serves_nothing_that_has_expired(time: Time, step: float) -> None:
    """AGT-410: back, and the credentials seem to live longer; forth, and they are gone."""
    cache, _ = make_cache(time)
    cache.store(b"A", b"A", UNLIMITED, credentials(time, 600))

    time.wall += step
    time.pass_(590)

    assert cache.use(b"A", b"A") is None


@pytest.mark.parametrize(
    ("life", "retention", "spread", "delay"),
    [
        (6 * 3600, 3 * 3600, 0.0, 3 * 3600),
        (59 * 60, 3 * 3600, 0.0, 39 * 60),
        (40, 3600, 0.0, 20),
        (6 * 3600, 3 * 3600, 1.0, 2.7 * 3600),
    ],
)
def test_renewal_is_due_before_clients_need_it(life: float, retention: float, spread: float, delay: float) -> None:
    """AGT-450, AGT-452, AGT-453."""
    assert renewal_delay(life, retention, spread) == pytest.approx(delay)


def test_removed_credentials_are_not_referenced(time: Time) -> None:
    """AGT-409: dropped, replaced and expired ones."""

    class Watched(TokenClaims):
        __slots__ = ("__weakref__",)

    cache, _ = make_cache(time)
    watched = [Watched(None, None, {}) for _ in range(3)]
    references = [weakref.ref(claims) for claims in watched]
    for token, claims in zip((b"A", b"B", b"C"), watched, strict=True):
        cache.store(token, token, claims, credentials(time, 60))
    dropped = cache.peek(b"A")
    assert dropped
    cache.remove(dropped, "refused")
    cache.store(b"B", b"B", UNLIMITED, credentials(time, 3600))
    time.pass_(61)
    cache.remove_expired()

    del watched, dropped, claims
    gc.collect()

    assert [reference() for reference in references] == [None, None, None]
    assert len(cache) == 1


def test_renewal_replaces_the_entry_without_a_request(time: Time) -> None:
    """AGT-450, AGT-454."""

    async def scenario() -> None:
        bench = Bench(time, granting(time, 21_600))
        await bench.fetcher.fetch(b"A", b"A", UNLIMITED)

        await bench.pass_(99)
        assert bench.calls == [(b"A", "request")]
        await bench.pass_(2)

        assert bench.calls == [(b"A", "request"), (b"A", "renewal")]
        served = bench.fetcher.cached(b"A", b"A")
        assert served
        assert served.credentials.access_key_id == "A-renewal"
        assert bench.metrics.cache_state.labels("hit").value == 1

    run(scenario)


@pytest.mark.parametrize(
    ("error", "kept", "kind", "code"),
    [
        (refused(404, "ResourceNotFoundException"), False, "NonRecoverable", "ResourceNotFoundException"),
        (refused(400, "ExpiredTokenException"), False, "NonRecoverable", "ExpiredTokenException"),
        (refused(400, "InvalidTokenException"), False, "NonRecoverable", "InvalidTokenException"),
        (refused(400, "AccessDeniedException"), False, "NonRecoverable", "AccessDeniedException"),
        (refused(400, "InvalidRequestException"), True, "Recoverable", "InvalidRequestException"),
        (refused(429, "ThrottlingException"), True, "Recoverable", "ThrottlingException"),
        (refused(503, "ServiceUnavailableException"), True, "Recoverable", "ServiceUnavailableException"),
        (refused(403, "ExpiredTokenException"), True, "Recoverable", "ExpiredTokenException"),
        (UnreachableError("ConnectionRefused", "r"), True, "Recoverable", "Unknown"),
    ],
    ids=str,
)
def test_failed_renewal_keeps_or_drops_the_entry(
    time: Time, error: CredentialsError, kept: bool, kind: str, code: str
) -> None:
    """AGT-455 to AGT-457, AGT-623."""

    async def scenario() -> None:
        bench = Bench(time, refusing(time, 21_600, error))
        await bench.fetcher.fetch(b"A", b"A", UNLIMITED)

        await bench.pass_(101)

        assert (bench.fetcher.cached(b"A", b"A") is not None) == kept
        assert bench.metrics.cache_errors.labels(kind, code).value == 1
        assert len(bench.forbidden) == (error.status == 403)
        assert bench.evicted == ([] if kept else ["refused"])

    run(scenario)


def test_next_try_comes_after_one_to_two_minutes(time: Time) -> None:
    """AGT-458."""

    async def scenario() -> None:
        bench = Bench(time, refusing(time, 21_600, UnreachableError("ConnectionRefused", "r")))
        await bench.fetcher.fetch(b"A", b"A", UNLIMITED)

        await bench.pass_(101 + 58)
        assert len(bench.calls) == 2
        await bench.pass_(64)

        assert len(bench.calls) == 3

    run(scenario)


def test_outage_is_not_seen_by_pods(time: Time) -> None:
    """AGT-468: 8 h with an outage of 30 min in the fourth hour; the pod asks every minute."""
    out_from, out_until = time.monotonic + 4 * 3600, time.monotonic + 4.5 * 3600

    async def script(_token: bytes, _trigger: Trigger) -> PodCredentials:
        if out_from <= time.monotonic < out_until:
            raise UnreachableError("ConnectTimeout", "r")
        return credentials(time, 3540)

    async def scenario() -> None:
        bench = Bench(time, script, retention=10_800)
        await bench.fetcher.fetch(b"A", b"A", UNLIMITED)
        for _ in range(8 * 60):
            await bench.pass_(60, step=5)
            assert bench.fetcher.cached(b"A", b"A")

    run(scenario)


def test_renewals_keep_to_their_rate_soonest_expiry_first(time: Time) -> None:
    """AGT-460, AGT-461: 30 entries due at once, 3 per second after a burst of 3."""

    async def scenario() -> None:
        lives = {f"{n:02}".encode(): 20_000.0 - n for n in range(30)}

        async def script(token: bytes, _trigger: Trigger) -> PodCredentials:
            return credentials(time, lives[token])

        bench = Bench(time, script)
        for token in lives:
            await bench.fetcher.fetch(token, token, UNLIMITED)
        await bench.pass_(99.75)
        bench.calls.clear()

        await bench.pass_(5)

        assert 15 <= len(bench.calls) <= 18
        assert [token for token, _ in bench.calls] == sorted(lives, reverse=True)[: len(bench.calls)]

    run(scenario)


def test_expired_token_is_not_used(time: Time) -> None:
    """AGT-463: its entry is dropped instead."""

    async def scenario() -> None:
        bench = Bench(time, granting(time, 21_600))
        await bench.fetcher.fetch(b"A", b"A", TokenClaims(int(time.wall) + 50, None, {}))

        await bench.pass_(101)

        assert len(bench.calls) == 1
        assert bench.evicted == ["token_expired"]

    run(scenario)


def test_entry_of_a_dead_pod_is_not_renewed_for_ever(time: Time) -> None:
    """AGT-464: life 40 s, retention 5 s, no more requests."""

    async def scenario() -> None:
        bench = Bench(time, granting(time, 40), retention=5)
        await bench.fetcher.fetch(b"A", b"A", UNLIMITED)
        await bench.pass_(45)
        calls = len(bench.calls)
        assert calls > 5

        await bench.pass_(60)

        assert len(bench.calls) == calls
        assert len(bench.cache) == 0

    run(scenario)


def test_renewal_neither_shortens_nor_revives(time: Time) -> None:
    """AGT-465."""
    cache, _ = make_cache(time)
    entry = cache.store(b"A", b"A", UNLIMITED, credentials(time, 3600))

    assert not cache.renew(entry, credentials(time, 3599))
    cache.remove(entry, "refused")
    assert not cache.renew(entry, credentials(time, 7200))

    assert len(cache) == 0


def test_request_shares_the_call_of_a_renewal(time: Time) -> None:
    """AGT-427, AGT-405."""
    go_on = asyncio.Event()

    async def script(_token: bytes, trigger: Trigger) -> PodCredentials:
        if trigger == "renewal":
            await go_on.wait()
        return credentials(time, 40, trigger)

    async def scenario() -> None:
        bench = Bench(time, script)
        await bench.fetcher.fetch(b"A", b"A", UNLIMITED)
        await bench.pass_(21)
        assert bench.fetcher.cached(b"A", b"A")
        await bench.pass_(5)
        assert bench.fetcher.cached(b"A", b"A") is None

        waiting = asyncio.create_task(bench.fetcher.fetch(b"A", b"A", UNLIMITED))
        await settle()
        go_on.set()
        granted = await waiting

        assert (granted.source, granted.credentials.access_key_id) == ("coalesced", "renewal")
        assert len(bench.calls) == 2

    run(scenario)


def test_throttled_renewals_pause_longer_and_longer(time: Time) -> None:
    """AGT-467."""
    pause = ThrottlePause(lambda: time.monotonic)
    seen: list[float] = []
    for _ in range(8):
        pause.note(refused(429, "ThrottlingException"))
        seconds = 0.0
        while pause.is_on:
            time.pass_(0.5)
            seconds += 0.5
        seen.append(seconds)

    assert seen == [1, 2, 4, 8, 16, 32, 60, 60]


def test_bucket_lets_a_burst_through_and_then_the_rate(time: Time) -> None:
    """AGT-242."""
    bucket = TokenBucket(1000, 500, lambda: time.monotonic)

    assert sum(bucket.take() for _ in range(2000)) == 500
    time.pass_(0.25)
    assert sum(bucket.take() for _ in range(2000)) == 250


def test_retry_budget_stops_an_outage_after_a_hundred_retries() -> None:
    """AGT-716."""
    budget = RetryBudget()

    assert sum(budget.spend(after_timeout=False) > 0 for _ in range(400)) == 100


def test_slots_are_given_to_requests_before_renewals() -> None:
    """AGT-428."""
    order: list[str] = []

    async def scenario() -> None:
        slots = CallSlots(1)
        await slots.acquire("request")

        async def work(name: str, trigger: Trigger) -> None:
            await slots.acquire(trigger)
            order.append(name)
            slots.release()

        works: list[tuple[str, Trigger]] = [("n1", "renewal"), ("n2", "renewal"), ("q1", "request"), ("q2", "request")]
        tasks = [asyncio.create_task(work(name, trigger)) for name, trigger in works]
        await settle()
        slots.release()
        await asyncio.gather(*tasks)

    run(scenario)

    assert order == ["q1", "q2", "n1", "n2"]
