"""The service accounts of the cluster, and the wait for one that is not known yet (section 9.2 of the contract)."""

import asyncio
import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from urllib.parse import quote

import aiohttp

from podid_webhook.configuration import Account, NamespacedName, account_from_annotations
from podid_webhook.jsontext import JsonError, JsonObject
from podid_webhook.kube import ApiError, KubeApi

_GET_TIMEOUT = aiohttp.ClientTimeout(total=1)
_GETS_PER_SECOND = 10.0
_GET_BURST = 20

_log = logging.getLogger(__name__)


class AccountStore:
    """Every service account, reduced to what its annotations configure."""

    def __init__(self, annotation_prefix: str, role_prefix: str = "") -> None:
        """Begin empty.

        Args:
            annotation_prefix: Prefix of the annotations that count.
            role_prefix: What stands before a role's name in its ARN; empty to take annotations as they are.
        """
        self.accounts: dict[NamespacedName, Account] = {}
        self.used = False
        """Whether any account was ever stored."""
        self._prefix = annotation_prefix
        self._role_prefix = role_prefix
        self._waiters: dict[NamespacedName, set[asyncio.Future[None]]] = {}

    def reduce(self, item: JsonObject) -> JsonObject:
        """Return the names and the annotations that count."""
        key = _key(item)
        annotations = {name: text for name, text in _annotations(item).items() if name.startswith(f"{self._prefix}/")}
        metadata: JsonObject = {"namespace": key.namespace, "name": key.name}
        if annotations:
            metadata["annotations"] = {**annotations}
        return {"metadata": metadata}

    def replace(self, objects: Iterable[JsonObject]) -> None:
        """Hold exactly these ServiceAccounts."""
        self.accounts = {}
        for item in objects:
            self.put(item)

    def put(self, item: JsonObject) -> None:
        """Add or replace one ServiceAccount and wake those who wait for it."""
        key = _key(item)
        self.accounts[key] = account_from_annotations(_annotations(item), self._prefix, self._role_prefix)
        self.used = True
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def remove(self, item: JsonObject) -> None:
        """Forget one ServiceAccount."""
        self.accounts.pop(_key(item), None)

    @contextmanager
    def arrival(self, account: NamespacedName) -> Generator[tuple[asyncio.Future[None], bool], None, None]:
        """Give a future that is done when the account is stored, and whether it is the first one for it."""
        waiters = self._waiters.setdefault(account, set())
        first = not waiters
        waiter = asyncio.get_running_loop().create_future()
        waiters.add(waiter)
        try:
            yield waiter, first
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiters.get(account) is waiters:
                del self._waiters[account]


class AccountLookup:
    """The wait for an account that is not stored yet: for the watch, or for a read of that one account.

    Reads are rate limited (upstream: 10 a second, 20 at once), and all who wait for an account share one (WHK-730).
    """

    def __init__(self, api: KubeApi, store: AccountStore, grace_period: float) -> None:
        self.grace_period = grace_period
        """Longest wait, seconds; 0 for none."""
        self._api = api
        self._store = store
        self._next_at = 0.0
        self._running: set[asyncio.Task[None]] = set()

    async def wait_for(self, account: NamespacedName) -> None:
        """Return when the account is stored, at the latest after the grace period (WHK-727)."""
        if self.grace_period <= 0:
            return
        with self._store.arrival(account) as (arrived, first):
            if first:
                task = asyncio.create_task(self._read(account))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            await asyncio.wait((arrived,), timeout=self.grace_period)

    async def _read(self, account: NamespacedName) -> None:
        await asyncio.sleep(self._reserve(asyncio.get_running_loop().time()))
        path = f"/api/v1/namespaces/{quote(account.namespace, safe='')}/serviceaccounts/{quote(account.name, safe='')}"
        try:
            item = await self._api.get(path, {}, _GET_TIMEOUT)
        except (ApiError, JsonError, aiohttp.ClientError, OSError) as error:
            # Also for 404: the account may be about to come, and the watch will tell.
            _log.info("service account %s/%s not read: %s", account.namespace, account.name, error)
            return
        self._store.put(item)

    def _reserve(self, now: float) -> float:
        """Take the next place in the queue; return the seconds until it is due."""
        self._next_at = max(self._next_at, now - _GET_BURST / _GETS_PER_SECOND) + 1 / _GETS_PER_SECOND
        return max(0.0, self._next_at - now)


def _key(item: JsonObject) -> NamespacedName:
    metadata = item.get("metadata")
    namespace, name = (metadata.get("namespace"), metadata.get("name")) if isinstance(metadata, dict) else (None, None)
    return NamespacedName(namespace if isinstance(namespace, str) else "", name if isinstance(name, str) else "")


def _annotations(item: JsonObject) -> dict[str, str]:
    metadata = item.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    if not isinstance(annotations, dict):
        return {}
    return {key: value for key, value in annotations.items() if isinstance(value, str)}
