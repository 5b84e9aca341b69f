"""Postgres, typed: a named query goes in, structs come out.

The only module that touches asyncpg's connections. JSON columns cross as built-in values that the struct's own
types convert; numeric crosses as Decimal; timestamps are aware and in UTC. A transaction is an object that is
passed on, so that a function's signature says whether it writes within one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import msgspec

from billing_core.errors import NotFound, Unavailable
from billing_core.store.query import Q, Query
from billing_core.values.invariant import invariant

Row = TypeVar("Row", bound=msgspec.Struct)

CONNECTION_FAILURES = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a server that died has said so, and its socket is not closed yet
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""What a lost or absent server looks like; a worker waits and tries again."""


_SESSION = {
    "timezone": "UTC",
    "application_name": "tallygate",
    # A plan for arrays of any length takes them for short: a thousand customers cost a thousand scans.
    "plan_cache_mode": "force_custom_plan",
    # A process that stands still within a transaction keeps its rows from the others no longer than this.
    "idle_in_transaction_session_timeout": "30s",
}


_PIECE_BYTES = 524_288


class Transaction:
    """One open transaction on one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def one(self, query: Query, kind: type[Row], *values: object) -> Row:
        """The query's one row.

        Raises: NotFound where there is none.
        """
        row = await self.maybe(query, kind, *values)
        if row is None:
            raise NotFound(f"nothing found by {query.name.replace('_', ' ')}")
        return row

    async def maybe(self, query: Query, kind: type[Row], *values: object) -> Row | None:
        """The query's row, or None."""
        row = await self._connection.fetchrow(query.sql, *values)
        return None if row is None else msgspec.convert(dict(row), kind)

    async def many(self, query: Query, kind: type[Row], *values: object) -> list[Row]:
        """All rows of the query."""
        rows = await self._connection.fetch(query.sql, *values)
        return msgspec.convert([dict(row) for row in rows], list[kind])

    async def run(self, query: Query, *values: object) -> int:
        """Run a query that gives no rows; how many rows it touched."""
        status: str = await self._connection.execute(query.sql, *values)
        last = status.rsplit(" ", 1)[-1]
        return int(last) if last.isdigit() else 0

    async def exactly(self, count: int, query: Query, *values: object) -> None:
        """Run a query that must touch so many rows: a compare-and-set.

        Raises: InvariantBroken where it touched another number.
        """
        touched = await self.run(query, *values)
        invariant(touched == count, f"{query.name} touched {touched} rows, {count} expected")

    async def stream(
        self, query: Query, kind: type[Row], *values: object, prefetch: int = 1000
    ) -> AsyncIterator[Row]:
        """Rows one after another through a cursor: memory stays flat."""
        async for row in self._connection.cursor(query.sql, *values, prefetch=prefetch):
            yield msgspec.convert(dict(row), kind)

    async def plan_once(self) -> None:
        """Forget the connection's plans, and plan what this transaction runs once, by index; for writing much.

        Foreign keys are checked by queries, one for each row. A plan that was made while a table was nearly empty
        reads the whole table every time, and planning each check anew takes longer than all the rest of a close.
        """
        await self._connection.execute("DISCARD PLANS")
        await self.run(Q["plans_kept"])

    async def copy(self, table: str, columns: Sequence[str], *, records: Iterable[Sequence[object]]) -> None:
        """Append records with the COPY protocol."""
        await self._connection.copy_records_to_table(table, columns=columns, records=records)

    async def copy_binary(self, table: str, columns: Sequence[str], *, data: bytes) -> None:
        """Append rows that are in COPY's binary format already; see `binary_copy`."""
        pieces = _in_pieces(data)
        await self._connection.copy_to_table(table, columns=columns, source=pieces, format="binary")


async def _in_pieces(data: bytes) -> AsyncIterator[memoryview]:
    """As an iterator, because the driver would read a file in another thread, piece by piece."""
    view = memoryview(data)
    for start in range(0, len(data), _PIECE_BYTES):
        yield view[start : start + _PIECE_BYTES]


class Database:
    """A pool of connections to one Postgres."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, url: str, *, size: int = 8) -> Database:
        """Open the pool.

        Raises: Unavailable where the server does not answer.
        """
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=size,
                init=prepare_connection,
                server_settings=_SESSION,
            )
        except CONNECTION_FAILURES as error:
            raise Unavailable(f"Postgres does not answer: {error}") from error
        return cls(pool)

    @asynccontextmanager
    async def transaction(self, *, isolation: str = "read_committed") -> AsyncGenerator[Transaction]:
        """A transaction that commits where its block ends and rolls back where it raises."""
        async with self._pool.acquire() as connection, connection.transaction(isolation=isolation):
            yield Transaction(connection)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Any]:
        """A raw connection for what is no query: LISTEN, advisory locks."""
        async with self._pool.acquire() as connection:
            yield connection

    async def close(self) -> None:
        """Give all connections back."""
        await self._pool.close()


async def prepare_connection(connection: Any) -> None:
    """JSON columns are decoded by msgspec, so that numbers in them never become floats."""
    for kind, mark in (("json", b""), ("jsonb", b"\x01")):
        await connection.set_type_codec(
            kind, schema="pg_catalog", format="binary", encoder=_json_writer(mark), decoder=_json_reader(mark)
        )


_JSON = msgspec.json.Decoder(float_hook=str)


def _json_writer(mark: bytes) -> Callable[[object], bytes]:
    """jsonb's binary form is a version byte and the text."""
    return lambda value: mark + msgspec.json.encode(value)


def _json_reader(mark: bytes) -> Callable[[bytes], object]:
    return lambda data: _JSON.decode(data[len(mark) :])
