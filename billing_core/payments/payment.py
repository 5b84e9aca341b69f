"""Payments: money on its way in, and what each piece of news does to one.

    state        attempted    succeeded    declined            canceled
    pending      processing   succeeded    -                   canceled
    processing   processing   succeeded    pending or failed   canceled
    succeeded    -            succeeded    -                   -
    failed       -            refused      -                   -
    canceled     -            refused      -                   -

News comes from three sides, in any order and more than once: our own call's answer, the processor's webhooks, and a
look at the processor after a crash. A dash means that the news is old and changes nothing. Money that arrives for a
payment that was given up is refused aloud, because somebody must look at it.

A payment is one promise to move money; its attempts are numbered, and each attempt is one idempotency key at the
processor. The number moves on only after a definite decline, so no attempt can be charged twice, and no two
attempts can both be charged.

Worked example: attempt 1 is declined on 1 March, attempt 2 is due on 2 March, attempt 3 on 5 March, attempt 4 on 10
March; where that is declined too the payment has failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

import msgspec

from billing_core.errors import Conflict, InvalidInput
from billing_core.invoices.invoice import Invoice
from billing_core.payments.processor import ChargeResult, Outcome


class PaymentState(StrEnum):
    """Where a payment stands."""

    PENDING = "pending"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Purpose(StrEnum):
    """What is paid for."""

    INVOICE = "invoice"
    TOP_UP = "top_up"


class Method(StrEnum):
    """How money moves: Stripe collects it, ACH and wire are seen by the operator."""

    STRIPE = "stripe"
    ACH = "ach"
    WIRE = "wire"


OFFLINE = frozenset({Method.ACH, Method.WIRE})

STATES: Mapping[tuple[PaymentState, Outcome], PaymentState] = MappingProxyType(
    {
        (PaymentState.PENDING, Outcome.PROCESSING): PaymentState.PROCESSING,
        (PaymentState.PENDING, Outcome.SUCCEEDED): PaymentState.SUCCEEDED,
        (PaymentState.PENDING, Outcome.DECLINED): PaymentState.PENDING,
        (PaymentState.PENDING, Outcome.CANCELED): PaymentState.CANCELED,
        (PaymentState.PROCESSING, Outcome.PROCESSING): PaymentState.PROCESSING,
        (PaymentState.PROCESSING, Outcome.SUCCEEDED): PaymentState.SUCCEEDED,
        (PaymentState.PROCESSING, Outcome.DECLINED): PaymentState.FAILED,
        (PaymentState.PROCESSING, Outcome.CANCELED): PaymentState.CANCELED,
        (PaymentState.SUCCEEDED, Outcome.PROCESSING): PaymentState.SUCCEEDED,
        (PaymentState.SUCCEEDED, Outcome.SUCCEEDED): PaymentState.SUCCEEDED,
        (PaymentState.SUCCEEDED, Outcome.DECLINED): PaymentState.SUCCEEDED,
        (PaymentState.SUCCEEDED, Outcome.CANCELED): PaymentState.SUCCEEDED,
        (PaymentState.FAILED, Outcome.PROCESSING): PaymentState.FAILED,
        (PaymentState.FAILED, Outcome.DECLINED): PaymentState.FAILED,
        (PaymentState.FAILED, Outcome.CANCELED): PaymentState.FAILED,
        (PaymentState.CANCELED, Outcome.PROCESSING): PaymentState.CANCELED,
        (PaymentState.CANCELED, Outcome.DECLINED): PaymentState.CANCELED,
        (PaymentState.CANCELED, Outcome.CANCELED): PaymentState.CANCELED,
    }
)
"""What is not in the table is refused. A decline with attempts left goes back to pending instead of failed."""

RETRY_DAYS = (1, 3, 5, 7)
"""How many days after a decline the next attempt is made; the last number stands for all further ones."""


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """The grant that a payment buys: as much money as is paid, or so many nanos of a credit unit."""

    priority: int = 0
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    features: tuple[str, ...] = ()
    note: str = ""
    unit: str = ""
    unit_nanos: int = 0


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """One promise to move money. Instants are on the tenant's clock, but `attempted_at` is real time.

    `attempted_at` is when the present attempt was first sent to the processor.
    """

    tenant_id: str
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
    request_key: str | None
    failure_code: str
    top_up: TopUp | None
    next_try_at: datetime | None
    attempted_at: datetime | None
    received_at: datetime | None
    created_at: datetime
    settled_at: datetime | None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator saw on the bank's statement."""

    method: Method
    reference: str
    received_at: datetime | None = None


