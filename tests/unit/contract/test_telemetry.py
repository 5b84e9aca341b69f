"""Telemetry: counted cheaply, read as Prometheus text, sent as OTLP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, MetricExporter, MetricsData

from billing_core.contract import telemetry
from billing_core.contract.telemetry import Distribution, Telemetry, TelemetrySettings


def test_without_an_endpoint_there_is_no_tracer() -> None:
    """So no request pays for a span."""
    silent = Telemetry(TelemetrySettings(service="test"))
    assert silent.tracer is None
    silent.stop()


def test_a_distribution_counts_inclusive_upper_bounds() -> None:
    """What is above the last one falls into the open bucket."""
    one = Distribution("x", "X.", label="kind", bounds=(1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        one.record("a", value)
    assert one.counts == {"a": [2, 1, 1]}
    assert one.totals() == {"a": 4}
    assert one.sums == {"a": 12.0}


def test_numbers_are_read_when_somebody_collects() -> None:
    """Not when they change."""
    counted = {"a": 1}
    one = Telemetry(TelemetrySettings(service="test"))
    one.counter("t_things", "Things.", read=lambda: counted, label="kind")
    one.gauge("t_now", "Now.", read=lambda: {"": 7})
    counted["a"] = 5
    page = one.exposition().decode()
    one.stop()
    assert 't_things_total{kind="a"} 5.0' in page
    assert "t_now 7.0" in page


class Kept(MetricExporter):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, *_: object, **__: object) -> None:  # type: ignore[override]

        self.sent.append(metrics_data)

    def force_flush(self, *_: object) -> bool:
        return True

    def shutdown(self, *_: object, **__: object) -> None:
        pass


def histograms(data: MetricsData) -> Sequence[Histogram]:
    return [
        metric.data
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if isinstance(metric.data, Histogram)
    ]


def test_distributions_travel_with_what_the_sdk_collects() -> None:
    """As histograms of the same bounds."""
    one = Distribution("x", "X.", label="kind", bounds=(1.0, 2.0))
    one.record("a", 1.5)
    kept = Kept()
    sender = telemetry._Sender(kept, [one], clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    reader = InMemoryMetricReader()
    provider = telemetry.MeterProvider(metric_readers=[reader])
    provider.get_meter("m").create_counter("c").add(1)
    data = reader.get_metrics_data()
    assert data is not None
    sender.export(data)
    point = histograms(kept.sent[0])[0].data_points[0]
    assert (list(point.bucket_counts), list(point.explicit_bounds), point.count, point.sum) == (
        [0, 1, 0],
        [1.0, 2.0],
        1,
        1.5,
    )
    provider.shutdown()
