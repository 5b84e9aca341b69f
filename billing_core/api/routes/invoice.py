"""Invoices: bills, their lines, and the events below them."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from billing_core.api.page import Page, PageQuery, cursor_of, page_of, place_of
from billing_core.api.route import Call, Route
from billing_core.api.wire import Nothing
from billing_core.errors import InvalidInput, NotFound
from billing_core.flows.billing import bill, replay
from billing_core.invoices.invoice import Invoice, InvoiceReason, InvoiceState
from billing_core.invoices.line import Earlier, LineKind
from billing_core.invoices.replay import Difference
from billing_core.metering.reading import MeteredEvent
from billing_core.pricing.record import PartRecord
from billing_core.store.billing import invoice as invoices
from billing_core.store.billing.invoice import NumberedLine
from billing_core.store.database import Transaction
from billing_core.store.meter import Place
from billing_core.values.clock import EPOCH
from billing_core.values.ids import Code

_MICROSECOND = timedelta(microseconds=1)
_PLACE_PARTS = 5
_MOST_DIGITS = 17
_MOST_LINE_DIGITS = 6


class InvoiceFilter(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose invoices, and in which state."""

    customer_id: Code | None = None
    state: InvoiceState | None = None


class InvoiceView(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a bill. Times are on the tenant's clock; amounts in minor units of the currency."""

    invoice_id: str
    customer_id: str
    subscription_id: str | None
    number: str | None
    currency: str
    state: InvoiceState
    reason: InvoiceReason
    period_start_at: datetime
    period_end_at: datetime
    total_minor: int
    prepaid_minor: int
    due_minor: int
    paid_minor: int
    due_at: datetime | None
    created_at: datetime
    finalized_at: datetime | None
    paid_at: datetime | None
    voided_at: datetime | None


class LineView(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `quantity` is exact decimal text; `parts` say what each tier priced.

    A line of another `wallet` has no amount: it tells what that wallet paid and could not pay, in its nanos.
    """

    line_no: int
    kind: LineKind
    description: str
    plan_code: str
    plan_version: int
    price_code: str
    meter_code: str
    group_key: dict[str, str]
    service_start_at: datetime
    service_end_at: datetime
    recorded_until: datetime | None
    quantity: str
    amount_minor: int
    prepaid_minor: int
    parts: tuple[PartRecord, ...]
    event_count: int
    unreadable_count: int
    event_digest: str
    earlier: Earlier | None
    wallet: str
    wallet_nanos: int
    unpaid_nanos: int


class InvoiceDetail(InvoiceView, frozen=True, kw_only=True):
    """A whole bill."""

    lines: tuple[LineView, ...]


class VoidedInvoice(InvoiceDetail, frozen=True, kw_only=True):
    """A bill that was taken back, and whether the gateway knows what follows: its customer may be served again."""

    applied: bool = False


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One usage event under a line. `quantity` is exact decimal text; `recorded_at` is when it was written down."""

    event_id: str
    part: int
    name: str
    source: str
    event_at: datetime
    recorded_at: datetime
    quantity: str
    properties: dict[str, str]
    charged_nanos: int
    uncollected_nanos: int


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a bill, made again from its events, has the same bytes, and what differs where it has not."""

    invoice_id: str
    same: bool
    line_count: int
    differences: tuple[Difference, ...]


async def list_invoices(tx: Transaction, call: Call[Nothing, InvoiceFilter]) -> Page[InvoiceView]:
    """Invoices in the order of their birth."""
    query = call.query
    rows = await invoices.page(
        tx,
        tenant_id=call.tenant_id,
        customer_id=query.customer_id or "",
        state=query.state or "",
        after=place_of(query.cursor, "invoices"),
        count=query.limit + 1,
    )
    views = [msgspec.convert(row, InvoiceView, from_attributes=True) for row in rows]
    return page_of(views, query, listing="invoices", name=lambda view: view.invoice_id)


async def read(tx: Transaction, call: Call[Nothing, Nothing]) -> InvoiceDetail:
    """One invoice with its lines."""
    invoice = await invoices.by_id(tx, tenant_id=call.tenant_id, invoice_id=call.path["invoice_id"])
    return await detail(tx, invoice)


async def detail(tx: Transaction, invoice: Invoice) -> InvoiceDetail:
    """The invoice with its lines."""
    lines = await invoices.lines_of(tx, tenant_id=invoice.tenant_id, invoice_id=invoice.invoice_id)
    head = msgspec.convert(invoice, InvoiceView, from_attributes=True)
    return InvoiceDetail(**msgspec.structs.asdict(head), lines=tuple(_line(one) for one in lines))


def _line(one: NumberedLine) -> LineView:
    return LineView(line_no=one.line_no, **msgspec.structs.asdict(one.line))


async def list_events(tx: Transaction, call: Call[Nothing, PageQuery]) -> Page[EventView]:
    """The raw events that a line was made of, in the order of their time."""
    limit = call.query.limit
    rows = await replay.events_of_line(
        tx,
        tenant_id=call.tenant_id,
        invoice_id=call.path["invoice_id"],
        line_no=_line_no(call.path["line_no"]),
        after=_place_of(place_of(call.query.cursor, "events")),
        count=limit + 1,
    )
    more = cursor_of("events", _place_text(rows[limit - 1])) if len(rows) > limit else None
    return Page(items=tuple(_event(row) for row in rows[:limit]), next_cursor=more)


def _line_no(text: str) -> int:
    if not text.isdecimal() or len(text) > _MOST_LINE_DIGITS:
        raise NotFound(f"there is no line {text!r}", field="line_no")
    return int(text)


def _place_text(row: MeteredEvent) -> str:
    """An event's place in a cursor: microseconds and the stream's place, joined by points."""
    micros = (row.event_at - EPOCH) // _MICROSECOND
    return f"{micros}.{row.shard}.{row.stream_ms}.{row.stream_seq}.{row.part}"


def _place_of(text: str) -> Place:
    if not text:
        return Place()
    parts = text.split(".")
    if len(parts) != _PLACE_PARTS or not all(part.isdecimal() and len(part) < _MOST_DIGITS for part in parts):
        raise InvalidInput("is no cursor of this list", field="cursor")
    micros, shard, stream_ms, stream_seq, part = (int(part) for part in parts)
    event_at = EPOCH + micros * _MICROSECOND
    return Place(event_at=event_at, shard=shard, stream_ms=stream_ms, stream_seq=stream_seq, part=part)


def _event(row: MeteredEvent) -> EventView:
    return EventView(
        event_id=row.event_id,
        part=row.part,
        name=row.name,
        source=row.source,
        event_at=row.event_at,
        recorded_at=row.recorded_at,
        quantity=f"{row.quantity:f}",
        properties=row.properties,
        charged_nanos=row.charged_nanos,
        uncollected_nanos=row.uncollected_nanos,
    )


async def read_replay(tx: Transaction, call: Call[Nothing, Nothing]) -> ReplayView:
    """Make the bill again and compare."""
    found = await replay.replay(tx, tenant_id=call.tenant_id, invoice_id=call.path["invoice_id"])
    return ReplayView(
        invoice_id=found.invoice_id, same=found.is_same, line_count=found.lines, differences=found.differences
    )


async def finalize(tx: Transaction, call: Call[Nothing, Nothing]) -> InvoiceDetail:
    """Give a draft its number; from now on it does not change."""
    invoice_id = call.path["invoice_id"]
    return await detail(tx, await bill.finalize(tx, tenant_id=call.tenant_id, invoice_id=invoice_id, now=call.now))


async def void(tx: Transaction, call: Call[Nothing, Nothing]) -> VoidedInvoice:
    """Take back an invoice that is not paid."""
    invoice_id = call.path["invoice_id"]
    shown = await detail(tx, await bill.void(tx, tenant_id=call.tenant_id, invoice_id=invoice_id, now=call.now))
    return VoidedInvoice(**msgspec.structs.asdict(shown))


INVOICES, INVOICE = "/v1/invoices", "/v1/invoices/{invoice_id}"

ROUTES = (
    Route(
        method="GET",
        path=INVOICES,
        summary="List invoices",
        query=InvoiceFilter,
        body=Nothing,
        answer=Page[InvoiceView],
        act=list_invoices,
    ),
    Route(
        method="GET",
        path=INVOICE,
        summary="Read an invoice with its lines",
        query=Nothing,
        body=Nothing,
        answer=InvoiceDetail,
        act=read,
    ),
    Route(
        method="GET",
        path=INVOICE + "/lines/{line_no}/events",
        summary="The raw events below a line",
        query=PageQuery,
        body=Nothing,
        answer=Page[EventView],
        act=list_events,
    ),
    Route(
        method="GET",
        path=INVOICE + "/replay",
        summary="Make a bill again from its events and compare",
        query=Nothing,
        body=Nothing,
        answer=ReplayView,
        act=read_replay,
    ),
    Route(
        method="POST",
        path=INVOICE + "/finalize",
        summary="Finalize a draft",
        query=Nothing,
        body=Nothing,
        answer=InvoiceDetail,
        act=finalize,
    ),
    Route(
        method="POST",
        path=INVOICE + "/void",
        summary="Void an invoice that is not paid",
        query=Nothing,
        body=Nothing,
        answer=VoidedInvoice,
        tells=lambda answer: answer.customer_id,
        act=void,
    ),
)
