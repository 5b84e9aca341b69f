"""A worker as a process: starts with one clear line or not at all, shares its port, stops without a torn answer."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from gateway.settings import GatewaySettings

PATIENCE_S = 30


async def until_ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.02)


async def test_a_busy_port_is_one_clear_line(settings: GatewaySettings, process: Callable[..., Any]) -> None:
    """And another status than a crash."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.port))
        taken.listen()
        status, errors = await process(settings).ended()
    assert (status, errors) == (2, f"cannot listen on 127.0.0.1:{settings.port}: Address already in use\n")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("PORT", "x", "environment: TALLYGATE_GATEWAY_PORT: Expected `int`, got `str`"),
        ("REDIS_URL", "http://x", "redis_url: must be redis://host[:port][/db] or unix:///path[?db=n]"),
        ("RUN_DIR", "/tmp/" + "x" * 100, "is too long for a unix socket"),
    ],
)
async def test_a_broken_setting_is_one_clear_line(
    settings: GatewaySettings, process: Callable[..., Any], name: str, value: str, line: str
) -> None:
    """Key and rule."""
    status, errors = await process(settings, **{f"TALLYGATE_GATEWAY_{name}": value}).ended()
    assert status == 2
    assert line in errors
    assert errors.count("\n") == 1


async def test_workers_share_a_port_and_tell_each_others_metrics(
    world: Any, settings: GatewaySettings, process: Callable[..., Any], tmp_path: Path
) -> None:
    """Whichever is scraped; one that was killed is told as down, and the others serve on."""
    url = f"http://127.0.0.1:{settings.port}"
    workers = [
        process(msgspec.structs.replace(settings, run_dir=str(tmp_path / "run"), worker_index=index))
        for index in range(2)
    ]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        seen: set[int] = set()
        async with asyncio.timeout(PATIENCE_S):
            while seen != {0, 1}:
                await until_ready(session, url)
                async with session.get(f"{url}/healthz") as response:
                    seen.add((await response.json())["worker"])
        for _ in range(40):
            body = {"key": world.key, "feature": "export"}
            async with session.post(f"{url}/v1/check", json=body) as response:
                assert (await response.json())["allowed"]
        decisions, up = await scraped(session, url)
        assert sum(decisions.values()) == 40
        assert set(decisions) <= {"0", "1"}
        assert up == {"0": 1.0, "1": 1.0}
        workers[0].process.kill()
        workers[0].process.wait()
        _, up = await scraped(session, url)
        assert up == {"0": 0.0, "1": 1.0}


async def scraped(session: aiohttp.ClientSession, url: str) -> tuple[dict[str, float], dict[str, float]]:
    """Allowed decisions by worker, and which workers are up."""
    async with session.get(f"{url}/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = {one.name: one for one in text_string_to_metric_families(await response.text())}
    decisions = families.get("tallygate_decisions")
    allowed = {
        sample.labels["worker"]: sample.value
        for sample in (decisions.samples if decisions else [])
        if sample.labels["reason"] == "allowed"
    }
    return allowed, {sample.labels["worker"]: sample.value for sample in families["tallygate_worker_up"].samples}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_that_is_told_to_stop_finishes_what_is_open(
    world: Any,
    settings: GatewaySettings,
    process: Callable[..., Any],
    how: signal.Signals,
    eventually: Any,
) -> None:
    """Every request that was taken is answered; it ends in silence, with status 0."""
    await world.grant(1_000_000)
    url = f"http://127.0.0.1:{settings.port}"
    worker = process(settings)
    body = {"key": world.key, "feature": "tokens"}
    answered = 0

    async def keep_asking(session: aiohttp.ClientSession) -> None:
        nonlocal answered
        with contextlib.suppress(aiohttp.ClientConnectorError):
            while True:
                async with session.post(f"{url}/v1/check", json=body) as response:
                    assert (await response.json())["allowed"]
                    answered += 1

    async with aiohttp.ClientSession() as session:
        await until_ready(session, url)
        askers = [asyncio.create_task(keep_asking(session)) for _ in range(8)]
        await eventually(lambda: answered >= 50)
        worker.process.send_signal(how)
        results = await asyncio.gather(*askers, return_exceptions=True)
    status, errors = await worker.ended()
    assert (status, errors) == (0, "")
    torn = [result for result in results if isinstance(result, BaseException)]
    assert len(await world.entries()) <= answered + len(torn)
    assert all(isinstance(one, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) for one in torn)


async def test_traces_and_metrics_are_sent_where_an_endpoint_is_set(
    world: Any, settings: GatewaySettings, free_port: Callable[[], int], open_gateway: Any
) -> None:
    """A span for each request, a child of the caller's; histograms of decisions."""
    traces, metrics = ExportTraceServiceRequest(), ExportMetricsServiceRequest()

    async def collect(request: web.Request) -> web.Response:
        raw = await request.read()
        raw = gzip.decompress(raw) if request.headers.get("Content-Encoding") == "gzip" else raw
        (traces if request.path.endswith("traces") else metrics).MergeFromString(raw)
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/{signal}", collect)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    telling = msgspec.structs.replace(settings, otlp_endpoint=f"http://127.0.0.1:{port}")
    worker, call = await open_gateway(telling)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await call("/v1/check", {"key": world.key, "feature": "export"}, headers={"traceparent": parent})
    await asyncio.to_thread(worker.telemetry.stop)
    (span,) = [span for one in traces.resource_spans for scope in one.scope_spans for span in scope.spans]
    assert (span.name, span.parent_span_id.hex()) == ("/v1/check", "b7ad6b7169203331")
    names = {
        metric.name for one in metrics.resource_metrics for scope in one.scope_metrics for metric in scope.metrics
    }
    assert {"tallygate_decision_seconds", "tallygate_decisions"} <= names
    await runner.cleanup()
