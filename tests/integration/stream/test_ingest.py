"""What the gate decided becomes rows, each once, wherever a flusher is stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg

from billing_core.adapters.usage_stream import Harvest, Positions, UsageStream
from billing_core.contract.keys import SHARD_COUNT, shard_of_customer, stream_key
from billing_core.contract.usage_event import StreamPosition, encode_client_body, encode_record
from billing_core.flows.ingest import FlushPlan, FlushTally, ingest
from billing_core.store import shard as shards
from billing_core.store.database import CONNECTION_FAILURES, Database, Transaction
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works, eventually, says


async def test_a_decision_becomes_one_event_and_one_movement(works: Works) -> None:
    """And the nanos are on the grant, the stream is trimmed, and the lane says it is drained."""
    (grant,) = await works.customer("c", nanos=[10**9])
    before = await works.stream.now()
    assert (await works.consume("c", 374))[0] == "allowed"
    await works.flush()
    event = await works.raw.fetchrow("SELECT * FROM usage_event")
    assert (event["name"], event["source"], event["quantity"]) == ("input_tokens", "gate", 374)
    assert event["charged_nanos"] == 374 * NANOS_PER_TOKEN
    assert event["decided_at"] == event["event_at"]
    assert event["key_hint"] == "abcd"
    movement = await works.raw.fetchrow("SELECT * FROM movement")
    assert (movement["grant_id"], movement["nanos"]) == (grant, 374 * NANOS_PER_TOKEN)
    assert movement["event_id"] == event["event_id"]
    assert await works.spent(grant) == 374 * NANOS_PER_TOKEN
    assert await works.entries("c") == 0

    async def is_drained() -> bool:
        async with works.db.transaction() as tx:
            at = await shards.drained_at(tx)
        return at is not None and at > before

    async with works.flusher():
        await eventually(is_drained)


async def test_a_settled_hold_and_a_client_event_become_rows_too(works: Works) -> None:
    """A client's event keeps its own time and fields, and its quantity where it says one."""
    (grant,) = await works.customer("c", nanos=[10**9])
    hold_id = await works.hold("c", 500)
    assert (await works.settle("c", hold_id, 44))[0] == b"settled"
    fields = {"model": "small", "quantity": b"2.50", "note": "nine ✓"}
    body = encode_client_body("t", [encode_record(("e1", "llm", 1_772_000_000_123, "c", fields))])
    stream = stream_key(shard_of_customer("t", "c"))
    await works.valkey.xadd(stream, {"k": "event", "b": body, "at": 1_772_000_001_000, "e": 1})
    await works.flush()
    rows = await works.raw.fetch("SELECT * FROM usage_event ORDER BY source")
    client, gate = rows
    assert (client["name"], client["source"], str(client["quantity"])) == ("llm", "client", "2.50")
    assert client["event_at"].timestamp() == 1_772_000_000.123
    assert json.loads(client["properties"]) == {"model": "small", "quantity": "2.50", "note": "nine ✓"}
    assert (gate["quantity"], gate["event_id"]) == (44, hold_id)
    assert await works.spent(grant) == 44 * NANOS_PER_TOKEN
    partitions = await works.raw.fetchval(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_event'::regclass"
    )
    assert partitions == 3, "each month has its partition, and nothing is elsewhere"
    assert await works.count("usage_event_elsewhen") == 0


async def test_a_batch_has_no_more_rows_because_entries_have_many(works: Works) -> None:
    """What an entry comes to is known after the first batch; no entry is ever divided."""
    stream = stream_key(shard_of_customer("t", "c"))
    works.shards.add(shard_of_customer("t", "c"))
    for number in range(40):
        records = [encode_record((f"e{number}-{n}", "llm", 1_772_000_000_123, "c", {})) for n in range(100)]
        body = encode_client_body("t", records)
        await works.valkey.xadd(stream, {"k": "event", "b": body, "at": 1_772_000_001_000, "e": 1})
    async with works.flusher(batch_entries=200):
        await eventually(works.drained)
    rows = await works.raw.fetch("SELECT recorded_at, count(*) AS n FROM usage_event GROUP BY 1 ORDER BY 1")
    first, *others = [row["n"] for row in rows]
    assert first + sum(others) == 4_000
    assert max(others) <= 200
    assert {count % 100 for count in (first, *others)} == {0}
    assert await works.count("parked_entry") == 0


