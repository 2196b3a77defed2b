"""Prometheus metrics (section 6.2)."""

from __future__ import annotations

import re
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.gc_collector import GCCollector

from podid_agent import __version__

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# prometheus_client appends _total to every counter; these are known without it (AGT-620).
_PLAIN = re.compile(
    rb"^((?:# (?:HELP|TYPE) )?pod_identity_(?:http_response|cache_state|cache_errors|local_validation))"
    rb"_total(?=[ {])",
    re.MULTILINE,
)

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUEST_SOURCES = ("cache", "upstream", "coalesced", "local")
TRIGGERS = ("request", "renewal")
EVICTION_REASONS = ("capacity", "expired", "refused", "token_expired", "replaced")
VALIDATION_RESULTS = ("success", "failure", "skipped")
CACHE_RESULTS = ("hit", "miss", "coalesced")
OUTCOMES = (
    "success",
    "network",
    "timeout",
    "invalid",
    "AccessDeniedException",
    "ExpiredTokenException",
    "InternalServerException",
    "InvalidParameterException",
    "InvalidRequestException",
    "InvalidTokenException",
    "ResourceNotFoundException",
    "ServiceUnavailableException",
    "ThrottlingException",
)


class Metrics:
    """All metrics of one agent, in a registry of their own; no label comes from a client (AGT-627)."""

    def __init__(self, profile: Literal["G1", "G2"] = "G1") -> None:
        """Create every series whose label values are known, at zero (AGT-625)."""
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        self.http_response = Counter("pod_identity_http_response", "Answers by status", ["code"], registry=registry)
        self.cache_state = Counter(
            "pod_identity_cache_state",
            "miss: went upstream, hit: renewed, evicted: removed",
            ["state"],
            registry=registry,
        )
        self.cache_errors = Counter("pod_identity_cache_errors", "Failed renewals", ["type", "code"], registry=registry)
        self.local_validation = Counter(
            "pod_identity_local_validation", "Tokens of cached pods verified here", ["result"], registry=registry
        )
        self.request_duration = Histogram(
            "pod_identity_request_duration_seconds",
            "Time to answer",
            ["code", "source"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.requests_in_flight = Gauge("pod_identity_requests_in_flight", "Requests being answered", registry=registry)
        self.rate_limited = Counter(
            "pod_identity_rate_limited", "Requests over the rate limit", ["listener"], registry=registry
        )
        self.cache_requests = Counter(
            "pod_identity_cache_requests", "Requests past the token checks", ["result"], registry=registry
        )
        self.cache_entries = Gauge("pod_identity_cache_entries", "Cached credentials", registry=registry)
        self.cache_capacity = Gauge("pod_identity_cache_capacity", "Most cached credentials", registry=registry)
        self.cache_evictions = Counter(
            "pod_identity_cache_evictions", "Cached credentials removed", ["reason"], registry=registry
        )
        self.upstream_calls = Counter(
            "pod_identity_upstream_calls", "Calls to EKS Auth", ["trigger", "outcome"], registry=registry
        )
        self.upstream_attempts = Counter(
            "pod_identity_upstream_attempts", "Attempts of calls to EKS Auth", ["outcome"], registry=registry
        )
        self.upstream_duration = Histogram(
            "pod_identity_upstream_duration_seconds",
            "Time of a call to EKS Auth, attempts included",
            ["trigger"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.upstream_in_flight = Gauge(
            "pod_identity_upstream_in_flight", "Calls to EKS Auth under way", registry=registry
        )
        self.renewals_due = Gauge("pod_identity_renewals_due", "Overdue renewals", registry=registry)
        self.renewal_lag = Gauge(
            "pod_identity_renewal_lag_seconds", "Age of the oldest overdue renewal", registry=registry
        )
        self.last_upstream_success = Gauge(
            "pod_identity_last_upstream_success_timestamp_seconds", "When EKS Auth last granted", registry=registry
        )
        self.node_credentials_expiry = Gauge(
            "pod_identity_node_credentials_expiry_timestamp_seconds",
            "When the agent's own credentials expire; 0 if never or unknown",
            registry=registry,
        )
        self.listener_up = Gauge(
            "pod_identity_listener_up", "Whether a listener is bound", ["listener"], registry=registry
        )
        self.build_info = Gauge("pod_identity_build_info", "Always 1", ["version", "profile"], registry=registry)

        self._codes: set[str] = set(OUTCOMES)
        self.build_info.labels(__version__, profile).set(1)
        self._create_known_series()

    def _create_known_series(self) -> None:
        for result in CACHE_RESULTS:
            self.cache_requests.labels(result)
        for result in VALIDATION_RESULTS:
            self.local_validation.labels(result)
        for reason in EVICTION_REASONS:
            self.cache_evictions.labels(reason)
        for trigger in TRIGGERS:
            self.upstream_duration.labels(trigger)
            for outcome in OUTCOMES:
                self.upstream_calls.labels(trigger, outcome)
        for outcome in OUTCOMES:
            self.upstream_attempts.labels(outcome)
        for source in REQUEST_SOURCES:
            for code in ("200", "400", "403", "404", "429", "500", "503"):
                self.request_duration.labels(code, source)

    def code_label(self, code: str) -> str:
        """Return a code of EKS Auth as a label value: an upstream that invents codes must not fill the memory."""
        if code not in self._codes:
            if len(self._codes) >= 100 or len(code) > 100:
                return "Unknown"
            self._codes.add(code)
        return code

    def exposition(self) -> bytes:
        """Return Prometheus text, with the counters of upstream's table under their plain names."""
        return _PLAIN.sub(rb"\1", generate_latest(self.registry))