def asked_for(invoice: Invoice, *, payment_id: str, method: Method, now: datetime) -> Payment:
    """The payment that a finalized invoice waits for. Stripe tries at once; offline money is waited for."""
    return Payment(
        tenant_id=invoice.tenant_id,
        payment_id=payment_id,
        customer_id=invoice.customer_id,
        invoice_id=invoice.invoice_id,
        purpose=Purpose.INVOICE,
        method=method,
        currency=invoice.currency,
        amount_minor=invoice.due_minor,
        state=PaymentState.PENDING,
        attempt=1,
        processor_id="",
        reference="",
        request_key=None,
        failure_code="",
        top_up=None,
        next_try_at=now if method is Method.STRIPE else None,
        attempted_at=None,
        received_at=None,
        created_at=now,
        settled_at=None,
    )


def payment_after(payment: Payment, result: ChargeResult, *, attempt: int, attempts: int, now: datetime) -> Payment:
    """The payment after news of one of its attempts, of which it has at most `attempts`.

    `now` is the tenant's instant. News of an attempt that is over changes nothing, unless money came.

    Raises: Conflict for money that arrives for a payment that was given up, or that arrives twice.
    """
    if attempt != payment.attempt and result.outcome is not Outcome.SUCCEEDED:
        return payment
    state = STATES.get((payment.state, result.outcome))
    if state is None:
        raise Conflict(f"money arrived for a payment that is {payment.state}", field="payment_id")
    if payment.state is PaymentState.SUCCEEDED and result.outcome is Outcome.SUCCEEDED:
        _check_same(payment, result)
    if state is payment.state and state is not PaymentState.PROCESSING:
        return payment
    if state is PaymentState.FAILED and payment.attempt < attempts:
        return _tried_again_later(payment, result, now=now)
    ended = state in {PaymentState.SUCCEEDED, PaymentState.FAILED, PaymentState.CANCELED}
    return msgspec.structs.replace(
        payment,
        state=state,
        processor_id=result.processor_id or payment.processor_id,
        failure_code=result.failure_code,
        next_try_at=None if ended else payment.next_try_at,
        settled_at=now if ended else None,
    )


def received(payment: Payment, receipt: Receipt, *, now: datetime) -> Payment:
    """The payment after its money was seen; the same receipt again changes nothing.

    Raises: Conflict where other money was seen before, or the payment is not one that can be received.
    """
    if payment.state is PaymentState.SUCCEEDED:
        if (payment.method, payment.reference) == (receipt.method, receipt.reference):
            return payment
        raise Conflict(f"is already paid by {payment.method} {payment.reference!r}", field="reference")
    if payment.state is not PaymentState.PENDING:
        raise Conflict(f"a payment that is {payment.state} cannot be received", field="payment_id")
    return msgspec.structs.replace(
        payment,
        state=PaymentState.SUCCEEDED,
        method=receipt.method,
        reference=receipt.reference,
        received_at=receipt.received_at or now,
        next_try_at=None,
        settled_at=now,
    )


def check_receipt(receipt: Receipt, *, now: datetime) -> None:
    """Refuse a receipt that breaks a rule. Raises: InvalidInput naming the field."""
    if receipt.method not in OFFLINE:
        raise InvalidInput("only ach and wire are marked by hand", field="method")
    if not receipt.reference.strip():
        raise InvalidInput("names the bank's reference", field="reference")
    if receipt.received_at is not None and receipt.received_at > now:
        raise InvalidInput(f"must not lie in the future: it is {now.isoformat()}", field="received_at")


def retry_at(attempt: int, *, now: datetime) -> datetime:
    """When the attempt after a declined one is due."""
    return now + timedelta(days=RETRY_DAYS[min(attempt, len(RETRY_DAYS)) - 1])


def _tried_again_later(payment: Payment, result: ChargeResult, *, now: datetime) -> Payment:
    return msgspec.structs.replace(
        payment,
        state=PaymentState.PENDING,
        attempt=payment.attempt + 1,
        processor_id="",
        failure_code=result.failure_code,
        next_try_at=retry_at(payment.attempt, now=now),
        attempted_at=None,
    )


def _check_same(payment: Payment, result: ChargeResult) -> None:
    before = payment.processor_id or f"{payment.method} {payment.reference!r}"
    if result.processor_id != payment.processor_id:
        raise Conflict(f"money arrived twice: {before} and {result.processor_id}", field="payment_id")
