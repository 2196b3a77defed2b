"""Metrics as Prometheus text, with those of process and interpreter (section 6.2)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.registry import Collector

from podid_agent.metrics import Metrics
from podid_agent.series import Distribution, Family, Series

__all__ = ["Exposition"]

# prometheus_client appends _total to every counter; these are known without it (AGT-620).
_PLAIN = re.compile(
    rb"^((?:# (?:HELP|TYPE) )?pod_identity_(?:http_response|cache_state|cache_errors|local_validation))"
    rb"_total(?=[ {])",
    re.MULTILINE,
)


class Exposition:
    """Shows the metrics of one agent."""

    def __init__(self, metrics: Metrics) -> None:
        """Show ``metrics`` after those that prometheus_client collects itself."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_AgentCollector(metrics))

    def text(self) -> bytes:
        """Return Prometheus text, with the counters of upstream's table under their plain names."""
        return _PLAIN.sub(rb"\1", generate_latest(self._registry))


class _AgentCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from map(_numbers, self._metrics.numbers)
        yield from map(_histogram, self._metrics.histograms)


def _numbers(family: Family[Series]) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.meaning, labels=family.label_names)
    for values, series in family.series.items():
        metric.add_metric(values, series.value)
    return metric


def _histogram(family: Family[Distribution]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.meaning, labels=family.label_names)
    for values, distribution in family.series.items():
        bounds = [*map(str, distribution.bounds), "+Inf"]
        buckets = list(zip(bounds, itertools.accumulate(distribution.counts), strict=True))
        metric.add_metric(values, buckets, distribution.sum)
    return metric
