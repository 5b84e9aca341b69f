"""Shards at rest: how far each stream has been written, and which flusher may write it.

Lanes of 64 shards are leased. A lease is only a courtesy that keeps two flushers from doing the same work; what
makes a batch be written once is the compare-and-set of the watermarks in the batch's own transaction, together with
the check that the lanes still name this owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from billing_core.contract.keys import LANE_COUNT, SHARD_COUNT
from billing_core.contract.usage_event import StreamPosition
from billing_core.errors import Conflict
from billing_core.store.database import Transaction
from billing_core.store.query import Q

_TAKEOVER_KEPT = timedelta(days=1)

Positions = Mapping[int, StreamPosition]
"""Shard -> the last stream id that counts."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants lanes, and for how long a lease holds without being renewed."""

    owner: str
    lease_ms: int


class BatchMark(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch moves. `drained_at` is Redis time up to which the lanes are read out, None if they are not."""

    lanes: Sequence[int]
    read_from: Positions
    written_to: Positions
    drained_at: datetime | None


class ShardState(msgspec.Struct, frozen=True, kw_only=True):
    """What Postgres knows of a shard. `is_inhabited` says whether it has customers."""

    shard: int
    epoch: int
    watermark_ms: int
    watermark_seq: int
    is_inhabited: bool

    @property
    def watermark(self) -> StreamPosition:
        """The last stream id that is written."""
        return StreamPosition(self.watermark_ms, self.watermark_seq)


class Takeover(msgspec.Struct, frozen=True, kw_only=True):
    """A shard that another process took over, as it was found; `lost_ids` names decisions that nobody has."""

    shard: int
    noticed_at: datetime
    kept_ms: int
    kept_seq: int
    flushed_ms: int
    flushed_seq: int
    missed_acts: int
    lost_ids: tuple[str, ...] = ()

    @property
    def kept(self) -> StreamPosition:
        """The last entry that the new process has."""
        return StreamPosition(self.kept_ms, self.kept_seq)

    @property
    def flushed(self) -> StreamPosition:
        """The last entry that Postgres had by then."""
        return StreamPosition(self.flushed_ms, self.flushed_seq)

    @property
    def is_behind(self) -> bool:
        """Whether the new process lacked something that Postgres knows, so that the shard had to be rebuilt."""
        return self.kept < self.flushed or self.missed_acts > 0


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    shard: int
    told: int


class _Lane(msgspec.Struct, frozen=True, kw_only=True):
    lane: int


class _Count(msgspec.Struct, frozen=True, kw_only=True):
    count: int


class _Mark(msgspec.Struct, frozen=True, kw_only=True):
    shard: int
    watermark_ms: int
    watermark_seq: int


class _Opened(msgspec.Struct, frozen=True, kw_only=True):
    lane_count: int
    shard_count: int
    recorded_at: datetime


class _Drained(msgspec.Struct, frozen=True, kw_only=True):
    drained_at: datetime | None


async def held_lanes(tx: Transaction, lease: Lease) -> list[int]:
    """The lanes that are this owner's now; locked, so that nobody takes them while a new lease is made."""
    return [one.lane for one in await tx.many(Q["lanes_held"], _Lane, lease.owner)]


async def lease_lanes(tx: Transaction, lease: Lease) -> tuple[int, list[int]]:
    """Report as alive, give up lanes above the fair share, take free ones up to it; the share and the lanes."""
    await tx.run(Q["flusher_bury"])
    await tx.run(Q["flusher_report"], lease.owner, lease.lease_ms)
    live = (await tx.one(Q["flusher_count"], _Count)).count
    share = -(-LANE_COUNT // max(live, 1))
    held = sorted(one.lane for one in await tx.many(Q["lanes_renew"], _Lane, lease.owner, lease.lease_ms))
    kept, surplus = held[:share], held[share:]
    if surplus:
        await tx.run(Q["lanes_release"], lease.owner, surplus)
    if len(kept) < share:
        taken = await tx.many(Q["lanes_take"], _Lane, lease.owner, lease.lease_ms, share - len(kept))
        kept += [one.lane for one in taken]
    return share, sorted(kept)


async def leave(tx: Transaction, lease: Lease) -> None:
    """Give all lanes back at once, so that nobody waits for the lease to run out."""
    await tx.run(Q["lanes_release"], lease.owner, list(range(LANE_COUNT)))
    await tx.run(Q["flusher_leave"], lease.owner)


async def watermarks(tx: Transaction, shards: Sequence[int]) -> dict[int, StreamPosition]:
    """The last stream id of each shard that is written."""
    rows = await tx.many(Q["watermarks"], _Mark, list(shards))
    return {row.shard: StreamPosition(row.watermark_ms, row.watermark_seq) for row in rows}


async def open_batch(tx: Transaction, lease: Lease, *, mark: BatchMark) -> datetime:
    """Move the watermarks, renew the leases, and give the instant that the batch's rows carry as `recorded_at`.

    Raises: Conflict where a lane is leased to somebody else or a watermark is not where it was read.
    """
    shards = sorted(mark.written_to)
    opened = await tx.one(
        Q["batch_open"],
        _Opened,
        lease.owner,
        list(mark.lanes),
        lease.lease_ms,
        mark.drained_at,
        shards,
        [mark.read_from[shard].ms for shard in shards],
        [mark.read_from[shard].seq for shard in shards],
        [mark.written_to[shard].ms for shard in shards],
        [mark.written_to[shard].seq for shard in shards],
    )
    if opened.lane_count != len(mark.lanes):
        raise Conflict("a lane of this batch is leased to another flusher")
    if opened.shard_count != len(shards):
        raise Conflict("a watermark of this batch was moved by another flusher")
    return opened.recorded_at


async def mark_drained(tx: Transaction, lease: Lease, *, mark: BatchMark) -> None:
    """Note that nothing is left to read, where there is nothing to write.

    Raises: Conflict where a lane is leased to somebody else.
    """
    lanes = list(mark.lanes)
    touched = await tx.run(Q["lanes_drained"], lease.owner, lanes, lease.lease_ms, mark.drained_at)
    if touched != len(lanes):
        raise Conflict("a lane of this batch is leased to another flusher")


async def drained_at(tx: Transaction) -> datetime | None:
    """Redis time up to which everything that was decided is in Postgres; None until every lane was read once."""
    return (await tx.one(Q["drained_at"], _Drained)).drained_at


async def states(tx: Transaction, shards: Sequence[int] = range(SHARD_COUNT)) -> list[ShardState]:
    """What Postgres knows of these shards, by number."""
    return await tx.many(Q["shards"], ShardState, list(shards))


async def raise_epochs(tx: Transaction, shards: Sequence[int]) -> list[ShardState]:
    """Give the shards their next epochs: whatever Redis held of them counts no more."""
    return await tx.many(Q["shards_raise_epoch"], ShardState, list(shards))


async def revoke_lanes(tx: Transaction) -> None:
    """Take all lanes from their flushers, once what they are committing is committed.

    What a flusher has read by now it can no longer write: it might come from a server that nobody follows any more.
    """
    await tx.run(Q["lanes_revoke"])


async def tell(tx: Transaction, told: Mapping[int, int]) -> None:
    """Note how often these shards have been told something."""
    shards = sorted(told)
    await tx.run(Q["shard_tell"], shards, [told[shard] for shard in shards])


async def told(tx: Transaction) -> dict[int, int]:
    """How often each shard has been told something; those that never were are left out."""
    return {row.shard: row.told for row in await tx.many(Q["shards_told"], _Told)}


async def note_takeovers(tx: Transaction, found: Sequence[Takeover], *, noticed_at: datetime) -> None:
    """Keep how shards were found that another process took over, and forget old ones that cost nothing."""
    await tx.run(Q["takeover_forget"], noticed_at - _TAKEOVER_KEPT)
    await tx.run(
        Q["takeover_note"],
        [one.shard for one in found],
        noticed_at,
        [one.kept_ms for one in found],
        [one.kept_seq for one in found],
        [one.flushed_ms for one in found],
        [one.flushed_seq for one in found],
        [one.missed_acts for one in found],
    )


async def note_lost(tx: Transaction, shard: int, *, answered: Sequence[str], since_ms: int) -> None:
    """Of these decisions, which gateways have answered, keep those that are not in Postgres.

    Only for a shard whose stream has been flushed since; `since_ms` is a place in it before all of them.
    """
    await tx.run(Q["takeover_lost"], shard, list(answered), since_ms)


async def lost_count(tx: Transaction) -> int:
    """How many decisions were ever lost with a server."""
    return (await tx.one(Q["lost_count"], _Count)).count


async def takeovers_that_cost(tx: Transaction) -> list[Takeover]:
    """The takeovers after which a shard was rebuilt, or decisions were lost."""
    return await tx.many(Q["takeovers_that_cost"], Takeover)
