"""Broken agents: whose credentials are kept, for whom, and how long."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from podid_agent import (
    cache,
    fetching,
    local_validation,
    tokens,
)
from podid_agent.errors import CredentialsError
from podid_agent.fetching import Fetcher

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


@mutant(
    "agent-key-by-serviceaccount",
    "AGT-402",
    may_kill={"AGT-*": "tests keep apart by token, and most of them ask for one ServiceAccount"},
)
def key_by_serviceaccount() -> None:
    """Pods of one ServiceAccount get each other's credentials."""

    def use(original):
        def of_account(self, key, token):
            mine = tokens.parse_token(token).identity.get("claimed-service-account")
            others = (entry for entry in self if entry.claims.identity.get("claimed-service-account") == mine)
            return original(self, key, token) or next(others, None)

        return of_account

    override(cache.CredentialCache, "use", use)


@mutant(
    "agent-no-cache",
    "AGT-236",
    "AGT-403",
    may_kill={
        "AGT-408": SHARED_TEST,
        "AGT-405": "there is nothing to serve during a renewal",
        "AGT-455": "there is nothing to keep",
        "AGT-904": "there is nothing to serve a known token",
        "AGT-905": "there is nothing to serve a newer token",
        "AGT-*": "tests of the cache count calls",
    },
)
def no_cache() -> None:
    """Nothing is served from the cache."""
    override(cache.CredentialCache, "use", lambda _: lambda _self, _key, _token: None)


@mutant(
    "agent-cache-unbounded",
    "AGT-406",
    may_kill={"AGT-407": "nothing is given up", "AGT-622": "nothing is evicted", "AGT-157": "memory is not bounded"},
)
def cache_unbounded() -> None:
    """The cache grows without an end."""

    def init(original):
        return lambda self, _capacity, *rest: original(self, 1 << 40, *rest)

    override(cache.CredentialCache, "__init__", init)


@mutant("agent-evicts-oldest", "AGT-407", may_kill={"AGT-406": SHARED_TEST})
def evicts_oldest() -> None:
    """A full cache gives up the entry that was made first, though it is in use."""

    def use(original):
        def unmoved(self, key, token):
            order = list(self._entries)
            entry = original(self, key, token)
            for name in order:
                self._entries.move_to_end(name)
            return entry

        return unmoved

    override(cache.CredentialCache, "use", use)


@mutant(
    "agent-no-coalescing",
    "AGT-408",
    "AGT-421",
    "AGT-1103",
    may_kill={
        "AGT-267": SHARED_TEST,
        "AGT-420": "each request makes its call",
        "AGT-422": "each waiter has its own failure",
        "AGT-423": SHARED_TEST,
        "AGT-424": "waiters wait for calls of their own",
        "AGT-425": "the client that stays makes a call of its own",
        "AGT-426": SHARED_TEST,
        "AGT-428": "the slots are taken by calls for one token",
        "AGT-626": "nothing counts as coalesced",
        "AGT-720": "a second request makes a second call",
        "AGT-919": "equal tokens make calls of their own",
    },
    source="aws/eks-pod-identity-agent: requests during a cache miss each call EKS Auth",
)
def no_coalescing() -> None:
    """Requests do not join the call that is under way for their token."""

    def init(original):
        def forgetful(self, *parts, **options):
            original(self, *parts, **options)
            self._calls = type("", (dict,), {"get": lambda _self, _token: None})()

        return forgetful

    override(Fetcher, "__init__", init)


@mutant(
    "agent-errors-not-shared",
    "AGT-422",
    may_kill={"AGT-267": SHARED_TEST, "AGT-423": SHARED_TEST},
    source="aws/eks-pod-identity-agent: waiters of a failed call each call again",
)
def errors_not_shared() -> None:
    """Who waited for a call that failed makes one more."""

    def fetch(original):
        async def again(self, key, token, claims):
            waits = self.is_under_way(token)
            try:
                return await original(self, key, token, claims)
            except CredentialsError:
                if not waits:
                    raise
                return await original(self, key, token, claims)

        return again

    override(Fetcher, "fetch", fetch)


@mutant("agent-call-dies-with-client", "AGT-720", may_kill={"AGT-425": "the call ends with its client"})
def call_dies_with_client() -> None:
    """A call ends when the request that made it has waited long enough."""

    def fetch(original):
        async def cancelling(self, key, token, claims):
            try:
                return await original(self, key, token, claims)
            except CredentialsError:
                if call := self._calls.get(token):
                    call.cancel()
                raise

        return cancelling

    override(Fetcher, "fetch", fetch)


@mutant(
    "agent-serves-expired",
    "AGT-404",
    may_kill={"AGT-401": "credentials near their end are served", "AGT-468": "likewise"},
)
def serves_expired() -> None:
    """Credentials are served from the cache to their end and beyond."""
    override(cache.CredentialCache, "is_usable", lambda _: lambda _self, _entry: True)


@mutant("agent-admits-dying", "AGT-277", may_kill={"AGT-237": "credentials that have ended are passed on"})
def admits_dying() -> None:
    """Fetched credentials that are about to end, or have ended, are passed on."""
    override(fetching, "_check_life", lambda _: lambda _seconds: None)


@mutant(
    "agent-uid-unverified",
    "AGT-906",
    "AGT-907",
    "AGT-909",
    may_kill={
        "AGT-910": "every audience passes",
        "AGT-911": "every owner passes",
        "AGT-912": "keys are not looked for",
        "AGT-913": "keys are not looked for",
        "AGT-914": "keys are not looked for",
        "AGT-915": "keys are not looked for",
        "AGT-916": "keys are not looked for",
        "AGT-917": "keys are not looked for",
        "AGT-922": "an entry is given to whoever asks",
    },
)
def uid_unverified() -> None:
    """A token with the UID of a cached pod is believed, whoever signed it."""

    def validate(_original):
        async def believe(_self, _token, _known):
            return "success"

        return believe

    override(local_validation.LocalValidator, "validate", validate)


@mutant("agent-owner-unchecked", "AGT-910", "AGT-911", may_kill=dict.fromkeys(("AGT-906", "AGT-907"), SHARED_TEST))
def owner_unchecked() -> None:
    """A genuine token takes an entry over without regard to its audience, namespace and names."""
    override(local_validation, "_check_owner", lambda _: lambda _claimed, _known: None)


@mutant("agent-errors-cached", "AGT-267", "AGT-423", may_kill={"AGT-*": "what failed once fails until the end"})
def errors_cached() -> None:
    """A refusal is told again without a call."""
    failures = {}

    def fetch(original):
        async def remembering(self, key, token, claims):
            if token in failures:
                raise failures[token]
            try:
                return await original(self, key, token, claims)
            except CredentialsError as error:
                failures[token] = error
                raise

        return remembering

    override(Fetcher, "fetch", fetch)


@mutant(
    "agent-binding-forgotten",
    "AGT-905",
    may_kill=dict.fromkeys(("AGT-906", "AGT-908", "AGT-918"), "a newer token costs a call each time"),
)
def binding_forgotten() -> None:
    """An entry keeps the token that it was fetched with, though a newer one was verified."""
    override(cache.CredentialCache, "bind", lambda _: lambda _self, _entry, _token, _claims: None)


@mutant("agent-expired-kept", "AGT-466", may_kill={"AGT-622": SHARED_TEST})
def expired_kept() -> None:
    """An entry that has ended stays in the cache."""
    override(cache.CredentialCache, "remove_expired", lambda _: lambda _self: None)
