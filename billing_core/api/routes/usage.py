"""Usage: what the meters say about a customer, as far as events have been written down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

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
from billing_core.values.ids import Code, is_code
from billing_core.values.period import Interval, calendar_anchor, zone_of
from billing_core.values.text import LAST_INSTANT, Instant, Label

MAX_GROUP_FIELDS = 4


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
)
