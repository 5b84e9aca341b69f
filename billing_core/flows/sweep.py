"""Sweep: end the holds of customers who are silent.

A decision ends the due holds of its own customer in passing. Nobody decides for a customer who does not come back,
so a sweeper looks at every shard, and runs the script where a deadline has passed. Two sweepers do no harm: a hold
ends once, in the script.
"""

from __future__ import annotations

from billing_core.adapters.projection import Projection, Refused, sweep_shard
from billing_core.adapters.usage_stream import UsageStream
from billing_core.values.clock import to_ms

_HOLDS_AT_ONCE = 200


async def sweep(redis: Projection, stream: UsageStream) -> int:
    """End all holds that are due now on the clock of Redis; how many. Shards that are not built are left alone."""
    due = await redis.shards_with_due_holds(instant_ms=to_ms(await stream.now()))
    total = 0
    while due:
        replies = await redis.run([sweep_shard(shard, most=_HOLDS_AT_ONCE) for shard in due])
        ended = {shard: reply for shard, reply in zip(due, replies, strict=True) if not isinstance(reply, Refused)}
        total += sum(ended.values())
        due = [shard for shard, count in ended.items() if count == _HOLDS_AT_ONCE]
    return total
