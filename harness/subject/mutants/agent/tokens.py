"""Broken agents: what is wrong with a token, and who says so."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from dataclasses import replace

from podid_agent import (
    credentials_endpoint,
    tokens,
)
from podid_agent.credentials_endpoint import CredentialsEndpoint

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


@mutant("agent-expired-from-cache", "AGT-326", may_kill={"AGT-327": SHARED_TEST})
def expired_from_cache() -> None:
    """A token's times are not checked while its credentials are cached."""

    def check(original):
        def known_first(self, request, token):
            return self._fetcher.claims(token) or original(self, request, token)

        return known_first

    override(CredentialsEndpoint, "_check", check)


@mutant(
    "agent-expired-forwarded",
    "AGT-247",
    "AGT-313",
    "AGT-315",
    may_kill={
        "AGT-316": "exp is compared in no way",
        "AGT-321": "a time long past is not refused",
        "AGT-326": "an expired token is not refused from the cache either",
        "AGT-902": "an expired token without a pod is refused for the pod",
    },
)
def expired_forwarded() -> None:
    """EKS Auth is asked with expired tokens."""

    def check_times(original):
        return lambda claims, now: original(replace(claims, expires_at=None), now)

    override(credentials_endpoint, "check_times", check_times)


@mutant("agent-leeway-30s", "AGT-316", may_kill=dict.fromkeys(("AGT-313", "AGT-314"), SHARED_TEST))
def leeway_30s() -> None:
    """Exp and nbf have half a minute of leeway."""

    def check_times(original):
        def leniently(claims, now):
            original(replace(claims, expires_at=None), now + 30)
            original(replace(claims, not_before=None), now - 30)

        return leniently

    override(credentials_endpoint, "check_times", check_times)


@mutant(
    "agent-nbf-ignored",
    "AGT-314",
    may_kill={"AGT-315": "only the other of two faults is told", "AGT-316": SHARED_TEST, "AGT-247": SHARED_TEST},
)
def nbf_ignored() -> None:
    """A token that is not valid yet is taken."""

    def check_times(original):
        return lambda claims, now: original(replace(claims, not_before=None), now)

    override(credentials_endpoint, "check_times", check_times)


@mutant("agent-signature-wanted", "AGT-312", may_kill={"AGT-305": "its tokens have odd signatures"})
def signature_wanted() -> None:
    """A token without a signature is refused, though only EKS Auth can judge it."""

    def parse(original):
        def with_signature(token):
            if token.endswith(b"."):
                raise tokens.InvalidTokenError("token is malformed: signature is missing")
            return original(token)

        return with_signature

    override(credentials_endpoint, "parse_token", parse)


@mutant("agent-algorithms-few", "AGT-311", may_kill={"AGT-312": "tokens without a signature say alg none"})
def algorithms_few() -> None:
    """Only RS256 is known, the algorithm of most clusters."""
    override(tokens, "_ALGORITHMS", lambda _: frozenset({"RS256"}))
