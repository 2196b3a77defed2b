"""What ``/metrics`` shows (WHK-843 to WHK-849)."""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram, Summary, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_LATENCY_BUCKETS_US = tuple(125000 * 2**power for power in range(7))


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


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._counter("http_request_count", "Requests to /mutate.", ("verb", "path", "code"))
        self._latencies = Histogram(
            "http_request_latencies",
            "Latency of requests to /mutate, microseconds.",
            ("verb", "path"),
            buckets=_LATENCY_BUCKETS_US,
            registry=self._registry,
        )
        self._durations = Summary(
            "http_request_duration_microseconds",
            "Duration of requests to /mutate, microseconds.",
            ("verb", "path"),
            registry=self._registry,
        )
        self._series: dict[tuple[str, str], tuple[Histogram, Summary]] = {}
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
        for metric in self._timings(verb, path):
            metric.observe(latency_us)

    def _timings(self, verb: str, path: str) -> tuple[Histogram, Summary]:
        # To look a series up by its labels takes longer than to observe.
        found = self._series.get((verb, path))
        if found is None:
            found = self._series[verb, path] = (self._latencies.labels(verb, path), self._durations.labels(verb, path))
        return found

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
