"""Broken agents: initialize, the link and its addresses, and the listeners on them."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

import os

from podid_agent import cli, listeners, network, probes

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


@mutant(
    "agent-initialize-idle",
    *("AGT-501", "AGT-502", "AGT-503", "AGT-504", "AGT-505", "AGT-506", "AGT-507", "AGT-510", "AGT-512"),
    may_kill=dict.fromkeys(
        ("AGT-508", "AGT-511", "AGT-513", "AGT-520", "AGT-521", "AGT-523", "AGT-525", "AGT-607", "AGT-610"),
        "there is no address",
    ),
)
def initialize_idle() -> None:
    """Initialize ends well and has done nothing."""
    override(network, "run_initialize", lambda _: lambda _journal: 0)


@mutant(
    "agent-initialize-once",
    "AGT-508",
    may_kill={
        "AGT-50*": "a link that is there is refused",
        "AGT-51*": SHARED_TEST,
        **dict.fromkeys(("AGT-523", "AGT-525", "AGT-607"), "initialize runs twice there"),
    },
)
def initialize_once() -> None:
    """A link that is there already ends initialize."""

    def link(original):
        def new(netlink, journal):
            if netlink.link_lookup(ifname=network.LINK_NAME):
                raise network.NetworkError("the link exists")
            return original(netlink, journal)

        return new

    override(network, "_link", link)
    override(cli, "is_set_up", lambda _: lambda: False)


@mutant("agent-initialize-policy-route", "AGT-509")
def initialize_policy_route() -> None:
    """Initialize leaves a policy route."""

    def initialize(original):
        def and_rule(netlink, journal):
            original(netlink, journal)
            netlink.rule("add", table=100, priority=1000)

        return and_rule

    override(network, "_initialize", initialize)


@mutant("agent-initialize-greedy", "AGT-510")
def initialize_greedy() -> None:
    """Initialize uses another capability than CAP_NET_ADMIN."""

    def initialize(original):
        def elsewhere(netlink, journal):
            os.chroot("/")
            original(netlink, journal)

        return elsewhere

    override(network, "_initialize", initialize)


@mutant("agent-address-detected", "AGT-512", may_kill={"AGT-513": SHARED_TEST})
def address_detected() -> None:
    """The IPv6 address goes through duplicate address detection."""
    override(network, "_IFA_F_NODAD", lambda _: 0)


@mutant(
    "agent-listens-everywhere",
    "AGT-520",
    "AGT-521",
    may_kill={"AGT-*": "a second listener finds the port taken"},
)
def listens_everywhere() -> None:
    """Every listener takes all addresses of the node."""

    def listen(original):
        def on_all(host, port):
            return original("::" if ":" in host else "0.0.0.0", port)  # noqa: S104 - this is the fault

        return on_all

    override(listeners, "listen", listen)


@mutant("agent-both-families-or-none", "AGT-523", "AGT-607", may_kill={"AGT-525": SHARED_TEST})
def both_families_or_none() -> None:
    """A default address that the node lacks ends the start."""

    def start(original):
        def strictly(error, host, port, number):
            original(error, host, port, number)
            error.is_missing_address = False

        return strictly

    override(listeners.BindError, "__init__", start)


@mutant("agent-always-ready", "AGT-603")
def always_ready() -> None:
    """Readiness does not mind listeners that are deaf."""
    override(probes, "_NOT_READY", lambda _: probes._READY)


@mutant("agent-dies-with-a-listener", "AGT-608")
def dies_with_a_listener() -> None:
    """Liveness is readiness, so that a listener that is deaf restarts the agent."""

    def handle(original):
        def ready_or_dead(self, request, client):
            return self._check_listeners() if request.path == "/healthz" else original(self, request, client)

        return ready_or_dead

    override(probes.Probes, "handle", handle)


@mutant("agent-probe-proxied", "AGT-610")
def probe_proxied() -> None:
    """The agent asks itself through the proxy, which does not know it."""

    def answers(original):
        async def through_proxy(self, listener):
            return "HTTP_PROXY" not in os.environ and await original(self, listener)

        return through_proxy

    override(probes.Probes, "_answers", answers)
