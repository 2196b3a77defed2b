"""The agent's own credentials, with which calls to EKS Auth are signed (AGT-134 to AGT-137, AGT-145)."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from podid_agent.aws_settings import has_shared_files
from podid_agent.clock import Clock
from podid_agent.imds import InstanceMetadata
from podid_agent.journal import Journal
from podid_agent.node_keys import AccessKeys, LoadedKeys, NodeCredentialsError

if TYPE_CHECKING:
    from botocore.credentials import Credentials

__all__ = ["ChainCredentials", "NodeCredentials", "SharedFileCredentials"]

_NAMES_OF_SOURCES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


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
    """The standard chain: environment, web identity, shared files, container, and at last the metadata service.

    Keys that end are renewed in the background a quarter of an hour before. botocore blocks, so all but the metadata
    service is asked in a thread; those who wait share one load.
    """

    _RENEW_BEFORE = 15 * 60
    # Keys this close to their end are not used while new ones can be had.
    _LEAST_LIFE = 60
    _LEAST_PAUSE = 10

    def __init__(
        self,
        metadata: InstanceMetadata,
        clock: Clock,
        journal: Journal,
        on_expiry: Callable[[float], object] = lambda _: None,
    ) -> None:
        """Tell ``on_expiry`` the end of each set of keys, seconds since the epoch or 0."""
        self._metadata = metadata
        self._clock = clock
        self._journal = journal
        self._on_expiry = on_expiry
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="node-credentials")
        self._loaded: LoadedKeys | None = None
        self._loaded_at = 0.0
        self._loading: asyncio.Task[LoadedKeys] | None = None

    async def get(self) -> AccessKeys:
        """Return keys that are good now, or at worst the last ones that were: EKS Auth then decides."""
        loaded = self._loaded
        if loaded is None:
            return (await self._load()).keys
        life = math.inf if loaded.expires_at is None else loaded.expires_at - self._clock.wall()
        if life < self._LEAST_LIFE:
            try:
                return (await self._load()).keys
            except NodeCredentialsError:
                return loaded.keys
        if life < self._RENEW_BEFORE and self._clock.monotonic() - self._loaded_at > self._LEAST_PAUSE:
            self._start_loading()
        return loaded.keys

    def reload(self) -> None:
        """Forget the keys."""
        self._loaded = None

    async def _load(self) -> LoadedKeys:
        # Shielded: the load belongs to all who wait, not to the one who came first.
        return await asyncio.shield(self._start_loading())

    def _start_loading(self) -> asyncio.Task[LoadedKeys]:
        if self._loading is None:
            self._loading = asyncio.create_task(self._ask_chain())
            self._loading.add_done_callback(self._take)
        return self._loading

    async def _ask_chain(self) -> LoadedKeys:
        if keys := _plain_keys(os.environ):
            return LoadedKeys(keys, None)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._executor, _ask_botocore) if _has_sources(os.environ) else None
        return found or await self._metadata.load()

    def _take(self, task: asyncio.Task[LoadedKeys]) -> None:
        self._loading = None
        self._loaded_at = self._clock.monotonic()
        if task.cancelled():
            return
        if error := task.exception():
            self._journal.error("Cannot load the agent's own credentials", {"error": str(error)})
        else:
            self._loaded = task.result()
            self._on_expiry(self._loaded.expires_at or 0)


def _plain_keys(environment: Mapping[str, str]) -> AccessKeys | None:
    """Return the keys of the environment, which come before all others; None if botocore is to look closer at them."""
    access_key, secret_key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    special = environment.get("AWS_CREDENTIAL_EXPIRATION") or environment.get("AWS_SECURITY_TOKEN")
    if not access_key or not secret_key or special:
        return None
    return AccessKeys(access_key, secret_key, environment.get("AWS_SESSION_TOKEN") or None)


def _has_sources(environment: Mapping[str, str]) -> bool:
    """Whether the chain has anything to look at before the metadata service; most nodes have nothing."""
    return any(environment.get(name) for name in _NAMES_OF_SOURCES) or has_shared_files(environment)


def _ask_botocore() -> LoadedKeys | None:
    """Ask the chain but for the metadata service; None if it has nothing.

    Raises:
        NodeCredentialsError: A source that is configured fails.
    """
    # Where the metadata service is the only source, a sixth of the start would go into importing this (AGT-1105).
    import botocore.credentials  # noqa: PLC0415
    import botocore.exceptions  # noqa: PLC0415

    try:
        credentials = botocore.credentials.EnvProvider().load() or _chain_after_environment()
        if credentials is None:
            return None
        frozen = credentials.get_frozen_credentials()
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise NodeCredentialsError(str(error)) from error
    if not frozen.access_key or not frozen.secret_key:
        raise NodeCredentialsError("the credentials found are incomplete")
    # botocore shows the expiry of credentials nowhere else.
    expires_at: object = getattr(credentials, "_expiry_time", None)
    return LoadedKeys(
        AccessKeys(frozen.access_key, frozen.secret_key, frozen.token),
        expires_at.timestamp() if isinstance(expires_at, datetime) else None,
    )


def _chain_after_environment() -> Credentials | None:
    import botocore.session  # noqa: PLC0415 - as above, and the environment needs less

    session = botocore.session.Session()
    chain = session.get_component("credential_provider")
    chain.remove("iam-role")
    return session.get_credentials()


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
        import configparser  # noqa: PLC0415 - only hybrid nodes read the file so

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
