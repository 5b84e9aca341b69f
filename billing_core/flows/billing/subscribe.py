"""Subscribe: put a customer on a plan, and take it off at the end of a period.

An activation writes the subscription on the version of the plan that is offered now, opens its first period, bills
the fee of that period in advance and has the customer projected, so that the gate lets it through within moments.
Both join the transaction of their caller. `now` is real time; what is written is on the tenant's clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction

import msgspec

from billing_core.catalog.catalog import PlanVersion
from billing_core.errors import Conflict, StillRunning
from billing_core.flows.billing import bill
from billing_core.invoices.invoice import InvoiceReason
from billing_core.invoices.line import fee_line
from billing_core.pricing.proration import ProrateBy, share_of
from billing_core.store import outbox
from billing_core.store.billing import subscription as subscriptions
from billing_core.store.billing.subscription import BillingCustomer, NextPeriod
from billing_core.store.database import Transaction
from billing_core.store.outbox import OutboxKind
from billing_core.store.setup.catalog import offered_version
from billing_core.subscriptions.subscription import Act, Phase, Subscription, SubscriptionState, phase_after
from billing_core.subscriptions.term import Calendar, calendar_of, check_start, contract_zone
from billing_core.values.ids import new_id
from billing_core.values.period import Period, zone_of


class SubscriptionOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants which plan, from when; without a start, from now."""

    tenant_id: str
    customer_id: str
    plan_code: str
    start_at: datetime | None = None


async def activate(
    tx: Transaction, order: SubscriptionOrder, *, now: datetime, finalize: bool = True
) -> Subscription:
    """Put the customer on the plan that is offered now, and bill the first fee in advance.

    Raises: NotFound for an unknown customer or plan; Conflict where the customer is on a plan; InvalidInput for a
    start in the future, too far in the past, or within an earlier subscription.
    """
    tenant_id = order.tenant_id
    customer = await subscriptions.lock_customer(tx, tenant_id=tenant_id, customer_id=order.customer_id)
    at = now + timedelta(milliseconds=customer.clock_offset_ms)
    plan = await offered_version(tx, tenant_id, plan_code=order.plan_code)
    last = await subscriptions.last_of(tx, tenant_id=tenant_id, customer_id=order.customer_id)
    if last is not None and last.phase is not Phase.ENDED:
        raise Conflict(f"the customer is on plan {last.plan_code!r} already", field="customer_id")
    start_at = order.start_at or at
    check_start(start_at, now=at, free_from=last.ended_at if last else None)
    subscription, period = _first(order, customer, plan=plan, start_at=start_at, at=at)
    await subscriptions.insert(tx, subscription)
    opened = NextPeriod(
        subscription_id=subscription.subscription_id,
        customer_id=order.customer_id,
        period=period,
        plan_code=order.plan_code,
        plan_version=plan.version,
        anchor_at=subscription.anchor_at,
    )
    await subscriptions.open_all(tx, tenant_id=tenant_id, periods=[opened])
    bills = _bills(subscription, customer, plan=plan, period=period)
    await bill.write(tx, bills, now=at, finalize=finalize)
    await outbox.push(tx, OutboxKind.SNAPSHOT, tenant_id=tenant_id, customer_id=order.customer_id)
    return subscription


async def cancel_at_end(tx: Transaction, *, tenant_id: str, subscription_id: str, now: datetime) -> Subscription:
    """Let the open period be the last one; a change that was to come does not. Asking twice changes nothing.

    Raises: NotFound; Conflict where the subscription has ended; StillRunning while a change is not billed yet.
    """
    found = await subscriptions.by_id(tx, tenant_id=tenant_id, subscription_id=subscription_id)
    customer = await subscriptions.lock_customer(tx, tenant_id=tenant_id, customer_id=found.customer_id)
    subscription = await subscriptions.by_id(tx, tenant_id=tenant_id, subscription_id=subscription_id, lock=True)
    phase_after(subscription.phase, Act.CANCEL_AT_END)
    at = now + timedelta(milliseconds=customer.clock_offset_ms)
    if subscription.next_at is not None and subscription.next_at <= at:
        raise StillRunning("its change of plan is still being billed", field="subscription_id")
    await subscriptions.set_cancel_at_end(tx, tenant_id=tenant_id, subscription_id=subscription_id)
    if subscription.phase is Phase.ACTIVE:
        await outbox.push(tx, OutboxKind.SNAPSHOT, tenant_id=tenant_id, customer_id=subscription.customer_id)
    return await subscriptions.by_id(tx, tenant_id=tenant_id, subscription_id=subscription_id)


def fee_share(calendar: Calendar, period: Period) -> Fraction:
    """The period's share of a full one, by its seconds."""
    full = calendar.full_period(period.start_at)
    return share_of(period, full, by=ProrateBy.SECONDS, zone=zone_of(calendar.time_zone))


def _first(
    order: SubscriptionOrder,
    customer: BillingCustomer,
    *,
    plan: PlanVersion,
    start_at: datetime,
    at: datetime,
) -> tuple[Subscription, Period]:
    terms = plan.terms.plan
    zone = contract_zone(customer_zone=customer.time_zone, plan_zone=terms.time_zone)
    calendar = calendar_of(terms.anchor, terms.interval, start_at=start_at, time_zone=zone)
    subscription = Subscription(
        tenant_id=order.tenant_id,
        subscription_id=new_id("sub", now=at),
        customer_id=order.customer_id,
        plan_code=order.plan_code,
        plan_version=plan.version,
        state=SubscriptionState.ACTIVE,
        started_at=start_at,
        anchor_at=calendar.anchor_at,
        time_zone=zone,
        cancel_at_end=False,
        ended_at=None,
        created_at=at,
    )
    return subscription, calendar.period_from(start_at)


def _bills(
    subscription: Subscription, customer: BillingCustomer, *, plan: PlanVersion, period: Period
) -> list[bill.Bill]:
    """The activation's bill; none where the plan has no fee."""
    terms = plan.terms.plan
    calendar = Calendar(interval=terms.interval, anchor_at=subscription.anchor_at, time_zone=subscription.time_zone)
    line = fee_line(plan, period, share=fee_share(calendar, period))
    if line is None:
        return []
    occasion = bill.Occasion(
        tenant_id=subscription.tenant_id,
        subscription_id=subscription.subscription_id,
        customer_id=subscription.customer_id,
        reason=InvoiceReason.ACTIVATION,
        period=period,
        currency=terms.currency,
        time_zone=subscription.time_zone,
        collection=customer.collection,
        terms_days=customer.payment_terms_days,
    )
    return [bill.Bill(occasion=occasion, lines=(line,))]
