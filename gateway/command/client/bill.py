"""What the control plane answers about money: wallets, payments, invoices, revenue, the books and their proof.

Units: `*_minor` are minor units of the currency at its ISO 4217 exponent, `*_nanos` 1e-9 of its major unit.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What all of a credit block costs."""

    currency: str
    nanos: int


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A credit block. `applied` is said of one that was changed: whether the gateway knows it."""

    grant_id: str
    kind: str = ""
    currency: str = ""
    amount_nanos: int = 0
    spent_nanos: int = 0
    lapsed_nanos: int = 0
    priority: int = 0
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    features: tuple[str, ...] = ()
    price: Price | None = None
    lowered_nanos: int | None = None
    note: str = ""
    applied: bool | None = None


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to move money."""

    payment_id: str
    customer_id: str = ""
    invoice_id: str | None = None
    purpose: str = ""
    method: str = ""
    currency: str = "USD"
    amount_minor: int = 0
    state: str = ""
    attempt: int = 1
    reference: str = ""
    failure_code: str = ""
    created_at: datetime | None = None
    settled_at: datetime | None = None


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """A top-up: its payment, and the grant once it was paid."""

    payment: Payment
    grant_id: str | None = None
    applied: bool | None = None


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's prepaid balance in one currency, with its grants."""

    currency: str
    balance_nanos: int = 0
    overdraft_nanos: int = 0
    owed_nanos: int = 0
    grants: tuple[Grant, ...] = ()


class Wallets(msgspec.Struct, frozen=True, kw_only=True):
    """All wallets of a customer."""

    customer_id: str = ""
    wallets: tuple[Wallet, ...] = ()


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """The quantity of one meter, or of one group of it."""

    meter: str = ""
    group: dict[str, str] = {}
    quantity: str = "0"
    event_count: int = 0
    unreadable_count: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was metered for a customer in a stretch of time."""

    items: tuple[UsageRow, ...] = ()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a line that one tier or one bound made. Numbers are exact text: `2500`, `0.5` or `1/3`."""

    kind: str = "tier"
    tier_index: int = 0
    quantity: str = "0"
    unit_nanos: str = "0"
    flat_nanos: str = "0"
    amount_nanos: str = "0"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an invoice."""

    line_no: int
    kind: str
    description: str = ""
    price_code: str = ""
    meter_code: str = ""
    quantity: str = "0"
    amount_minor: int = 0
    prepaid_minor: int = 0
    service_start_at: datetime | None = None
    service_end_at: datetime | None = None
    event_count: int = 0
    parts: tuple[Part, ...] = ()
    wallet: str = ""
    wallet_nanos: int = 0
    unpaid_nanos: int = 0


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """One bill. `number` is None for a draft."""

    invoice_id: str
    customer_id: str
    number: str | None = None
    state: str = ""
    reason: str = ""
    currency: str = "USD"
    total_minor: int = 0
    prepaid_minor: int = 0
    due_minor: int = 0
    paid_minor: int = 0
    period_start_at: datetime | None = None
    period_end_at: datetime | None = None
    lines: tuple[Line, ...] = ()


class RawEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One usage event under a line."""

    event_id: str
    name: str = ""
    source: str = ""
    event_at: datetime | None = None
    quantity: str = "0"
    charged_nanos: int = 0
    uncollected_nanos: int = 0


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay of a bill found otherwise than it was billed."""

    line_no: int = 0
    field: str = ""
    billed: str = ""
    replayed: str = ""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a bill, made again from its events, is the same."""

    same: bool
    line_count: int = 0
    differences: tuple[Difference, ...] = ()


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in one account. Positive is a debit."""

    account: str
    currency: str
    nanos: int


class TrialBalance(msgspec.Struct, frozen=True, kw_only=True):
    """All accounts; per currency they add up to zero."""

    accounts: tuple[Balance, ...] = ()


class RevenueRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was recognized for one customer in one account and month."""

    month: str = ""
    account: str
    currency: str
    nanos: int
    customer_id: str = ""


class Revenue(msgspec.Struct, frozen=True, kw_only=True):
    """What was recognized in a stretch of time."""

    items: tuple[RevenueRow, ...] = ()


class ShadowDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One charge of a request that would have been refused, and was let through."""

    decision_id: str
    customer_id: str
    feature: str
    quantity: int
    decided_at: datetime
    reason: str
    level: str = ""


class ShadowReason(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests of how many customers would have been refused for one reason."""

    reason: str
    decisions: int
    customers: int


class ShadowDecisions(msgspec.Struct, frozen=True, kw_only=True):
    """The newest page of them, and how often each reason would have been given in the whole stretch of time."""

    items: tuple[ShadowDecision, ...] = ()
    reasons: tuple[ShadowReason, ...] = ()


class Discord(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not add up: by which law, whose, and by how much."""

    law: str
    customer_id: str = ""
    grant_id: str = ""
    currency: str = ""
    difference_nanos: int = 0
    detail: str = ""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What a server that took over a shard did not have. Places are stream ids."""

    shard: int
    noticed_at: datetime
    kept: str = ""
    flushed: str = ""
    missed_acts: int = 0
    lost_decisions: int = 0
    lost_ids: tuple[str, ...] = ()


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """For every grant: granted = spent + lapsed + not yet flushed + held + remaining + not yet applied."""

    grants: int = 0
    granted_nanos: int = 0
    spent_nanos: int = 0
    lapsed_nanos: int = 0
    unflushed_nanos: int = 0
    held_nanos: int = 0
    remaining_nanos: int = 0
    pending_nanos: int = 0
    difference_nanos: int = 0
    unbuilt_shards: int = 0
    parked_entries: int = 0
    findings: tuple[Discord, ...] = ()
    losses: tuple[Loss, ...] = ()

    @property
    def is_zero(self) -> bool:
        """Whether every grant adds up and every law of the books holds."""
        return not self.findings and self.difference_nanos == 0
