"""Audit: what was lost when another server took over, by name.

Gateways tell each shard which decisions they had answered lately (`gateway/usage/recall.py`). Once everything
that the shard's stream holds is in Postgres, those that are not there are nowhere: the server that knew them is
gone, and the one that took over never got them. They are noted with the takeover, which says between which
places they were lost.

A shard is looked at only when its stream has been read out up to where it ended after the gateways' word was
read, so that nothing counts as lost that was merely late. What gateways tell twice is noted once.
"""

from __future__ import annotations

from datetime import timedelta

from billing_core.adapters.projection import Projection
from billing_core.adapters.usage_stream import UsageStream
from billing_core.store import shard as shards
from billing_core.store.database import Database
from billing_core.values.clock import to_ms

_LOOK_BACK = timedelta(minutes=30)
"""Longer than gateways remember, and than clocks of servers differ."""


async def audit(db: Database, redis: Projection, *, stream: UsageStream) -> int | None:
    """Look at the shards that gateways told something of; how many decisions were ever lost. None: nothing told."""
    told = await redis.answered()
    if not told:
        return None
    numbers = sorted(told)
    lasts = dict(zip(numbers, await stream.last_ids(numbers), strict=True))
    since_ms = to_ms(await stream.now() - _LOOK_BACK)
    async with db.transaction() as tx:
        marks = await shards.watermarks(tx, numbers)
        done = [shard for shard in numbers if marks[shard] >= lasts[shard]]
        for shard in done:
            await shards.note_lost(tx, shard, answered=told[shard], since_ms=since_ms)
        lost_count = await shards.lost_count(tx)
    await redis.forget_answered({shard: len(told[shard]) for shard in done})
    return lost_count
