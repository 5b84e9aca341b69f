"""The port itself: deadlines, health, failures, restarts, and what is not spoken here."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from typing import Any

import grpc
import pytest

from gateway.edge.server import Server
from gateway.edge.worker import Worker

CALLS = {"key": "tgk_caller", "feature": "calls"}
TOKENS = {"key": "tgk_caller", "feature": "tokens"}
OK = 1


async def test_health_is_that_of_redis(port: Any, gateway: Any, failure: Any, eventually: Any) -> None:
    """For the server and for each service; a name that nobody knows is NOT_FOUND; a stream is not spoken."""
    services = "envoy.service.auth.v3.Authorization", "envoy.service.ratelimit.v3.RateLimitService"
    assert [await port.health(name) for name in ("", *services)] == [1, 1, 1]
    assert (await failure(port.health("somebody.Else")))[0] == "NOT_FOUND"
    watch = port.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    link = gateway[0].links["decision"]
    await link.stop()
    assert await port.health() == 2


async def test_without_redis_the_call_fails_and_the_proxy_decides(port: Any, gateway: Any, failure: Any) -> None:
    """UNAVAILABLE, not a refusal: `failure_mode_allow` and `failure_mode_deny` are the operator's."""
    await gateway[0].links["decision"].stop()
    for call in (port.limit(CALLS), port.check({"feature": "calls", "quantity": "1"}, {"x-api-key": "tgk_caller"})):
        assert (await failure(call))[0] == "UNAVAILABLE"


async def test_a_key_whose_customer_is_not_ready_is_no_refusal(port: Any, world: Any, failure: Any) -> None:
    """It becomes known in a moment."""
    await world.valkey.delete(*[name async for name in world.valkey.scan_iter("*:snap:*")])
    asked = {"feature": "calls", "quantity": "1"}
    for call in (port.limit(CALLS), port.check(asked, {"x-api-key": "tgk_caller"})):
        code, text = await failure(call)
        assert (code, "not ready" in text) == ("UNAVAILABLE", True)


async def test_a_fault_of_ours_says_no_more_than_that(port: Any, gateway: Any, failure: Any) -> None:
    """It is counted and reported where faults are."""
    worker, heard = gateway[0], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    worker.gate.decide = None
    assert await failure(port.limit(CALLS)) == ("INTERNAL", "an internal fault; it has been reported")
    assert (worker.door.faults, len(heard)) == (1, 1)


async def test_the_proxys_time_out_is_the_deadline(port: Any, gateway: Any, failure: Any, world: Any) -> None:
    """With Redis standing still, a call with a tenth of a second fails by its own deadline or by ours, and soon."""
    await port.limit(CALLS)
    server = int((await world.valkey.info("server"))["process_id"])
    os.kill(server, signal.SIGSTOP)
    try:
        begun_s = time.perf_counter()
        code, _ = await failure(port.limit(CALLS, timeout=0.5))
        spent_s = time.perf_counter() - begun_s
    finally:
        os.kill(server, signal.SIGCONT)
    assert code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert spent_s < 10  # the settings say ten seconds where the proxy says nothing


async def test_what_is_compressed_or_too_large_is_refused(port: Any, failure: Any, settings: Any) -> None:
    """And the connection goes on."""
    path = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    packed = port.channel.unary_unary(path)
    code, _ = await failure(packed(b"\x0a\x80\x08" + b"a" * 1_024, compression=grpc.Compression.Gzip))
    assert code == "UNIMPLEMENTED"
    code, _ = await failure(packed(bytes(settings.max_body_bytes + 1)))
    assert code == "RESOURCE_EXHAUSTED"
    assert (await failure(packed(b"\xff\xff\xff")))[0] == "INVALID_ARGUMENT"
    assert (await port.limit(CALLS)).overall_code == OK


async def test_a_port_that_is_taken_is_told_by_its_name(settings: Any, open_gateway: Any, world: Any) -> None:
    """Before the first request."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.grpc_port))
        with pytest.raises(Exception, match=str(settings.grpc_port)) as caught:
            await open_gateway(settings)
        assert caught.value.field == "grpc_port"


async def test_workers_share_the_port_and_may_be_replaced_under_load(
    world: Any, settings: Any, opened: Any, gateway: Any
) -> None:
    """Calls go on while a second worker comes and goes: each is answered, none fails."""
    await world.grant(10**9)
    is_over, answered = asyncio.Event(), 0

    async def ask() -> None:
        nonlocal answered
        while not is_over.is_set():
            async with opened(settings.grpc_port) as fresh:
                for _ in range(20):
                    assert (await fresh.limit(TOKENS)).overall_code == OK
                    answered += 1

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for _ in range(5):
        worker = Worker(settings)
        server = Server(worker)
        await server.start()
        before = answered
        while answered < before + 200:
            await asyncio.sleep(0)
            for task in asking:
                if task.done():
                    task.result()
        await server.stop()
    is_over.set()
    await asyncio.gather(*asking)
    charged = [entry for entry in await world.entries() if any(one.feature == "tokens" for one in entry.charges)]
    assert len(charged) == answered


async def test_a_client_goes_on_after_the_server_came_back(
    world: Any, settings: Any, process: Any, opened: Any
) -> None:
    """One channel, a process that is killed, and another one in its place."""
    first = process(settings)
    async with opened(settings.grpc_port, retry_ms=200) as port:
        assert (await port.limit(CALLS, wait_for_ready=True)).overall_code == OK
        first.process.send_signal(signal.SIGKILL)
        await first.ended()
        second = process(settings)
        assert (await port.limit(CALLS, wait_for_ready=True)).statuses[0].limit_remaining == 8
        second.process.send_signal(signal.SIGTERM)
        assert (await second.ended())[0] == 0
