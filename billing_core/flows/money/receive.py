"""Receive: what happens when money has come, once, whichever way it was seen.

Money for an invoice pays it and clears the receivable; money for a top-up becomes a paid grant and a liability.
The payment, the booking and the grant are written in one transaction under the payment's lock, so that two
pieces of news of the same money (an answer, a webhook, an operator's mark) have one effect. Where money for an
invoice is given up, its customer is suspended in that transaction; where it came, a suspension may end in it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from billing_core.flows.money import dun
from billing_core.flows.money.grant import issue
from billing_core.invoices.invoice import InvoiceAct, state_after
from billing_core.ledger.booking import Cause, payment_received, top_up_paid
from billing_core.payments.payment import (
    Payment,
    PaymentState,
    Purpose,
    Receipt,
    TopUp,
    asked_for,
    check_receipt,
    payment_after,
    received,
)
from billing_core.payments.processor import ChargeResult
from billing_core.store.billing import invoice as invoices
from billing_core.store.database import Transaction
from billing_core.store.money import ledger
from billing_core.store.money import payment as payments
from billing_core.store.setup.tenant import tenant_of
from billing_core.values.ids import new_id
from billing_core.values.invariant import invariant
from billing_core.values.money import to_nanos
from billing_core.wallets.grant import GrantKind, GrantOrder, Price

POLL_EVERY = timedelta(hours=6)
"""How often a charge that takes days is looked at, should no webhook come."""


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What was heard of one attempt of a payment."""

    tenant_id: str
    payment_id: str
    attempt: int
    result: ChargeResult


async def hear(tx: Transaction, news: News, *, attempts: int, now: datetime) -> Payment:
    """Apply news of a payment; what was known already changes nothing. `now` is real time.

    Raises: NotFound; Conflict for money that nobody asked for any more.
    """
    at = now + timedelta(milliseconds=(await tenant_of(tx, news.tenant_id)).clock_offset_ms)
    payment = await payments.by_id(tx, tenant_id=news.tenant_id, payment_id=news.payment_id, lock=True)
    allowed = attempts if payment.purpose is Purpose.INVOICE else 1
    after = payment_after(payment, news.result, attempt=news.attempt, attempts=allowed, now=at)
    if after.state is PaymentState.PROCESSING and after.processor_id:
        after = msgspec.structs.replace(after, next_try_at=at + POLL_EVERY)
    if after == payment:
        return payment
    await payments.save(tx, after)
    if after.state is PaymentState.SUCCEEDED and payment.state is not PaymentState.SUCCEEDED:
        await take_effect(tx, after, now=now)
    if after.state is PaymentState.FAILED and payment.invoice_id is not None:
        await dun.suspend(tx, tenant_id=payment.tenant_id, customer_id=payment.customer_id, now=now)
    return after


async def mark_invoice_received(
    tx: Transaction, *, tenant_id: str, invoice_id: str, receipt: Receipt, now: datetime
) -> Payment:
    """Mark an invoice as paid by ACH or wire; the same receipt again changes nothing. `now` is real time.

    Money that was waiting to be collected by Stripe is not collected any more.

    Raises: NotFound; InvalidInput for a receipt that breaks a rule; Conflict where the invoice is paid
    otherwise, is not finalized, or a charge is under way.
    """
    at = now + timedelta(milliseconds=(await tenant_of(tx, tenant_id)).clock_offset_ms)
    check_receipt(receipt, now=at)
    live = await payments.live_of(tx, tenant_id=tenant_id, invoice_id=invoice_id)
    invoice = await invoices.by_id(tx, tenant_id=tenant_id, invoice_id=invoice_id, lock=True)
    if live is not None:
        return await _receive(tx, live, receipt=receipt, now=now, at=at)
    state_after(invoice.state, InvoiceAct.PAY)
    asked = asked_for(invoice, payment_id=new_id("pay", now=at), method=receipt.method, now=at)
    payment = received(asked, receipt, now=at)
    await payments.insert_all(tx, [payment])
    await take_effect(tx, payment, now=now)
    return payment


