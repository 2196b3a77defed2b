"""Broken agents: command line, signals, patience, metrics and logs."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

import os
import re

from podid_agent import (
    cli,
    credentials_endpoint,
    eks_auth,
    exposition,
    http1_server,
    node_credentials,
    server,
)
from podid_agent.credentials_endpoint import CredentialsEndpoint
from podid_agent.flags import FlagError

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


@mutant("agent-sigterm-abort", "AGT-152", may_kill={"AGT-153": "nothing is waited for"})
def sigterm_abort() -> None:
    """A signal ends the process in the middle of its requests."""

    def drain(_original):
        async def not_at_all(_self):
            os._exit(0)

        return not_at_all

    override(server._Agent, "_drain", drain)


@mutant("agent-sigterm-hangs-up", "AGT-152")
def sigterm_hangs_up() -> None:
    """A signal closes connections whose first request is still on its way."""

    def drain(original):
        def answered_or_not(connection):
            connection._answered = True
            original(connection)

        return answered_or_not

    override(http1_server._Connection, "drain", drain)


@mutant("agent-drains-for-a-minute", "AGT-153")
def drains_for_a_minute() -> None:
    """A client that never ends holds up the end of the process."""
    override(server, "_DRAIN_TIMEOUT", lambda _: 60.0)


@mutant("agent-waits-for-the-silent", "AGT-153")
def waits_for_the_silent() -> None:
    """A client that has connected and never asks holds up the end of the process."""
    override(http1_server, "_LAST_REQUEST_TIMEOUT", lambda _: 60.0)


@mutant(
    "agent-strict-argv", "AGT-109", may_kill={"AGT-108": SHARED_TEST, "AGT-118": SHARED_TEST, "AGT-123": SHARED_TEST}
)
def strict_argv() -> None:
    """A word that is left over, as in ``--rotate-credentials true``, ends the start."""

    def parse_flags(original):
        def strictly(arguments, flags, *, interspersed=True):
            parsed = original(arguments, flags, interspersed=interspersed)
            if interspersed and parsed.arguments:
                raise FlagError(f"surplus arguments: {parsed.arguments}")
            return parsed

        return strictly

    override(cli, "parse_flags", parse_flags)


@mutant("agent-repeated-flag-refused", "AGT-107", may_kill={"AGT-110": "the suite gives a verbosity of its own"})
def repeated_flag_refused() -> None:
    """A flag that is given twice ends the start."""

    def parse_flags(original):
        def once(arguments, flags, *, interspersed=True):
            parsed = original(arguments, flags, interspersed=interspersed)
            if any(len(found) > 1 for name, found in parsed.values.items() if name != "bind-hosts"):
                raise FlagError("a flag is given twice")
            return parsed

        return once

    override(cli, "parse_flags", parse_flags)


@mutant("agent-metrics-wrong", "AGT-621", may_kill={"AGT-243": SHARED_TEST})
def metrics_wrong() -> None:
    """An answer is counted twice."""

    def answer(original):
        def twice(self, exchange, response, source, error=""):
            self._metrics.http_response.labels(str(response.status)).inc()
            return original(self, exchange, response, source, error)

        return twice

    override(CredentialsEndpoint, "_answer", answer)


@mutant("agent-metrics-suffixed", "AGT-620", may_kill={"AGT-*": "tests that count look for the plain names"})
def metrics_suffixed() -> None:
    """Counters end in _total, as Prometheus would have it."""
    override(exposition, "_PLAIN", lambda _: re.compile(rb"(?!)"))


@mutant("agent-calls-unlogged", "AGT-665")
def calls_unlogged() -> None:
    """The log has no line for calls of EKS Auth."""
    override(eks_auth.EKSAuthClient, "_record", lambda _: lambda _self, *_call: None)


@mutant("agent-token-in-log", "AGT-328", "AGT-661")
def token_in_log() -> None:
    """The log tells the token of each request."""

    def check(original):
        def told(self, request, token):
            self._journal.debug("checking", {"token": token.decode(errors="replace")})
            return original(self, request, token)

        return told

    override(CredentialsEndpoint, "_check", check)


@mutant("agent-failures-flood", "AGT-668", may_kill={"AGT-664": SHARED_TEST})
def failures_flood() -> None:
    """A failure that repeats is logged each time."""
    override(credentials_endpoint.FailureSummary, "allows", lambda _: lambda _self, _message: True)


@mutant("agent-endless-patience", "AGT-215")
def endless_patience() -> None:
    """Slow and idle clients may stay."""
    override(http1_server, "_TIMEOUT", lambda _: 3600.0)


@mutant("agent-keys-read-once", "AGT-145")
def keys_read_once() -> None:
    """The shared credentials file is read once."""
    override(node_credentials.SharedFileCredentials, "_MAX_AGE", lambda _: 1e9)
