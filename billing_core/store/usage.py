"""Usage at rest: rows of events, movements and parked entries, appended with COPY.

The rows come as COPY's own bytes, in the order of the columns named here, because a flusher makes some hundred
thousand of them a second. `recorded_at` is the last column: it is known only when the batch's transaction is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.contract.usage_event import StreamPosition
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
    "rated_nanos",
    "key_hint",
    "path",
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
SHADOW_COLUMNS = (
    "shard",
    "stream_ms",
    "stream_seq",
    "part",
    "tenant_id",
    "customer_id",
    "decision_id",
    "feature",
    "quantity",
    "decided_at",
    "reason",
    "level",
    "path",
    "key_hint",
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


async def append_shadows(tx: Transaction, rows: Sequence[tuple[object, ...]], *, recorded_at: datetime) -> None:
    """Append rows of SHADOW_COLUMNS, which lack only their last column."""
    if rows:
        await tx.copy("shadow_decision", SHADOW_COLUMNS, records=((*row, recorded_at) for row in rows))


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


LATEST_MS = 253_402_300_799_000
"""An end that is never reached: the end of the year 9999."""

EVERYTHING = StreamPosition(2**63 - 1, 2**63 - 1)
"""A place behind all others."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which usage of the gate: of a customer, of a feature ("" all that was priced), decided in `[since, until)`.

    Units are told apart by buckets of that length, or all in one where it is zero. Times are ms on the tenant's
    clock.
    """

    tenant_id: str
    customer_id: str
    name: str
    since_ms: int
    until_ms: int
    bucket_ms: int


class UnitsRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one path used in one currency ("" nothing was priced) and bucket; `number` names the question."""

    number: int
    path: str
    currency: str
    bucket: int
    units: int
    rated_nanos: int


class GaugeName(msgspec.Struct, frozen=True, kw_only=True):
    """One gauge of one customer."""

    tenant_id: str
    customer_id: str
    name: str


class LevelChange(msgspec.Struct, frozen=True, kw_only=True):
    """By how much one path has moved a gauge in all."""

    tenant_id: str
    customer_id: str
    name: str
    path: str
    units: int


async def units_used(
    tx: Transaction, asked: Sequence[Asked], *, upto: StreamPosition = EVERYTHING
) -> dict[Asked, list[UnitsRow]]:
    """The answer to each question that has one, from the rows up to that place in their stream."""
    answers: dict[Asked, list[UnitsRow]] = {}
    for query, listed in (
        (Q["units_of_feature"], [one for one in asked if one.name]),
        (Q["units_of_all"], [one for one in asked if not one.name]),
    ):
        if not listed:
            continue
        columns: list[Sequence[object]] = [[one.tenant_id for one in listed], [one.customer_id for one in listed]]
        if listed[0].name:
            columns.append([one.name for one in listed])
        columns += [
            [one.since_ms for one in listed],
            [one.until_ms for one in listed],
            [one.bucket_ms for one in listed],
        ]
        for row in await tx.many(query, UnitsRow, *columns, upto.ms, upto.seq):
            answers.setdefault(listed[row.number - 1], []).append(row)
    return answers


async def gauge_changes(
    tx: Transaction, gauges: Sequence[GaugeName], *, upto: StreamPosition = EVERYTHING
) -> list[LevelChange]:
    """By how much each path has moved each of these gauges, from the rows up to that place in their stream."""
    columns = (
        [one.tenant_id for one in gauges],
        [one.customer_id for one in gauges],
        [one.name for one in gauges],
    )
    return await tx.many(Q["gauge_changes"], LevelChange, *columns, upto.ms, upto.seq)


class ShadowRow(msgspec.Struct, frozen=True, kw_only=True):
    """One charge of a request that would have been refused: where its entry stood, and what it would have said."""

    shard: int
    stream_ms: int
    stream_seq: int
    part: int
    customer_id: str
    decision_id: str
    feature: str
    quantity: int
    decided_at: datetime
    reason: str
    level: str
    path: str
    key_hint: str


class ShadowReason(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests would have been refused for one reason, and how many customers they were of."""

    reason: str
    decisions: int
    customers: int


class ShadowSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Whose shadow decisions ("" every customer's), in `[from, to)` on the tenant's clock."""

    tenant_id: str
    customer_id: str
    from_at: datetime
    to_at: datetime


ShadowPlace = tuple[datetime, int, int, int, int]
"""Where a row stands in its list: decided at, then the place of its entry and its part."""


async def shadow_page(tx: Transaction, span: ShadowSpan, *, after: ShadowPlace, most: int) -> list[ShadowRow]:
    """Rows behind a place, oldest first."""
    bounds = span.tenant_id, span.customer_id, span.from_at, span.to_at
    return await tx.many(Q["shadow_page"], ShadowRow, *bounds, *after, most)


async def shadow_reasons(tx: Transaction, span: ShadowSpan) -> list[ShadowReason]:
    """How often each reason would have been given."""
    bounds = span.tenant_id, span.customer_id, span.from_at, span.to_at
    return await tx.many(Q["shadow_reasons"], ShadowReason, *bounds)
