"""Broken agents: what they keep, do twice, or believe of their clocks."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from typing import Any

from podid_agent.cache import LEAST_LIFE, CredentialCache
from podid_agent.credentials_endpoint import CredentialsEndpoint
from podid_agent.fetching import Fetcher
from podid_agent.renewal import Renewals

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override

_kept: list[Any] = []


@mutant("agent-keeps-what-is-over", "AGT-409", "AGT-1104")
def keeps_what_is_over() -> None:
    """Credentials stay in memory when their entry is gone."""

    def entry(original):
        def kept(self, *parts):
            made = original(self, *parts)
            _kept.append(made)
            return made

        return kept

    override(CredentialCache, "_entry", entry)


@mutant("agent-trusts-the-wall-clock", "AGT-410")
def trusts_the_wall_clock() -> None:
    """Whether credentials have expired is told by the wall clock alone."""

    def is_usable(_original):
        return lambda self, entry: self.life(entry.credentials) > LEAST_LIFE

    override(CredentialCache, "is_usable", is_usable)
    override(CredentialCache, "remove_expired", lambda _: lambda _self: None)


@mutant(
    "agent-tries-again-soon",
    "AGT-458",
    may_kill={"AGT-466": "the entry is tried once more", "AGT-622": SHARED_TEST},
)
def tries_again_soon() -> None:
    """A renewal that failed is tried again ten seconds later."""
    override(Renewals, "_next_try", lambda _: lambda self, _entry: self._clock.monotonic() + 10)


@mutant("agent-renewal-always-stores", "AGT-465")
def renewal_always_stores() -> None:
    """What a renewal brings is stored, whatever became of the entry and however soon it ends."""

    def renew(_original):
        def store(self, entry, credentials):
            self._entries[entry.key] = self._entry(entry.key, entry.token, entry.claims, credentials)
            return True

        return store

    override(CredentialCache, "renew", renew)


@mutant("agent-parses-each-time", "AGT-1106")
def parses_each_time() -> None:
    """Each hit looks at its token as if it were new."""
    override(Fetcher, "claims", lambda _: lambda _self, _token: None)


@mutant(
    "agent-remembers-each-request", "AGT-1106", may_kill={"AGT-1104": "requests add to memory", "AGT-157": SHARED_TEST}
)
def remembers_each_request() -> None:
    """Something of each request stays in memory."""

    def answer(original):
        def noting(self, exchange, *parts, **options):
            _kept.append(exchange)
            return original(self, exchange, *parts, **options)

        return noting

    override(CredentialsEndpoint, "_answer", answer)


@mutant("agent-is-big", "RES-AGENT-IDLE", "RES-AGENT-FULL")
def is_big() -> None:
    """It takes forty megabytes for nothing."""
    _kept.append(b"x" * (40 << 20))
