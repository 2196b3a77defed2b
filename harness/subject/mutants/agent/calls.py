"""Broken agents: how EKS Auth is called."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from dataclasses import replace

from podid_agent import (
    aws_settings,
    eks_auth,
    eks_auth_answer,
    server,
    signing,
)

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


@mutant("agent-retries-404", "AGT-713")
def retries_404() -> None:
    """What does not exist is asked for three times."""

    def read_refusal(original):
        def retryable(*answer):
            error = original(*answer)
            error.retryable |= error.status == 404
            return error

        return retryable

    override(eks_auth_answer, "_read_refusal", read_refusal)


@mutant(
    "agent-no-retry",
    "AGT-711",
    "AGT-712",
    may_kill={
        "AGT-714": "a 429 is the answer at once",
        "AGT-715": "a throttle is the answer at once",
        "AGT-716": "there are no retries to end",
        "AGT-142": "the variable has no effect",
        "AGT-268": SHARED_TEST,
        "AGT-269": SHARED_TEST,
        "AGT-665": "the log tells of one attempt",
        "AGT-721": "a call is over sooner",
        "AGT-710": "there is no second attempt",
        "AGT-722": "there is no second attempt",
    },
)
def no_retry() -> None:
    """Every failure is the answer at once."""
    override(server, "load_settings", lambda original: lambda *parts: original(*parts)._replace(max_attempts=1))


@mutant("agent-tls-unverified", "AGT-724", may_kill=dict.fromkeys(("AGT-143", "AGT-268", "AGT-269"), SHARED_TEST))
def tls_unverified() -> None:
    """Whoever answers at EKS Auth's address is believed."""

    def load_settings(original):
        def trusting(*parts):
            settings = original(*parts)
            if settings.tls is not None:
                settings.tls.check_hostname = False
                settings.tls.verify_mode = 0
            return settings

        return trusting

    override(server, "load_settings", load_settings)


@mutant(
    "agent-signs-for-other-region", "AGT-702", may_kill={"AGT-130": "the region has no effect", "AGT-705": SHARED_TEST}
)
def signs_for_other_region() -> None:
    """Calls are signed for us-east-1 wherever the agent runs."""
    override(signing, "sign", lambda original: lambda url, body, keys, _region: original(url, body, keys, "us-east-1"))


@mutant("agent-own-token-dropped", "AGT-136", may_kill={"AGT-134": "temporary credentials do not work"})
def own_token_dropped() -> None:
    """The session token of the node's role is not sent."""

    def sign(original):
        return lambda url, body, keys, region: original(url, body, replace(keys, token=None), region)

    override(signing, "sign", sign)


@mutant(
    "agent-attempt-unbounded",
    "AGT-710",
    may_kill={f"AGT-{number}": "silence holds the first attempt" for number in (268, 269, 711, 712, 722)},
)
def attempt_unbounded() -> None:
    """One attempt may take as long as the whole call."""
    override(eks_auth, "_ATTEMPT_TIMEOUT", lambda _: 60.0)


@mutant(
    "agent-loopback-proxied",
    "AGT-733",
    may_kill=dict.fromkeys(("AGT-144", "AGT-731", "AGT-732"), "every endpoint is asked through the one proxy"),
)
def loopback_proxied() -> None:
    """Also the machine itself is asked through the proxy."""
    override(aws_settings, "proxy_for", lambda _: lambda _url, environment: environment.get("HTTP_PROXY"))
