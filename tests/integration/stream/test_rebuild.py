"""Redis may lose everything; Postgres makes it anew, and the next decision finds what it would have found."""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from redis.exceptions import ResponseError

from billing_core.adapters.shard_image import ShardImages, ShardOpening
from billing_core.contract.keys import (
    DIRECTORY_KEY,
    SHARD_COUNT,
    KeyRecord,
    api_key_name,
    customer_keys,
    epoch_key,
    meters_key,
    shard_of_customer,
    stream_key,
)
from billing_core.contract.usage_event import StreamPosition
from billing_core.flows.reconcile import reconcile
from billing_core.values.clock import system_now, to_ms
from billing_core.wallets.grant import GrantKind
from tests.integration.stream.conftest import LONG_AGO, NANOS_PER_TOKEN, Works


async def test_empty_shards_are_opened_at_once_and_not_rebuilt(works: Works) -> None:
    """A first start is no rebuild."""
    await works.valkey.flushall()
    built = await works.build()
    assert built.opened_shards == SHARD_COUNT
    assert built.rebuilt_shards == built.waiting_shards == 0
    assert (await works.build()).opened_shards == 0


async def state(works: Works, customer: str) -> dict[str, Any]:
    """What decides of a customer: not the snapshot's version, nor units that have neither limit nor price."""
    snapshot = await works.valkey.hgetall(customer_keys("t", customer).snapshot)
    snapshot.pop(b"v")
    counters = await works.counters(customer)
    asked_for = {name: value for name, value in counters.items() if not name.startswith("input_tokens:")}
    return {"snapshot": snapshot, "wallet": await works.wallet(customer), "counters": asked_for}


async def test_what_was_there_is_there_again(works: Works) -> None:
    """Wallets, limits and prices of many customers, to the unit; a hold that was open is released."""
    names = [f"c{number}" for number in range(30)]
    for number, name in enumerate(names):
        await works.customer(name, nanos=[10**6, 10**9])
        await works.grant(name, 777, priority=number % 3)
        await works.project()
        await works.consume(name, 100 + number)
        await works.consume(name, 3, feature="requests")
        await works.consume(name, number, feature="output_tokens")
    await works.flush()
    before = {name: await state(works, name) for name in names}
    await works.hold("c7", 50)
    await works.valkey.flushall()
    assert (await works.build()).rebuilt_shards == len({shard_of_customer("t", name) for name in names})
    assert {name: await state(works, name) for name in names} == before
    assert (await works.consume("c7", 1))[0] == "allowed"
    await works.flush()
    report = await reconcile(works.db, works.stream)
    assert report.findings == ()
    assert report.grants == 90


async def test_no_new_entry_gets_an_id_that_is_flushed_already(works: Works) -> None:
    """Even if the clock of the new Redis is behind."""
    await works.customer("c", nanos=[10**9])
    stream = stream_key(shard_of_customer("t", "c"))
    ahead = to_ms(system_now()) + 3_600_000
    await works.consume("c", 1)
    ((_, fields),) = await works.valkey.xrange(stream)
    await works.valkey.execute_command("XADD", stream, f"{ahead}-7", *fields)
    await works.flush()
    await works.valkey.flushall()
    await works.build()
    await works.consume("c", 1)
    ((stream_id, _),) = await works.valkey.xrange(stream)
    assert stream_id == f"{ahead}-8".encode()
    await works.flush()
    assert await works.count("usage_event") == 3


async def test_what_the_stream_still_holds_is_written_before_the_shard_is_served_again(works: Works) -> None:
    """An epoch is lost and the stream is not: its entries count."""
    (grant,) = await works.customer("c", nanos=[10**9])
    await works.consume("c", 8)
    await works.valkey.delete(epoch_key(shard_of_customer("t", "c")))
    async with works.flusher():
        assert (await works.build()).rebuilt_shards == 1
    assert (await works.wallet("c"))[f"r:{grant}"] == 10**9 - 8 * NANOS_PER_TOKEN
    assert await works.raw.fetchval("SELECT max(epoch) FROM shard") == 2
    assert await works.valkey.get(epoch_key(shard_of_customer("t", "c"))) == b"2"


async def test_an_old_copy_of_redis_is_found_out(works: Works) -> None:
    """Its epochs stand, but its streams end before what is written."""
    (grant,) = await works.customer("c", nanos=[10**9])
    keys = customer_keys("t", "c")
    old = {key: await works.valkey.dump(key) for key in (keys.wallet, keys.snapshot, keys.epoch)}
    await works.consume("c", 8)
    await works.flush()
    await works.valkey.delete(keys.stream, keys.counters)
    for key, image in old.items():
        await works.valkey.restore(key, 0, image, replace=True)
    assert (await works.wallet("c"))[f"r:{grant}"] == 10**9
    works.builder._seen_run_id = "another process"
    assert (await works.build()).rebuilt_shards == 1
    assert (await works.wallet("c"))[f"r:{grant}"] == 10**9 - 8 * NANOS_PER_TOKEN


