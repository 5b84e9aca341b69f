"""Rebuild: shards that Redis has lost, or never had, made anew from Postgres.

A shard is served while its epoch stands in Redis and equals the one in Postgres. Without it every script refuses,
so the shard stands still, and can be rebuilt while everything else goes on:

    fence     a token of this builder is set and the epoch is deleted: from here on nothing is decided
    drain     the flusher writes what the stream still holds; the builder waits until Postgres has it
    raise     Postgres gives the shard its next epoch
    read      snapshots, grants (remaining = amount - spent - lapsed), units used in the windows of now
    write     in parts, each only while the token is still ours; holds are dropped, which releases them
    open      the stream's next id is put beyond the watermark, the epoch is set, the token goes

A builder that was paused and replaced finds another token and writes nothing. Shards that nobody has ever used are
opened at once. Counters are made by `recount`, which says what of them is exact.

Redis can also be behind without having lost an epoch: restored from an old copy, or failed over to a replica that
lagged. Whenever a server is another process than before, or has become a primary, a stream that ends before its
watermark says so, or a count of what the relay has told the shard that is smaller than Postgres' own. One new entry
would hide that for ever, so until a builder has looked nobody decides or tells anything on that server (`vouch`),
and a flusher that has read ahead from the server before it must read anew (`revoke_lanes`). What was found is kept.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.adapters.projection import Projection
from billing_core.adapters.shard_image import CustomerImage, ShardImages, ShardOpening
from billing_core.adapters.usage_stream import UsageStream
from billing_core.contract.keys import LANE_COUNT, lane_of
from billing_core.contract.snapshot import Snapshot
from billing_core.contract.usage_event import StreamPosition
from billing_core.entitlements.resolution import Resolution
from billing_core.flows.project import PlanMemory, Resolver, grant_facts
from billing_core.flows.recount import Subject, recounted
from billing_core.store import projection
from billing_core.store import shard as shards
from billing_core.store.database import Database
from billing_core.store.money import grant as grants
from billing_core.store.money.grant import GrantName, GrantRow
from billing_core.store.projection import Owner, SnapshotFacts
from billing_core.store.shard import ShardState, Takeover
from billing_core.values.clock import EPOCH, to_ms
from billing_core.wallets.burn import Block

_BUILDER_LOCK = 7_265_109
_DRAIN_WAIT_S = 5.0
_DRAIN_LOOK_S = 0.05
_TRUST_S = 5.0
_LANES_AT_ONCE = 2
_SHARDS_AT_ONCE = 8
_CREDENTIALS_AT_ONCE = 5_000
_LONG_AGO_MS = 1
_START = StreamPosition(0, 0)


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What one look has done. `waiting_shards` are not served yet."""

    opened_shards: int
    rebuilt_shards: int
    waiting_shards: int


