"""Payments at rest, and the webhooks that told of them.

A row is claimed before its processor is asked, so that a crash leaves behind which attempt was under way; it is
saved under lock after the answer. A webhook's id is kept in the transaction that applies it: each is applied once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.errors import NotFound
from billing_core.payments.payment import Payment, Purpose
from billing_core.payments.processor import ChargeOrder, ProcessorEvent
from billing_core.store.database import Transaction
from billing_core.store.query import Q

COLUMNS = Payment.__struct_fields__


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt to make, or to resume where `resumed`. `attempted_at` is real time."""

    tenant_id: str
    payment_id: str
    purpose: Purpose
    currency: str
    amount_minor: int
    attempt: int
    processor_id: str
    attempted_at: datetime
    resumed: bool
    clock_offset_ms: int
    processor_customer: str
    processor_method: str
    invoice_number: str = ""

    @property
    def order(self) -> ChargeOrder:
        """What the processor is asked."""
        return ChargeOrder(
            tenant_id=self.tenant_id,
            payment_id=self.payment_id,
            attempt=self.attempt,
            amount_minor=self.amount_minor,
            currency=self.currency,
            processor_customer=self.processor_customer,
            processor_method=self.processor_method,
            description=self.invoice_number or "top-up",
        )


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """Where a customer is charged, and the tenant's clock."""

    processor_customer: str
    processor_method: str
    clock_offset_ms: int


class _Offset(msgspec.Struct, frozen=True, kw_only=True):
    clock_offset_ms: int


class _GrantId(msgspec.Struct, frozen=True, kw_only=True):
    grant_id: str


async def insert_all(tx: Transaction, payments: Sequence[Payment]) -> None:
    """New payments."""
    if payments:
        await tx.copy("payment", COLUMNS, records=(msgspec.structs.astuple(payment) for payment in payments))


async def by_id(tx: Transaction, *, tenant_id: str, payment_id: str, lock: bool = False) -> Payment:
    """One payment, locked until the transaction ends where asked for.

    Raises: NotFound.
    """
    query = Q["payment_locked" if lock else "payment_by_id"]
    found = await tx.maybe(query, Payment, tenant_id, payment_id)
    if found is None:
        raise NotFound(f"there is no payment {payment_id!r}", field="payment_id")
    return found


async def by_request(tx: Transaction, *, tenant_id: str, request_key: str) -> Payment | None:
    """The payment that a request made."""
    return await tx.maybe(Q["payment_by_request"], Payment, tenant_id, request_key)


async def live_of(tx: Transaction, *, tenant_id: str, invoice_id: str) -> Payment | None:
    """The invoice's payment that is not given up, locked until the transaction ends."""
    return await tx.maybe(Q["payment_live_of_invoice"], Payment, tenant_id, invoice_id)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which payments are asked for; empty is any."""

    customer_id: str = ""
    invoice_id: str = ""
    state: str = ""


async def page(tx: Transaction, tenant_id: str, *, chosen: Filter, after: str = "", count: int) -> list[Payment]:
    """Payments in the order of their birth."""
    values = (chosen.customer_id, chosen.invoice_id, chosen.state, after, count)
    return await tx.many(Q["payments_after"], Payment, tenant_id, *values)


async def claim(tx: Transaction, *, now: datetime, lease_ms: int, most: int) -> list[Claim]:
    """Attempts that are due, each claimed until its lease ends. `now` is real time."""
    return await tx.many(Q["payments_claim"], Claim, now, lease_ms, most)


async def instrument_of(tx: Transaction, *, tenant_id: str, customer_id: str) -> Instrument:
    """Where the customer is charged, the customer locked until the transaction ends.

    Raises: NotFound.
    """
    found = await tx.maybe(Q["payment_processor_of"], Instrument, tenant_id, customer_id)
    if found is None:
        raise NotFound(f"there is no customer {customer_id!r}", field="customer_id")
    return found


async def offset_of(tx: Transaction, *, tenant_id: str) -> int | None:
    """How far the tenant's clock is ahead, in milliseconds; None where there is no such tenant."""
    found = await tx.maybe(Q["tenant_offset"], _Offset, tenant_id)
    return None if found is None else found.clock_offset_ms


async def save(tx: Transaction, payment: Payment) -> None:
    """Write a payment that is locked."""
    await tx.exactly(
        1,
        Q["payment_save"],
        payment.tenant_id,
        payment.payment_id,
        payment.method,
        payment.state,
        payment.attempt,
        payment.processor_id,
        payment.reference,
        payment.failure_code,
        payment.next_try_at,
        payment.attempted_at,
        payment.received_at,
        payment.settled_at,
    )


async def note_unknown(tx: Transaction, claimed: Claim, *, code: str) -> None:
    """Note why an attempt has no outcome yet."""
    await tx.run(Q["payment_outcome_unknown"], claimed.tenant_id, claimed.payment_id, claimed.attempt, code)


async def grant_of(tx: Transaction, *, tenant_id: str, payment_id: str) -> str | None:
    """The grant that a payment bought."""
    found = await tx.maybe(Q["payment_grant"], _GrantId, tenant_id, payment_id)
    return None if found is None else found.grant_id


async def keep_webhook(tx: Transaction, event: ProcessorEvent, *, now: datetime) -> bool:
    """Note a webhook; False where it was noted before."""
    values = (event.processor, event.event_id, event.kind, event.body, now)
    return await tx.run(Q["webhook_keep"], *values) == 1
