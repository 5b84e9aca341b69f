"""Pages of several workers, merged."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from billing_core.contract.telemetry import Telemetry, TelemetrySettings
from gateway.edge.scrape.exposition import merge

PAGE = """# HELP a_total A.
# TYPE a_total counter
a_total{kind="x"} 1.0
# HELP b B.
# TYPE b gauge
b 2.0
"""


def test_every_series_says_whose_it_is_and_a_family_stands_together() -> None:
    """Help and type are told once."""
    assert merge({"0": PAGE, "1": PAGE.replace("1.0", "5.0")}).splitlines() == [
        "# HELP a_total A.",
        "# TYPE a_total counter",
        'a_total{worker="0",kind="x"} 1.0',
        'a_total{worker="1",kind="x"} 5.0',
        "# HELP b B.",
        "# TYPE b gauge",
        'b{worker="0"} 2.0',
        'b{worker="1"} 2.0',
    ]


def test_a_family_that_only_one_worker_has_is_told() -> None:
    """A worker that has seen more tells more."""
    more = PAGE + "# HELP c C.\n# TYPE c gauge\nc 1.0\n"
    assert 'c{worker="1"} 1.0' in merge({"0": PAGE, "1": more})


def test_the_page_of_a_real_process_is_merged_into_one_that_parses() -> None:
    """Histograms and all."""
    telemetry = Telemetry(TelemetrySettings(service="test"))
    latency = telemetry.distribution("t_seconds", "Latency.", label="reason")
    latency.record("allowed", 0.002)
    telemetry.counter("t_things", "Things.", read=lambda: {"a": 3}, label="kind")
    page = telemetry.exposition().decode()
    telemetry.stop()
    families = {family.name: family for family in text_string_to_metric_families(merge({"0": page, "1": page}))}
    assert {sample.labels["worker"] for sample in families["t_seconds"].samples} == {"0", "1"}
    assert [sample.value for sample in families["t_things"].samples] == [3.0, 3.0]


def test_no_page_is_an_empty_page() -> None:
    """Nothing to tell."""
    assert merge({}) == ""
