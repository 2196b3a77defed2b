"""The two ConfigMaps that may be watched: identities (WHK-710) and roles (``--watch-config-map``, section 9.3)."""

import logging
from collections.abc import Iterable

from podid_webhook.configuration import Account
from podid_webhook.identities import IdentitySource
from podid_webhook.jsontext import Json, JsonError, JsonObject, decode, member

_IDENTITIES_KEY = "identities.json"
_ROLES_KEY = "config"

_log = logging.getLogger(__name__)


class IdentitiesConfigMap:
    """Identities under the key ``identities.json`` of one ConfigMap. Without it nobody matches."""

    def __init__(self, source: IdentitySource) -> None:
        self._source = source

    def reduce(self, item: JsonObject) -> JsonObject:
        """Return it whole: there is one."""
        return item

    def replace(self, objects: Iterable[JsonObject]) -> None:
        """Take the listed ConfigMap, or its absence."""
        self._source.load(next((_data(item, _IDENTITIES_KEY) for item in objects), None))

    def put(self, item: JsonObject) -> None:
        """Take the ConfigMap."""
        self._source.load(_data(item, _IDENTITIES_KEY))

    def remove(self, item: JsonObject) -> None:
        """Take note that the ConfigMap is gone."""
        del item
        self._source.load(None)


class RolesConfigMap:
    """IRSA entries by ``<namespace>/<service account>``, from the key ``config`` of one ConfigMap."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    def reduce(self, item: JsonObject) -> JsonObject:
        """Return it whole: there is one."""
        return item

    def replace(self, objects: Iterable[JsonObject]) -> None:
        """Take the listed ConfigMap, or its absence."""
        self._load(next((_data(item, _ROLES_KEY) for item in objects), None))

    def put(self, item: JsonObject) -> None:
        """Take the ConfigMap."""
        self._load(_data(item, _ROLES_KEY))

    def remove(self, item: JsonObject) -> None:
        """Drop all entries: the ConfigMap is gone (WHK-745)."""
        del item
        self._load(None)

    def _load(self, content: bytes | None) -> None:
        if not content:
            self.accounts = {}
            return
        try:
            document = decode(content)
        except JsonError as error:
            _log.error("ConfigMap of roles: %s; the previous entries stay in use", error)
            return
        if not isinstance(document, dict):
            _log.error("ConfigMap of roles: expected a JSON object; the previous entries stay in use")
            return
        self.accounts = {}
        for key, entry in document.items():
            account = _account(entry) if key.count("/") == 1 else None
            if account is None:
                _log.warning(
                    "ConfigMap of roles: entry %r is ignored: not a <namespace>/<name> with a valid object", key
                )
            else:
                self.accounts[key] = account


def _account(entry: Json) -> Account | None:
    if not isinstance(entry, dict):
        return None
    role, audience = member(entry, "RoleARN")[1], member(entry, "Audience")[1]
    regional, expiration = member(entry, "UseRegionalSTS")[1], member(entry, "TokenExpiration")[1]
    if not isinstance(role, str | None) or not isinstance(audience, str | None):
        return None
    if not isinstance(regional, bool | None) or not isinstance(expiration, int | None) or isinstance(expiration, bool):
        return None
    # Absent members are Go's zero values, not the flags', the expiration excepted (WHK-743).
    return Account(role or "", audience or "", regional or False, expiration or None)


def _data(item: JsonObject, key: str) -> bytes | None:
    data = item.get("data")
    value = data.get(key) if isinstance(data, dict) else None
    return value.encode() if isinstance(value, str) else None
