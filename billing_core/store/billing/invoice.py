"""Invoices at rest: heads and lines go in with COPY, many at a time; afterwards only the state moves.

Numbers come from one row per tenant that stays locked until the transaction ends. A rollback gives them back, so
that the numbers of a tenant have no gap; two closes of one tenant wait for each other there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import msgspec

from billing_core.errors import NotFound
from billing_core.invoices.correction import Billed
from billing_core.invoices.invoice import Invoice
from billing_core.invoices.line import Earlier, Line, LineKind
from billing_core.pricing.record import PartRecord, exact_text
from billing_core.store.database import Transaction
from billing_core.store.query import Q

INVOICE_COLUMNS = Invoice.__struct_fields__
LINE_COLUMNS = Line.__struct_fields__


class BilledPeriod(Billed, frozen=True, kw_only=True):
    """What was billed of one place in one closed period."""

    subscription_id: str
    start_at: datetime


class NumberedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line and its place on the invoice, 1 for the first."""

    line_no: int
    line: Line


class _First(msgspec.Struct, frozen=True, kw_only=True):
    first: int


class _LineRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line as it is kept: the quantity is numeric."""

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
    quantity: Decimal
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


async def take_numbers(tx: Transaction, *, tenant_id: str, count: int) -> int:
    """The first of `count` numbers that follow one another."""
    return (await tx.one(Q["invoice_numbers_take"], _First, tenant_id, count)).first


async def insert_all(
    tx: Transaction, invoices: Sequence[Invoice], *, lines: Sequence[tuple[str, NumberedLine]]
) -> None:
    """Write heads, and lines by the id of their invoice; all of one tenant."""
    if not invoices:
        return
    tenant_id = invoices[0].tenant_id
    await tx.copy("invoice", INVOICE_COLUMNS, records=(msgspec.structs.astuple(invoice) for invoice in invoices))
    columns = ("tenant_id", "invoice_id", "line_no", *LINE_COLUMNS)
    await tx.copy(
        "invoice_line",
        columns,
        records=((tenant_id, invoice_id, one.line_no, *_values(one.line)) for invoice_id, one in lines),
    )


def _values(line: Line) -> tuple[object, ...]:
    kept: dict[str, object] = {name: getattr(line, name) for name in LINE_COLUMNS}
    kept["quantity"] = Decimal(line.quantity)
    return tuple(kept.values())


async def by_id(tx: Transaction, *, tenant_id: str, invoice_id: str, lock: bool = False) -> Invoice:
    """One invoice, locked until the transaction ends where asked for.

    Raises: NotFound.
    """
    query = Q["invoice_locked" if lock else "invoice_by_id"]
    found = await tx.maybe(query, Invoice, tenant_id, invoice_id)
    if found is None:
        raise NotFound(f"there is no invoice {invoice_id!r}", field="invoice_id")
    return found


async def page(
    tx: Transaction, *, tenant_id: str, customer_id: str = "", state: str = "", after: str = "", count: int
) -> list[Invoice]:
    """Invoices in the order of their birth, of one customer and state or of all."""
    return await tx.many(Q["invoices_after"], Invoice, tenant_id, customer_id, state, after, count)


async def lines_of(tx: Transaction, *, tenant_id: str, invoice_id: str) -> list[NumberedLine]:
    """The invoice's lines, in order."""
    rows = await tx.many(Q["invoice_lines"], _LineRow, tenant_id, invoice_id)
    return [_numbered(row) for row in rows]


def _numbered(row: _LineRow) -> NumberedLine:
    kept: dict[str, object] = {name: getattr(row, name) for name in LINE_COLUMNS}
    kept["quantity"] = exact_text(Fraction(row.quantity))
    return NumberedLine(line_no=row.line_no, line=msgspec.convert(kept, Line))


async def billed_for(
    tx: Transaction, *, tenant_id: str, subscription_ids: Sequence[str], start_ats: Sequence[datetime]
) -> list[BilledPeriod]:
    """What was billed for these closed periods, per price and group."""
    return await tx.many(Q["billed_of_periods"], BilledPeriod, tenant_id, list(subscription_ids), list(start_ats))


async def finalize(tx: Transaction, invoice: Invoice) -> None:
    """Write what finalizing gave a draft."""
    values = (invoice.number, invoice.state, invoice.finalized_at, invoice.due_at, invoice.paid_at)
    await tx.exactly(1, Q["invoice_finalize"], invoice.tenant_id, invoice.invoice_id, *values)


async def pay(tx: Transaction, *, tenant_id: str, invoice_id: str, at: datetime) -> None:
    """Note that a finalized invoice is paid in full."""
    await tx.exactly(1, Q["invoice_pay"], tenant_id, invoice_id, at)


async def void(tx: Transaction, *, tenant_id: str, invoice_id: str, at: datetime) -> None:
    """Note that an invoice counts no more."""
    await tx.exactly(1, Q["invoice_void"], tenant_id, invoice_id, at)
