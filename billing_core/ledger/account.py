"""Accounts: seven names, what each means, and who may move it.

Amounts are signed: a debit is positive, a credit negative, and every transfer sums to zero per currency. So an
asset stands positive, a liability and revenue stand negative, and all accounts together are nothing at any moment.

    account              kind       stands   what it means                                  moved by
    cash                 asset      +        money that arrived                             payments
    accounts_receivable  asset      +        unpaid invoices, drawn overdrafts              invoices, payments, burn
    contract_liability   liability  -        prepaid balances: paid, not yet used           payments, burn
    deferred_revenue     liability  -        fees billed ahead whose days have not passed   invoices, revenue
    revenue_usage        revenue    -        usage that was performed                       invoices, burn
    revenue_fees         revenue    -        days of fees that have passed                  revenue
    revenue_breakage     revenue    -        prepaid balances that lapsed unused            burn

Promotional grants are in no account: nobody paid for them, so burning one is neither revenue nor a liability that
ends. What they cover simply does not appear as due on an invoice.

Credit units are in no account either. A paid grant of credits is in the books as the money that it cost, and each
part of it as its share of that money; the currency of an entry is always money.

Source: ASC 606-10-45-1 to 45-4 (contract balances), 606-10-55-46 to 55-49 (breakage).
"""

from __future__ import annotations

from enum import StrEnum


class Account(StrEnum):
    """Where money stands."""

    CASH = "cash"
    ACCOUNTS_RECEIVABLE = "accounts_receivable"
    CONTRACT_LIABILITY = "contract_liability"
    DEFERRED_REVENUE = "deferred_revenue"
    REVENUE_USAGE = "revenue_usage"
    REVENUE_FEES = "revenue_fees"
    REVENUE_BREAKAGE = "revenue_breakage"


REVENUE = frozenset({Account.REVENUE_USAGE, Account.REVENUE_FEES, Account.REVENUE_BREAKAGE})
"""What an income statement shows; it stands negative in the books and is shown positive in reports."""
