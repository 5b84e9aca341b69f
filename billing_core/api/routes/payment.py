"""Payments: every attempt to move money, and what became of it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.api.page import Page, PageQuery, page_of, place_of
from billing_core.api.route import Access, Call, FlowRoute, Retry, Route
from billing_core.api.wire import Nothing
from billing_core.errors import NotFound
from billing_core.flows.money import receive
from billing_core.flows.money.collect import Webhook, apply_webhook
from billing_core.payments.payment import Method, Payment, PaymentState, Purpose, Receipt
from billing_core.store.database import Transaction
from billing_core.store.money import payment as payments
from billing_core.store.money.payment import Filter
from billing_core.values.ids import Code
from billing_core.values.text import Instant, Label


class PaymentFilter(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which payments."""

    customer_id: Code | None = None
    invoice_id: Code | None = None
    state: PaymentState | None = None


class PaymentView(msgspec.Struct, frozen=True, kw_only=True):
    """One promise to move money. Times are on the tenant's clock; the amount in minor units of the currency."""

    payment_id: str
    customer_id: str
    invoice_id: str | None
    purpose: Purpose
    method: Method
    currency: str
    amount_minor: int
    state: PaymentState
    attempt: int
    processor_id: str
    reference: str
    failure_code: str
    next_try_at: datetime | None
    received_at: datetime | None
    created_at: datetime
    settled_at: datetime | None


class ReceivedView(PaymentView, frozen=True, kw_only=True):
    """A payment whose money was seen, and whether the gateway knows what follows: credit, or service again."""

    applied: bool = False


class ReceiptDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was seen on the bank's statement; received now where no instant is given."""

    method: Method
    reference: Label
    received_at: Instant | None = None


class WebhookApplied(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the news changed what was known."""

    applied: bool


def payment_view(payment: Payment) -> PaymentView:
    """What the world sees of a payment."""
    return msgspec.convert(payment, PaymentView, from_attributes=True)


def _received(payment: Payment) -> ReceivedView:
    return msgspec.convert(payment, ReceivedView, from_attributes=True)


async def list_payments(tx: Transaction, call: Call[Nothing, PaymentFilter]) -> Page[PaymentView]:
    """Payments in the order of their birth."""
    query = call.query
    rows = await payments.page(
        tx,
        call.tenant_id,
        chosen=Filter(
            customer_id=query.customer_id or "", invoice_id=query.invoice_id or "", state=query.state or ""
        ),
        after=place_of(query.cursor, "payments"),
        count=query.limit + 1,
    )
    views = [payment_view(row) for row in rows]
    return page_of(views, query, listing="payments", name=lambda view: view.payment_id)


async def read(tx: Transaction, call: Call[Nothing, Nothing]) -> PaymentView:
    """One payment."""
    return payment_view(await payments.by_id(tx, tenant_id=call.tenant_id, payment_id=call.path["payment_id"]))


def _receipt(draft: ReceiptDraft) -> Receipt:
    return Receipt(method=draft.method, reference=draft.reference, received_at=draft.received_at)


async def receive_for_invoice(tx: Transaction, call: Call[ReceiptDraft, Nothing]) -> ReceivedView:
    """Mark an invoice as paid by ACH or wire."""
    receipt, invoice_id = _receipt(call.body), call.path["invoice_id"]
    payment = await receive.mark_invoice_received(
        tx, tenant_id=call.tenant_id, invoice_id=invoice_id, receipt=receipt, now=call.now
    )
    return _received(payment)


async def receive_payment(tx: Transaction, call: Call[ReceiptDraft, Nothing]) -> ReceivedView:
    """Mark a payment that is waited for as received by ACH or wire."""
    receipt, payment_id = _receipt(call.body), call.path["payment_id"]
    payment = await receive.mark_received(
        tx, tenant_id=call.tenant_id, payment_id=payment_id, receipt=receipt, now=call.now
    )
    return _received(payment)


async def hear_stripe(call: Call[Nothing, Nothing]) -> WebhookApplied:
    """News of a charge; the signature is the credential."""
    house = call.house
    if house.processor is None:
        raise NotFound("no payment processor is configured")
    applied = await apply_webhook(
        house.database,
        house.processor,
        webhook=Webhook(payload=call.raw, signature=call.headers.get("Stripe-Signature", "")),
        now=call.now,
        attempts=house.settings.payment_attempts,
    )
    return WebhookApplied(applied=applied)


PAYMENTS = "/v1/payments"

ROUTES = (
    Route(
        method="GET",
        path=PAYMENTS,
        summary="List payments",
        query=PaymentFilter,
        body=Nothing,
        answer=Page[PaymentView],
        act=list_payments,
    ),
    Route(
        method="GET",
        path=PAYMENTS + "/{payment_id}",
        summary="Read a payment",
        query=Nothing,
        body=Nothing,
        answer=PaymentView,
        act=read,
    ),
    Route(
        method="POST",
        path=PAYMENTS + "/{payment_id}/receipts",
        summary="Mark a payment as received by ACH or wire",
        query=Nothing,
        body=ReceiptDraft,
        answer=ReceivedView,
        status=201,
        tells=lambda answer: answer.customer_id,
        act=receive_payment,
    ),
    Route(
        method="POST",
        path="/v1/invoices/{invoice_id}/payments",
        summary="Mark an invoice as paid by ACH or wire",
        query=Nothing,
        body=ReceiptDraft,
        answer=ReceivedView,
        status=201,
        tells=lambda answer: answer.customer_id,
        act=receive_for_invoice,
    ),
    FlowRoute(
        method="POST",
        path="/v1/webhooks/stripe",
        summary="Hear news of a charge from Stripe",
        query=Nothing,
        body=Nothing,
        answer=WebhookApplied,
        access=Access.PUBLIC,
        retry=Retry.NONE,
        act=hear_stripe,
    ),
)
