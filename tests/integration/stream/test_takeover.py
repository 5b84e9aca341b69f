"""A server that takes over may have less than Postgres knows: found out, repaired, and what is lost is named."""

from __future__ import annotations

import pytest

from billing_core.contract.keys import (
    ANSWERED_KEY,
    SHARD_COUNT,
    answered_key,
    customer_keys,
    shard_of_customer,
    told_key,
)
from billing_core.contract.usage_event import StreamPosition
from billing_core.errors import Conflict
from billing_core.flows.audit import audit
from billing_core.flows.reconcile import reconcile
from billing_core.store import shard as shards
from billing_core.store.shard import BatchMark, Lease
from tests.integration.stream.conftest import Works


async def takes_over(works: Works) -> None:
    """What tells one reign of a server from the next is that nobody has looked at it."""
    await works.valkey.script_flush()


async def test_a_top_up_that_vanished_without_a_trace_is_found_out(works: Works) -> None:
    """It had left no entry in the stream; the count of what the shard was told is what misses it."""
    await works.customer("c", nanos=[5])
    keys, count = customer_keys("t", "c"), told_key(shard_of_customer("t", "c"))
    old = {key: await works.valkey.dump(key) for key in (keys.wallet, count)}
    late = await works.grant("c", 7)
    await works.project()
    for key, image in old.items():
        await works.valkey.restore(key, 0, image, replace=True)
    await takes_over(works)
    built = await works.build()
    assert (built.rebuilt_shards, built.waiting_shards) == (1, 0)
    assert (await works.wallet("c"))[f"r:{late}"] == 7
    (loss,) = (await reconcile(works.db, works.stream)).losses
    assert (loss.shard, loss.missed_acts, loss.lost_ids) == (shard_of_customer("t", "c"), 1, ())
    await takes_over(works)
    assert (await works.build()).rebuilt_shards == 0  # the count was put right


async def test_a_server_that_has_everything_is_not_rebuilt(works: Works) -> None:
    """A restart from a whole log, a planned failover."""
    await works.customer("c", nanos=[10**9])
    await works.consume("c", 3)
    await works.flush()
    hold = await works.hold("c", 4)
    await takes_over(works)
    assert (await works.build()).rebuilt_shards == 0
    assert (await works.settle("c", hold, 4))[0] == b"settled"
    assert (await reconcile(works.db, works.stream)).losses == ()


async def test_a_server_that_nobody_has_looked_at_is_told_nothing(works: Works) -> None:
    """What waits is told as soon as somebody has looked."""
    await works.customer("c")
    await takes_over(works)
    grant = await works.grant("c", 7)
    assert await works.project() == 0
    assert await works.wallet("c") == {}
    await works.build()
    await works.raw.execute("UPDATE outbox SET retry_at = '-infinity'")
    assert await works.project() == 1
    assert (await works.wallet("c"))[f"r:{grant}"] == 7


async def test_who_has_read_from_the_server_before_writes_nothing_of_it(works: Works) -> None:
    """Its lanes are taken, and that they are its own again a moment later does not hide it."""
    lease = Lease(owner="f", lease_ms=60_000)
    async with works.db.transaction() as tx:
        _, lanes = await shards.lease_lanes(tx, lease)
    zero = StreamPosition(0, 0)
    ahead = BatchMark(lanes=lanes, read_from={3: zero}, written_to={3: StreamPosition(1, 1)}, drained_at=None)
    await takes_over(works)
    await works.build()
    with pytest.raises(Conflict):
        async with works.db.transaction() as tx:
            await shards.open_batch(tx, lease, mark=ahead)
    async with works.db.transaction() as tx:
        assert await shards.held_lanes(tx, lease) == []
        assert (await shards.lease_lanes(tx, lease))[1] == lanes


async def say(works: Works, customer: str, *names: str) -> None:
    """What a gateway says when a server takes over."""
    shard = shard_of_customer("t", customer)
    await works.valkey.rpush(answered_key(shard), *names)
    await works.valkey.sadd(ANSWERED_KEY, shard)


async def test_what_was_answered_and_is_nowhere_is_named(works: Works) -> None:
    """Not what is merely late; each tenant is told of its own only."""
    await works.customer("c", nanos=[10**9])
    await works.consume("c", 1, key="dec_flushed")
    await works.flush()
    await takes_over(works)
    await works.build()
    await works.consume("c", 1, key="dec_late")
    await say(works, "c", "t:dec_flushed", "t:dec_late", "t:dec_gone", "u:dec_flushed")
    assert await audit(works.db, works.redis, stream=works.stream) == 0
    await works.flush()
    assert await audit(works.db, works.redis, stream=works.stream) == 2
    (loss,) = (await reconcile(works.db, works.stream)).losses
    assert loss.lost_ids == ("t:dec_gone", "u:dec_flushed")
    (loss,) = (await reconcile(works.db, works.stream, tenant_id="t")).losses
    assert (loss.lost_ids, loss.lost_decisions) == (("t:dec_gone",), 1)
    assert await audit(works.db, works.redis, stream=works.stream) is None
    await say(works, "c", "t:dec_gone", "t:dec_late")
    assert await audit(works.db, works.redis, stream=works.stream) == 2


async def test_more_that_is_said_meanwhile_is_not_dropped(works: Works) -> None:
    """Only what was read is forgotten."""
    await works.customer("c")
    shard = shard_of_customer("t", "c")
    await say(works, "c", "t:a", "t:b")
    await works.redis.forget_answered({shard: 1})
    assert await works.redis.answered() == {shard: ["t:b"]}
    await works.redis.forget_answered({shard: 1})
    assert await works.redis.answered() == {}


async def test_every_shard_has_its_count(works: Works) -> None:
    """None where nobody was told anything."""
    assert await works.redis.told() == [0] * SHARD_COUNT
    await works.customer("c", nanos=[1])
    number, counts = shard_of_customer("t", "c"), await works.redis.told()
    assert counts.pop(number) > 0
    assert set(counts) == {0}
    async with works.db.transaction() as tx:
        assert await shards.told(tx) == {number: (await works.redis.told())[number]}
