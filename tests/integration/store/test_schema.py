"""The schema and the named queries, against a real Postgres."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from billing_core.errors import ConfigurationError
from billing_core.store import migration
from billing_core.store.query import INVARIANTS, Q, Query, parse


async def test_a_second_migration_changes_nothing(postgres_url: str) -> None:
    """Steps that were applied are not applied again."""
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await migration.migrate(connection) == []
    finally:
        await connection.close()


async def test_a_step_that_was_edited_after_it_was_applied_is_found_out(postgres_url: str) -> None:
    """The schema cannot be trusted where a step's text has changed."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("UPDATE schema_step SET digest = 'other' WHERE name = '0004_shard.sql'")
        with pytest.raises(ConfigurationError, match="0004_shard"):
            await migration.migrate(connection)
    finally:
        await connection.close()


async def test_every_named_query_is_prepared_by_the_real_schema(postgres_url: str) -> None:
    """Each query's text, parameters and types fit the tables."""
    connection = await asyncpg.connect(postgres_url)
    faults: list[str] = []
    try:
        for query in (*Q.values(), *INVARIANTS.values()):
            faults += await _fault_of(connection, query)
    finally:
        await connection.close()
    assert faults == []
    assert len(Q) > 20


async def _fault_of(connection: asyncpg.Connection, query: Query) -> list[str]:
    types = ", ".join(kind for _, kind in query.params)
    head = f"PREPARE probe ({types})" if types else "PREPARE probe"
    try:
        await connection.execute(f"{head} AS {query.sql}")
        await connection.execute("DEALLOCATE probe")
        await connection.prepare(query.sql)  # as the driver does it, which is not told the types
    except asyncpg.PostgresError as error:
        return [f"{query.name}: {error}"]
    return []


async def test_a_transfer_that_does_not_sum_to_zero_is_refused(postgres_url: str) -> None:
    """Each currency for itself, and each statement: half a transfer is refused, whatever would follow it."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("INSERT INTO tenant (tenant_id, name, created_at) VALUES ('t', 't', now())")
        uneven = ([("USD", 5), ("USD", -4)], [("USD", 5), ("EUR", -5)], [("USD", 5)])
        for sides in uneven:
            with pytest.raises(asyncpg.CheckViolationError, match="transfer tra_1 does not sum to zero"):
                await _book(connection, sides)
        await _book(connection, [("USD", 5), ("EUR", 7), ("USD", -5), ("EUR", -7)])
        assert await connection.fetchval("SELECT count(*) FROM ledger_entry") == 4
        with pytest.raises(asyncpg.CheckViolationError, match="tra_2"):
            await _book(connection, [("USD", 1), ("USD", -1)], [("USD", 1), ("USD", -2)], [("USD", 2), ("USD", -1)])
        assert await connection.fetchval("SELECT count(*) FROM ledger_entry") == 4
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await connection.execute("UPDATE ledger_entry SET nanos = 6 WHERE nanos = 5")
    finally:
        await connection.close()


async def _book(connection: asyncpg.Connection, *transfers: list[tuple[str, int]]) -> None:
    """Transfers `tra_1`, `tra_2` and so on, all their sides in one statement."""
    names = [f"tra_{number}" for number in range(1, len(transfers) + 1)]
    sides = [
        (name, number, *side)
        for name, listed in zip(names, transfers, strict=True)
        for number, side in enumerate(listed, start=1)
    ]
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO ledger_transfer SELECT 't', name, 'test', name, now(), now()"
            " FROM unnest($1::text[]) AS name ON CONFLICT DO NOTHING",
            names,
        )
        await connection.execute(
            "INSERT INTO ledger_entry SELECT 't', t.name, t.number + (SELECT count(*) FROM ledger_entry),"
            " 'cash', 'c', t.currency, t.nanos"
            " FROM unnest($1::text[], $2::int[], $3::text[], $4::bigint[]) AS t (name, number, currency, nanos)",
            *zip(*sides, strict=True),
        )


async def test_the_outbox_speaks_only_when_there_is_something_in_it(postgres_url: str) -> None:
    """A statement that inserts no row wakes nobody: a relay that woke itself would never rest."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(postgres_url)
    try:
        for channel in ("tallygate_outbox", "fence"):
            await connection.add_listener(channel, lambda _, __, name, ___: heard.put_nowait(name))
        insert = "INSERT INTO outbox (kind, tenant_id) SELECT 'meters', 't' FROM generate_series(1, $1::integer)"
        await connection.execute(insert, 0)
        await connection.execute("NOTIFY fence")
        assert await heard.get() == "fence"
        await connection.execute(insert, 3)
        assert await heard.get() == "tallygate_outbox"
    finally:
        await connection.close()


async def test_usage_of_a_month_lands_in_the_partition_of_that_month(postgres_url: str) -> None:
    """Partitions are made on demand, once."""
    connection = await asyncpg.connect(postgres_url)
    try:
        for _ in range(2):
            await connection.execute("SELECT ensure_usage_month('2026-02-28T23:59:59Z')")
        names = await connection.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
            " WHERE inhparent = 'usage_event'::regclass ORDER BY 1"
        )
        assert [row["name"] for row in names] == ["usage_event_202602", "usage_event_elsewhen"]
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "text",
    [
        "-- name: a\n-- rows: some\n-- params:\nSELECT 1",
        "-- name: a\n-- rows: one\n-- params:\nSELECT $1",
        "-- name: a\n-- rows: one\n-- params: x\nSELECT $1",
        "-- name: a\n-- rows: one\n-- params: x int, y int\nSELECT $1",
        "-- name: a\n-- rows: one\n-- params:\n",
    ],
)
def test_a_header_that_does_not_fit_its_query_is_refused(text: str) -> None:
    """Row word, parameter count, parameter types and text are all demanded."""
    with pytest.raises(ConfigurationError, match="a"):
        list(parse(text, "noun.sql"))
