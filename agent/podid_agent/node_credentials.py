"""The agent's own credentials, with which calls to EKS Auth are signed (AGT-134 to AGT-137, AGT-145)."""

from __future__ import annotations

import asyncio
import configparser
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import botocore.exceptions
import botocore.session
from botocore.credentials import Credentials, RefreshableCredentials

from podid_agent.journal import Journal

__all__ = ["AccessKeys", "ChainCredentials", "NodeCredentials", "NodeCredentialsError", "SharedFileCredentials"]


class NodeCredentialsError(Exception):
    """There are none; the text says why, without a secret."""


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """One set of keys, in the shape that botocore's signer takes."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class NodeCredentials(Protocol):
    """Somewhere keys come from."""

    async def get(self) -> AccessKeys:
        """Return keys that are good now.

        Raises:
            NodeCredentialsError: There are none.
        """
        ...

    def reload(self) -> None:
        """Forget what is cached: AWS refused it."""
        ...


class ChainCredentials:
    """botocore's chain: environment, shared files, web identity, container, IMDS.

    botocore blocks, so it runs in one thread of its own; those who wait share the result.
    """

    # Keys this close to their end are not used while new ones are fetched.
    _LEAST_LIFE = 60

    def __init__(self, journal: Journal, on_expiry: Callable[[float], object] = lambda _: None) -> None:
        """Tell ``on_expiry`` the end of each set of keys, seconds since the epoch."""
        self._journal = journal
        self._on_expiry = on_expiry
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="node-credentials")
        self._credentials: Credentials | None = None
        self._keys: AccessKeys | None = None
        self._loading: asyncio.Task[AccessKeys] | None = None

    async def get(self) -> AccessKeys:
        """Return keys that are good now; near their end, renew them in the background."""
        keys, credentials = self._keys, self._credentials
        if keys is None or credentials is None:
            return await self._load()
        if isinstance(credentials, RefreshableCredentials) and credentials.refresh_needed():
            if credentials.refresh_needed(self._LEAST_LIFE):
                return await self._load()
            self._start_loading()
        return keys

    def reload(self) -> None:
        """Forget the keys."""
        self._keys = self._credentials = None

    async def _load(self) -> AccessKeys:
        # Shielded: the load belongs to all who wait, not to the one who came first.
        return await asyncio.shield(self._start_loading())

    def _start_loading(self) -> asyncio.Task[AccessKeys]:
        if self._loading is None:
            self._loading = asyncio.create_task(self._load_in_thread())
            self._loading.add_done_callback(self._loaded)
        return self._loading

    async def _load_in_thread(self) -> AccessKeys:
        loop = asyncio.get_running_loop()
        credentials, keys = await loop.run_in_executor(self._executor, self._load_blocking, self._credentials)
        self._credentials, self._keys = credentials, keys
        # botocore shows the expiry of credentials nowhere else.
        expires_at: object = getattr(credentials, "_expiry_time", None)
        self._on_expiry(expires_at.timestamp() if isinstance(expires_at, datetime) else 0)
        return keys

    def _loaded(self, task: asyncio.Task[AccessKeys]) -> None:
        self._loading = None
        if not task.cancelled() and (error := task.exception()):
            self._journal.error("Cannot load the agent's own credentials", {"error": str(error)})

    @staticmethod
    def _load_blocking(known: Credentials | None) -> tuple[Credentials, AccessKeys]:
        try:
            credentials = known or botocore.session.Session().get_credentials()
            if credentials is None:
                raise NodeCredentialsError("none in environment, shared files, web identity or instance metadata")
            frozen = credentials.get_frozen_credentials()
            if not frozen.access_key or not frozen.secret_key:
                raise NodeCredentialsError("the credentials found are incomplete")
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise NodeCredentialsError(str(error)) from error
        return credentials, AccessKeys(frozen.access_key, frozen.secret_key, frozen.token)


class SharedFileCredentials:
    """Profile `default` of the shared credentials file, read again when 60 s old (AGT-145)."""

    _MAX_AGE = 60

    def __init__(self, path: Path, monotonic: Callable[[], float]) -> None:
        """Read ``path`` at the first request."""
        self._path = path
        self._monotonic = monotonic
        self._keys: AccessKeys | None = None
        self._read_at = 0.0

    async def get(self) -> AccessKeys:
        """Return the keys of the file; it is small and local, so it is read in the event loop."""
        if self._keys is None or self._monotonic() - self._read_at >= self._MAX_AGE:
            self._keys = None
            self._keys = self._read()
            self._read_at = self._monotonic()
        return self._keys

    def reload(self) -> None:
        """Forget the keys."""
        self._keys = None

    def _read(self) -> AccessKeys:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(self._path.read_text(encoding="utf-8"))
            profile = parser["default"]
            return AccessKeys(
                profile["aws_access_key_id"], profile["aws_secret_access_key"], profile.get("aws_session_token")
            )
        except (OSError, UnicodeDecodeError) as error:
            raise NodeCredentialsError(f"shared credentials file cannot be read: {error}") from error
        except configparser.Error as error:
            # Its text quotes lines of the file.
            raise NodeCredentialsError("shared credentials file cannot be parsed") from error
        except KeyError as error:
            raise NodeCredentialsError(f"shared credentials file lacks {error}") from error