class Builder:
    """One builder: its doors, and which Redis process it has seen last."""

    def __init__(self, db: Database, redis: Projection, *, stream: UsageStream, plans: PlanMemory) -> None:
        self._db = db
        self._redis = redis
        self._stream = stream
        self._plans = plans
        self._seen_run_id = ""
        self._epochs: list[int | None] = []
        self._told: dict[int, int] = {}
        self._is_directory_due = False
        self._whole_until_s = 0.0

    async def build(self) -> Built:
        """Make whatever is missing. One builder at a time: where another is at work, only what waits is counted."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._whole_until_s and await self._redis.is_as_it_was(self._seen_run_id, self._epochs):
            return Built(opened_shards=0, rebuilt_shards=0, waiting_shards=0)
        async with self._db.session() as session:
            if not await session.fetchval("SELECT pg_try_advisory_lock($1)", _BUILDER_LOCK):
                missing = sum(epoch is None for epoch in await self._redis.epochs())
                return Built(opened_shards=0, rebuilt_shards=0, waiting_shards=missing)
            try:
                return await self._build()
            finally:
                await session.execute("SELECT pg_advisory_unlock($1)", _BUILDER_LOCK)

    async def _build(self) -> Built:
        run_id, present = await self._redis.run_id(), await self._redis.present()
        is_taken_over = not await self._redis.is_vouched(run_id)
        async with self._db.transaction() as tx:
            if is_taken_over:
                await shards.revoke_lanes(tx)
            states, told = await shards.states(tx), await shards.told(tx)
        epochs, told_there = await self._redis.epochs(), await self._redis.told()
        there = [state for state in states if state.shard in present]
        missing = [state for state in there if epochs[state.shard] != state.epoch]
        looked_at = there if is_taken_over or run_id != self._seen_run_id else missing
        numbers = [state.shard for state in looked_at]
        lasts = dict(zip(numbers, await self._stream.last_ids(numbers), strict=True))
        found = [
            _found(states[shard], last, missed_acts=max(0, told.get(shard, 0) - told_there[shard]))
            for shard, last in lasts.items()
        ]
        fresh = [one for one in missing if epochs[one.shard] is None and _is_fresh(one, lasts[one.shard])]
        await self._redis.open_fresh({one.shard: one.epoch for one in fresh})
        behind = {one.shard for one in found if one.is_behind}
        lost = ({one.shard for one in missing} | behind) - {one.shard for one in fresh}
        images = ShardImages(self._redis.client, token=secrets.token_hex(16))
        await images.fence(sorted(lost))
        if is_taken_over:
            await self._note(found)
            await self._redis.close_directory()
            self._is_directory_due = True
        await self._redis.vouch(run_id)
        self._told = {shard: max(count, told.get(shard, 0)) for shard, count in enumerate(told_there)}
        rebuilt = await self._rebuild_all(sorted(lost), images)
        if self._is_directory_due or not await self._redis.has_directory():
            await self._write_directory()
            self._is_directory_due = False
        if rebuilt == len(lost):
            self._seen_run_id, self._epochs = run_id, await self._redis.epochs()
            is_whole = None not in self._epochs
            self._whole_until_s = asyncio.get_running_loop().time() + _TRUST_S if is_whole else 0.0
        waiting = len(lost) - rebuilt + len(states) - len(there)
        return Built(opened_shards=len(fresh), rebuilt_shards=rebuilt, waiting_shards=waiting)

    async def _note(self, found: Sequence[Takeover]) -> None:
        """Keep in Postgres what the servers that took over were found to have, of shards that were ever used."""
        used = [one for one in found if max(one.kept, one.flushed) > _START or one.missed_acts]
        if used:
            async with self._db.transaction() as tx:
                await shards.note_takeovers(tx, used, noticed_at=await self._stream.now())

    async def _rebuild_all(self, lost: Sequence[int], images: ShardImages) -> int:
        """Rebuild fenced shards; how many are served. One lane is read while another is written."""
        if not lost:
            return 0
        await images.find_nodes(lost)
        lanes = [[shard for shard in lost if lane_of(shard) == lane] for lane in range(LANE_COUNT)]
        turns = asyncio.Semaphore(_LANES_AT_ONCE)

        async def in_turn(lane: Sequence[int]) -> int:
            async with turns:
                return await self._rebuild(lane, images)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_turn(lane)) for lane in lanes if lane]
        return sum(task.result() for task in tasks)

    async def _rebuild(self, lost: Sequence[int], images: ShardImages) -> int:
        """Rebuild these fenced shards; how many are served again."""
        drained = await self._wait_drained(lost)
        if not drained:
            return 0
        async with self._db.transaction() as tx:
            states = await shards.raise_epochs(tx, sorted(drained))
        customers = await self._read(sorted(drained))
        openings = [
            ShardOpening(
                shard=state.shard,
                epoch=state.epoch,
                told=self._told[state.shard],
                watermark=state.watermark,
                last=drained[state.shard],
            )
            for state in states
        ]
        served = 0
        for first in range(0, len(openings), _SHARDS_AT_ONCE):
            part = openings[first : first + _SHARDS_AT_ONCE]
            told = await asyncio.gather(
                *(_open(images, one, customers=customers.get(one.shard, [])) for one in part)
            )
            served += sum(told)
        return served

    async def _wait_drained(self, lost: Sequence[int]) -> dict[int, StreamPosition]:
        """Wait until Postgres has all that these streams hold; the last id of each that is drained in time."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _DRAIN_WAIT_S
        lasts = dict(zip(lost, await self._stream.last_ids(lost), strict=True))
        while True:
            async with self._db.transaction() as tx:
                marks = await shards.watermarks(tx, lost)
            drained = {shard: last for shard, last in lasts.items() if last <= marks[shard]}
            if len(drained) == len(lasts) or loop.time() >= until_s:
                return drained
            await asyncio.sleep(_DRAIN_LOOK_S)

    async def _read(self, drained: Sequence[int]) -> dict[int, list[CustomerImage]]:
        """All customers of these shards as Postgres has them, by shard."""
        now = await self._stream.now()
        async with self._db.transaction() as tx:
            facts = await projection.facts_of(tx, await projection.customers_of(tx, drained))
            resolver = Resolver(await self._plans.recall(tx, facts), now=now)
            resolved: dict[Owner, Resolution] = {}
            for one in facts:
                resolved[_owner(one)] = resolver.resolution_of(one)
                await asyncio.sleep(0)  # a lane of strangers takes seconds; others serve meanwhile
            stale = [(owner, one.stale_at) for owner, one in resolved.items()]
            await projection.note_staleness(tx, stale)
            rows = await projection.grants_of(tx, drained)
            unmarked = [row for row in rows if row.applied_at is None]
            await grants.mark_applied(tx, [_name(row) for row in unmarked], at=now)
            subjects = [_subject(one, resolved[_owner(one)].snapshot, now=now) for one in facts]
            counters = await recounted(tx, subjects)
        blocks = _blocks_by_owner(rows)
        images: dict[int, list[CustomerImage]] = {}
        for one in facts:
            owner = _owner(one)
            image = CustomerImage(
                tenant_id=one.tenant_id,
                customer_id=one.customer_id,
                snapshot=resolved[owner].snapshot,
                blocks=blocks.get(owner, {}),
                counters=counters[owner],
            )
            images.setdefault(one.shard, []).append(image)
        return images

    async def _write_directory(self) -> None:
        """Write all credentials and meters, each page locked until it is written."""
        after, page = "", dict[str, object]()
        while True:
            async with self._db.transaction() as tx:
                page = await projection.credential_page(tx, after, most=_CREDENTIALS_AT_ONCE)
                await self._redis.put_credentials(page)
            if not page:
                break
            after = max(page)
        async with self._db.transaction() as tx:
            for tenant_id, meters in (await projection.meters_of(tx, await projection.all_tenants(tx))).items():
                await self._redis.put_meters(tenant_id, meters)
        await self._redis.open_directory()


