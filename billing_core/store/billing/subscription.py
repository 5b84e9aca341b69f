"""Subscriptions and billing periods at rest.

A period is opened by an activation or by the close of the one before, and closed once: the row lock of the
subscription stands before it, so that a close, a cancellation and another close of the same customer come one after
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_core.errors import NotFound
from billing_core.store.database import Transaction
from billing_core.store.query import Q
from billing_core.store.setup.customer import Collection
from billing_core.subscriptions.subscription import Subscription, SubscriptionState
from billing_core.values.period import Period


class BillingCustomer(msgspec.Struct, frozen=True, kw_only=True):
    """What a bill must know of a customer, and the tenant's clock."""

    customer_id: str
    time_zone: str
    collection: Collection
    payment_terms_days: int
    clock_offset_ms: int


class BillingPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """One period of a subscription, for people to read."""

    subscription_id: str
    customer_id: str
    start_at: datetime
    end_at: datetime
    plan_code: str
    plan_version: int
    anchor_at: datetime
    state: str
    closed_at: datetime | None
    recorded_until: datetime | None
    corrected_until: datetime | None


class DueTenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant with periods to close; those that end until `until_at` are due and drained."""

    tenant_id: str
    clock_offset_ms: int
    until_at: datetime


class PeriodKey(msgspec.Struct, frozen=True, kw_only=True):
    """Which period, and what prices and cuts it."""

    subscription_id: str
    customer_id: str
    start_at: datetime
    end_at: datetime
    plan_code: str
    plan_version: int
    anchor_at: datetime
    time_zone: str

    @property
    def period(self) -> Period:
        """Its bounds."""
        return Period(start_at=self.start_at, end_at=self.end_at)


class LatePeriod(PeriodKey, frozen=True, kw_only=True):
    """A closed period for which something came after the cut that it was billed at."""

    cut_at: datetime


class ClosingPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """A due period under lock, with its subscription as it stands and the customer's terms."""

    subscription_id: str
    customer_id: str
    plan_code: str
    plan_version: int
    state: SubscriptionState
    cancel_at_end: bool
    anchor_at: datetime
    time_zone: str
    next_plan_code: str | None
    next_plan_version: int | None
    next_anchor_at: datetime | None
    next_at: datetime | None
    start_at: datetime
    end_at: datetime
    collection: Collection
    payment_terms_days: int

    @property
    def change(self) -> PlanChange | None:
        """The plan that follows when the period ends, where another does."""
        code, version, anchor_at, at = (
            self.next_plan_code,
            self.next_plan_version,
            self.next_anchor_at,
            self.next_at,
        )
        if code is None or version is None or anchor_at is None or at is None or at > self.end_at:
            return None
        return PlanChange(plan_code=code, plan_version=version, anchor_at=anchor_at, at=at)


class NextPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """A period to open."""

    subscription_id: str
    customer_id: str
    period: Period
    plan_code: str
    plan_version: int
    anchor_at: datetime


class PlanChange(msgspec.Struct, frozen=True, kw_only=True):
    """The plan that follows, and from when."""

    plan_code: str
    plan_version: int
    anchor_at: datetime
    at: datetime


class Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """Closed periods that ended on one day, and the bounds of what may have come late for them."""

    ended_on: datetime
    from_at: datetime
    to_at: datetime
    cut_at: datetime


