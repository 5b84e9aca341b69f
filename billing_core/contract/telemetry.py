"""Telemetry: OpenTelemetry's SDK, wired once per process, and cheap where requests pass.

Metrics always exist and are read as Prometheus text; an exporter (OTLP over HTTP) is added where an endpoint is
set, and only then is there a tracer at all, so that a request without an exporter pays for no span.

The request path counts in plain integers. They are read by observable instruments when somebody collects; a
`Distribution` is a histogram of the same kind, which the SDK has no observable instrument for: recording costs one
bisection here and five microseconds there.

Source: OpenTelemetry metrics data model, "Histogram"; Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import msgspec
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from billing_core.values.clock import EPOCH, Clock, system_now

SCOPE = "tallygate"
EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BOUNDS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip

Read = Callable[[], Mapping[str, int]]
"""Label value -> number; the empty label value is an unlabelled series."""


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who reports, and to whom. `otlp_endpoint` is a base URL such as `http://127.0.0.1:4318`; empty: nobody."""

    service: str
    instance: str = "0"
    otlp_endpoint: str = ""


class Distribution:
    """A histogram with one label. `bounds` ascend and are inclusive; what is above falls into the open bucket."""

    def __init__(self, name: str, description: str, *, label: str, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.description = description
        self.label = label
        self.bounds = bounds
        self.counts: dict[str, list[int]] = {}
        self.sums: dict[str, float] = {}

    def record(self, label_value: str, value: float) -> None:
        """Count one value."""
        counts = self.counts.get(label_value)
        if counts is None:
            counts = self.counts[label_value] = [0] * (len(self.bounds) + 1)
            self.sums[label_value] = 0.0
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[label_value] += value

    def totals(self) -> dict[str, int]:
        """How many values were counted, by label value."""
        return {label_value: sum(counts) for label_value, counts in self.counts.items()}


class Telemetry:
    """One process's instruments. `tracer` is None where nobody collects spans."""

    def __init__(self, settings: TelemetrySettings, clock: Clock = system_now) -> None:
        resource = Resource.create({"service.name": settings.service, "service.instance.id": settings.instance})
        self._distributions: list[Distribution] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Page(self._distributions))
        readers: list[MetricReader] = [
            PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        ]
        self._spans: TracerProvider | None = None
        self.tracer: Tracer | None = None
        if settings.otlp_endpoint:
            url = settings.otlp_endpoint.rstrip("/")
            sender = _Sender(OTLPMetricExporter(endpoint=f"{url}/v1/metrics"), self._distributions, clock=clock)
            readers.append(PeriodicExportingMetricReader(sender))
            self._spans = TracerProvider(resource=resource)
            self._spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")))
            self.tracer = self._spans.get_tracer(SCOPE)
        self._metrics = MeterProvider(metric_readers=readers, resource=resource)
        self._meter = self._metrics.get_meter(SCOPE)
        self._stopped = False

    def distribution(
        self, name: str, description: str, *, label: str, bounds: tuple[float, ...] = LATENCY_BOUNDS_S
    ) -> Distribution:
        """A new histogram, such as `tallygate_decision_seconds` by `reason`."""
        made = Distribution(name, description, label=label, bounds=bounds)
        self._distributions.append(made)
        return made

    def counter(self, name: str, description: str, *, read: Read, label: str = "") -> None:
        """A number that only grows, read when somebody collects."""
        self._meter.create_observable_counter(name, [_callback(read, label)], description=description)

    def gauge(self, name: str, description: str, *, read: Read, label: str = "") -> None:
        """A number that goes up and down, read when somebody collects."""
        self._meter.create_observable_gauge(name, [_callback(read, label)], description=description)

    def exposition(self) -> bytes:
        """Everything as Prometheus text."""
        return generate_latest(self._registry)

    def stop(self) -> None:
        """Send what is left and end the exporters' threads; once, however often it is called."""
        if self._stopped:
            return
        self._stopped = True
        self._metrics.shutdown()
        if self._spans is not None:
            self._spans.shutdown()


def _callback(read: Read, label: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterator[Observation]:
        for value, number in read().items():
            yield Observation(number, {label: value} if label and value else {})

    return observe


class _Page(Collector):
    """The distributions, as Prometheus reads them."""

    def __init__(self, distributions: list[Distribution]) -> None:
        self._distributions = distributions

    def collect(self) -> Iterator[HistogramMetricFamily]:
        for one in self._distributions:
            family = HistogramMetricFamily(one.name, one.description, labels=[one.label])
            bounds = [*map(str, one.bounds), "+Inf"]
            for value, counts in one.counts.items():
                buckets = list(zip(bounds, accumulate(counts), strict=True))
                family.add_metric([value], buckets, one.sums[value])  # pyright: ignore[reportArgumentType] - numbers are shown as such
            yield family


class _Sender(MetricExporter):
    """An exporter that adds the distributions to what the SDK collected."""

    def __init__(self, inner: MetricExporter, distributions: list[Distribution], *, clock: Clock) -> None:
        super().__init__()
        self._inner = inner
        self._distributions = distributions
        self._clock = clock
        self._start_ns = self._now_ns()

    def _now_ns(self) -> int:
        return int((self._clock() - EPOCH).total_seconds() * 1_000_000) * 1_000

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        now_ns = self._now_ns()
        ours = ScopeMetrics(
            scope=InstrumentationScope(f"{SCOPE}.distribution"),  # of two scopes of one name only one is sent
            metrics=[self._metric(one, now_ns) for one in self._distributions if one.counts],
            schema_url="",
        )
        resources = [
            ResourceMetrics(
                resource=one.resource, scope_metrics=[*one.scope_metrics, ours], schema_url=one.schema_url
            )
            for one in metrics_data.resource_metrics
        ]
        return self._inner.export(MetricsData(resource_metrics=resources), timeout_millis, **kwargs)

    def _metric(self, one: Distribution, now_ns: int) -> Metric:
        points = [
            HistogramDataPoint(
                attributes={one.label: value},
                start_time_unix_nano=self._start_ns,
                time_unix_nano=now_ns,
                count=sum(counts),
                sum=one.sums[value],
                bucket_counts=list(counts),
                explicit_bounds=one.bounds,
                min=0.0,
                max=0.0,
            )
            for value, counts in one.counts.items()
        ]
        data = Histogram(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
        return Metric(name=one.name, description=one.description, unit="s", data=data)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._inner.shutdown(timeout_millis, **kwargs)
