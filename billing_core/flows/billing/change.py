"""Change: a subscription goes to another plan, or to the newest version of its own, now or at its period's end.

For the gate a change is in force from its instant on: it is written on the subscription with that instant, the
customer is projected, and whoever resolves it afterwards finds the new plan. For bills a change is the end of a
period. Now means that the open period ends now; its close, moments later, bills what was used under the old plan at
the old plan's prices, opens the new plan's first period, and bills that one's fee in its share of a full period.
What was paid in advance for the old plan is not given back by this.

A change joins the transaction of its caller. `now` is real time; what is written is on the tenant's clock, rounded
up to whole milliseconds, because that is how finely a decision tells time. What is decided after that instant and
before the gate knows, some milliseconds, has been charged by the old plan's prices and is billed by the new one's.

Worked example: `pro` at 20.00 a month from 1 March, changed to `team` at 62.00 on 16 March: the bill of [1 March,
16 March) has the usage of `pro` and the fee of `team` for 16 of 31 days, 32.00.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from billing_core.catalog.catalog import PlanVersion
from billing_core.errors import StillRunning, Unprocessable
from billing_core.store import outbox
from billing_core.store.billing import subscription as subscriptions
from billing_core.store.billing.subscription import PlanChange
from billing_core.store.database import Transaction
from billing_core.store.outbox import OutboxKind
from billing_core.store.setup.catalog import offered_version, plan_version
from billing_core.subscriptions.subscription import Act, Subscription, phase_after
from billing_core.subscriptions.term import Calendar, anchor_after
from billing_core.values.clock import next_ms
from billing_core.values.period import Period


class ChangeAt(StrEnum):
    """When a change takes effect: at once, or with the end of the open period."""

    NOW = "now"
    END = "end"


class ChangeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Which subscription goes to which plan, and when."""

    tenant_id: str
    subscription_id: str
    plan_code: str
    at: ChangeAt


async def change_plan(tx: Transaction, order: ChangeOrder, *, now: datetime) -> Subscription:
    """Put the subscription on the version of the plan that is offered now.

    A change that was asked for before and has not come is replaced; asking for the plan that is in force drops it.
    Asking twice for the same changes nothing.

    Raises: NotFound for an unknown subscription or plan; Conflict where it ends or has ended; Unprocessable for a
    plan in another currency; StillRunning while the change before this one is not billed yet.
    """
    tenant_id, subscription_id = order.tenant_id, order.subscription_id
    found = await subscriptions.by_id(tx, tenant_id=tenant_id, subscription_id=subscription_id)
    customer = await subscriptions.lock_customer(tx, tenant_id=tenant_id, customer_id=found.customer_id)
    standing = await subscriptions.by_id(tx, tenant_id=tenant_id, subscription_id=subscription_id, lock=True)
    phase_after(standing.phase, Act.CHANGE)
    at = next_ms(now) + timedelta(milliseconds=customer.clock_offset_ms)
    plan = await offered_version(tx, tenant_id, plan_code=order.plan_code)
    is_under_way = standing.next_at is not None and standing.next_at <= at
    in_force = (
        (standing.next_plan_code, standing.next_plan_version)
        if is_under_way
        else (standing.plan_code, standing.plan_version)
    )
    if in_force == (order.plan_code, plan.version):
        return standing if is_under_way else await _write(tx, standing, change=None)
    period = await _open_period(tx, standing, at=at)
    if order.at is ChangeAt.NOW and period.start_at == at:
        raise StillRunning("its period has begun at this very moment", field="subscription_id")
    change_at = at if order.at is ChangeAt.NOW else period.end_at
    change = await _change(tx, standing, plan=plan, at=change_at)
    if order.at is ChangeAt.NOW:
        await subscriptions.cut_period(tx, tenant_id=tenant_id, subscription_id=subscription_id, at=at)
    return await _write(tx, standing, change=change)


async def _open_period(tx: Transaction, standing: Subscription, *, at: datetime) -> Period:
    """The open period, which must hold the instant: one that is over waits for its bill."""
    ids = [standing.subscription_id]
    opened = await subscriptions.open_periods(tx, tenant_id=standing.tenant_id, subscription_ids=ids)
    period = opened[standing.subscription_id]
    if at >= period.end_at:
        raise StillRunning("the period before this moment is still being billed", field="subscription_id")
    return Period(start_at=period.start_at, end_at=period.end_at)


async def _change(tx: Transaction, standing: Subscription, *, plan: PlanVersion, at: datetime) -> PlanChange:
    before = await plan_version(tx, standing.tenant_id, plan_code=standing.plan_code, version=standing.plan_version)
    was, following = before.terms.plan, plan.terms.plan
    if was.currency != following.currency:
        rule = f"its bills are in {was.currency}, not in {following.currency}: cancel it, then subscribe anew"
        raise Unprocessable(rule, field="plan")
    calendar = Calendar(interval=was.interval, anchor_at=standing.anchor_at, time_zone=standing.time_zone)
    anchor_at = anchor_after(calendar, was=was.anchor, anchor=following.anchor, interval=following.interval, at=at)
    return PlanChange(plan_code=following.code, plan_version=plan.version, anchor_at=anchor_at, at=at)


async def _write(tx: Transaction, standing: Subscription, *, change: PlanChange | None) -> Subscription:
    """Note the change and have the customer projected."""
    tenant_id, subscription_id = standing.tenant_id, standing.subscription_id
    await subscriptions.set_change(tx, tenant_id=tenant_id, subscription_id=subscription_id, change=change)
    await outbox.push(tx, OutboxKind.SNAPSHOT, tenant_id=tenant_id, customer_id=standing.customer_id)
    return msgspec.structs.replace(
        standing,
        next_plan_code=change and change.plan_code,
        next_plan_version=change and change.plan_version,
        next_anchor_at=change and change.anchor_at,
        next_at=change and change.at,
    )
