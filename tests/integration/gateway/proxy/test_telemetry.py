"""What the proxy tells of itself: spans where somebody collects them, and how holds have ended."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.edge.worker import Worker
from tests.integration.gateway.proxy.test_pass import bearer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def route(**more: Any) -> dict[str, Any]:
    charge = {"feature": "tokens", "quantity": {"units": 20}, "settle": {"units": 3}}
    return {"name": "chat", "path": "/v1/{rest...}", "charges": [charge]} | more


@pytest.fixture
def collected() -> Any:
    """Spans of a worker, as they end."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def of(worker: Worker) -> InMemorySpanExporter:
        worker.door._tracer = provider.get_tracer("test")
        return exporter

    return of


@pytest.mark.parametrize("name", ["traceparent", "TraceParent"])
async def test_a_proxied_request_is_a_span_between_the_callers_and_the_upstreams(
    proxied: Any, origin: Any, line: Any, world: Any, eventually: Any, collected: Any, name: str
) -> None:
    """The decision is a part of it."""
    await world.grant(10_000)
    spans = collected(await proxied(route()))
    client = await line()
    await client.get("/v1/x", bearer(world), f"{name}: 00-{TRACE}-{PARENT}-01", "tracestate: a=b")
    assert (await client.response()).status == 200
    await eventually(lambda: len(spans.get_finished_spans()) == 2)
    step, span = spans.get_finished_spans()
    assert (span.name, span.parent.span_id) == ("GET /v1/{rest...}", int(PARENT, 16))
    assert (step.name, step.parent.span_id) == ("decision", span.context.span_id)
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.route": "/v1/{rest...}",
        "tallygate.route": "chat",
        "tallygate.ending": "whole",
        "http.response.status_code": 200,
    }
    told = origin.asked[0].fields
    assert told["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert origin.asked[0].head.lower().count("traceparent") == 1
    assert told["tracestate"] == "a=b"


@pytest.mark.parametrize(("path", "status"), [("/other", 404), ("/v1/x", 402)])
async def test_what_is_not_passed_on_is_a_span_too(
    proxied: Any, line: Any, world: Any, eventually: Any, collected: Any, path: str, status: int
) -> None:
    """With the answer's status."""
    spans = collected(await proxied(route()))
    client = await line()
    await client.get(path, bearer(world))
    assert (await client.response()).status == status
    await eventually(lambda: spans.get_finished_spans() and spans.get_finished_spans()[-1].name != "decision")
    assert spans.get_finished_spans()[-1].attributes["http.response.status_code"] == status


async def test_nobody_collects_and_the_callers_span_is_the_upstreams_parent(
    proxied: Any, origin: Any, line: Any, world: Any
) -> None:
    """It passes as it is."""
    await world.grant(10_000)
    await proxied(route())
    client = await line()
    await client.get("/v1/x", bearer(world), f"traceparent: 00-{TRACE}-{PARENT}-01")
    assert (await client.response()).status == 200
    assert origin.asked[0].fields["traceparent"] == f"00-{TRACE}-{PARENT}-01"


async def test_how_holds_end_is_counted(proxied: Any, origin: Any, line: Any, world: Any) -> None:
    """One settled, one released."""
    await world.grant(10_000)
    worker = await proxied(route())
    client = await line()
    for status in (b"200 OK", b"500 No"):
        origin.says(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        await client.get("/v1/x", bearer(world))
        await client.response()
    await client.get("/v1/x", bearer(world))  # the one before is settled when this one is answered
    await client.response()
    told = worker.telemetry.exposition().decode()
    for one in ('end="settled"} 1.0', 'end="dropped"} 0.0', 'end="failed"} 0.0'):
        assert "tallygate_settlements_total{" + one in told
    assert 'tallygate_settlements_total{end="released"} ' in told
    assert worker.settlements.released >= 1
