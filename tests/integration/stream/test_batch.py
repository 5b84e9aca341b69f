"""A batch is one step, whatever ends it; and only what it has written is forgotten."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from billing_core.adapters.usage_stream import Harvest, Positions
from billing_core.contract.keys import shard_of_customer, stream_key
from billing_core.contract.usage_event import StreamPosition
from billing_core.flows.ingest import FlushPlan, FlushTally, ingest
from billing_core.store import shard as shards
from billing_core.store.database import CONNECTION_FAILURES, Database, Transaction
from billing_core.store.query import Query
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works, eventually, says
from tests.integration.stream.test_ingest import PausedDatabase, Pausing


class Mortal(Transaction):
    """A transaction whose server process is killed right behind one step."""

    def __init__(self, connection: Any, *, step: str, killer: asyncpg.Connection) -> None:
        super().__init__(connection)
        self._step = step
        self._killer = killer

    async def maybe(self, query: Query, kind: Any, *values: object) -> Any:
        row = await super().maybe(query, kind, *values)
        await self._behind(query.name)
        return row

    async def many(self, query: Query, kind: Any, *values: object) -> Any:
        rows = await super().many(query, kind, *values)
        await self._behind(query.name)
        return rows

    async def copy(self, table: str, columns: Sequence[str], *, records: Any) -> None:
        await super().copy(table, columns, records=records)
        await self._behind(table)

    async def copy_binary(self, table: str, columns: Sequence[str], *, data: bytes) -> None:
        await super().copy_binary(table, columns, data=data)
        await self._behind(table)

    async def _behind(self, step: str) -> None:
        if step == self._step:
            server = self._connection.get_server_pid()
            assert await self._killer.fetchval("SELECT pg_terminate_backend($1, 10000)", server)


class MortalDatabase(Database):
    """A flusher's database whose transactions die behind one step."""

    def __init__(self, works: Works, *, step: str) -> None:
        super().__init__(works.db._pool)
        self._killer = works.raw
        self._step = step

    @asynccontextmanager
    async def transaction(self, *, isolation: str = "read_committed") -> AsyncGenerator[Transaction]:
        async with self._pool.acquire() as connection, connection.transaction(isolation=isolation):
            yield Mortal(connection, step=self._step, killer=self._killer)


@pytest.mark.parametrize("step", ["batch_open", "grants_move", "usage_event", "movement", "parked_entry"])
async def test_a_batch_that_is_killed_behind_any_step_has_not_been(works: Works, step: str) -> None:
    """Neither the mark, nor what left the grants, nor any row; the next flusher writes all of it."""
    (grant,) = await works.customer("c", nanos=[10**9])
    shard = shard_of_customer("t", "c")
    await works.consume("c", 3)
    await works.valkey.xadd(stream_key(shard), {"k": "refund"})
    plan = FlushPlan(owner="mortal", lease_ms=60_000, interval_ms=1, batch_entries=500)
    with pytest.raises(CONNECTION_FAILURES):
        await ingest(MortalDatabase(works, step=step), works.stream, plan=plan, tally=FlushTally())
    async with works.db.transaction() as tx:
        assert await shards.watermarks(tx, [shard]) == {shard: StreamPosition(0, 0)}
    assert [await works.count(table) for table in ("usage_event", "movement", "parked_entry")] == [0, 0, 0]
    assert (await works.spent(grant), await works.entries("c")) == (0, 2)
    await works.raw.execute("UPDATE flush_lane SET lease_until = now(); DELETE FROM flusher")
    await works.flush()
    assert [await works.count(table) for table in ("usage_event", "movement", "parked_entry")] == [1, 1, 1]
    assert await works.spent(grant) == 3 * NANOS_PER_TOKEN


async def test_what_came_in_the_same_millisecond_is_not_trimmed_with_it(works: Works) -> None:
    """Up to and including the position, and nothing beyond it."""
    stream = stream_key(7)
    for name in ("5-0", "5-1", "5-2", "6-0"):
        await works.valkey.xadd(stream, {"k": "event"}, id=name)
    await works.stream.trim({7: StreamPosition(5, 0)})
    assert [name for name, *_ in await works.valkey.execute_command("XRANGE", stream, "-", "+")] == [
        b"5-1",
        b"5-2",
        b"6-0",
    ]


class Counting(Pausing):
    """Counts how often it was read."""

    def __init__(self, client: object, db: PausedDatabase) -> None:
        super().__init__(client, db)
        self.reads = 0

    async def read(self, after: Positions, *, most: int) -> Harvest:
        self.reads += 1
        return await super().read(after, most=most)


async def test_lanes_that_were_taken_and_are_back_make_a_flusher_read_anew(works: Works) -> None:
    """Before it wrote, a builder took them: what it has read may be of a server that is gone."""
    (grant,) = await works.customer("c", nanos=[10**9])
    paused = PausedDatabase(works.db)
    stream = Counting(works.valkey, paused)
    await works.consume("c", 7)
    async with works.flusher("ahead", db=paused, stream=stream, lease_ms=1) as tally:
        await paused.reached.wait()
        async with works.db.transaction() as tx:
            await shards.revoke_lanes(tx)
        await works.valkey.delete(stream_key(shard_of_customer("t", "c")))
        paused.open.set()
        await eventually(lambda: says(stream.reads > 1))
    assert (tally.usage_rows, await works.count("usage_event"), await works.spent(grant)) == (0, 0, 0)