async def test_two_flushers_share_the_lanes_and_write_each_decision_once(works: Works) -> None:
    """Each gets eight lanes; when one leaves, the other takes them all."""
    for number in range(20):
        await works.customer(f"c{number}", nanos=[10**9])
    async with works.flusher("a", lease_ms=8_000) as first:
        await eventually(lambda: says(first.lanes == 16))
        async with works.flusher("b", lease_ms=8_000) as second:
            await eventually(lambda: says((first.lanes, second.lanes) == (8, 8)))
            for number in range(200):
                await works.consume(f"c{number % 20}", 1)
            await eventually(works.drained)
            await eventually(lambda: says(first.usage_rows + second.usage_rows == 200))
            assert min(first.usage_rows, second.usage_rows) > 0
        await eventually(lambda: says(first.lanes == 16))
    assert await works.count("usage_event") == 200
    assert await works.count("movement") == 200


class Gated(UsageStream):
    """A flusher's stream that stops before it trims what was committed, and says so."""

    def __init__(self, client: object) -> None:
        super().__init__(client)
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def trim(self, written_to: Positions) -> None:
        if any(position.ms for position in written_to.values()):
            self.reached.set()
            await self.go_on.wait()
        await super().trim(written_to)


class PausedDatabase(Database):
    """A flusher's database that lets nothing begin while it is paused."""

    def __init__(self, other: Database) -> None:
        super().__init__(other._pool)
        self.open = asyncio.Event()
        self.open.set()
        self.reached = asyncio.Event()

    @asynccontextmanager
    async def transaction(self, *, isolation: str = "read_committed") -> AsyncGenerator[Transaction]:
        if not self.open.is_set():
            self.reached.set()
            await self.open.wait()
        async with super().transaction(isolation=isolation) as tx:
            yield tx


class Pausing(UsageStream):
    """A flusher's stream that pauses its database as soon as something was read."""

    def __init__(self, client: object, db: PausedDatabase) -> None:
        super().__init__(client)
        self._db = db
        self._is_armed = True

    async def read(self, after: Positions, *, most: int) -> Harvest:
        harvest = await super().read(after, most=most)
        if harvest.readings and self._is_armed:
            self._is_armed = False
            self._db.open.clear()
        return harvest


async def test_a_flusher_that_sleeps_past_its_lease_writes_nothing_twice(works: Works) -> None:
    """Another one takes its lanes and does the work; when it wakes to write what it has read, it finds that out."""
    (grant,) = await works.customer("c", nanos=[10**9])
    paused = PausedDatabase(works.db)
    stream = Pausing(works.valkey, paused)
    async with works.flusher("sleeper", db=paused, stream=stream, lease_ms=8_000) as slept:
        await works.consume("c", 7)
        await paused.reached.wait()
        await works.raw.execute("UPDATE flush_lane SET lease_until = now(); DELETE FROM flusher")
        async with works.flusher("waker", lease_ms=8_000) as woke:
            await eventually(works.drained)
            await works.consume("c", 5)
            await eventually(works.drained)
            await eventually(lambda: says(woke.usage_rows == 2))
            paused.open.set()
            await eventually(lambda: says(slept.conflicts == 1 or slept.lanes < 16))
            await works.consume("c", 3)
            await eventually(works.drained)
            await eventually(lambda: says(slept.usage_rows + woke.usage_rows == 3))
    assert await works.count("usage_event") == 3
    assert await works.spent(grant) == 15 * NANOS_PER_TOKEN


