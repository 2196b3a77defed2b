"""Prometheus metrics (section 6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from podid_agent import __version__
from podid_agent.series import Distribution, Family, Series

__all__ = ["Metrics"]

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
    """All metrics of one agent; no label comes from a client (AGT-627)."""

    def __init__(self, profile: Literal["G1", "G2"] = "G1") -> None:
        """Create every series whose label values are known, at zero (AGT-625)."""
        self.numbers: list[Family[Series]] = []
        """All counters and gauges."""

        self.histograms: list[Family[Distribution]] = []

        self.http_response = self._counter("pod_identity_http_response", "Answers by status", "code")
        self.cache_state = self._counter(
            "pod_identity_cache_state", "miss: went upstream, hit: renewed, evicted: removed", "state"
        )
        self.cache_errors = self._counter("pod_identity_cache_errors", "Failed renewals", "type", "code")
        self.local_validation = self._counter(
            "pod_identity_local_validation", "Tokens of cached pods verified here", "result"
        )
        self.request_duration = self._histogram(
            "pod_identity_request_duration_seconds", "Time to answer", "code", "source"
        )
        self.requests_in_flight = self._gauge("pod_identity_requests_in_flight", "Requests being answered").labels()
        self.rate_limited = self._counter("pod_identity_rate_limited", "Requests over the rate limit", "listener")
        self.cache_requests = self._counter("pod_identity_cache_requests", "Requests past the token checks", "result")
        self.cache_entries = self._gauge("pod_identity_cache_entries", "Cached credentials").labels()
        self.cache_capacity = self._gauge("pod_identity_cache_capacity", "Most cached credentials").labels()
        self.cache_evictions = self._counter("pod_identity_cache_evictions", "Cached credentials removed", "reason")
        self.upstream_calls = self._counter("pod_identity_upstream_calls", "Calls to EKS Auth", "trigger", "outcome")
        self.upstream_attempts = self._counter(
            "pod_identity_upstream_attempts", "Attempts of calls to EKS Auth", "outcome"
        )
        self.upstream_duration = self._histogram(
            "pod_identity_upstream_duration_seconds", "Time of a call to EKS Auth, attempts included", "trigger"
        )
        self.upstream_in_flight = self._gauge("pod_identity_upstream_in_flight", "Calls to EKS Auth under way").labels()
        self.renewals_due = self._gauge("pod_identity_renewals_due", "Overdue renewals").labels()
        self.renewal_lag = self._gauge("pod_identity_renewal_lag_seconds", "Age of the oldest overdue renewal").labels()
        self.last_upstream_success = self._gauge(
            "pod_identity_last_upstream_success_timestamp_seconds", "When EKS Auth last granted"
        ).labels()
        self.node_credentials_expiry = self._gauge(
            "pod_identity_node_credentials_expiry_timestamp_seconds",
            "When the agent's own credentials expire; 0 if never or unknown",
        ).labels()
        self.listener_up = self._gauge("pod_identity_listener_up", "Whether a listener is bound", "listener")
        self.build_info = self._gauge("pod_identity_build_info", "Always 1", "version", "profile")

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

    def _counter(self, name: str, meaning: str, *label_names: str) -> Family[Series]:
        return self._numbers("counter", name, meaning, label_names)

    def _gauge(self, name: str, meaning: str, *label_names: str) -> Family[Series]:
        return self._numbers("gauge", name, meaning, label_names)

    def _numbers(
        self, kind: Literal["counter", "gauge"], name: str, meaning: str, label_names: Sequence[str]
    ) -> Family[Series]:
        family = Family(kind, name, meaning, label_names, Series)
        self.numbers.append(family)
        return family

    def _histogram(self, name: str, meaning: str, *label_names: str) -> Family[Distribution]:
        family = Family("histogram", name, meaning, label_names, partial(Distribution, _BUCKETS))
        self.histograms.append(family)
        return family
