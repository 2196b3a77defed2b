"""Hours and thousands of pods, on clocks that move by hand (AGT chapters 4 and 11)."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from podid_agent.cache import Entry
from podid_agent.call_slots import Trigger
from podid_agent.credentials import PodCredentials
from podid_agent.errors import UnreachableError
from podid_agent.tokens import TokenClaims
from renewal_bench import UNLIMITED, Bench, Time, credentials, granting, run

HOUR = 3600.0
LIFE = 6 * HOUR


def test_a_thousand_at_once_make_one_call() -> None:
    """AGT-421, AGT-422: and share its end, be it credentials or a failure."""
    time = Time()

    async def script(token: bytes, _trigger: Trigger) -> PodCredentials:
        await asyncio.sleep(0)
        if token == b"bad":
            raise UnreachableError("ConnectionRefused", "r")
        return credentials(time, LIFE)

    async def scenario() -> None:
        bench = Bench(time, script)
        for token in (b"good", b"bad"):
            asked = [bench.fetcher.fetch(token, token, UNLIMITED) for _ in range(1000)]
            ends = await asyncio.gather(*asked, return_exceptions=True)
            assert len({str(end) if isinstance(end, Exception) else end.credentials for end in ends}) == 1
        assert [token for token, _ in bench.calls] == [b"good", b"bad"]

    run(scenario)


def test_two_thousand_renewals_keep_to_the_limiter_s_rate() -> None:
    """AGT-460: 3 a second within a tenth, in every window while any is due, retries of failed ones included."""
    time = Time()
    starts: list[float] = []
    chance = random.Random(1)

    async def script(_token: bytes, trigger: Trigger) -> PodCredentials:
        if trigger == "renewal":
            starts.append(time.monotonic)
            if chance.random() < 0.1:
                raise UnreachableError("ConnectTimeout", "r")
        return credentials(time, LIFE)

    async def scenario() -> None:
        bench = Bench(time, script, capacity=2000, retention=3 * HOUR)
        for number in range(2000):
            token = f"{number:04}".encode()
            await bench.fetcher.fetch(token, token, UNLIMITED)
        await bench.pass_(3 * HOUR, step=60)
        starts.clear()
        await bench.pass_(60, step=0.25)

    run(scenario)

    for window in (10, 50):
        for begin in range(int(starts[0]), int(starts[-1]) - window):
            started = sum(begin <= start < begin + window for start in starts)
            assert 0.9 * 3 * window <= started <= 3 * window + 3


@pytest.mark.parametrize(("life", "unserved"), [(LIFE, 0), (59 * 60, 11 * 40)])
def test_outages_are_seen_by_no_pod_whose_credentials_live(life: float, unserved: int) -> None:
    """AGT-468: 8 h of 40 pods that ask every minute, EKS Auth gone for 30 min in the fourth hour.

    Credentials of a target role live 59 minutes and are renewed at the 39th: the outage may outlast them.
    """
    time = Time()
    began_at = time.monotonic

    async def script(_token: bytes, _trigger: Trigger) -> PodCredentials:
        if 4 * HOUR <= time.monotonic - began_at < 4.5 * HOUR:
            raise UnreachableError("ConnectTimeout", "r")
        return credentials(time, life)

    async def scenario() -> None:
        bench = Bench(time, script, retention=3 * HOUR)
        tokens = [f"{number}".encode() for number in range(40)]
        for token in tokens:
            await bench.fetcher.fetch(token, token, UNLIMITED)
        ends = dict.fromkeys(tokens, time.monotonic + life)
        refused = 0
        for _ in range(8 * 60):
            await bench.pass_(60, step=15)
            for token in tokens:
                entry = bench.fetcher.cached(token, token)
                if entry is not None:
                    ends[token] = entry.ends_at
                else:
                    assert ends[token] - time.monotonic <= 15
                    refused += 1
                    with suppress(UnreachableError):
                        await bench.fetcher.fetch(token, token, UNLIMITED)
        assert refused <= unserved

    run(scenario)


def test_a_day_leaves_nothing_behind_and_renews_on_time() -> None:
    """AGT-409, AGT-450, AGT-464, AGT-1104: pods come and go for 24 h, each with a token that is replaced."""
    time = Time()
    late: list[float] = []

    async def scenario() -> None:
        before = entries_in_memory()  # what other tests of this process keep
        bench = Bench(time, granting(time, LIFE), retention=3 * HOUR, capacity=200, qps=30)
        note_lateness(bench, late)
        sizes: list[int] = []
        tracemalloc.start()
        try:
            for hour in range(24):
                # Thirty pods start and live for four hours; each asks every quarter of an hour.
                pods = [f"{hour - hour % 4}-{number}".encode() for number in range(30)]
                claims = TokenClaims(int(time.wall) + 24 * 3600, None, {"claimed-pod": str(hour)})
                for _ in range(4):
                    for token in pods:
                        if bench.fetcher.cached(token, token) is None:
                            await bench.fetcher.fetch(token, token, claims)
                    await bench.pass_(HOUR / 4, step=15)
                bench.log.seek(0)
                bench.log.truncate()
                bench.calls.clear()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert entries_in_memory() - before == len(bench.cache) <= 90
        # From the twelfth hour on as many pods end as start.
        assert max(sizes[16:]) - min(sizes[12:16]) < 64 * 1024

    run(scenario)

    assert len(late) > 100
    assert max(late) <= 15


def entries_in_memory() -> int:
    gc.collect()
    return sum(type(found) is Entry for found in gc.get_objects())


def note_lateness(bench: Bench, late: list[float]) -> None:
    """Have it noted how long after its due time each renewal starts."""
    start: Callable[..., None] = bench.fetcher.start_renewal

    def noted(cache: object, entry: Entry, on_end: object) -> None:
        late.append(bench.time.monotonic - entry.due_at)
        start(cache, entry, on_end)

    bench.fetcher.start_renewal = noted  # type: ignore[method-assign]
