"""Broken webhooks: certificates, probes, signals, logs."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from typing import Any

from podid_webhook import main, server
from podid_webhook.metrics import Metrics
from podid_webhook.tls import ServingCertificate

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override

_kept: list[Any] = []


@mutant(
    "webhook-certificate-frozen",
    "WHK-822",
    "WHK-825",
    may_kill={"WHK-823": "nothing is said of a broken pair", "WHK-842": SHARED_TEST},
)
def certificate_frozen() -> None:
    """A renewed certificate is used after a restart only."""
    override(ServingCertificate, "changed", lambda _: lambda _self, _contents: None)


@mutant("webhook-ready-at-once", "WHK-842", may_kill={"WHK-848": SHARED_TEST})
def ready_at_once() -> None:
    """It is ready before it knows anything of the cluster."""
    override(main.Webhook, "_readiness", lambda _: lambda _self, _accounts: [])


@mutant("webhook-count-wrong", "WHK-844", may_kill={"WHK-845": SHARED_TEST})
def count_wrong() -> None:
    """A request is counted twice."""

    def observe(original):
        def twice(self, *request):
            original(self, *request)
            original(self, *request)

        return twice

    override(Metrics, "observe_request", observe)


@mutant("webhook-sigterm-abort", "WHK-851")
def sigterm_abort() -> None:
    """A signal ends the process in the middle of its reviews."""
    override(main.signal, "SIGTERM", lambda _: main.signal.SIGUSR1)


@mutant("webhook-pod-in-log", "WHK-871")
def pod_in_log() -> None:
    """The log tells the containers of each pod."""

    def log_outcome(original):
        def told(the_review, found, *, timed_out):
            server._log.info("containers: %s", [container.json for container in the_review.pod.containers.items or ()])
            original(the_review, found, timed_out=timed_out)

        return told

    override(server, "_log_outcome", log_outcome)


@mutant("webhook-reviews-unlogged", "WHK-872")
def reviews_unlogged() -> None:
    """The log has no line for reviews."""
    override(server, "_log_outcome", lambda _: lambda *_outcome, timed_out: None)


@mutant("webhook-is-big", "RES-WEBHOOK-IDLE")
def is_big() -> None:
    """It takes sixty megabytes for nothing."""
    _kept.append(b"x" * (60 << 20))
