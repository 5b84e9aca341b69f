"""Payments: every attempt to move money, and what became of it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from billing_core.api.page import Page, PageQuery, page_of, place_of
from billing_core.api.route import Call, Route
from billing_core.api.wire import Nothing
from billing_core.payments.payment import Method, Payment, PaymentState, Purpose
from billing_core.store import payment as payments
from billing_core.store.database import Transaction
from billing_core.store.payment import Filter
from billing_core.values.ids import Code


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


def payment_view(payment: Payment) -> PaymentView:
    """What the world sees of a payment."""
    return msgspec.convert(payment, PaymentView, from_attributes=True)


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
)
