"""Cache, fetcher and renewals around a scripted upstream, on clocks that move by hand."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from podid_agent.cache import CredentialCache
from podid_agent.call_slots import Trigger
from podid_agent.clock import Clock
from podid_agent.credentials import PodCredentials
from podid_agent.errors import CredentialsError, RefusedError
from podid_agent.fetching import Fetcher
from podid_agent.journal import Journal
from podid_agent.metrics import Metrics
from podid_agent.renewal import Renewals, ThrottlePause
from podid_agent.tokens import TokenClaims

UNLIMITED = TokenClaims(None, None, {})


@dataclass
class Time:
    wall: float = 1_800_000_000.0
    monotonic: float = 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic)


def credentials(time: Time, life: float, name: str = "k") -> PodCredentials:
    return PodCredentials(name, "s", "t", "123456789012", time.wall + life)


def make_cache(time: Time, capacity: int = 3, retention: float = 10_800) -> tuple[CredentialCache, list[str]]:
    evicted: list[str] = []
    return CredentialCache(capacity, retention, time.clock, evicted.append, lambda: 0.0), evicted


Script = Callable[[bytes, Trigger], Coroutine[Any, Any, PodCredentials]]


@dataclass
class Bench:
    """Cache, fetcher and renewals around a scripted upstream; time passes by hand."""

    time: Time
    script: Script
    qps: int = 3
    retention: float = 100.0
    capacity: int = 100
    calls: list[tuple[bytes, Trigger]] = field(default_factory=list)
    forbidden: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = io.StringIO()
        journal, self.metrics = Journal("debug", self.log), Metrics()
        self.cache, self.evicted = make_cache(self.time, self.capacity, self.retention)
        self.pause = ThrottlePause(lambda: self.time.monotonic)
        self.fetcher = Fetcher(self._call, self.cache, self.metrics, journal, 1.8)
        self.renewals = Renewals(
            self.cache,
            self.fetcher,
            qps=self.qps,
            pause=self.pause,
            clock=self.time.clock,
            metrics=self.metrics,
            journal=journal,
            on_forbidden=lambda: self.forbidden.append(None),
        )

    async def _call(self, token: bytes, trigger: Trigger) -> PodCredentials:
        self.calls.append((token, trigger))
        try:
            granted = await self.script(token, trigger)
        except CredentialsError as error:
            self.pause.note(error)
            raise
        self.pause.note(None)
        return granted

    async def pass_(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass as the renewal loop would see it."""
        for _ in range(round(seconds / step)):
            self.time.pass_(step)
            self.renewals.tick()
            await settle()

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


async def settle() -> None:
    """Run what is ready, and what that makes ready."""
    for _ in range(10):
        await asyncio.sleep(0)


def granting(time: Time, life: float) -> Script:
    async def script(token: bytes, trigger: Trigger) -> PodCredentials:
        return credentials(time, life, f"{token.decode()}-{trigger}")

    return script


def refusing(time: Time, life: float, error: CredentialsError) -> Script:
    async def script(_token: bytes, trigger: Trigger) -> PodCredentials:
        if trigger == "renewal":
            raise error
        return credentials(time, life)

    return script


def refused(status: int, code: str) -> RefusedError:
    return RefusedError("text", status=status, code=code, retryable=False, throttled=status == 429)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())
