"""The keys of a call, prepared once for all decisions about it."""

from __future__ import annotations

from collections.abc import Mapping

from harness.cloud.iam.principals import Caller, caller_keys, is_caller_key
from harness.cloud.iam.values import ContextValue
from harness.cloud.ports import Principal

__all__ = ["CallContext"]


class CallContext:
    """Lower-cased keys with those of the caller, which nothing in a call can replace."""

    __slots__ = ("_by_owner", "caller", "keys", "principal")

    def __init__(self, principal: Principal, keys: Mapping[str, ContextValue]) -> None:
        """Prepare the keys of a call that a principal makes."""
        self.principal = principal
        self.keys = {key: value for name, value in keys.items() if not is_caller_key(key := name.lower())}
        self.keys |= caller_keys(principal)
        self.caller = Caller.of(principal)
        self._by_owner: dict[str, Mapping[str, ContextValue]] = {}

    def with_check(self, keys: Mapping[str, ContextValue], owner: str) -> Mapping[str, ContextValue]:
        """Return all keys for one check: its own, and who owns its resource (empty: nobody)."""
        known = self._by_owner.get(owner)
        if known is None:
            known = self._by_owner[owner] = {"aws:resourceaccount": owner, **self.keys} if owner else self.keys
        if not keys:
            return known
        own = {key: value for name, value in keys.items() if not is_caller_key(key := name.lower())}
        return {**known, **own}
