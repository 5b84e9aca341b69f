"""Who may write a lane, and from where: the two checks that open a batch, each alone."""

from __future__ import annotations

import asyncpg
import pytest

from billing_core.contract.usage_event import StreamPosition
from billing_core.errors import Conflict
from billing_core.store import shard as shards
from billing_core.store.shard import BatchMark, Lease
from tests.integration.stream.conftest import Works

ZERO, FIVE, NINE = StreamPosition(0, 0), StreamPosition(5, 0), StreamPosition(9, 1)
OURS, THEIRS = Lease(owner="ours", lease_ms=60_000), Lease(owner="theirs", lease_ms=60_000)


def batch(read_from: StreamPosition, written_to: StreamPosition) -> BatchMark:
    return BatchMark(lanes=[0], read_from={3: read_from}, written_to={3: written_to}, drained_at=None)


async def test_a_watermark_moves_only_from_where_the_batch_was_read(works: Works) -> None:
    """Even for the owner of the lane: it may have lost the lane and got it back meanwhile."""
    async with works.db.transaction() as tx:
        share, lanes = await shards.lease_lanes(tx, OURS)
        assert (share, lanes) == (16, list(range(16)))
    async with works.db.transaction() as tx:
        await shards.open_batch(tx, OURS, mark=batch(ZERO, FIVE))
    with pytest.raises(Conflict, match="watermark"):
        async with works.db.transaction() as tx:
            await shards.open_batch(tx, OURS, mark=batch(ZERO, NINE))
    async with works.db.transaction() as tx:
        await shards.open_batch(tx, OURS, mark=batch(FIVE, NINE))
        assert (await shards.watermarks(tx, [3])) == {3: NINE}


async def test_a_lane_is_written_by_its_owner_only(works: Works) -> None:
    """Even from the right place: the other one has read it too."""
    async with works.db.transaction() as tx:
        await shards.lease_lanes(tx, OURS)
    with pytest.raises(Conflict, match="leased to another"):
        async with works.db.transaction() as tx:
            await shards.open_batch(tx, THEIRS, mark=batch(ZERO, FIVE))
    with pytest.raises(Conflict, match="leased to another"):
        async with works.db.transaction() as tx:
            await shards.mark_drained(tx, THEIRS, mark=batch(ZERO, ZERO))


async def test_lanes_are_shared_among_the_living(works: Works) -> None:
    """Each gives up what is above its share; the dead are counted no longer than their lease."""
    async with works.db.transaction() as tx:
        await shards.lease_lanes(tx, OURS)
        assert await shards.lease_lanes(tx, THEIRS) == (8, [])
        assert await shards.lease_lanes(tx, OURS) == (8, list(range(8)))
        assert await shards.lease_lanes(tx, THEIRS) == (8, list(range(8, 16)))
        await works_forget(tx, "theirs")
        assert await shards.lease_lanes(tx, OURS) == (16, list(range(16)))


async def works_forget(tx: object, owner: str) -> None:
    """Let the owner's leases and its life run out."""
    connection: asyncpg.Connection = tx._connection  # type: ignore[attr-defined]
    await connection.execute(
        "UPDATE flush_lane SET lease_until = now() - interval '1 hour' WHERE owner = $1", owner
    )
    await connection.execute("UPDATE flusher SET live_until = now() - interval '1 hour' WHERE owner = $1", owner)


async def test_nothing_is_drained_until_every_lane_was(works: Works) -> None:
    """A lane that nobody has read yet may hold anything."""
    now = await works.stream.now()
    async with works.db.transaction() as tx:
        await shards.lease_lanes(tx, OURS)
        for lane in range(15):
            mark = BatchMark(lanes=[lane], read_from={}, written_to={}, drained_at=now)
            await shards.mark_drained(tx, OURS, mark=mark)
        assert await shards.drained_at(tx) is None
        await shards.mark_drained(tx, OURS, mark=BatchMark(lanes=[15], read_from={}, written_to={}, drained_at=now))
        assert await shards.drained_at(tx) == now
