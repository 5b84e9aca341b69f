"""Top up: take money for a wallet.

Stripe is charged at once; ACH and wire are waited for, or have been seen already where the order brings a
reference. When the money has come, the payment, its booking and a paid grant are written together. The payment
is written before Stripe is asked, so that a crash leaves behind what was under way; `collect_due` resumes it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from billing_core.errors import IdempotencyConflict, InvalidInput, Unavailable, Unprocessable
from billing_core.flows.money.collect import LEASE, attempt
from billing_core.flows.money.grant import check_names
from billing_core.flows.money.receive import grant_order, take_effect
from billing_core.payments.payment import (
    Method,
    Payment,
    PaymentState,
    Purpose,
    Receipt,
    TopUp,
    check_receipt,
    received,
)
from billing_core.payments.processor import Processor
from billing_core.store.database import Database, Transaction
from billing_core.store.money import grant as grants
from billing_core.store.money import payment as payments
from billing_core.store.money.payment import Claim, Instrument
from billing_core.values.ids import new_id
from billing_core.values.invariant import invariant
from billing_core.wallets.grant import check_order, check_room


class TopUpOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Money for a wallet. `request_key` names the request: the same name makes the same payment.

    Currency and amount are those of the money; where `top_up` names a credit unit, that is the wallet's.
    """

    tenant_id: str
    customer_id: str
    currency: str
    amount_minor: int
    method: Method
    top_up: TopUp = TopUp()
    reference: str = ""
    request_key: str | None = None


class ToppedUp(msgspec.Struct, frozen=True, kw_only=True):
    """The payment as it stands, and the grant that it bought if it has succeeded."""

    payment: Payment
    grant_id: str | None


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    payment: Payment
    claim: Claim | None


async def top_up(db: Database, processor: Processor | None, *, order: TopUpOrder, now: datetime) -> ToppedUp:
    """Take the money if it can be had now. `now` is real time.

    A declined charge is not tried again; the payment has failed. A charge whose outcome is unknown stays in
    processing and is resumed by `collect_due`, or by the same order again.

    Raises: NotFound; InvalidInput or Unprocessable where the grant, the receipt or the customer's payment method
    will not do; IdempotencyConflict where the request key made another payment; Unavailable without a processor.
    """
    if order.method is Method.STRIPE and processor is None:
        raise Unavailable("no payment processor is configured", field="method")
    async with db.transaction() as tx:
        begun = await _begin(tx, order, now=now)
    if begun.claim is not None and processor is not None:
        await attempt(db, processor, claim=begun.claim, attempts=1, now=now)
    async with db.transaction() as tx:
        name = begun.payment.payment_id
        payment = await payments.by_id(tx, tenant_id=order.tenant_id, payment_id=name)
        grant_id = await payments.grant_of(tx, tenant_id=order.tenant_id, payment_id=name)
    return ToppedUp(payment=payment, grant_id=grant_id)


async def _begin(tx: Transaction, order: TopUpOrder, *, now: datetime) -> _Begun:
    """The order's payment, written or found, and the attempt to make where Stripe is to be asked."""
    instrument = await payments.instrument_of(tx, tenant_id=order.tenant_id, customer_id=order.customer_id)
    if order.request_key is not None:
        known = await payments.by_request(tx, tenant_id=order.tenant_id, request_key=order.request_key)
        if known is not None:
            return _again(known, order, instrument=instrument)
    at = now + timedelta(milliseconds=instrument.clock_offset_ms)
    payment = _payment(order, at=at)
    await _check(tx, order, payment=payment, instrument=instrument, at=at)
    if order.method is Method.STRIPE:
        payment = msgspec.structs.replace(
            payment, state=PaymentState.PROCESSING, attempted_at=now, next_try_at=at + LEASE
        )
        await payments.insert_all(tx, [payment])
        return _Begun(payment=payment, claim=_claim(payment, instrument, resumed=False))
    if not order.reference:
        await payments.insert_all(tx, [payment])
        return _Begun(payment=payment, claim=None)
    receipt = Receipt(method=order.method, reference=order.reference)
    check_receipt(receipt, now=at)
    payment = received(payment, receipt, now=at)
    await payments.insert_all(tx, [payment])
    await take_effect(tx, payment, now=now)
    return _Begun(payment=payment, claim=None)


def _again(known: Payment, order: TopUpOrder, *, instrument: Instrument) -> _Begun:
    """What a request that was made before is about: the same payment, resumed if its outcome is not known."""
    wanted = (order.customer_id, order.currency, order.amount_minor, order.method, order.top_up)
    if (known.customer_id, known.currency, known.amount_minor, known.method, known.top_up) != wanted:
        raise IdempotencyConflict("this request made another payment", field="Idempotency-Key")
    resumable = known.method is Method.STRIPE and known.state is PaymentState.PROCESSING
    return _Begun(payment=known, claim=_claim(known, instrument, resumed=True) if resumable else None)


async def _check(
    tx: Transaction, order: TopUpOrder, *, payment: Payment, instrument: Instrument, at: datetime
) -> None:
    """Refuse before money moves what could not be granted after."""
    if order.amount_minor <= 0:
        raise InvalidInput("must be above zero", field="amount")
    wanted = grant_order(payment)
    if wanted.expires_at != order.top_up.expires_at:
        raise InvalidInput("must lie in the future", field="expires_at")
    check_order(wanted, now=at)
    await check_names(tx, wanted)
    standing = await grants.lock_standing(
        tx, tenant_id=order.tenant_id, customer_id=order.customer_id, currency=wanted.currency
    )
    check_room(wanted, standing_nanos=standing.standing_nanos if standing else 0)
    if order.method is Method.STRIPE and not (instrument.processor_customer and instrument.processor_method):
        raise Unprocessable("the customer has no payment method at Stripe", field="method")


def _payment(order: TopUpOrder, *, at: datetime) -> Payment:
    return Payment(
        tenant_id=order.tenant_id,
        payment_id=new_id("pay", now=at),
        customer_id=order.customer_id,
        invoice_id=None,
        purpose=Purpose.TOP_UP,
        method=order.method,
        currency=order.currency,
        amount_minor=order.amount_minor,
        state=PaymentState.PENDING,
        attempt=1,
        processor_id="",
        reference="",
        request_key=order.request_key,
        failure_code="",
        top_up=order.top_up,
        next_try_at=None,
        attempted_at=None,
        received_at=None,
        created_at=at,
        settled_at=None,
    )


def _claim(payment: Payment, instrument: Instrument, *, resumed: bool) -> Claim:
    attempted_at = payment.attempted_at
    invariant(attempted_at is not None, "a charge under way says when it was sent")
    return Claim(
        tenant_id=payment.tenant_id,
        payment_id=payment.payment_id,
        purpose=payment.purpose,
        currency=payment.currency,
        amount_minor=payment.amount_minor,
        attempt=payment.attempt,
        processor_id=payment.processor_id,
        attempted_at=attempted_at or payment.created_at,
        resumed=resumed,
        clock_offset_ms=instrument.clock_offset_ms,
        processor_customer=instrument.processor_customer,
        processor_method=instrument.processor_method,
    )
