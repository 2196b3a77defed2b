"""Broken agents: routes, Host, the limit of requests, and the order of checks."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from dataclasses import replace

from podid_agent import (
    credentials_endpoint,
)
from podid_agent.credentials_endpoint import CredentialsEndpoint
from podid_agent.http1_response import Response

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


@mutant("agent-bearer-accepted", "AGT-222", "AGT-246")
def bearer_accepted() -> None:
    """The word Bearer before a token is taken off."""

    def handle(original):
        def without_scheme(self, request, client):
            bare = request.authorization.removeprefix(b"Bearer ")
            return original(self, replace(request, authorization=bare), client)

        return without_scheme

    override(CredentialsEndpoint, "handle", handle)


@mutant(
    "agent-host-any",
    "AGT-223",
    "AGT-244",
    may_kill={
        "AGT-210": "an absolute URI's host is not refused either",
        "AGT-220": "a token's fault is told although the Host is wrong",
        "AGT-224": "the address it listens on passes as any other",
    },
)
def host_any() -> None:
    """Any Host is accepted, so that a page in a browser could ask by DNS rebinding."""
    override(credentials_endpoint, "called_host", lambda _: lambda _host: "169.254.170.23")


@mutant("agent-host-follows-bind", "AGT-224")
def host_follows_bind() -> None:
    """The address it listens on is accepted as Host."""

    def init(original):
        def also_own(self, listener, **parts):
            credentials_endpoint.DEFAULT_BIND_HOSTS = (*credentials_endpoint.DEFAULT_BIND_HOSTS, listener)
            original(self, listener, **parts)

        return also_own

    override(CredentialsEndpoint, "__init__", init)


@mutant(
    "agent-token-before-host",
    "AGT-220",
    may_kill=dict.fromkeys(("AGT-242", "AGT-243"), "the flood is of requests with a wrong Host and no token"),
)
def token_before_host() -> None:
    """The token is looked at before Host."""

    def check(original):
        def token_first(self, request, token):
            original(self, replace(request, host="169.254.170.23"), token)
            return original(self, request, token)

        return token_first

    override(CredentialsEndpoint, "_check", check)


@mutant(
    "agent-limiter-off",
    "AGT-241",
    "AGT-242",
    may_kill=dict.fromkeys(("AGT-220", "AGT-243"), "without a limit there is no refusal to look at"),
)
def limiter_off() -> None:
    """Requests are not limited."""
    override(credentials_endpoint, "_TOO_MANY", lambda _: None)
    override(credentials_endpoint, "TokenBucket", lambda original: type("", (original,), {"take": lambda _: True}))


@mutant(
    "agent-root-200",
    "AGT-204",
    "AGT-602",
    may_kill={
        "AGT-132": "it never becomes ready",
        "AGT-205": SHARED_TEST,
        "AGT-601": "it never becomes ready",
        "AGT-606": "it never becomes ready",
        "AGT-611": "it never becomes ready",
    },
)
def root_200() -> None:
    """``/`` is 200, where probes expect 404."""

    def handle(original):
        return lambda self, request, client: Response(200) if request.path == "/" else original(self, request, client)

    override(CredentialsEndpoint, "handle", handle)
