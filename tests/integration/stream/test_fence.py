"""What a rebuild leaves behind of the shard before it: no hold, and no entry that is not written."""

from __future__ import annotations

import pytest

from billing_core.contract.keys import (
    SHARD_COUNT,
    customer_keys,
    epoch_key,
    hold_key,
    shard_holds_key,
    shard_of_customer,
    stream_key,
)
from billing_core.contract.usage_event import StreamPosition
from billing_core.flows import rebuild
from billing_core.flows.money.grant import void
from billing_core.flows.reconcile import reconcile
from billing_core.values.clock import system_now, to_ms
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works


async def test_a_hold_of_before_the_rebuild_is_nowhere(works: Works) -> None:
    """It was released: whoever settles it finds nothing, and gives nothing back a second time."""
    (grant,) = await works.customer("c", nanos=[10**9])
    hold = await works.hold("c", 4)
    shard, names = shard_of_customer("t", "c"), customer_keys("t", "c")
    await works.valkey.delete(epoch_key(shard))
    assert (await works.build()).rebuilt_shards == 1
    left = (shard_holds_key(shard), hold_key(hold, shard), names.holds)
    assert await works.valkey.exists(*left) == 0
    assert (await works.settle("c", hold, 3))[0] == b"not_found"
    wallet = await works.wallet("c")
    assert (wallet[f"r:{grant}"], wallet[f"h:{grant}"]) == (10**9, 0)
    assert (await reconcile(works.db, works.stream)).difference_nanos == 0


async def test_a_shard_is_not_served_before_its_stream_is_written(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was decided in between would be there twice: as balance, and as an entry still to come."""
    monkeypatch.setattr(rebuild, "_DRAIN_WAIT_S", 0.2)
    (grant,) = await works.customer("c", nanos=[10**9])
    await works.consume("c", 3)
    await works.valkey.delete(epoch_key(shard_of_customer("t", "c")))
    built = await works.build()
    assert (built.rebuilt_shards, built.waiting_shards) == (0, 1)
    await works.flush()
    assert (await works.build()).rebuilt_shards == 1
    assert (await works.wallet("c"))[f"r:{grant}"] == 10**9 - 3 * NANOS_PER_TOKEN


async def test_a_grant_that_is_void_is_not_spendable_after_a_rebuild(works: Works) -> None:
    """Nobody had taken it out of the wallet yet, and now there is a wallet that never knew it as good."""
    (grant,) = await works.customer("c", nanos=[10**9])
    async with works.db.transaction() as tx:
        await void(tx, tenant_id="t", grant_id=grant, now=system_now())
    await works.valkey.delete(epoch_key(shard_of_customer("t", "c")))
    assert (await works.build()).rebuilt_shards == 1
    assert (await works.consume("c", 1))[0] == "insufficient_balance"
    await works.project()
    await works.flush()
    row = await works.raw.fetchrow("SELECT spent_nanos, lapsed_nanos FROM credit_grant WHERE grant_id = $1", grant)
    assert tuple(row) == (0, 10**9)


async def test_a_shard_of_events_alone_is_not_taken_for_a_new_one(works: Works) -> None:
    """Nobody lives there, and its ids go on behind what is written all the same."""
    ahead = StreamPosition(to_ms(system_now()) + 3_600_000, 7)
    shard = next(n for n in range(SHARD_COUNT) if n not in works.shards)
    await works.raw.execute(
        "UPDATE shard SET watermark_ms = $2, watermark_seq = $3 WHERE shard = $1", shard, ahead.ms, ahead.seq
    )
    await works.valkey.delete(epoch_key(shard))
    built = await works.build()
    assert (built.opened_shards, built.rebuilt_shards) == (0, 1)
    assert await works.stream.last_ids([shard]) == [ahead]
    assert await works.valkey.xadd(stream_key(shard), {"k": "event"}) == f"{ahead.ms}-{ahead.seq + 1}".encode()