async def test_a_flusher_that_sleeps_before_it_trims_takes_nothing_from_its_successor(works: Works) -> None:
    """What it trims late is behind the watermark anyway."""
    (grant,) = await works.customer("c", nanos=[10**9])
    sleeper = Gated(works.valkey)
    async with works.flusher("sleeper", stream=sleeper, lease_ms=8_000):
        await works.consume("c", 7)
        await sleeper.reached.wait()
        await works.raw.execute("UPDATE flush_lane SET lease_until = now(); DELETE FROM flusher")
        async with works.flusher("waker", lease_ms=8_000):
            await works.consume("c", 5)
            await eventually(works.drained)
            await works.consume("c", 3)
            sleeper.go_on.set()
            await eventually(works.drained)
    assert await works.count("usage_event") == 3
    assert await works.spent(grant) == 15 * NANOS_PER_TOKEN
    await works.flush()


async def test_a_new_month_is_made_once_by_many_at_once(postgres_url: str) -> None:
    """Flushers that meet the same month wait for the first, and see what it made."""
    connections = [await asyncpg.connect(postgres_url) for _ in range(8)]
    for month in range(1, 7):
        at = datetime(2031, month, 15, tzinfo=UTC)
        await asyncio.gather(*(one.execute("SELECT ensure_usage_month($1)", at) for one in connections))
    for one in connections:
        await one.close()


async def test_a_flusher_that_died_between_commit_and_trim_leaves_nothing_behind(works: Works) -> None:
    """Who takes the lanes after it trims what is written, and writes it no second time."""
    await works.customer("c", nanos=[10**9])
    dying = Gated(works.valkey)
    async with works.flusher("dying", stream=dying):
        await works.consume("c", 7)
        await dying.reached.wait()
    assert await works.entries("c") == 1
    async with works.flusher("next"):

        async def is_trimmed() -> bool:
            return await works.entries("c") == 0

        await eventually(is_trimmed)
    assert await works.count("usage_event") == 1


async def test_a_connection_that_is_killed_in_the_middle_costs_nothing(works: Works) -> None:
    """The batch is rolled back or committed; the flusher that begins again reads where Postgres stands."""
    (grant,) = await works.customer("c", nanos=[10**9])
    stop, failures, done = asyncio.Event(), 0, 0
    plan = FlushPlan(owner="f", lease_ms=2_000, interval_ms=1, batch_entries=500)

    async def keep_flushing() -> None:
        nonlocal failures
        while not stop.is_set():
            try:
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(ingest(works.db, works.stream, plan=plan, tally=FlushTally()))
                    group.create_task(cancel_after(stop, task))
            except* CONNECTION_FAILURES:
                failures += 1

    async def decide() -> None:
        nonlocal done
        while not stop.is_set():
            await works.consume("c", 1)
            done += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_flushing())
        group.create_task(decide())
        while failures < 6:
            await works.raw.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'tallygate' AND datname = current_database()"
                " AND state <> 'idle' AND query ~* 'copy|flush_lane|commit|movement'"
            )
        stop.set()
    await works.flush()
    assert await works.count("usage_event") == done
    assert await works.spent(grant) == done * NANOS_PER_TOKEN


async def cancel_after(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Cancel the task when the event comes."""
    await stop.wait()
    task.cancel()


async def test_a_lane_is_drained_only_when_a_read_found_everything(works: Works) -> None:
    """A first batch of sixteen out of two hundred says nothing about the rest."""
    await works.customer("c", nanos=[10**9])
    for _ in range(200):
        await works.consume("c", 1)
    first = await works.stream.read({shard_of_customer("t", "c"): StreamPosition(0, 0)}, most=16)
    assert (first.entry_count, first.is_complete) == (16, False)
    whole = await works.stream.read(dict.fromkeys(range(SHARD_COUNT), StreamPosition(0, 0)), most=10_000)
    assert (whole.entry_count, whole.is_complete) == (200, True)
    paused = Gated(works.valkey)
    async with works.flusher(stream=paused, batch_entries=16):
        await paused.reached.wait()
        assert 0 < await works.count("usage_event") < 200
        async with works.db.transaction() as tx:
            assert await shards.drained_at(tx) is None
        paused.go_on.set()
        await eventually(works.drained)
    assert await works.count("usage_event") == 200
