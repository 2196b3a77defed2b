"""List, then watch, forever: a copy of a collection of the API server (WHK-721, WHK-722, WHK-732)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

import aiohttp

from podid_webhook.jsontext import Json, JsonError, JsonObject, decode
from podid_webhook.kube import ApiError, KubeApi

_PAGE_SIZE = 500
_LIST_TIMEOUT = aiohttp.ClientTimeout(total=60)
_WATCH_SECONDS = 300
"""How long the server keeps a watch open; it is then resumed where it ended."""
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=90)
"""A watch counts as broken after 90 s of silence: a living API server sends a bookmark about once a minute."""
_MIN_DELAY = 0.1
_MAX_DELAY = 3.0
"""Short, since new pods get nothing until what happened in an outage is known; with jitter a try comes within 6 s."""

_log = logging.getLogger(__name__)


class Store(Protocol):
    """What a collection is copied into."""

    def reduce(self, item: JsonObject) -> JsonObject:
        """Return what counts of a listed object: thousands of them wait in memory for the end of the list."""
        ...

    def replace(self, objects: Iterable[JsonObject]) -> None:
        """Hold exactly these objects."""
        ...

    def put(self, item: JsonObject) -> None:
        """Add or replace one object."""
        ...

    def remove(self, item: JsonObject) -> None:
        """Forget one object."""
        ...


class _GoneError(Exception):
    """The server no longer has the history to resume from (410)."""


class Watch:
    """One collection and its store."""

    def __init__(self, api: KubeApi, path: str, store: Store, *, name: str = "", jitter: Callable[[], float]) -> None:
        """Prepare; `run` starts.

        Args:
            api: The API server.
            path: Path of the collection.
            store: Filled and kept up to date; not emptied while the API server is out of reach.
            name: Watch only the object of this name.
            jitter: A random number in [0, 1), so that replicas do not come back all at once.
        """
        self.path = path
        self.problem = "not listed yet"
        """Why the store may be out of date; empty while the watch is up."""
        self.listed = False
        """Whether the store was filled once."""
        self._api = api
        self._store = store
        self._selector = {"fieldSelector": f"metadata.name={name}"} if name else {}
        self._jitter = jitter
        self._version = ""

    async def run(self) -> None:
        """Copy until cancelled. Errors are logged and lead to another try, later and later up to the longest delay."""
        delay = _MIN_DELAY
        while True:
            started, is_resumed = asyncio.get_running_loop().time(), bool(self._version)
            try:
                if not self._version:
                    await self._list()
                await self._follow()
            except _GoneError:
                self._version = ""
                _log.info("%s: the watch is too old to be resumed; listing anew", self.path)
                if is_resumed:
                    # After an outage the pause has grown to seconds, in which new pods would get nothing.
                    continue
            except (ApiError, JsonError, aiohttp.ClientError, OSError) as error:
                self._failed(error)
            if asyncio.get_running_loop().time() - started > _MAX_DELAY:
                delay = _MIN_DELAY
            # After a normal end too: a proxy that ends every watch at once must not be hammered.
            await asyncio.sleep(delay * (1 + self._jitter()))
            delay = min(delay * 2, _MAX_DELAY)

    def _recovered(self) -> None:
        if self.problem:
            _log.info("%s: in sync", self.path)
        self.problem = ""

    def _failed(self, error: Exception) -> None:
        # Said once, not at every try: a forbidden watch would fill the log (WHK-746).
        problem = f"{type(error).__name__} {error}"
        if problem != self.problem:
            _log.warning("%s: %s; trying again, with what is known until then", self.path, problem)
        self.problem = problem

    async def _list(self) -> None:
        objects: list[JsonObject] = []
        parameters = {**self._selector, "limit": str(_PAGE_SIZE)}
        while True:
            page = await self._api.get(self.path, parameters, _LIST_TIMEOUT)
            items = page.get("items")
            items = items if isinstance(items, list) else []
            objects.extend(self._store.reduce(item) for item in items if isinstance(item, dict))
            metadata = page.get("metadata")
            more = _text(metadata, "continue")
            if not more:
                break
            parameters["continue"] = more
        self._store.replace(objects)
        self._version = _text(metadata, "resourceVersion")
        self.listed = True
        self._recovered()

    async def _follow(self) -> None:
        """Apply events until the server ends the watch."""
        parameters = {
            **self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        try:
            async with self._api.stream(self.path, parameters, _WATCH_TIMEOUT) as response:
                self._recovered()
                async for line in _lines(response):
                    self._apply(decode(line))
        except ApiError as error:
            if error.status == 410:
                raise _GoneError from error
            raise

    def _apply(self, event: Json) -> None:
        if not isinstance(event, dict) or not isinstance(item := event.get("object"), dict):
            raise JsonError("a watch event without an object")
        match event.get("type"):
            case "ADDED" | "MODIFIED":
                self._store.put(item)
            case "DELETED":
                self._store.remove(item)
            case "BOOKMARK":
                pass
            case _:
                if item.get("code") == 410:
                    raise _GoneError
                raise ApiError(500, f"watch event: {_text(item, 'message')}")
        self._version = _text(item.get("metadata"), "resourceVersion") or self._version


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # Not readline(): it fails on objects larger than the client's buffer.
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _text(container: Json, key: str) -> str:
    value = container.get(key) if isinstance(container, dict) else None
    return value if isinstance(value, str) else ""
