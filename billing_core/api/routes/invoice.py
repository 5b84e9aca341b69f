"""Invoices: bills, their lines, and the events below them."""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.api.page import Page, PageQuery, page_of, place_of
from billing_core.api.route import Call, Route
from billing_core.api.wire import Nothing
from billing_core.invoices.invoice import Invoice, InvoiceReason, InvoiceState
from billing_core.invoices.line import Earlier, LineKind
from billing_core.pricing.record import PartRecord
from billing_core.store import invoice as invoices
from billing_core.store.database import Transaction
from billing_core.store.invoice import NumberedLine
from billing_core.values.ids import Code


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
    """One line. `quantity` is exact decimal text; `parts` say what each tier priced."""

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


class InvoiceDetail(InvoiceView, frozen=True, kw_only=True):
    """A whole bill."""

    lines: tuple[LineView, ...]


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
)
