"""Bill: write invoices, finalize drafts, void what was wrong.

An invoice that is finalized takes the tenant's next number, goes into the books, starts the schedules of its fees
and asks for its payment, all in one transaction with its lines. `write` does so for many invoices of a tenant at a
time, because a close writes thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from billing_core.errors import Conflict
from billing_core.flows.money import dun
from billing_core.invoices.booked import transfers_of
from billing_core.invoices.invoice import (
    Invoice,
    InvoiceAct,
    InvoiceReason,
    InvoiceState,
    finalized,
    state_after,
    totals_of,
)
from billing_core.invoices.line import Line
from billing_core.ledger.account import Account
from billing_core.ledger.booking import Cause, invoice_voided
from billing_core.ledger.transfer import Entry
from billing_core.payments.payment import Method, Payment, PaymentState, asked_for, payment_after
from billing_core.payments.processor import ChargeResult, Outcome
from billing_core.revenue.schedule import schedules_of
from billing_core.store.billing import invoice as invoices
from billing_core.store.billing import schedule as schedules
from billing_core.store.billing import subscription as subscriptions
from billing_core.store.billing.invoice import NumberedLine
from billing_core.store.database import Transaction
from billing_core.store.money import ledger
from billing_core.store.money import payment as payments
from billing_core.store.setup.customer import Collection
from billing_core.store.setup.tenant import tenant_of
from billing_core.values.ids import new_id
from billing_core.values.invariant import invariant
from billing_core.values.period import Period


class Occasion(msgspec.Struct, frozen=True, kw_only=True):
    """Whose bill, for which period, and how it will be paid."""

    tenant_id: str
    subscription_id: str
    customer_id: str
    reason: InvoiceReason
    period: Period
    currency: str
    time_zone: str
    collection: Collection
    terms_days: int


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be billed on one invoice."""

    occasion: Occasion
    lines: tuple[Line, ...]


async def write(tx: Transaction, bills: Sequence[Bill], *, now: datetime, finalize: bool = True) -> list[Invoice]:
    """Write invoices of one tenant, finalized unless drafts are asked for. `now` is the tenant's instant."""
    if not bills:
        return []
    drafts = [_draft(bill, now=now) for bill in bills]
    if not finalize:
        await invoices.insert_all(tx, drafts, lines=_numbered(drafts, bills))
        return drafts
    tenant_id = drafts[0].tenant_id
    first = await invoices.take_numbers(tx, tenant_id=tenant_id, count=len(drafts))
    written = [
        finalized(draft, first + index, now=now, terms_days=bill.occasion.terms_days)
        for index, (draft, bill) in enumerate(zip(drafts, bills, strict=True))
    ]
    await invoices.insert_all(tx, written, lines=_numbered(written, bills))
    await _take_effect(tx, written, bills=bills, now=now)
    return written


async def finalize(tx: Transaction, *, tenant_id: str, invoice_id: str, now: datetime) -> Invoice:
    """Finalize a draft; one that is finalized or paid already comes back as it is. `now` is real time.

    Raises: NotFound; Conflict for a void invoice.
    """
    at = now + timedelta(milliseconds=(await tenant_of(tx, tenant_id)).clock_offset_ms)
    draft = await invoices.by_id(tx, tenant_id=tenant_id, invoice_id=invoice_id, lock=True)
    if draft.state in {InvoiceState.FINALIZED, InvoiceState.PAID}:
        return draft
    state_after(draft.state, InvoiceAct.FINALIZE)
    lines = await invoices.lines_of(tx, tenant_id=tenant_id, invoice_id=invoice_id)
    customer = await subscriptions.lock_customer(tx, tenant_id=tenant_id, customer_id=draft.customer_id)
    number = await invoices.take_numbers(tx, tenant_id=tenant_id, count=1)
    invoice = finalized(draft, number, now=at, terms_days=customer.payment_terms_days)
    await invoices.finalize(tx, invoice)
    occasion = Occasion(
        tenant_id=tenant_id,
        subscription_id=draft.subscription_id,
        customer_id=draft.customer_id,
        reason=draft.reason,
        period=Period(start_at=draft.period_start_at, end_at=draft.period_end_at),
        currency=draft.currency,
        time_zone=draft.time_zone,
        collection=customer.collection,
        terms_days=customer.payment_terms_days,
    )
    bill = Bill(occasion=occasion, lines=tuple(one.line for one in lines))
    await _take_effect(tx, [invoice], bills=[bill], now=at)
    return invoice


