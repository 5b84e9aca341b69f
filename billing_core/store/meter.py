"""Meters, read: one pass over the events of many customers' periods, and the raw events behind one reading.

Which query reads a meter follows from its aggregation. Plans are made anew for each call, because the best way to
read one customer's day is not the best way to read ten thousand customers' month.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from billing_core.catalog.document import Aggregation, Meter
from billing_core.metering.reading import MeteredEvent, MeterReading, Span, WalletCharge
from billing_core.store.database import Transaction
from billing_core.store.query import Q
from billing_core.values.invariant import invariant

_WHOLE = frozenset({Aggregation.UNIQUE, Aggregation.LATEST})

LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a page of events begins: behind this event."""

    event_at: datetime = LONG_AGO
    shard: int = 0
    stream_ms: int = 0
    stream_seq: int = 0
    part: int = 0


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: one customer's of one name within a span, of one group, recorded until an instant.

    Where events are told apart by `wallets`, those of `wallet`.
    """

    span: Span
    event: str
    recorded_until: datetime
    group_key: dict[str, str] = {}
    wallets: tuple[str, ...] = ()
    wallet: str = ""


async def plan_afresh(tx: Transaction) -> None:
    """Plan what this transaction runs for the tables and values at hand, the checks of foreign keys among it."""
    await tx.run(Q["plans_fresh"])


async def read(
    tx: Transaction,
    tenant_id: str,
    *,
    meter: Meter,
    spans: Sequence[Span],
    recorded_until: datetime,
    wallets: Sequence[str] = (),
) -> list[MeterReading]:
    """What the meter says about each span, one reading per group; a span without events has none.

    Where wallets are named, one reading per group and wallet, the first with what asked none of them; only sums and
    their like are told apart so, because only those are paid out of wallets.
    """
    if not spans:
        return []
    invariant(not wallets or meter.aggregation not in _WHOLE, "what wallets pay is a sum")
    await plan_afresh(tx)
    asked = (
        [span.customer_id for span in spans],
        [span.start_at for span in spans],
        [span.end_at for span in spans],
    )
    head = (tenant_id, meter.event, *asked, recorded_until)
    groups = list(meter.group_by)
    if meter.aggregation is Aggregation.UNIQUE:
        return await tx.many(Q["meter_unique"], MeterReading, *head, meter.field, groups)
    if meter.aggregation is Aggregation.LATEST:
        return await tx.many(Q["meter_latest"], MeterReading, *head, meter.field, meter.scale, groups)
    first_at, last_at = min(asked[1]), max(asked[2])
    is_one_span = first_at == max(asked[1]) and last_at == min(asked[2])
    values = (meter.aggregation, meter.field, meter.scale, groups, list(wallets), first_at, last_at, is_one_span)
    return await tx.many(Q["meter_tally"], MeterReading, *head, *values)


async def charges(tx: Transaction, tenant_id: str, *, meter: Meter, span: Span) -> list[WalletCharge]:
    """What wallets paid for the events that a meter reads, and could not pay, per group and currency or unit."""
    bounds = (span.customer_id, span.start_at, span.end_at)
    return await tx.many(Q["usage_charges"], WalletCharge, tenant_id, meter.event, *bounds, list(meter.group_by))


async def events(
    tx: Transaction, tenant_id: str, *, source: Source, after: Place, count: int
) -> list[MeteredEvent]:
    """The raw events behind a reading, in the order of their time, from behind a place."""
    span = source.span
    bounds = (span.customer_id, source.event, span.start_at, span.end_at, source.recorded_until)
    place = (after.event_at, after.shard, after.stream_ms, after.stream_seq, after.part)
    apart = (list(source.wallets), source.wallet)
    values = (*bounds, source.group_key, *place, count, *apart)
    return await tx.many(Q["metered_event_page"], MeteredEvent, tenant_id, *values)