async def _open(images: ShardImages, opening: ShardOpening, *, customers: Sequence[CustomerImage]) -> bool:
    return await images.write(opening.shard, customers) and await images.open(opening)


def _found(state: ShardState, last: StreamPosition, *, missed_acts: int) -> Takeover:
    """A shard as a server has it, beside what Postgres has of it; `noticed_at` is when it is kept."""
    return Takeover(
        shard=state.shard,
        noticed_at=EPOCH,
        kept_ms=last.ms,
        kept_seq=last.seq,
        flushed_ms=state.watermark.ms,
        flushed_seq=state.watermark.seq,
        missed_acts=missed_acts,
    )


def _is_fresh(state: ShardState, last: StreamPosition) -> bool:
    """Whether nobody has ever used the shard."""
    return not state.is_inhabited and state.watermark == _START and last == _START


def _owner(facts: SnapshotFacts) -> Owner:
    return Owner(tenant_id=facts.tenant_id, customer_id=facts.customer_id)


def _name(row: GrantRow) -> GrantName:
    return GrantName(tenant_id=row.tenant_id, grant_id=row.grant_id)


def _blocks_by_owner(rows: Sequence[GrantRow]) -> dict[Owner, dict[str, list[Block]]]:
    """What each customer's grants have left, by currency.

    A void one stands there as if it had expired long ago: nobody can spend it, and the next lapse takes it out.
    """
    blocks: dict[Owner, dict[str, list[Block]]] = {}
    for row in rows:
        facts = grant_facts(row)
        block = Block(
            grant_id=row.grant_id,
            remaining_nanos=row.amount_nanos - row.spent_nanos - row.lapsed_nanos,
            priority=facts.priority,
            effective_ms=facts.effective_ms,
            expires_ms=facts.expires_ms if row.voided_at is None else _LONG_AGO_MS,
            is_paid=facts.is_paid,
            created_ms=facts.created_ms,
            is_overdraft=facts.is_overdraft,
            granted_nanos=row.amount_nanos - row.lapsed_nanos,
            features=facts.features,
        )
        owner = Owner(tenant_id=row.tenant_id, customer_id=row.customer_id)
        blocks.setdefault(owner, {}).setdefault(row.currency, []).append(block)
    return blocks


def _subject(facts: SnapshotFacts, snapshot: Snapshot, *, now: datetime) -> Subject:
    return Subject(
        owner=_owner(facts),
        snapshot=snapshot,
        instant_ms=to_ms(now) + facts.clock_offset_ms,
        started_ms=to_ms(facts.started_at or EPOCH),
    )
