"""Bookings: what each event of billing does to the accounts.

Each function makes the one transfer of its event; `account` says what the names mean. Amounts are positive nanos
unless said otherwise, and a booking of nothing is None instead of an empty transfer.

Worked example, a month of a customer with a fee of 10.00 and prepaid credit of 25.00, of which 4.00 are used:

    top_up_paid       cash +25            contract_liability -25
    fee_billed        receivable +10      deferred_revenue -10
    payment_received  cash +10            receivable -10
    burn              contract_liability +4   revenue_usage -4
    fee_earned x 30   deferred_revenue +10    revenue_fees -10

In the end: cash 35, contract_liability -21, revenue_usage -4, revenue_fees -10; the sum is nothing.

And of one with an overdraft, who draws 3.00 and then tops up 5.00:

    overdrawn         receivable +3       revenue_usage -3
    top_up_paid       cash +5             contract_liability -5
    repaid            contract_liability +3   receivable -3
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from billing_core.ledger.account import Account
from billing_core.ledger.transfer import Entry, Transfer, TransferKind


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Whose money moves, why, and on which day of the books."""

    tenant_id: str
    customer_id: str
    currency: str
    source: str
    booked_at: datetime


def top_up_paid(cause: Cause, nanos: int) -> Transfer | None:
    """Money came in for a prepaid balance: cash is owed as service."""
    return _move(
        TransferKind.TOP_UP_PAID, cause, debit=Account.CASH, credit=Account.CONTRACT_LIABILITY, nanos=nanos
    )


def burn(cause: Cause, nanos: int) -> Transfer | None:
    """Paid credit was used: what was owed as service is performed."""
    return _move(
        TransferKind.BURN, cause, debit=Account.CONTRACT_LIABILITY, credit=Account.REVENUE_USAGE, nanos=nanos
    )


def breakage(cause: Cause, nanos: int) -> Transfer | None:
    """Paid credit lapsed: nothing is owed any more."""
    return _move(
        TransferKind.BREAKAGE, cause, debit=Account.CONTRACT_LIABILITY, credit=Account.REVENUE_BREAKAGE, nanos=nanos
    )


def overdrawn(cause: Cause, nanos: int) -> Transfer | None:
    """An overdraft was drawn on: the service is performed and its price is owed."""
    return _move(
        TransferKind.OVERDRAWN, cause, debit=Account.ACCOUNTS_RECEIVABLE, credit=Account.REVENUE_USAGE, nanos=nanos
    )


def repaid(cause: Cause, *, released_nanos: int, cleared_nanos: int) -> Transfer | None:
    """New paid credit paid for what was drawn: less is owed as service, and as much less by the customer.

    Both are the same in money. Where credits had another price when they were drawn than when they were bought, the
    difference corrects the revenue, so that in all it is the money that came.
    """
    sides = (
        (Account.CONTRACT_LIABILITY, released_nanos),
        (Account.ACCOUNTS_RECEIVABLE, -cleared_nanos),
        (Account.REVENUE_USAGE, cleared_nanos - released_nanos),
    )
    entries = tuple(_entry(account, cause, nanos=nanos) for account, nanos in sides if nanos)
    return _transfer(TransferKind.REPAID, cause, entries=entries) if entries else None


def fee_billed(cause: Cause, nanos: int) -> Transfer | None:
    """A fee was invoiced ahead of its days."""
    return _move(
        TransferKind.FEE_BILLED,
        cause,
        debit=Account.ACCOUNTS_RECEIVABLE,
        credit=Account.DEFERRED_REVENUE,
        nanos=nanos,
    )


def fee_earned(cause: Cause, nanos: int) -> Transfer | None:
    """Days of a fee passed."""
    return _move(
        TransferKind.FEE_EARNED, cause, debit=Account.DEFERRED_REVENUE, credit=Account.REVENUE_FEES, nanos=nanos
    )


def usage_billed(cause: Cause, nanos: int) -> Transfer | None:
    """Usage of a closed period was invoiced."""
    return _move(
        TransferKind.USAGE_BILLED,
        cause,
        debit=Account.ACCOUNTS_RECEIVABLE,
        credit=Account.REVENUE_USAGE,
        nanos=nanos,
    )


def usage_corrected(cause: Cause, nanos: int) -> Transfer | None:
    """A closed period was rated again; negative nanos give back."""
    return _move(
        TransferKind.USAGE_CORRECTED,
        cause,
        debit=Account.ACCOUNTS_RECEIVABLE,
        credit=Account.REVENUE_USAGE,
        nanos=nanos,
    )


def payment_received(cause: Cause, nanos: int) -> Transfer | None:
    """An invoice was paid."""
    return _move(
        TransferKind.PAYMENT_RECEIVED,
        cause,
        debit=Account.CASH,
        credit=Account.ACCOUNTS_RECEIVABLE,
        nanos=nanos,
    )


def invoice_voided(cause: Cause, entries: Iterable[Entry]) -> Transfer | None:
    """All that an invoice booked so far, the other way round, one entry per account.

    `entries` are those of the invoice's own transfers and of the days of its fees that were earned.
    """
    sums: dict[Account, int] = {}
    for entry in entries:
        sums[entry.account] = sums.get(entry.account, 0) - entry.nanos
    turned = tuple(_entry(account, cause, nanos=nanos) for account, nanos in sorted(sums.items()) if nanos)
    return _transfer(TransferKind.INVOICE_VOIDED, cause, entries=turned) if turned else None


def _move(kind: TransferKind, cause: Cause, *, debit: Account, credit: Account, nanos: int) -> Transfer | None:
    if nanos == 0:
        return None
    sides = ((debit, nanos), (credit, -nanos))
    return _transfer(
        kind,
        cause,
        entries=tuple(_entry(account, cause, nanos=amount) for account, amount in sides),
    )


def _entry(account: Account, cause: Cause, *, nanos: int) -> Entry:
    return Entry(account=account, customer_id=cause.customer_id, currency=cause.currency, nanos=nanos)


def _transfer(kind: TransferKind, cause: Cause, *, entries: tuple[Entry, ...]) -> Transfer:
    return Transfer(
        tenant_id=cause.tenant_id, kind=kind, source=cause.source, booked_at=cause.booked_at, entries=entries
    )
