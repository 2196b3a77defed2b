"""Broken webhooks: annotations, identities, ServiceAccounts."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from contextlib import contextmanager

from podid_webhook import configuration, goparse
from podid_webhook.accounts import AccountStore
from podid_webhook.identities import IdentitySource

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


@mutant("webhook-min-unclamped", "WHK-607", may_kill={"WHK-606": SHARED_TEST})
def min_unclamped() -> None:
    """An expiration under 600 stays, and the API server refuses the pod."""
    override(configuration, "MIN_TOKEN_EXPIRATION", lambda _: -(1 << 63))


@mutant("webhook-long-cut", "WHK-608", may_kill={"WHK-606": SHARED_TEST})
def long_cut() -> None:
    """An expiration over a day is cut."""

    def parse(original):
        return lambda text: min(original(text), configuration.DEFAULT_TOKEN_EXPIRATION)

    override(configuration, "parse_int64", parse)


@mutant("webhook-bool-strict", "WHK-609")
def bool_strict() -> None:
    """Of Go's spellings of a truth value only two are known."""

    def parse(_original):
        return lambda text: goparse.parse_bool(text if text in {"true", "false"} else "")

    override(configuration, "parse_bool", parse)


@mutant(
    "webhook-stale-identities",
    "WHK-701",
    may_kill={f"WHK-{number}": SHARED_TEST for number in (702, 703, 704, 705, 706, 707, 708, 710)},
)
def stale_identities() -> None:
    """An association that is deleted goes on to count."""

    def load(original):
        def growing(self, content):
            before = self.identities
            original(self, content)
            self.identities |= before

        return growing

    override(IdentitySource, "load", load)


@mutant("webhook-broken-file-empties", "WHK-704")
def broken_file_empties() -> None:
    """While the identities file is broken, nobody has an association."""

    def load(original):
        def emptying(self, content):
            self.identities = frozenset()
            original(self, content)

        return emptying

    override(IdentitySource, "load", load)


@mutant(
    "webhook-accounts-frozen",
    "WHK-722",
    may_kill={
        "WHK-721": "the watch tells nothing",
        "WHK-727": "waiters are not woken by the watch",
        "WHK-732": "the watch tells nothing",
        "WHK-*": "annotations that a test sets are not seen",
    },
)
def accounts_frozen() -> None:
    """Changes of ServiceAccounts after the start have no effect."""

    def put(original):
        return lambda self, item: None if self.used else original(self, item)

    override(AccountStore, "put", put)


@mutant("webhook-deleted-account-kept", "WHK-722", may_kill={"WHK-732": SHARED_TEST})
def deleted_account_kept() -> None:
    """A deleted ServiceAccount goes on to count."""
    override(AccountStore, "remove", lambda _: lambda _self, _item: None)


@mutant("webhook-roles-reversed", "WHK-723", may_kill={"WHK-742": SHARED_TEST})
def roles_reversed() -> None:
    """A wildcard entry of the ConfigMap counts more than the ServiceAccount."""

    def irsa_account(original):
        return lambda account, sources: sources.wildcard_account(account.name) or original(account, sources)

    override(configuration, "irsa_account", irsa_account)


@mutant("webhook-reads-unshared", "WHK-730", may_kill={"WHK-727": SHARED_TEST})
def reads_unshared() -> None:
    """Each review that waits for an account reads it."""

    def arrival(original):
        @contextmanager
        def always_first(self, account):
            with original(self, account) as (waiter, _first):
                yield waiter, True

        return always_first

    override(AccountStore, "arrival", arrival)