async def void(tx: Transaction, *, tenant_id: str, invoice_id: str, now: datetime) -> Invoice:
    """Void a draft or an unpaid invoice: all that it booked is booked back; its number stays taken.

    A void invoice comes back as it is. The period is not billed again; a later correction bills only what came
    late. `now` is real time.

    Raises: NotFound; Conflict where it is paid, or a payment of it is under way.
    """
    at = now + timedelta(milliseconds=(await tenant_of(tx, tenant_id)).clock_offset_ms)
    live = await payments.live_of(tx, tenant_id=tenant_id, invoice_id=invoice_id)
    invoice = await invoices.by_id(tx, tenant_id=tenant_id, invoice_id=invoice_id, lock=True)
    if invoice.state is InvoiceState.VOID:
        return invoice
    following = state_after(invoice.state, InvoiceAct.VOID)
    if live is not None:
        await _cancel(tx, live, now=at)
    entries = await ledger.entries_of_invoice(tx, tenant_id=tenant_id, invoice_id=invoice_id)
    for schedule in await schedules.void(tx, tenant_id=tenant_id, invoice_id=invoice_id):
        entries += _earned(invoice, schedule.recognized_nanos)
    cause = Cause(
        tenant_id=tenant_id,
        customer_id=invoice.customer_id,
        currency=invoice.currency,
        source=invoice_id,
        booked_at=at,
    )
    transfer = invoice_voided(cause, entries)
    if transfer is not None:
        invariant(await ledger.book(tx, transfer), "an invoice is voided once")
    await invoices.void(tx, tenant_id=tenant_id, invoice_id=invoice_id, at=at)
    await dun.lift(tx, tenant_id=tenant_id, customer_id=invoice.customer_id, now=now)
    return msgspec.structs.replace(invoice, state=following, voided_at=at)


def _draft(bill: Bill, *, now: datetime) -> Invoice:
    occasion, totals = bill.occasion, totals_of(bill.lines)
    return Invoice(
        tenant_id=occasion.tenant_id,
        invoice_id=new_id("inv", now=now),
        customer_id=occasion.customer_id,
        subscription_id=occasion.subscription_id,
        number=None,
        currency=occasion.currency,
        state=InvoiceState.DRAFT,
        reason=occasion.reason,
        time_zone=occasion.time_zone,
        period_start_at=occasion.period.start_at,
        period_end_at=occasion.period.end_at,
        total_minor=totals.total_minor,
        prepaid_minor=totals.prepaid_minor,
        due_minor=totals.due_minor,
        paid_minor=0,
        due_at=None,
        created_at=now,
        finalized_at=None,
        paid_at=None,
        voided_at=None,
    )


def _numbered(written: Sequence[Invoice], bills: Sequence[Bill]) -> list[tuple[str, NumberedLine]]:
    return [
        (invoice.invoice_id, NumberedLine(line_no=number, line=line))
        for invoice, bill in zip(written, bills, strict=True)
        for number, line in enumerate(bill.lines, start=1)
    ]


async def _take_effect(
    tx: Transaction, written: Sequence[Invoice], *, bills: Sequence[Bill], now: datetime
) -> None:
    """What follows from being finalized: bookings, schedules of fees, payments to wait for."""
    pairs = list(zip(written, bills, strict=True))
    transfers = [transfer for invoice, bill in pairs for transfer in transfers_of(invoice, bill.lines, now=now)]
    booked = await ledger.book_all(tx, transfers)
    invariant(booked == len(transfers), "a finalized invoice was in no books before")
    await schedules.insert_all(
        tx,
        [one for invoice, bill in pairs for one in schedules_of(invoice, enumerate(bill.lines, start=1))],
    )
    await payments.insert_all(
        tx,
        [
            asked_for(
                invoice, payment_id=new_id("pay", now=now), method=_METHODS[bill.occasion.collection], now=now
            )
            for invoice, bill in pairs
            if invoice.due_minor
        ],
    )


_METHODS = {Collection.STRIPE: Method.STRIPE, Collection.OFFLINE: Method.WIRE}


async def _cancel(tx: Transaction, live: Payment, *, now: datetime) -> None:
    if live.state is not PaymentState.PENDING:
        raise Conflict(f"a payment of it is {live.state}", field="invoice_id")
    canceled = ChargeResult(outcome=Outcome.CANCELED)
    await payments.save(tx, payment_after(live, canceled, attempt=live.attempt, attempts=1, now=now))


def _earned(invoice: Invoice, nanos: int) -> list[Entry]:
    """What the finished days of a fee have booked."""
    sides = ((Account.DEFERRED_REVENUE, nanos), (Account.REVENUE_FEES, -nanos))
    return [
        Entry(account=account, customer_id=invoice.customer_id, currency=invoice.currency, nanos=amount)
        for account, amount in sides
        if amount
    ]
