"""Ingest: the flusher. What the gate decided in Redis becomes rows in Postgres, each exactly once.

A batch is one transaction: it checks that its lanes are still leased to it, moves each shard's watermark from the
value that the batch was read after, copies the rows, and adds what was taken to the grants. So it does not matter
where a flusher is stopped, or for how long: before the commit nothing has happened, after it the watermark says so,
and a flusher that was replaced in between finds the watermark moved and writes nothing. Only then is the stream
trimmed.

While one batch is being committed the next is read and transcribed, behind the positions that the first will have.
The first one is small, so that Postgres has something to do soon, and each may be twice as large as the one before.
Batches grow with the load by themselves: a flusher goes on at once while streams are full, waits a moment when it
has read them out, and sleeps until something comes when nothing came for a while. An entry may be many rows; how
many, the last batch tells. `drained_at` of a lane is Redis time taken before a read that found everything: what was
decided before it is committed.

A batch that Postgres refuses for what is in it is halved until the entry at fault stands alone, and that one is
parked with all its fields.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime

import asyncpg
import msgspec

from billing_core.adapters.usage_stream import Harvest, Reading, UsageStream
from billing_core.contract.keys import SHARD_COUNT, lane_of
from billing_core.contract.usage_event import StreamPosition
from billing_core.errors import Conflict
from billing_core.flows.transcribe import GrantKey, Transcript, transcribe
from billing_core.store import shard as shards
from billing_core.store import usage
from billing_core.store.database import CONNECTION_FAILURES, Database
from billing_core.store.money import grant as grants
from billing_core.store.money.grant import GrantName
from billing_core.store.shard import BatchMark, Lease
from billing_core.values.clock import to_ms
from billing_core.values.invariant import invariant

REFUSALS_OF_CONTENT = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""What Postgres says about a row that it will never take."""

_RENEWALS_PER_LEASE = 10
_IDLE_S = 0.25
_SHORT_OF_LANES_S = 0.2
_KNOWN_GRANTS = 1_000_000
_FIRST_SHARE = 8


class FlushPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a flusher works."""

    owner: str
    lease_ms: int
    interval_ms: int
    batch_entries: int


class FlushTally:
    """What a flusher has done, for whoever collects metrics. Counts only grow; `lag_ms` is of the last batch."""

    def __init__(self) -> None:
        self.batches = 0
        self.usage_rows = 0
        self.movement_rows = 0
        self.parked_rows = 0
        self.conflicts = 0
        self.lanes = 0
        self.lag_ms = 0


async def ingest(db: Database, stream: UsageStream, *, plan: FlushPlan, tally: FlushTally) -> None:
    """Flush until cancelled; then the lanes are given back.

    Raises: whatever a server that is away makes its client raise. Starting again under the same owner continues
    where Postgres stands, with the same lanes.
    """
    flusher = _Flusher(db, stream, plan=plan, tally=tally)
    try:
        while True:
            try:
                await flusher.work()
            except Conflict:
                tally.conflicts += 1
    except asyncio.CancelledError:
        with contextlib.suppress(*CONNECTION_FAILURES):  # then the leases run out by themselves
            async with db.transaction() as tx:
                await shards.leave(tx, flusher.lease)
        raise
    finally:
        tally.lanes = 0


class _Flusher:
    """One flusher's lanes and memory."""

    def __init__(self, db: Database, stream: UsageStream, *, plan: FlushPlan, tally: FlushTally) -> None:
        self._db = db
        self._stream = stream
        self._plan = plan
        self._tally = tally
        self.lease = Lease(owner=plan.owner, lease_ms=plan.lease_ms)
        self._share = 0
        self._room = 0
        self._lanes: list[int] = []
        self._after: dict[int, StreamPosition] = {}
        self._committed: dict[int, StreamPosition] = {}
        self._currencies: dict[GrantKey, str] = {}
        self._known_months: set[tuple[int, int]] = set()
        self._drained_s = 0.0
        self._busy_s = 0.0
        self._rows_per_entry = 1.0

    async def work(self) -> None:
        """Take lanes, read where they stand, and flush them for as long as they stay the same."""
        async with self._db.transaction() as tx:
            self._share, lanes = await shards.lease_lanes(tx, self.lease)
            self._after = await shards.watermarks(tx, [n for n in range(SHARD_COUNT) if lane_of(n) in lanes])
        self._committed |= {shard: at for shard, at in self._after.items() if lane_of(shard) not in self._lanes}
        self._lanes, self._tally.lanes = lanes, len(lanes)
        if lanes:
            await self._flush()
        else:
            await asyncio.sleep(self._renewal_s())

    async def _flush(self) -> None:
        """Read and write until the lanes change; what is read ahead by then is dropped."""
        loop = asyncio.get_running_loop()
        renew_at_s = loop.time() + self._renewal_s()
        self._room = -(-self._plan.batch_entries // _FIRST_SHARE)
        batch = await self._prepare()
        while True:
            if loop.time() >= renew_at_s:
                if not await self._renew():
                    return
                renew_at_s = loop.time() + self._renewal_s()
            if batch[0].is_complete or not batch[0].readings:
                await self._write(*batch)
                batch = await self._pause_and_prepare(is_busy=bool(batch[0].readings))
            else:
                batch = await self._write_and_prepare(*batch)

    async def _pause_and_prepare(self, *, is_busy: bool) -> tuple[Harvest, Transcript]:
        """The next batch after a pause; who had nothing to do for a while sleeps until something comes."""
        now_s = asyncio.get_running_loop().time()
        if is_busy:
            self._busy_s = now_s
        if now_s - self._busy_s > _IDLE_S and not self._committed:
            nothing = await self._stream.wait(self._after, most_ms=round(_IDLE_S * 1000))
            return (nothing, Transcript()) if nothing else await self._prepare()
        await asyncio.sleep(self._plan.interval_ms / 1000)
        return await self._prepare()

    def _renewal_s(self) -> float:
        """How soon to ask for lanes again: sooner while there are fewer than the fair share."""
        usual_s = self._plan.lease_ms / 1000 / _RENEWALS_PER_LEASE
        return usual_s if len(self._lanes) >= self._share else min(usual_s, _SHORT_OF_LANES_S)

    async def _renew(self) -> bool:
        """Renew the leases; whether the lanes are still the same, and were ours all the time."""
        async with self._db.transaction() as tx:
            held = await shards.held_lanes(tx, self.lease)
            self._share, lanes = await shards.lease_lanes(tx, self.lease)
        return held == lanes == self._lanes

    async def _prepare(self) -> tuple[Harvest, Transcript]:
        """Trim what is committed, read behind everything that was read, and transcribe it."""
        committed, self._committed = self._committed, {}
        await self._stream.trim(committed)
        harvest = await self._stream.read(self._after, most=max(1, int(self._room / self._rows_per_entry)))
        self._room = min(2 * self._room, self._plan.batch_entries)
        for reading in harvest.readings:
            self._after[reading.shard] = reading.last
        transcript = await transcribe(harvest.readings)
        if harvest.readings:
            self._rows_per_entry = max(1.0, len(transcript.usage) / harvest.entry_count)
        return harvest, transcript

    async def _write_and_prepare(self, harvest: Harvest, transcript: Transcript) -> tuple[Harvest, Transcript]:
        ahead = asyncio.create_task(self._prepare())
        try:
            await self._write(harvest, transcript)
        except BaseException:
            ahead.cancel()
            await asyncio.wait([ahead])
            raise
        return await ahead

    async def _write(self, harvest: Harvest, transcript: Transcript) -> None:
        if not harvest.readings:
            if harvest.is_complete:
                await self._mark_drained(harvest.asked_at)
            return
        transcript = await self._with_grants(harvest, transcript)
        try:
            await self._commit(harvest, transcript)
        except REFUSALS_OF_CONTENT as refusal:
            await self._commit_apart(harvest, refusal)
        self._committed |= {reading.shard: reading.last for reading in harvest.readings}
        first_ms = min(StreamPosition.parse(one.entries[0][0].decode()).ms for one in harvest.readings)
        self._tally.lag_ms = max(0, to_ms(harvest.asked_at) - first_ms)

    async def _commit(self, harvest: Harvest, transcript: Transcript) -> None:
        await self._ensure_months(transcript)
        moves = transcript.moves()
        async with self._db.transaction() as tx:
            recorded_at = await shards.open_batch(tx, self.lease, mark=self._mark(harvest))
            if moves:
                moved = await grants.move(tx, moves)
                invariant(len(moved) == len(moves), "a grant that exists is moved")
            await usage.append_usage(tx, transcript.usage, recorded_at=recorded_at)
            await usage.append_movements(tx, transcript.movements, recorded_at=recorded_at)
            await usage.append_shadows(tx, transcript.shadows, recorded_at=recorded_at)
            await usage.park(tx, transcript.parked, recorded_at=recorded_at)
        self._drained_s = asyncio.get_running_loop().time()
        self._tally.batches += 1
        self._tally.usage_rows += len(transcript.usage)
        self._tally.movement_rows += len(transcript.movements)
        self._tally.parked_rows += len(transcript.parked)

    async def _commit_apart(self, harvest: Harvest, refusal: Exception) -> None:
        """Commit in halves; an entry that is refused alone is parked."""
        if harvest.entry_count == 1:
            await self._commit(harvest, _parked(harvest, refusal))
            return
        for half in halves_of(harvest):
            transcript = await self._with_grants(half, await transcribe(half.readings))
            try:
                await self._commit(half, transcript)
            except REFUSALS_OF_CONTENT as deeper:
                await self._commit_apart(half, deeper)

    def _mark(self, harvest: Harvest) -> BatchMark:
        return BatchMark(
            lanes=self._lanes,
            read_from={reading.shard: reading.after for reading in harvest.readings},
            written_to={reading.shard: reading.last for reading in harvest.readings},
            drained_at=harvest.asked_at if harvest.is_complete else None,
        )

    async def _mark_drained(self, asked_at: datetime) -> None:
        """Note now and then that there is nothing to write; each note is a transaction."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._drained_s < _IDLE_S:
            return
        mark = BatchMark(lanes=self._lanes, read_from={}, written_to={}, drained_at=asked_at)
        async with self._db.transaction() as tx:
            await shards.mark_drained(tx, self.lease, mark=mark)
        self._drained_s = now_s

    async def _with_grants(self, harvest: Harvest, transcript: Transcript) -> Transcript:
        """The transcript, made anew where what Postgres knows of the grants that it moves makes a difference.

        No grant is ever deleted, and none changes its currency: one that was seen is known for good.
        """
        if len(self._currencies) > _KNOWN_GRANTS:
            self._currencies.clear()
        moved = transcript.grants()
        unseen = moved - self._currencies.keys()
        if unseen:
            names = [GrantName(tenant_id=tenant_id, grant_id=grant_id) for tenant_id, grant_id in unseen]
            async with self._db.transaction() as tx:
                rows = await grants.by_names(tx, names)
            self._currencies |= {(row.tenant_id, row.grant_id): row.currency for row in rows}
        strangers = moved - self._currencies.keys()
        if not strangers and not transcript.is_mixed:
            return transcript
        return await transcribe(harvest.readings, strangers=strangers, currencies=self._currencies)

    async def _ensure_months(self, transcript: Transcript) -> None:
        """Make missing partitions, in a transaction of their own: it locks the whole table for a moment."""
        for month, instant in transcript.months.items():
            if month not in self._known_months:
                async with self._db.transaction() as tx:
                    await usage.ensure_month(tx, instant)
                self._known_months.add(month)


def _parked(harvest: Harvest, refusal: Exception) -> Transcript:
    """A transcript of one entry that says only that the entry was parked, and why."""
    reading = harvest.readings[0]
    place = reading.shard, reading.last.ms, reading.last.seq
    transcript = Transcript()
    transcript.park(place, reading.entries[0][1], reason=f"{type(refusal).__name__}: {refusal}")
    return transcript


def halves_of(harvest: Harvest) -> tuple[Harvest, Harvest]:
    """The same entries in two harvests, each shard's in their order."""
    room = harvest.entry_count // 2
    first: list[Reading] = []
    second: list[Reading] = []
    for reading in harvest.readings:
        taken = min(room, len(reading.entries))
        room -= taken
        here, there = reading.cut(taken)
        first += [here] if here.entries else []
        second += [there] if there.entries else []
    return (
        Harvest(readings=first, asked_at=harvest.asked_at, is_complete=False),
        Harvest(readings=second, asked_at=harvest.asked_at, is_complete=harvest.is_complete),
    )
