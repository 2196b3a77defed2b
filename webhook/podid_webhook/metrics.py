"""What ``/metrics`` shows (WHK-843 to WHK-849)."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_LATENCY_BUCKETS_US = tuple(125000.0 * 2**power for power in range(7))
_BUCKET_NAMES = ("125000.0", "250000.0", "500000.0", "1e+06", "2e+06", "4e+06", "8e+06", "+Inf")
"""The same as Prometheus' libraries write them."""


class UpstreamCounter(Collector):
    """A counter under exactly the name that AWS's webhook gives it.

    The library's own counters all end in ``_total``; as an untyped metric the name stays as dashboards know it.
    """

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._values: Counter[tuple[str, ...]] = Counter()
        if not labels:
            self._values[()] = 0

    def add(self, *label_values: str) -> None:
        """Count one."""
        self._values[label_values] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the samples, as the registry wants."""
        metric = Metric(self._name, self._documentation, "untyped")
        for label_values, value in self._values.items():
            metric.add_sample(self._name, dict(zip(self._labels, label_values, strict=True)), value)
        yield metric


class _Latencies(Collector):
    """How long requests took, as a histogram and as a summary.

    The library's own take a lock for each, which one thread does not need and which would cost as much as a decision.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = {}

    def observe(self, verb: str, path: str, latency_us: float) -> None:
        """Record one request."""
        series = (verb, path)
        counts = self._counts.get(series)
        if counts is None:
            counts = self._counts[series] = [0] * len(_BUCKET_NAMES)
            self._sums[series] = 0.0
        counts[bisect_left(_LATENCY_BUCKETS_US, latency_us)] += 1
        self._sums[series] += latency_us

    def collect(self) -> Iterator[Metric]:
        """Yield the samples, as the registry wants."""
        histogram = HistogramMetricFamily(
            "http_request_latencies", "Latency of requests to /mutate, microseconds.", labels=("verb", "path")
        )
        summary = SummaryMetricFamily(
            "http_request_duration_microseconds",
            "Duration of requests to /mutate, microseconds.",
            labels=("verb", "path"),
        )
        for series, counts in self._counts.items():
            buckets = [*zip(_BUCKET_NAMES, accumulate(counts), strict=True)]
            histogram.add_metric(series, buckets, self._sums[series])
            summary.add_metric(series, sum(counts), self._sums[series])
        yield histogram
        yield summary


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._counter("http_request_count", "Requests to /mutate.", ("verb", "path", "code"))
        self._latencies = _Latencies()
        self._registry.register(self._latencies)
        self.pods = self._counter("pod_identity_webhook_pod_count", "Reviews with a configuration.", ("method",))
        self.missing_accounts = self._counter(
            "pod_identity_webhook_missing_sa_count", "Lookups that ended with the service account in no cache."
        )
        self.failures = self._counter(
            "pod_identity_webhook_review_failures", "Reviews that were not answered as asked, by reason.", ("reason",)
        )

    def observe_request(self, verb: str, path: str, code: int, latency_us: float) -> None:
        """Record one request to ``/mutate``."""
        self._requests.add(verb, path, str(code))
        self._latencies.observe(verb, path, latency_us)

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Export the value that ``read`` has at the time of a scrape."""
        Gauge(name, documentation, registry=self._registry).set_function(read)

    def gauges(self, name: str, documentation: str, label: str, read: dict[str, Callable[[], float]]) -> None:
        """Export one gauge for several things of a kind."""
        gauge = Gauge(name, documentation, (label,), registry=self._registry)
        for value, function in read.items():
            gauge.labels(value).set_function(function)

    def text(self) -> bytes:
        """Return the Prometheus text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> UpstreamCounter:
        counter = UpstreamCounter(name, documentation, labels)
        self._registry.register(counter)
        return counter
