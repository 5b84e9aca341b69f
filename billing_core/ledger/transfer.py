"""Transfers: one cause, a balanced set of entries, booked once.

A transfer is named by its cause. Its id is a digest of tenant, kind and source, so that whoever books the same
cause a second time, after a crash or in a race, makes the same transfer and finds that it is there.

Worked example: payment pay_1 of 25.00 USD on an invoice makes `payment_received` with source pay_1: cash
+25_000_000_000 nanos, accounts_receivable -25_000_000_000 nanos.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from datetime import datetime
from enum import StrEnum

import msgspec

from billing_core.ledger.account import Account
from billing_core.values.invariant import invariant


class TransferKind(StrEnum):
    """Why money moved. The source of each stands beside it."""

    TOP_UP_PAID = "top_up_paid"  # payment
    BURN = "burn"  # stretch of a shard's stream, customer, day
    BREAKAGE = "breakage"  # the same
    OVERDRAWN = "overdrawn"  # the same
    REPAID = "repaid"  # the same
    FEE_BILLED = "fee_billed"  # invoice
    FEE_EARNED = "fee_earned"  # invoice line and the day it is earned up to
    USAGE_BILLED = "usage_billed"  # invoice
    USAGE_CORRECTED = "usage_corrected"  # invoice
    PAYMENT_RECEIVED = "payment_received"  # payment
    INVOICE_VOIDED = "invoice_voided"  # invoice


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a transfer: so many nanos, debit positive."""

    account: Account
    customer_id: str
    currency: str
    nanos: int


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """A balanced booking. `booked_at` is the day in the books that it belongs to.

    Invariant: entries are not zero and sum to zero per currency.
    """

    tenant_id: str
    kind: TransferKind
    source: str
    booked_at: datetime
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        sums: dict[str, int] = defaultdict(int)
        for entry in self.entries:
            invariant(entry.nanos != 0, f"{self.kind} {self.source}: an entry moves something")
            sums[entry.currency] += entry.nanos
        invariant(bool(sums), f"{self.kind} {self.source}: a transfer has entries")
        invariant(not any(sums.values()), f"{self.kind} {self.source}: a transfer sums to zero per currency")

    @property
    def transfer_id(self) -> str:
        """The same cause has the same id, always."""
        cause = f"{self.tenant_id}\x1f{self.kind}\x1f{self.source}"
        return f"tra_{hashlib.sha256(cause.encode()).hexdigest()[:32]}"