async def mark_received(
    tx: Transaction, *, tenant_id: str, payment_id: str, receipt: Receipt, now: datetime
) -> Payment:
    """Mark a payment by ACH or wire as received; the same receipt again changes nothing. `now` is real time.

    Raises: NotFound; InvalidInput; Conflict, as for an invoice.
    """
    payment = await payments.by_id(tx, tenant_id=tenant_id, payment_id=payment_id, lock=True)
    if payment.invoice_id is not None:
        return await mark_invoice_received(
            tx, tenant_id=tenant_id, invoice_id=payment.invoice_id, receipt=receipt, now=now
        )
    at = now + timedelta(milliseconds=(await tenant_of(tx, tenant_id)).clock_offset_ms)
    check_receipt(receipt, now=at)
    return await _receive(tx, payment, receipt=receipt, now=now, at=at)


async def take_effect(tx: Transaction, payment: Payment, *, now: datetime) -> None:
    """Pay the invoice, or issue the grant, and book it. `now` is real time; the payment has succeeded."""
    cause = Cause(
        tenant_id=payment.tenant_id,
        customer_id=payment.customer_id,
        currency=payment.currency,
        source=payment.payment_id,
        booked_at=payment.received_at or payment.settled_at or now,
    )
    nanos = to_nanos(payment.amount_minor, payment.currency)
    if payment.invoice_id is not None:
        await _pay(tx, payment, invoice_id=payment.invoice_id)
        await dun.lift(tx, tenant_id=payment.tenant_id, customer_id=payment.customer_id, now=now)
        transfer = payment_received(cause, nanos)
    else:
        await issue(tx, grant_order(payment), now=now)
        transfer = top_up_paid(cause, nanos)
    invariant(transfer is not None and await ledger.book(tx, transfer), "a payment is booked once")


def grant_order(payment: Payment) -> GrantOrder:
    """The grant that a top-up buys. An expiry that passed while the money was on its way is dropped."""
    bought = payment.top_up or TopUp()
    came_at = payment.settled_at or payment.created_at
    too_late = bought.expires_at is not None and bought.expires_at <= came_at
    paid_nanos = to_nanos(payment.amount_minor, payment.currency)
    return GrantOrder(
        tenant_id=payment.tenant_id,
        customer_id=payment.customer_id,
        currency=bought.unit or payment.currency,
        kind=GrantKind.PAID,
        amount_nanos=bought.unit_nanos if bought.unit else paid_nanos,
        priority=bought.priority,
        effective_at=_effective(bought, too_late=too_late),
        expires_at=None if too_late else bought.expires_at,
        features=bought.features,
        price=Price(currency=payment.currency, nanos=paid_nanos),
        payment_id=payment.payment_id,
        note=bought.note,
    )


def _effective(bought: TopUp, *, too_late: bool) -> datetime | None:
    """From when on the grant counts; at once where its whole time has passed."""
    return None if too_late else bought.effective_at


async def _receive(tx: Transaction, payment: Payment, *, receipt: Receipt, now: datetime, at: datetime) -> Payment:
    after = received(payment, receipt, now=at)
    if after != payment:
        await payments.save(tx, after)
        await take_effect(tx, after, now=now)
    return after


async def _pay(tx: Transaction, payment: Payment, *, invoice_id: str) -> None:
    invoice = await invoices.by_id(tx, tenant_id=payment.tenant_id, invoice_id=invoice_id, lock=True)
    state_after(invoice.state, InvoiceAct.PAY)
    invariant(invoice.due_minor == payment.amount_minor, "a payment is of the whole invoice")
    at = payment.settled_at or payment.created_at
    await invoices.pay(tx, tenant_id=payment.tenant_id, invoice_id=invoice_id, at=at)
