"""Usage: what the meters say about a customer, and what shadow mode let through, as far as it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from billing_core.api.page import PageQuery, page_of, place_of
from billing_core.api.route import Call, Route
from billing_core.api.wire import Nothing
from billing_core.catalog.document import Meter
from billing_core.errors import InvalidInput
from billing_core.flows.setup.publish import clock_of
from billing_core.metering.reading import MeterReading, Span, WalletCharge
from billing_core.store.database import Transaction
from billing_core.store.meter import charges, read
from billing_core.store.setup.catalog import meter_of, meters_of
from billing_core.store.setup.customer import customer_of
from billing_core.store.setup.tenant import tenant_of
from billing_core.store.usage import (
    ShadowPlace,
    ShadowReason,
    ShadowRow,
    ShadowSpan,
    shadow_page,
    shadow_reasons,
)
from billing_core.values.clock import from_ms, to_ms
from billing_core.values.ids import Code, is_code
from billing_core.values.period import Interval, calendar_anchor, zone_of
from billing_core.values.text import FIRST_INSTANT, LAST_INSTANT, Instant, Label

MAX_GROUP_FIELDS = 4
_SHADOWS = "shadow-decisions"
_SHADOW_PARTS = 5


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which meter (all where left out), which `[from, to)`, told apart by which properties (joined by commas).

    Without bounds it is the calendar month of the customer's zone that holds the tenant's present.
    """

    meter: Code | None = None
    from_at: Instant | None = msgspec.field(default=None, name="from")
    to_at: Instant | None = msgspec.field(default=None, name="to")
    group_by: Label = ""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate took out of one wallet for these events, and could not. Units: nanos."""

    currency: str
    charged_nanos: int
    uncollected_nanos: int


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """The quantity of one meter, or of one group of it, as exact decimal text; events that it cannot read apart."""

    meter: str
    group: dict[str, str]
    quantity: str
    event_count: int
    unreadable_count: int
    charges: tuple[Charge, ...]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was metered for a customer in a stretch of time."""

    customer_id: str
    from_at: datetime = msgspec.field(name="from")
    to_at: datetime = msgspec.field(name="to")
    items: tuple[UsageRow, ...] = ()


class ShadowQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which `[from, to)` of the tenant's clock (without bounds where left out), and whose (all if left out)."""

    from_at: Instant | None = msgspec.field(default=None, name="from")
    to_at: Instant | None = msgspec.field(default=None, name="to")
    customer_id: Code | None = None


class ShadowDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One charge of a request that was let through and would have been refused; nothing was charged for it."""

    decision_id: str
    customer_id: str
    feature: str
    quantity: int
    decided_at: datetime
    reason: str
    level: str
    path: str
    key_hint: str


class ShadowDecisions(msgspec.Struct, frozen=True, kw_only=True):
    """A page of them, oldest first; `reasons` counts the whole stretch of time."""

    items: tuple[ShadowDecision, ...]
    reasons: tuple[ShadowReason, ...]
    next_cursor: str | None = None


async def read_shadow_decisions(tx: Transaction, call: Call[Nothing, ShadowQuery]) -> ShadowDecisions:
    """What would have been refused, and how often for which reason."""
    query = call.query
    span = ShadowSpan(
        tenant_id=call.tenant_id,
        customer_id=query.customer_id or "",
        from_at=query.from_at or FIRST_INSTANT,
        to_at=query.to_at or LAST_INSTANT,
    )
    if span.from_at >= span.to_at:
        raise InvalidInput("must lie after `from`", field="to")
    rows = await shadow_page(tx, span, after=_shadow_place(query.cursor), most=query.limit + 1)
    page = page_of(rows, query, listing=_SHADOWS, name=_shadow_name)
    return ShadowDecisions(
        items=tuple(
            ShadowDecision(
                decision_id=one.decision_id,
                customer_id=one.customer_id,
                feature=one.feature,
                quantity=one.quantity,
                decided_at=one.decided_at,
                reason=one.reason,
                level=one.level,
                path=one.path,
                key_hint=one.key_hint,
            )
            for one in page.items
        ),
        reasons=tuple(await shadow_reasons(tx, span)),
        next_cursor=page.next_cursor,
    )


def _shadow_name(row: ShadowRow) -> str:
    return f"{to_ms(row.decided_at)}.{row.shard}.{row.stream_ms}.{row.stream_seq}.{row.part}"


def _shadow_place(cursor: str) -> ShadowPlace:
    name = place_of(cursor, _SHADOWS)
    if not name:
        return FIRST_INSTANT, -1, 0, 0, 0
    digits = name.split(".")
    if len(digits) != _SHADOW_PARTS or not all(one.isdigit() for one in digits):
        raise InvalidInput("is no cursor of this list", field="cursor")
    at_ms, shard, stream_ms, stream_seq, part = map(int, digits)
    return from_ms(at_ms), shard, stream_ms, stream_seq, part


async def read_usage(tx: Transaction, call: Call[Nothing, UsageQuery]) -> Usage:
    """Quantities by meter and group."""
    span = await _span(tx, call)
    names = _group_fields(call.query.group_by)
    chosen = call.query.meter
    one = [await meter_of(tx, call.tenant_id, code=chosen)] if chosen else None
    items: list[UsageRow] = []
    for meter in one or await meters_of(tx, call.tenant_id):
        grouped = msgspec.structs.replace(meter, group_by=names)
        readings = await read(tx, call.tenant_id, meter=grouped, spans=[span], recorded_until=LAST_INSTANT)
        paid = await charges(tx, call.tenant_id, meter=grouped, span=span)
        items += [_row(meter, reading, charged=paid) for reading in readings or _nothing(span, grouped)]
    return Usage(customer_id=span.customer_id, from_at=span.start_at, to_at=span.end_at, items=tuple(items))


async def _span(tx: Transaction, call: Call[Nothing, UsageQuery]) -> Span:
    customer = await customer_of(tx, call.tenant_id, customer_id=call.path["customer_id"])
    now = clock_of(await tenant_of(tx, call.tenant_id), now=call.now).now
    end_at = call.query.to_at or now
    start_at = call.query.from_at or calendar_anchor(Interval.MONTH, end_at, zone=zone_of(customer.time_zone))
    if start_at >= end_at:
        raise InvalidInput("must lie after `from`", field="to")
    return Span(customer_id=customer.customer_id, start_at=start_at, end_at=end_at)


def _group_fields(text: str) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else ()
    if len(names) > MAX_GROUP_FIELDS or len(set(names)) < len(names) or not all(map(is_code, names)):
        raise InvalidInput(
            f"must be at most {MAX_GROUP_FIELDS} names of properties, joined by commas", field="group_by"
        )
    return names


def _nothing(span: Span, meter: Meter) -> list[MeterReading]:
    """No event at all is a quantity of zero, where no groups are asked for."""
    if meter.group_by:
        return []
    zero = MeterReading(
        customer_id=span.customer_id,
        start_at=span.start_at,
        group_key={},
        quantity=Decimal(0),
        event_count=0,
        unreadable_count=0,
        event_digest="",
        charged_nanos=0,
        uncollected_nanos=0,
    )
    return [zero]


def _row(meter: Meter, reading: MeterReading, *, charged: Sequence[WalletCharge]) -> UsageRow:
    return UsageRow(
        meter=meter.code,
        group=reading.group_key,
        quantity=f"{reading.quantity:f}",
        event_count=reading.event_count,
        unreadable_count=reading.unreadable_count,
        charges=tuple(
            Charge(
                currency=one.currency,
                charged_nanos=one.charged_nanos,
                uncollected_nanos=one.uncollected_nanos,
            )
            for one in charged
            if one.group_key == reading.group_key
        ),
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/customers/{customer_id}/usage",
        summary="What the meters say about a customer",
        query=UsageQuery,
        body=Nothing,
        answer=Usage,
        act=read_usage,
    ),
    Route(
        method="GET",
        path="/v1/shadow-decisions",
        summary="What shadow mode let through that would have been refused",
        query=ShadowQuery,
        body=Nothing,
        answer=ShadowDecisions,
        act=read_shadow_decisions,
    ),
)
