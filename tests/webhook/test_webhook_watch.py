"""A watch that is cut for an hour, on a clock that does not wait."""

import asyncio
import logging
import selectors
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from podid_webhook.accounts import AccountStore
from podid_webhook.jsontext import JsonObject
from podid_webhook.kube import ApiError, KubeApi
from podid_webhook.watch import Watch

HOUR = 3600.0
ROLE = {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/s3-reader"}


class Impatient(selectors.DefaultSelector):
    """Lets the time of a wait pass instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class ImpatientLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = Impatient()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


class CutApi(KubeApi):
    """An API server that is out of reach for an hour from its first watch on, and then has forgotten what happened."""

    def __init__(self) -> None:
        self.accounts = ["before"]
        self.attempts: list[float] = []
        self.lists = 0

    # The originals' signatures.
    async def get(self, path: str, parameters: dict[str, str], limit: Any) -> JsonObject:  # noqa: ARG002
        self.lists += 1
        items = [{"metadata": {"namespace": "demo", "name": name, "annotations": ROLE}} for name in self.accounts]
        return {"metadata": {"resourceVersion": str(self.lists)}, "items": items}

    @asynccontextmanager
    async def stream(self, path: str, parameters: dict[str, str], limit: Any) -> AsyncGenerator[Any]:  # noqa: ARG002
        now = asyncio.get_running_loop().time()
        self.attempts.append(now)
        if now < HOUR:
            raise aiohttp.ClientConnectionError("cut")
        if parameters["resourceVersion"] == "1":
            raise ApiError(410, "too old resource version")
        await asyncio.sleep(2 * HOUR)
        yield None


def test_watch_that_is_cut_for_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    """What is known stays; attempts go on, seldom and said once; afterwards all is listed anew (WHK-732, WHK-722)."""
    api, store = CutApi(), AccountStore("eks.amazonaws.com")
    watch = Watch(api, "/api/v1/serviceaccounts", store, jitter=lambda: 0.0)
    seen: list[list[str]] = []

    async def names_at(seconds: float) -> list[str]:
        await asyncio.sleep(seconds - asyncio.get_running_loop().time())
        return sorted(account.name for account in store.accounts)

    async def pass_hour() -> None:
        task = asyncio.create_task(watch.run())
        seen.append(await names_at(HOUR / 2))
        assert watch.problem == "ClientConnectionError cut"
        api.accounts = ["after"]
        seen.append(await names_at(HOUR - 1))
        # At the next attempt, which is three seconds away at most: no further pause before the list.
        seen.append(await names_at(HOUR + 4))
        assert not watch.problem
        task.cancel()

    with caplog.at_level(logging.INFO), asyncio.Runner(loop_factory=ImpatientLoop) as runner:
        runner.run(pass_hour())

    assert seen == [["before"], ["before"], ["after"]]
    assert 1150 < len(api.attempts) < 1250
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
