"""The books in Postgres: a transfer is written once per cause, and balances are sums.

Nothing here is ever updated. Two writers of the same cause meet at the constraint "one cause books once"; the
second finds the transfer there and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from billing_core.ledger.account import Account
from billing_core.ledger.transfer import Entry, Transfer
from billing_core.store.database import Transaction
from billing_core.store.query import Q


class AccountBalance(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the trial balance. Units: nanos; debits and credits both positive."""

    currency: str
    account: Account
    debit_nanos: int
    credit_nanos: int

    @property
    def balance_nanos(self) -> int:
        """How the account stands, debit positive."""
        return self.debit_nanos - self.credit_nanos


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What moved, or stands, for one customer in one account; `month` is "" for a standing."""

    account: Account
    customer_id: str
    currency: str
    nanos: int
    month: str = ""


class _Sides(msgspec.Struct, frozen=True, kw_only=True):
    """Sums are numeric: those of a large tenant in a small currency pass 64 bits."""

    currency: str
    account: Account
    debit_nanos: Decimal
    credit_nanos: Decimal


class _Sum(msgspec.Struct, frozen=True, kw_only=True):
    account: Account
    customer_id: str
    currency: str
    nanos: Decimal
    month: str = ""


class _Booked(msgspec.Struct, frozen=True, kw_only=True):
    transfer_id: str


async def book(tx: Transaction, transfer: Transfer) -> bool:
    """Write a transfer unless its cause was booked before; whether it was written."""
    return await book_all(tx, [transfer]) == 1


async def book_all(tx: Transaction, transfers: Sequence[Transfer]) -> int:
    """Write those transfers whose causes were not booked before; how many were written."""
    if not transfers:
        return 0
    sides = [(t, number, entry) for t in transfers for number, entry in enumerate(t.entries, start=1)]
    rows = await tx.many(
        Q["ledger_book"],
        _Booked,
        [t.tenant_id for t in transfers],
        [t.transfer_id for t in transfers],
        [t.kind for t in transfers],
        [t.source for t in transfers],
        [t.booked_at for t in transfers],
        [t.tenant_id for t, _, _ in sides],
        [t.transfer_id for t, _, _ in sides],
        [number for _, number, _ in sides],
        [entry.account for _, _, entry in sides],
        [entry.customer_id for _, _, entry in sides],
        [entry.currency for _, _, entry in sides],
        [entry.nanos for _, _, entry in sides],
    )
    return len(rows)


async def entries_of_invoice(tx: Transaction, *, tenant_id: str, invoice_id: str) -> list[Entry]:
    """All that finalizing an invoice booked."""
    return await tx.many(Q["ledger_entries_of_invoice"], Entry, tenant_id, invoice_id)


async def trial_balance(tx: Transaction, *, tenant_id: str) -> list[AccountBalance]:
    """Every account with its debits and credits; per currency they are equal."""
    rows = await tx.many(Q["ledger_trial_balance"], _Sides, tenant_id)
    return [
        AccountBalance(
            currency=row.currency,
            account=row.account,
            debit_nanos=int(row.debit_nanos),
            credit_nanos=int(row.credit_nanos),
        )
        for row in rows
    ]


async def balances(tx: Transaction, *, tenant_id: str, from_at: datetime, to_at: datetime) -> list[Balance]:
    """What moved per month, account and customer within `[from, to)`, by the day it belongs to."""
    return [_balance(row) for row in await tx.many(Q["ledger_balances"], _Sum, tenant_id, from_at, to_at)]


async def standing(tx: Transaction, *, tenant_id: str, at: datetime) -> list[Balance]:
    """How each account stands for each customer, of all that belongs to days before the instant."""
    return [_balance(row) for row in await tx.many(Q["ledger_standing"], _Sum, tenant_id, at)]


def _balance(row: _Sum) -> Balance:
    return Balance(
        account=row.account,
        customer_id=row.customer_id,
        currency=row.currency,
        nanos=int(row.nanos),
        month=row.month,
    )
