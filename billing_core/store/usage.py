"""Usage at rest: rows of events, movements and parked entries, appended with COPY.

The rows are plain tuples in the order of the columns named here, because a flusher makes fifty thousand of them
a second. `recorded_at` is the last column: it is known only when the batch's transaction is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.store.database import Transaction
from billing_core.store.query import Q

USAGE_COLUMNS = (
    "shard",
    "stream_ms",
    "stream_seq",
    "part",
    "tenant_id",
    "customer_id",
    "event_id",
    "name",
    "source",
    "event_at",
    "decided_at",
    "quantity",
    "properties",
    "currency",
    "charged_nanos",
    "uncollected_nanos",
    "key_hint",
    "recorded_at",
)
MOVEMENT_COLUMNS = (
    "shard",
    "stream_ms",
    "stream_seq",
    "part",
    "tenant_id",
    "customer_id",
    "grant_id",
    "currency",
    "kind",
    "nanos",
    "event_id",
    "event_at",
    "recorded_at",
)
PARKED_COLUMNS = ("shard", "stream_ms", "stream_seq", "tenant_id", "reason", "fields", "recorded_at")

Rows = Sequence[tuple[object, ...]]


class _Count(msgspec.Struct, frozen=True, kw_only=True):
    count: int


class ParkedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Where a parked entry stood, whose it is ("" where that cannot be read), and why it was parked."""

    shard: int
    stream_ms: int
    stream_seq: int
    tenant_id: str
    reason: str


async def ensure_month(tx: Transaction, instant: datetime) -> None:
    """Have a partition for the month of the instant."""
    await tx.run(Q["usage_month"], instant)


async def append(tx: Transaction, table: str, rows: Rows, *, recorded_at: datetime) -> None:
    """Append rows that lack only their last column."""
    columns = {"usage_event": USAGE_COLUMNS, "movement": MOVEMENT_COLUMNS, "parked_entry": PARKED_COLUMNS}[table]
    if rows:
        last = (recorded_at,)
        await tx.copy(table, columns, (row + last for row in rows))


async def parked_count(tx: Transaction) -> int:
    """How many entries could not be written."""
    return (await tx.one(Q["parked_count"], _Count)).count


async def parked(tx: Transaction, *, tenant_id: str) -> list[ParkedEntry]:
    """The entries that could not be written; of one tenant, or of all where it is empty."""
    return await tx.many(Q["parked_entries"], ParkedEntry, tenant_id)
