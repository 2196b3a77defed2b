"""Identities: the (namespace, service account) pairs that have an association (section 9.1 of the contract)."""

import logging
import time

from podid_webhook.configuration import NamespacedName
from podid_webhook.jsontext import Json, JsonError, JsonObject, decode, member

IdentitySet = frozenset[NamespacedName]

_log = logging.getLogger(__name__)


class IdentitiesError(ValueError):
    """The content is not of the identities format."""


def parse_identities(content: bytes) -> IdentitySet:
    """Parse ``{"identities": [{"namespace": …, "serviceAccount": …}, …]}``.

    No bytes at all mean that nobody matches (WHK-703). Keys are matched without regard to case, unknown keys passed
    over, nulls are empty (WHK-705), and entries that lack a name are dropped: (namespace, "") would match the mirror
    pods of static pods (WHK-709).

    Raises:
        IdentitiesError: If the content is anything else.
    """
    if not content:
        return frozenset()
    try:
        document = decode(content)
    except JsonError as error:
        raise IdentitiesError(str(error)) from error
    if document is None:
        return frozenset()
    if not isinstance(document, dict):
        raise IdentitiesError("expected a JSON object")
    entries = member(document, "identities")[1]
    if entries is None:
        return frozenset()
    if not isinstance(entries, list):
        raise IdentitiesError('"identities" must be a list')
    pairs = (_parse_entry(entry, index) for index, entry in enumerate(entries))
    return frozenset(pair for pair in pairs if pair.namespace and pair.name)


def _parse_entry(entry: Json, index: int) -> NamespacedName:
    if entry is None:
        return NamespacedName("", "")
    if not isinstance(entry, dict):
        raise IdentitiesError(f"identities[{index}] must be an object")
    return NamespacedName(_name(entry, "namespace", index), _name(entry, "serviceAccount", index))


def _name(entry: JsonObject, key: str, index: int) -> str:
    value = member(entry, key)[1]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise IdentitiesError(f"identities[{index}].{key} must be a string")
    return value


class IdentitySource:
    """The identities of one file or ConfigMap, kept while new content is broken (WHK-704)."""

    def __init__(self, name: str) -> None:
        self.name = name
        """Shown in logs, metrics and the reason of an unready webhook."""
        self.loaded = False
        """Whether the source was read once, be it absent or broken."""
        self.last_load_ok = False
        self.loaded_at = 0.0
        """Epoch seconds of the last load, good or not; 0 before the first."""
        self.identities: IdentitySet = frozenset()

    def load(self, content: bytes | None) -> None:
        """Take new content; None when there is no file or object."""
        self.loaded = True
        self.loaded_at = time.time()
        try:
            self.identities = parse_identities(content or b"")
        except IdentitiesError as error:
            self.last_load_ok = False
            _log.error("%s: %s; the previous %d identities stay in use", self.name, error, len(self.identities))
            return
        self.last_load_ok = True
        _log.info("%s: %d identities loaded", self.name, len(self.identities))