async def test_a_builder_that_was_replaced_writes_nothing(works: Works) -> None:
    """The token in Redis is another's, or the shard is open already."""
    (grant,) = await works.customer("c", nanos=[10**9])
    shard = shard_of_customer("t", "c")
    late = ShardImages(works.valkey, token="late")
    await late.fence([shard])
    async with works.flusher():
        assert (await works.build()).rebuilt_shards == 1
    await works.consume("c", 1)
    before = await state(works, "c")
    customers = await works.builder._read([shard])
    assert not await late.write(shard, customers[shard])
    zero = StreamPosition(0, 0)
    assert not await late.open(ShardOpening(shard=shard, epoch=9, watermark=zero, last=zero))
    assert await state(works, "c") == before
    assert (await works.wallet("c"))[f"r:{grant}"] == 10**9 - NANOS_PER_TOKEN


async def test_two_builders_do_not_build_at_once(works: Works) -> None:
    """The second only counts what waits."""
    await works.valkey.flushall()
    first, second = await asyncio.gather(works.build(), works.build())
    assert sorted([first.opened_shards, second.opened_shards]) == [0, SHARD_COUNT]


async def test_a_grant_that_was_told_but_not_noted_is_not_given_twice(works: Works) -> None:
    """The relay died after Redis, all of it was spent and flushed, and then Redis was lost."""
    (grant,) = await works.customer("c", nanos=[NANOS_PER_TOKEN])
    await works.raw.execute("UPDATE credit_grant SET applied_at = NULL")
    await works.raw.execute(
        "INSERT INTO outbox (kind, tenant_id, customer_id, subject) VALUES ('grant', 't', 'c', $1)", grant
    )
    await works.consume("c", 1)
    await works.flush()
    assert await works.raw.fetchval("SELECT ended_at IS NOT NULL FROM credit_grant")
    await works.valkey.flushall()
    await works.build()
    await works.project()
    assert (await works.consume("c", 1))[0] == "insufficient_balance"


async def test_a_grant_that_was_used_up_is_not_given_again_by_a_late_row(works: Works) -> None:
    """A rebuild leaves it out of the wallet, so the wallet alone would not know it."""
    (grant,) = await works.customer("c", nanos=[NANOS_PER_TOKEN])
    await works.consume("c", 1)
    await works.flush()
    await works.valkey.flushall()
    await works.build()
    assert f"r:{grant}" not in await works.wallet("c")
    await works.raw.execute(
        "INSERT INTO outbox (kind, tenant_id, customer_id, subject) VALUES ('grant', 't', 'c', $1)", grant
    )
    await works.project()
    assert (await works.consume("c", 1))[0] == "insufficient_balance"


async def test_credentials_and_meters_come_back_too(works: Works) -> None:
    """They belong to no shard and have a mark of their own."""
    await works.customer("c")
    await works.raw.execute(
        "INSERT INTO api_key VALUES ('d1', 'key_1', 't', 'c', '', 'ab12', '{}', $1, NULL)", LONG_AGO
    )
    await works.raw.execute(
        "INSERT INTO api_key VALUES ('d2', 'key_2', 't', 'c', '', 'ab12', '{}', $1, $1)", LONG_AGO
    )
    await works.raw.execute("INSERT INTO meter VALUES ('t', 'm', 'ping', 'count', '', 0, '{}', $1)", LONG_AGO)
    await works.valkey.flushall()
    await works.build()
    record = msgspec.msgpack.decode(await works.valkey.get(api_key_name("d1")), type=KeyRecord)
    assert record.customer_id == "c"
    assert await works.valkey.get(api_key_name("d2")) is None
    assert msgspec.msgpack.decode(await works.valkey.get(meters_key("t"))) == {"ping": {}}
    assert await works.valkey.exists(DIRECTORY_KEY)


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_rebuild_while_decisions_and_a_flusher_go_on_loses_nothing(works: Works, shards: int) -> None:
    """Decisions of a fenced shard are refused as unavailable; every one that was allowed is counted."""
    names = [f"c{number}" for number in range(10)]
    for name in names:
        await works.customer(name, nanos=[10**9])
    allowed = 0
    stop = asyncio.Event()

    async def decide() -> None:
        nonlocal allowed
        number = 0
        while not stop.is_set():
            number += 1
            with contextlib.suppress(ResponseError):  # UNAVAILABLE epoch
                allowed += (await works.consume(names[number % 10], 1))[0] == "allowed"

    async with works.flusher():
        deciding = asyncio.create_task(decide())
        for _ in range(3):
            await works.valkey.delete(*[epoch_key(shard_of_customer("t", name)) for name in names[:shards]])
            while (await works.build()).waiting_shards:
                pass
        stop.set()
        await deciding
    await works.flush()
    assert allowed > 0
    assert await works.count("usage_event") == allowed
    assert (await reconcile(works.db, works.stream)).findings == ()


async def test_a_rebuilt_wallet_burns_in_the_order_that_the_scripts_would_have_made(works: Works) -> None:
    """Two hundred grants of all kinds, applied one by one, and the array that a rebuild writes at once."""
    chance = random.Random(3)
    now = system_now()
    await works.customer("c")
    for _ in range(200):
        effective_at = now - timedelta(hours=chance.randrange(3))
        expires_at = chance.choice([None, now + timedelta(days=chance.randrange(1, 3))])
        kind = chance.choice(list(GrantKind))
        priority = chance.randrange(3)
        await works.grant("c", 5, kind=kind, priority=priority, effective_at=effective_at, expires_at=expires_at)
    await works.project()
    before = msgspec.msgpack.decode((await works.wallet("c"))["o:USD"])
    await works.valkey.flushall()
    await works.build()
    assert msgspec.msgpack.decode((await works.wallet("c"))["o:USD"]) == before
    assert len(before) == 200
