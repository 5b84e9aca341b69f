"""What finalizing an invoice does to the books.

A fee is owed and deferred from the first day of its service. Usage was performed in its period, so it is revenue of
the period's last day, whenever the invoice was written; what came out of the wallet was booked when it burned. A
correction belongs to service that is over and closed, and is posted on the day of the invoice.

Worked example: invoice of 1 April with a fee of 10.00 for April, usage of March of which 3.00 are due, and +1.00 of
February that came late: fee_billed on 1 April, usage_billed on 31 March, usage_corrected on 1 April.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from billing_core.invoices.invoice import Invoice
from billing_core.invoices.line import Line, LineKind
from billing_core.ledger.booking import Cause, fee_billed, usage_billed, usage_corrected
from billing_core.ledger.day import accounting_day
from billing_core.ledger.transfer import Transfer
from billing_core.values.money import to_nanos

_INSTANT = timedelta(microseconds=1)


def transfers_of(invoice: Invoice, lines: Sequence[Line], *, now: datetime) -> list[Transfer]:
    """The invoice's transfers; none where nothing is due and no fee is billed."""
    kinds = (
        (LineKind.FEE, fee_billed),
        (LineKind.USAGE, usage_billed),
        (LineKind.CORRECTION, usage_corrected),
    )
    transfers: list[Transfer] = []
    for kind, book in kinds:
        chosen = [line for line in lines if line.kind is kind]
        due_minor = sum(line.due_minor for line in chosen)
        if due_minor:
            day = accounting_day(_instant_of(kind, chosen[0], now=now), time_zone=invoice.time_zone)
            transfer = book(_cause(invoice, day), to_nanos(due_minor, invoice.currency))
            transfers += [transfer] if transfer else []
    return transfers


def _instant_of(kind: LineKind, line: Line, *, now: datetime) -> datetime:
    if kind is LineKind.FEE:
        return line.service_start_at
    return line.service_end_at - _INSTANT if kind is LineKind.USAGE else now


def _cause(invoice: Invoice, day: datetime) -> Cause:
    return Cause(
        tenant_id=invoice.tenant_id,
        customer_id=invoice.customer_id,
        currency=invoice.currency,
        source=invoice.invoice_id,
        booked_at=day,
    )
