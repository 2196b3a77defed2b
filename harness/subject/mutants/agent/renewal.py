"""Broken agents: when credentials are renewed, and what a failure does to them."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

import asyncio

from podid_agent import (
    cache,
    renewal,
)
from podid_agent.cache import CredentialCache
from podid_agent.errors import RefusedError
from podid_agent.fetching import Fetcher
from podid_agent.renewal import Renewals

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


@mutant(
    "agent-no-refresh",
    "AGT-450",
    "AGT-451",
    may_kill={
        f"AGT-{number}": "nothing is renewed"
        for number in (135, 155, 405, 411, 427, *range(452, 465), 622, 623, 667, 918, 920)
    },
)
def no_refresh() -> None:
    """Nothing is renewed before it ends."""
    override(Renewals, "_due", lambda _: lambda _self: [])


@mutant(
    "agent-refresh-starved",
    "AGT-460",
    may_kill={"AGT-461": SHARED_TEST, "AGT-462": SHARED_TEST},
    source="aws/eks-pod-identity-agent: the limiter is charged twice, two renewals per sweep",
)
def refresh_starved() -> None:
    """The rate limit is charged twice for each renewal."""

    def bucket(original):
        return type("", (original,), {"take": lambda self: original.take(self) and original.take(self)})

    override(renewal, "TokenBucket", bucket)


@mutant("agent-renews-latest-first", "AGT-461")
def renews_latest_first() -> None:
    """Of what is due, the entry that lives longest is renewed first."""
    # A global of the module goes before the built-in function.
    renewal.sorted = lambda due, key: sorted(due, key=key, reverse=True)  # pyright: ignore[reportAttributeAccessIssue]


@mutant("agent-renews-by-retention-only", "AGT-452", may_kill={"AGT-450": SHARED_TEST})
def renews_by_retention_only() -> None:
    """Credentials that end before the retention is over are not renewed in time."""
    override(cache, "renewal_delay", lambda _: lambda _life, retention, spread: retention * (1 - spread / 10))


@mutant("agent-no-spread", "AGT-453")
def no_spread() -> None:
    """Pods that started together renew together."""

    def delay(original):
        return lambda life, retention, _spread: original(life, retention, 0.0)

    override(cache, "renewal_delay", delay)


@mutant(
    "agent-drops-on-transient",
    "AGT-405",
    "AGT-455",
    "AGT-468",
    may_kill={"AGT-457": "a 403 drops the entry", "AGT-623": SHARED_TEST},
)
def drops_on_transient() -> None:
    """Every refusal at renewal removes the entry."""
    override(RefusedError, "is_about_the_pod", lambda _: True)


@mutant(
    "agent-keeps-on-denied",
    "AGT-456",
    "AGT-623",
    may_kill={"AGT-667": "nothing is said to be removed", "AGT-920": "nothing is dropped"},
)
def keeps_on_denied() -> None:
    """A pod whose association is gone keeps its credentials to their end."""
    override(RefusedError, "is_about_the_pod", lambda _: False)


@mutant("agent-renews-for-nobody", "AGT-464")
def renews_for_nobody() -> None:
    """A renewal counts as if a client had asked."""

    def renew(original):
        def as_if_used(self, entry, credentials):
            is_renewed = original(self, entry, credentials)
            renewed = self.peek(entry.key)
            if renewed is not None:
                renewed.served_until = renewed.ends_at
            return is_renewed

        return as_if_used

    override(CredentialCache, "renew", renew)


@mutant("agent-renewal-not-shared", "AGT-427")
def renewal_not_shared() -> None:
    """A request does not see that a renewal is under way, and makes a call of its own."""

    def start_renewal(_original):
        def apart(self, *parts):
            call = asyncio.create_task(self._renew(*parts))
            self._independent.add(call)
            call.add_done_callback(self._independent.discard)

        return apart

    override(Fetcher, "start_renewal", start_renewal)


@mutant("agent-throttled-goes-on", "AGT-467")
def throttled_goes_on() -> None:
    """EKS Auth is asked for renewals as fast as ever, whatever it answers."""
    override(renewal.ThrottlePause, "is_on", lambda _: property(lambda _self: False))