class _Cut(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime


Keyed = Sequence[PeriodKey] | Sequence[ClosingPeriod]


async def lock_customer(tx: Transaction, *, tenant_id: str, customer_id: str) -> BillingCustomer:
    """The customer, locked until the transaction ends.

    Raises: NotFound.
    """
    found = await tx.maybe(Q["billing_customer_locked"], BillingCustomer, tenant_id, customer_id)
    if found is None:
        raise NotFound(f"there is no customer {customer_id!r}", field="customer_id")
    return found


async def last_of(tx: Transaction, *, tenant_id: str, customer_id: str) -> Subscription | None:
    """The customer's subscription that started last."""
    return await tx.maybe(Q["subscription_last"], Subscription, tenant_id, customer_id)


async def insert(tx: Transaction, subscription: Subscription) -> None:
    """A new subscription, active."""
    await tx.run(
        Q["subscription_insert"],
        subscription.tenant_id,
        subscription.subscription_id,
        subscription.customer_id,
        subscription.plan_code,
        subscription.plan_version,
        subscription.started_at,
        subscription.anchor_at,
        subscription.time_zone,
        subscription.created_at,
    )


async def by_id(tx: Transaction, *, tenant_id: str, subscription_id: str, lock: bool = False) -> Subscription:
    """One subscription, locked until the transaction ends where asked for.

    Raises: NotFound.
    """
    query = Q["subscription_locked" if lock else "subscription_by_id"]
    found = await tx.maybe(query, Subscription, tenant_id, subscription_id)
    if found is None:
        raise NotFound(f"there is no subscription {subscription_id!r}", field="subscription_id")
    return found


async def page(
    tx: Transaction, *, tenant_id: str, customer_id: str = "", after: str = "", count: int
) -> list[Subscription]:
    """Subscriptions in the order of their birth, of one customer or of all."""
    return await tx.many(Q["subscriptions_after"], Subscription, tenant_id, customer_id, after, count)


async def periods_of(
    tx: Transaction, *, tenant_id: str, subscription_id: str, after: datetime, count: int
) -> list[BillingPeriod]:
    """The subscription's periods, in order."""
    return await tx.many(Q["periods_of_subscription"], BillingPeriod, tenant_id, subscription_id, after, count)


async def open_periods(
    tx: Transaction, *, tenant_id: str, subscription_ids: Sequence[str]
) -> dict[str, BillingPeriod]:
    """The open period of each of these subscriptions that has one; the newest where a close is behind."""
    rows = await tx.many(Q["periods_open_of"], BillingPeriod, tenant_id, list(subscription_ids))
    return {row.subscription_id: row for row in rows}


async def set_cancel_at_end(tx: Transaction, *, tenant_id: str, subscription_id: str) -> None:
    """Note that the open period is the last one."""
    await tx.exactly(1, Q["subscription_cancel_at_end"], tenant_id, subscription_id)


async def set_change(tx: Transaction, *, tenant_id: str, subscription_id: str, change: PlanChange | None) -> None:
    """Note which plan follows; None where none does."""
    values = (change.plan_code, change.plan_version, change.anchor_at, change.at) if change else (None,) * 4
    await tx.exactly(1, Q["subscription_change"], tenant_id, subscription_id, *values)


async def cut_period(tx: Transaction, *, tenant_id: str, subscription_id: str, at: datetime) -> None:
    """End the open period early, at an instant within it."""
    await tx.exactly(1, Q["period_cut"], tenant_id, subscription_id, at)


async def move_on(tx: Transaction, *, tenant_id: str, subscription_ids: Sequence[str]) -> None:
    """The plans that follow are the plans now."""
    await tx.exactly(len(subscription_ids), Q["subscriptions_move"], tenant_id, list(subscription_ids))


async def period_at(tx: Transaction, *, tenant_id: str, subscription_id: str, start_at: datetime) -> BillingPeriod:
    """The period that starts at the instant.

    Raises: NotFound.
    """
    found = await tx.maybe(Q["period_at_start"], BillingPeriod, tenant_id, subscription_id, start_at)
    if found is None:
        raise NotFound(f"subscription {subscription_id!r} has no period from {start_at.isoformat()}")
    return found


async def end(tx: Transaction, *, tenant_id: str, last: Sequence[PeriodKey | ClosingPeriod]) -> None:
    """End the subscriptions of these periods at the periods' ends."""
    ids, ends = [one.subscription_id for one in last], [one.end_at for one in last]
    await tx.exactly(len(last), Q["subscriptions_end"], tenant_id, ids, ends)


async def due_tenants(tx: Transaction, *, now: datetime) -> list[DueTenant]:
    """Tenants with ended periods whose usage is flushed. `now` is real time."""
    return await tx.many(Q["tenants_with_due_periods"], DueTenant, now)


async def due(tx: Transaction, tenant: DueTenant, *, most: int) -> list[PeriodKey]:
    """The tenant's due periods, the oldest ends first."""
    return await tx.many(Q["periods_due"], PeriodKey, tenant.tenant_id, tenant.until_at, most)


async def cut(tx: Transaction) -> datetime:
    """An instant such that all usage recorded before it is committed; the transaction must end at once."""
    return (await tx.one(Q["close_cut"], _Cut)).at


async def lock_for_close(tx: Transaction, *, tenant_id: str, keys: Sequence[PeriodKey]) -> list[ClosingPeriod]:
    """Those of the periods that are still open, under lock with their subscriptions."""
    return await tx.many(Q["subscriptions_for_close"], ClosingPeriod, tenant_id, *_columns(keys))


async def close(
    tx: Transaction, *, tenant_id: str, keys: Sequence[ClosingPeriod], closed_at: datetime, cut_at: datetime
) -> None:
    """Close the periods for good."""
    await tx.exactly(len(keys), Q["periods_close"], tenant_id, *_columns(keys), closed_at, cut_at)


async def open_all(tx: Transaction, *, tenant_id: str, periods: Sequence[NextPeriod]) -> None:
    """Open the periods that follow."""
    await tx.run(
        Q["periods_open"],
        tenant_id,
        [one.subscription_id for one in periods],
        [one.customer_id for one in periods],
        [one.period.start_at for one in periods],
        [one.period.end_at for one in periods],
        [one.plan_code for one in periods],
        [one.plan_version for one in periods],
        [one.anchor_at for one in periods],
    )


async def late(
    tx: Transaction, *, tenant_id: str, subscription_ids: Sequence[str], ended_after: datetime, cut_at: datetime
) -> list[LatePeriod]:
    """Closed periods of these subscriptions that something was recorded for after they were billed."""
    ids = list(subscription_ids)
    found: list[LatePeriod] = []
    for cohort in await tx.many(Q["closed_cohorts"], Cohort, tenant_id, ids, ended_after):
        bounds = (cohort.ended_on, cohort.from_at, cohort.to_at, cohort.cut_at)
        found += await tx.many(Q["periods_with_late_events"], LatePeriod, tenant_id, ids, *bounds, cut_at)
    return found


async def mark_corrected(tx: Transaction, *, tenant_id: str, keys: Sequence[LatePeriod], cut_at: datetime) -> None:
    """Note up to which cut the closed periods have been billed."""
    await tx.exactly(len(keys), Q["periods_corrected"], tenant_id, *_columns(keys), cut_at)


async def push_snapshots(tx: Transaction, *, tenant_id: str, customer_ids: Sequence[str]) -> None:
    """Have these customers projected anew."""
    await tx.run(Q["snapshots_stale"], tenant_id, list(customer_ids))


def _columns(keys: Keyed) -> tuple[list[str], list[datetime]]:
    return [key.subscription_id for key in keys], [key.start_at for key in keys]
