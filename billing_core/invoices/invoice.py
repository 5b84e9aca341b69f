"""Invoices: one bill of one customer, from draft to paid or void.

    state       finalize    pay       void
    draft       finalized   refused   void
    finalized   refused     paid      void
    paid        refused     refused   refused
    void        refused     refused   refused

A draft has no number and is in no books. Finalizing gives it the tenant's next number, books it and asks for its
payment; where nothing is due it is paid in the same step. A void invoice keeps its number, so that the numbers of a
tenant never have a gap.

Worked example: usage of 100.00 of which 97.00 came out of the wallet, and a fee of 10.00: total 110.00, prepaid
97.00, due 13.00.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

import msgspec

from billing_core.errors import Conflict
from billing_core.invoices.line import Line
from billing_core.values.invariant import invariant


class InvoiceState(StrEnum):
    """Where an invoice stands."""

    DRAFT = "draft"
    FINALIZED = "finalized"
    PAID = "paid"
    VOID = "void"


class InvoiceAct(StrEnum):
    """What can be done to an invoice."""

    FINALIZE = "finalize"
    PAY = "pay"
    VOID = "void"


class InvoiceReason(StrEnum):
    """What an invoice was written for."""

    ACTIVATION = "activation"
    PERIOD = "period"


STATES: Mapping[tuple[InvoiceState, InvoiceAct], InvoiceState] = MappingProxyType(
    {
        (InvoiceState.DRAFT, InvoiceAct.FINALIZE): InvoiceState.FINALIZED,
        (InvoiceState.DRAFT, InvoiceAct.VOID): InvoiceState.VOID,
        (InvoiceState.FINALIZED, InvoiceAct.PAY): InvoiceState.PAID,
        (InvoiceState.FINALIZED, InvoiceAct.VOID): InvoiceState.VOID,
    }
)
"""What is not in the table is refused."""


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a bill. Instants are on the tenant's clock; amounts in minor units."""

    tenant_id: str
    invoice_id: str
    customer_id: str
    subscription_id: str
    number: str | None
    currency: str
    state: InvoiceState
    reason: InvoiceReason
    time_zone: str
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


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What the lines add up to. Invariant: nothing is below zero."""

    total_minor: int
    prepaid_minor: int

    @property
    def due_minor(self) -> int:
        """What is left to pay."""
        return self.total_minor - self.prepaid_minor


def totals_of(lines: Iterable[Line]) -> Totals:
    """The sums of an invoice's lines."""
    kept = tuple(lines)
    totals = Totals(
        total_minor=sum(line.amount_minor for line in kept),
        prepaid_minor=sum(line.prepaid_minor for line in kept),
    )
    invariant(totals.total_minor >= 0 and totals.due_minor >= 0, "an invoice never owes the customer money")
    return totals


def state_after(state: InvoiceState, act: InvoiceAct) -> InvoiceState:
    """The state that follows.

    Raises: Conflict where the state does not allow the act.
    """
    following = STATES.get((state, act))
    if following is None:
        raise Conflict(f"an invoice that is {state} cannot be {_DONE[act]}", field="invoice_id")
    return following


def finalized(invoice: Invoice, number: int, *, now: datetime, terms_days: int) -> Invoice:
    """The draft with its number, due after the customer's payment terms, or paid where nothing is due.

    Raises: Conflict where it is no draft.
    """
    state = state_after(invoice.state, InvoiceAct.FINALIZE)
    nothing_due = invoice.due_minor == 0
    return msgspec.structs.replace(
        invoice,
        state=state_after(state, InvoiceAct.PAY) if nothing_due else state,
        number=number_text(number),
        finalized_at=now,
        due_at=now + timedelta(days=terms_days),
        paid_at=now if nothing_due else None,
    )


def number_text(number: int) -> str:
    """How an invoice's number is written: `INV-000042`."""
    return f"INV-{number:06d}"


_DONE = {InvoiceAct.FINALIZE: "finalized", InvoiceAct.PAY: "paid", InvoiceAct.VOID: "voided"}
