"""Secrets that exist before the process: the control route's bearer token and each account's first keys.

The harness makes them, writes them to a file that only its user can read, and the process reads them at its start.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

from harness.cloud.credentials import BASE64, new_access_key_id, new_secret

__all__ = ["ADMINISTRATOR", "AccessKey", "Account", "Bootstrap", "SystemIds"]

ADMINISTRATOR = "administrator"
"""Name of the IAM user that the administrator keys belong to."""
_CAPACITY = 50_000
"""Secrets that are remembered: more than any run makes."""


class SystemIds:
    """Random identifiers from the operating system, and a memory of the secrets among them.

    The harness looks for these in every file that a run leaves (HRN-SEC-02, HRN-SEC-03). They are kept in memory only.
    """

    def __init__(self) -> None:
        """Begin without a marker."""
        self.marker = ""
        """Beginning of every further secret: whoever writes one down is found by it. Set for each run."""
        self._issued: dict[str, str] = {}
        self._lock = threading.Lock()

    def secret(self, kind: str, length: int) -> str:
        """Return random characters of base64 behind the marker, and remember them."""
        found = self.marker + self.letters(length - len(self.marker), BASE64)
        self.remember(kind, found)
        return found

    def remember(self, kind: str, secret: str) -> None:
        """Take note of a secret that came from elsewhere, such as the signature of a pod's token."""
        with self._lock:
            self._issued[secret] = kind
            if len(self._issued) > _CAPACITY:
                del self._issued[next(iter(self._issued))]

    def issued(self) -> dict[str, str]:
        """Return secret → its kind, of the latest."""
        with self._lock:
            return dict(self._issued)

    def letters(self, length: int, alphabet: str) -> str:
        """Return random characters of an alphabet, each as likely as the others."""
        table, unused = _lettering(alphabet)
        # One question for all: asking the system for each letter of a session token cost a third of AssumeRole.
        found = b""
        while len(found) < length:
            found += secrets.token_bytes(length).translate(table, unused)
        return found[:length].decode()

    def uuid(self) -> str:
        """Return a random UUID."""
        return str(uuid.uuid4())


@cache
def _lettering(alphabet: str) -> tuple[bytes, bytes]:
    """Return how bytes become letters of an alphabet, and which bytes do not, as some letters would come more often."""
    rounds = 256 // len(alphabet)
    table = alphabet.encode() * (rounds + 1)
    return table[:256], bytes(range(rounds * len(alphabet), 256))


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A long-term key."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """First keys of an account."""

    number: str
    administrator: AccessKey
    """Of IAM user ``administrator``, who has AdministratorAccess."""
    root: AccessKey


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """All secrets of a lab's AWS."""

    control_token: str = field(repr=False)
    accounts: tuple[Account, ...]

    @property
    def data_plane_token(self) -> str:
        """Secret of the load balancers' data plane, which opens nothing but what it needs."""
        return hmac.new(self.control_token.encode(), b"load-balancing", "sha256").hexdigest()

    @classmethod
    def generate(cls, accounts: Sequence[str]) -> Self:
        """Make new secrets for these account numbers."""
        ids = SystemIds()

        def key(account: str) -> AccessKey:
            return AccessKey(new_access_key_id(account, "AKIA", ids), new_secret(ids))

        return cls(
            control_token=secrets.token_urlsafe(32),
            accounts=tuple(Account(number, key(number), key(number)) for number in accounts),
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that :meth:`write` made.

        Raises:
            OSError: It cannot be read.
            ValueError: It is not such a file.
        """
        data = json.loads(path.read_text())
        try:
            accounts = tuple(
                Account(number, AccessKey(**keys["administrator"]), AccessKey(**keys["root"]))
                for number, keys in data["accounts"].items()
            )
            return cls(data["control_token"], accounts)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no bootstrap file") from error

    def write(self, path: Path) -> None:
        """Write a new file with mode 0600, complete at once."""
        data = {
            "control_token": self.control_token,
            "accounts": {
                account.number: {"administrator": _data(account.administrator), "root": _data(account.root)}
                for account in self.accounts
            },
        }
        draft = path.with_name(f".{path.name}.draft")
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:  # noqa: PTH123 - mode
            json.dump(data, file)
        draft.rename(path)

    def account(self, number: str) -> Account:
        """Return the keys of an account.

        Raises:
            KeyError: There are none.
        """
        for account in self.accounts:
            if account.number == number:
                return account
        raise KeyError(number)


def _data(key: AccessKey) -> dict[str, str]:
    return {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
