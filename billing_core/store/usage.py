"""Usage at rest: rows of events, movements and parked entries, appended with COPY.

The rows come as COPY's own bytes, in the order of the columns named here, because a flusher makes some hundred
thousand of them a second. `recorded_at` is the last column: it is known only when the batch's transaction is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.store.binary_copy import copy_data, instant
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


async def append_usage(tx: Transaction, rows: Sequence[bytes], *, recorded_at: datetime) -> None:
    """Append rows of USAGE_COLUMNS in COPY's binary format, which lack only their last column."""
    await _append(tx, "usage_event", columns=USAGE_COLUMNS, told=(rows, recorded_at))


async def append_movements(tx: Transaction, rows: Sequence[bytes], *, recorded_at: datetime) -> None:
    """Append rows of MOVEMENT_COLUMNS in COPY's binary format, which lack only their last column."""
    await _append(tx, "movement", columns=MOVEMENT_COLUMNS, told=(rows, recorded_at))


async def _append(
    tx: Transaction, table: str, *, columns: Sequence[str], told: tuple[Sequence[bytes], datetime]
) -> None:
    rows, recorded_at = told
    if rows:
        await tx.copy_binary(table, columns, data=copy_data(rows, last=instant(recorded_at)))


async def park(tx: Transaction, rows: Sequence[tuple[object, ...]], *, recorded_at: datetime) -> None:
    """Append rows of PARKED_COLUMNS, which lack only their last column."""
    if rows:
        await tx.copy("parked_entry", PARKED_COLUMNS, records=((*row, recorded_at) for row in rows))


async def parked_count(tx: Transaction) -> int:
    """How many entries could not be written."""
    return (await tx.one(Q["parked_count"], _Count)).count


async def parked(tx: Transaction, *, tenant_id: str) -> list[ParkedEntry]:
    """The entries that could not be written; of one tenant, or of all where it is empty."""
    return await tx.many(Q["parked_entries"], ParkedEntry, tenant_id)
