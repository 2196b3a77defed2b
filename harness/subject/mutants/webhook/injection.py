"""Broken webhooks: what Pod Identity injects."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from msgspec.structs import replace
from podid_webhook import configuration, mutation

from harness.subject.mutants.catalogue import SHARED_TEST, WHOLE_POD, mutant, override


def _injected(change):
    """Return what changes the injection of Pod Identity."""
    return lambda original: lambda *parts: change(original(*parts))


@mutant(
    "webhook-label-missing",
    "WHK-301",
    may_kill={"WHK-302": SHARED_TEST, "WHK-303": SHARED_TEST, "WHK-511": "an operation is missing"}
    | {"WHK-*": WHOLE_POD},
    source="aws/amazon-eks-pod-identity-webhook: releases without the label",
)
def label_missing() -> None:
    """The pod gets no label."""
    override(configuration, "_pod_identity", _injected(lambda injection: replace(injection, labelled=False)))


@mutant(
    "webhook-audience-sts",
    "WHK-304",
    may_kill={"WHK-305": SHARED_TEST, "WHK-512": WHOLE_POD, "WHK-861": SHARED_TEST},
)
def audience_sts() -> None:
    """The token is for STS, as IRSA's is."""
    change = _injected(lambda injection: replace(injection, audience="sts.amazonaws.com"))
    override(configuration, "_pod_identity", change)


@mutant("webhook-jitter-wide", "WHK-306", may_kill={"WHK-308": SHARED_TEST})
def jitter_wide() -> None:
    """The default expiration is drawn from a whole day."""
    override(configuration, "_JITTER_MIN", lambda _: 600)


@mutant("webhook-jitter-none", "WHK-306", may_kill={"WHK-308": "all pods draw the same"})
def jitter_none() -> None:
    """The default expiration is the same for every pod."""
    override(configuration, "_JITTER_MIN", lambda _: configuration.DEFAULT_TOKEN_EXPIRATION)


@mutant("webhook-jitter-always", "WHK-307", may_kill={"WHK-606": SHARED_TEST, "WHK-608": "no expiration is exact"})
def jitter_always() -> None:
    """Every expiration is spread, also one that somebody chose."""

    def vary(injection):
        return replace(injection, expiration_seconds=injection.expiration_seconds - 1)

    override(configuration, "_pod_identity", _injected(vary))


@mutant(
    "webhook-env-missing",
    "WHK-309",
    may_kill={"WHK-314": "there is no path to look at", "WHK-318": "there is no path to look at"}
    | {"WHK-*": WHOLE_POD},
)
def env_missing() -> None:
    """The variable that names the token's file is missing."""

    def variables(original):
        def without_file(pod, injection):
            *others, pair = original(pod, injection)
            return (*others, replace(pair, variables=pair.variables[:1]))

        return without_file

    override(mutation, "_variables", variables)


@mutant(
    "webhook-order-reversed",
    "WHK-503",
    may_kill={"WHK-309": SHARED_TEST, "WHK-403": SHARED_TEST, "WHK-512": WHOLE_POD},
)
def order_reversed() -> None:
    """The credential variables come before region and STS."""
    override(mutation, "_variables", lambda original: lambda pod, injection: original(pod, injection)[::-1])


@mutant("webhook-windows-slash", "WHK-520", "WHK-318", may_kill={"WHK-512": "one of its pods is for Windows"})
def windows_slash() -> None:
    """The token's path has slashes on Windows, too."""

    def variables(original):
        return lambda pod, injection: original(replace(pod, node_selector={}), injection)

    override(mutation, "_variables", variables)


@mutant("webhook-irsa-jitter", "WHK-402", may_kill={"WHK-401": SHARED_TEST, "WHK-512": WHOLE_POD})
def irsa_jitter() -> None:
    """IRSA's expiration is spread like Pod Identity's."""

    def vary(injection):
        return replace(injection, expiration_seconds=min(injection.expiration_seconds, 80_000))

    override(configuration, "_irsa", _injected(vary))


@mutant("webhook-irsa-labelled", "WHK-407", may_kill={"WHK-512": WHOLE_POD})
def irsa_labelled() -> None:
    """A pod with IRSA gets the label of Pod Identity."""
    override(configuration, "_irsa", _injected(lambda injection: replace(injection, labelled=True)))
