"""Access keys, secrets, tokens and unique ids in AWS's forms, and the registry that knows them.

See ``emulator.md`` section 5.
"""

from __future__ import annotations

import string
import threading
from functools import lru_cache
from typing import Literal

from harness.cloud.ports import Credential, Ids

__all__ = [
    "BASE64",
    "CredentialRegistry",
    "account_of_access_key",
    "new_access_key_id",
    "new_role_id",
    "new_secret",
    "new_session_token",
    "new_user_id",
]

_BASE32 = string.ascii_uppercase + "234567"
BASE64 = string.ascii_letters + string.digits + "+/"
_UNIQUE_ID = string.ascii_uppercase + string.digits
_ACCOUNT_OFFSET = 1 << 39
_ACCESS_KEY_LENGTH = 20
_TOKEN_LENGTH = 352


def new_access_key_id(account: str, prefix: Literal["ASIA", "AKIA"], ids: Ids) -> str:
    """Return a new access key id that carries the account as AWS's do and is random otherwise.

    Characters 5 to 12 are the base32 digits of half the account number with the top bit set; the 13th character is from
    the upper half of the alphabet for odd accounts.

    Args:
        account: Twelve digits.
        prefix: ``ASIA`` for temporary credentials, ``AKIA`` for users and root.
        ids: Source of the remaining characters.

    Raises:
        ValueError: ``account`` is not twelve digits.
    """
    if len(account) != 12 or not account.isascii() or not account.isdigit():
        raise ValueError(f"an account number has twelve digits, not {account!r}")
    half, odd = divmod(int(account), 2)
    value = half + _ACCOUNT_OFFSET
    digits = "".join(_BASE32[value >> shift & 31] for shift in range(35, -1, -5))
    thirteenth = ids.letters(1, _BASE32[16:] if odd else _BASE32[:16])
    return prefix + digits + thirteenth + ids.letters(7, _BASE32)


@lru_cache(maxsize=4096)
def account_of_access_key(access_key_id: str) -> str | None:
    """Return the account inside an access key id, or None for a text that is no access key id of this form."""
    body = access_key_id[4:]
    if len(access_key_id) != _ACCESS_KEY_LENGTH or any(character not in _BASE32 for character in body):
        return None
    value = 0
    for character in body[:8]:
        value = value << 5 | _BASE32.index(character)
    account = (value - _ACCOUNT_OFFSET) * 2 + (_BASE32.index(body[8]) >= 16)
    return f"{account:012d}" if 0 <= account < 10**12 else None


def new_secret(ids: Ids) -> str:
    """Return a new secret access key: 40 characters of the base64 alphabet."""
    return ids.secret("secret access key", 40)


def new_session_token(ids: Ids) -> str:
    """Return a new session token: opaque, nothing can be read from it; begins as AWS's do."""
    return "IQoJ" + ids.secret("session token", _TOKEN_LENGTH)


def new_role_id(ids: Ids) -> str:
    """Return a new unique id of a role, ``AROA`` and 17 characters."""
    return "AROA" + ids.letters(17, _UNIQUE_ID)


def new_user_id(ids: Ids) -> str:
    """Return a new unique id of a user, ``AIDA`` and 17 characters."""
    return "AIDA" + ids.letters(17, _UNIQUE_ID)


class CredentialRegistry:
    """All access keys of a lab, in memory; safe for use by several threads.

    Expired sessions stay known: their calls are answered with "expired", not with "unknown key".
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: dict[str, Credential] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, access_key_id: str) -> Credential | None:
        """Return the credential of a key, or None for an unknown key."""
        with self._lock:
            return self._by_key.get(access_key_id)

    def latest_of(self, arn: str) -> Credential | None:
        """Return the newest credential of the principal with this ARN."""
        with self._lock:
            return next((one for one in reversed(self._by_key.values()) if one.principal.arn == arn), None)

    def add(self, credential: Credential) -> None:
        """Register a new credential.

        Raises:
            ValueError: The key id is taken; an identity is never replaced by another one.
        """
        with self._lock:
            if credential.access_key_id in self._by_key:
                raise ValueError(f"access key {credential.access_key_id} is already registered")
            self._by_key[credential.access_key_id] = credential

    def remove(self, access_key_id: str) -> None:
        """Forget a key, as deleting an access key does; unknown keys are ignored."""
        with self._lock:
            self._by_key.pop(access_key_id, None)

    def clear(self) -> None:
        """Forget every key."""
        with self._lock:
            self._by_key.clear()
