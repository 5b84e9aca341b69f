"""The access log service, told by the official client: what cannot be settled, what must wait, what is not lost."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import msgspec
import pytest

from tests.integration.gateway.grpc.conftest import logged

KEY = {"x-api-key": "tgk_caller"}
HOLD = {"feature": "tokens", "quantity": "1000", "mode": "hold", "ttl_ms": "600000", "settle": "response_bytes"}


@pytest.fixture
def settings(settings: Any) -> Any:
    """Whoever settles gives up soon, and tries again."""
    return msgspec.structs.replace(settings, bulk_deadline_ms=300)


@pytest.fixture
async def held(port: Any, world: Any) -> Any:
    """Places so many holds; what is told of each."""
    await world.grant(10**10)

    async def place(count: int, **words: str) -> list[dict[str, str]]:
        told = await asyncio.gather(*(port.check(HOLD | words, KEY) for _ in range(count)))
        return [{name: one.dynamic_metadata[name] for name in ("hold", "settle")} for one in told]

    return place


async def quantities(world: Any) -> list[int]:
    return sorted([charge.quantity for entry in await world.entries() for charge in entry.charges])


async def test_each_entry_ends_its_hold_and_the_end_is_answered(
    port: Any, world: Any, held: Any, gateway: Any
) -> None:
    """Several messages in flight, settled all by the time of the answer."""
    stream = port.log()
    for number, told in enumerate(await held(50), 1):
        await stream.write(logged({"told": told, "size": number}))
    await stream.done_writing()
    assert await stream == b""
    await gateway[0].access_log.stop(30)
    assert await quantities(world) == list(range(1, 51))
    assert gateway[0].access_log.read() == {"settled": 50}


async def test_what_cannot_be_settled_is_counted_and_the_stream_goes_on(
    port: Any, world: Any, held: Any, gateway: Any, call: Any
) -> None:
    """No hold, a hold that nobody knows or that has ended otherwise, terms that say nothing, and noise."""
    first, gone, twice, other = await held(4)
    await call(f"/v1/holds/{gone['hold']}/release")
    unknown = first | {"hold": "hold_" + "0" * 32}
    stream = port.log()
    await stream.write(logged({"told": {"x": "y"}}, {"told": gone, "size": 1}, {"told": unknown, "size": 1}))
    await stream.write(logged({"told": other | {"settle": "nonsense"}}, {"told": other | {"settle": ""}}))
    await stream.write(logged({"told": twice, "size": 7}))
    await stream.done_writing()
    await stream
    await gateway[0].access_log.stop(30)
    again = port.channel.stream_unary("/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs")()
    await again.write(b"\xff\xff\xff")
    await again.write(logged({"told": twice, "size": 7}, {"told": twice, "size": 8}).SerializeToString())
    await again.write(logged({"told": first, "size": 9}).SerializeToString())
    await again.done_writing()
    assert await again == b""
    await gateway[0].access_log.stop(30)
    assert await quantities(world) == [7, 9]
    counted = {"skipped": 2, "gone": 3, "unread": 2, "settled": 3}
    assert gateway[0].access_log.read() == counted
    _, text, _ = await call("/metrics", method="GET")
    for outcome, count in counted.items():
        (line,) = [line for line in text.decode().splitlines() if f'outcome="{outcome}"' in line]
        assert line.startswith("tallygate_access_log_total{")
        assert float(line.split()[-1]) == count


async def test_while_redis_is_away_settlements_wait_and_are_sent_again(
    port: Any, world: Any, held: Any, gateway: Any, eventually: Any
) -> None:
    """Also releases, and those of a stream that is long gone; each is made once."""
    log, settlements = gateway[0].access_log, gateway[0].settlements
    told = await held(60)
    await world.valkey.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
    stream = port.log()
    for number, one in enumerate(told):
        await stream.write(logged({"told": one, "size": 5, "status": 503 if number % 3 else 200, "is_lost": True}))
    await stream.done_writing()
    await stream
    await eventually(lambda: log.read().get("waiting") == 60)
    assert settlements.waiting_count > 0
    await world.valkey.execute_command("CLIENT", "UNPAUSE")
    await eventually(lambda: not settlements.waiting_count)
    assert await quantities(world) == [5] * 20
    assert (settlements.settled, settlements.released, settlements.dropped) == (20, 40, 0)


async def test_a_flood_holds_up_no_decision_and_fills_no_memory(
    port: Any, world: Any, held: Any, gateway: Any, opened: Any, settings: Any, eventually: Any
) -> None:
    """While Redis stands still no more than a stream's room is taken in; then all is settled."""
    log = gateway[0].access_log
    told = await held(400)
    padding = {"told": {"x": "y" * 60_000}}
    async with opened(settings.grpc_port) as other:
        await world.valkey.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
        stream = other.log()

        async def flood() -> None:
            for one in told:
                await stream.write(logged({"told": one, "size": 3}, padding))
            await stream.done_writing()

        flooding = asyncio.create_task(flood())
        while log.read().get("waiting", 0) < 32:
            assert log._waiting_bytes < 2**20 + 2_000
            assert await port.health() == 1
        assert not flooding.done()
        await world.valkey.execute_command("CLIENT", "UNPAUSE")
        while not flooding.done():
            assert log._waiting_bytes < 2**20 + 2_000
            assert (await port.check({"feature": "tokens", "quantity": "1", "mode": "peek"}, KEY)).status.code == 0
        await flooding
        await stream
    await gateway[0].access_log.stop(30)
    await eventually(lambda: not gateway[0].settlements.waiting_count)
    assert await quantities(world) == [3] * 400


async def test_what_was_received_is_settled_though_the_stream_breaks_off(
    port: Any, world: Any, held: Any, gateway: Any, opened: Any, settings: Any, eventually: Any
) -> None:
    """A client that goes without a word."""
    told = await held(30)
    async with opened(settings.grpc_port) as other:
        stream = other.log()
        await stream.write(logged(*({"told": one, "size": 2} for one in told)))
        await eventually(gateway[0].access_log.read)
        stream.cancel()
    await eventually(lambda: gateway[0].access_log.read() == {"settled": 30})
    assert await quantities(world) == [2] * 30


async def test_terms_that_contradict_themselves_let_nobody_through(port: Any, failure: Any, unchanged: Any) -> None:
    """The call fails, as with other mistakes of the configuration."""
    for words, field in (
        ({"settle": "tokens"}, "settle"),
        ({"free": "9"}, "free"),
        ({"on_disconnect": "never"}, "on_disconnect"),
    ):
        async with unchanged():
            code, text = await failure(port.check(HOLD | words, KEY))
        assert (code, text.split(":")[0]) == ("INVALID_ARGUMENT", field)
    async with unchanged():
        consuming = {"feature": "tokens", "quantity": "1", "settle": "held"}
        assert (await failure(port.check(consuming, KEY)))[1].startswith("settle: ")


async def test_no_more_streams_than_eight_on_a_connection(port: Any, gateway: Any, eventually: Any) -> None:
    """An Envoy has one for each log and worker; others are told so, and the connection goes on."""
    log = gateway[0].access_log
    streams = [port.log() for _ in range(8)]
    for stream in streams:
        await stream.write(logged({"told": {"x": "y"}}))
    await eventually(lambda: log.read() == {"skipped": 8})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await port.log()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await port.health() == 1
    for stream in streams:
        await stream.done_writing()
        assert await stream == b""
