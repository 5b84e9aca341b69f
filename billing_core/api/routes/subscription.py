"""Subscriptions: who is on what plan, from when to when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from billing_core.api.page import Page, PageQuery, page_of, place_of
from billing_core.api.route import Call, Route
from billing_core.api.wire import Nothing
from billing_core.flows.billing.change import ChangeAt, ChangeOrder, change_plan
from billing_core.flows.billing.subscribe import SubscriptionOrder, activate, cancel_at_end
from billing_core.store.billing import subscription as subscriptions
from billing_core.store.database import Transaction
from billing_core.subscriptions.subscription import Subscription, SubscriptionState
from billing_core.values.ids import Code
from billing_core.values.period import Period
from billing_core.values.text import Instant


class SubscriptionDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who wants which plan, from when; without a start, from now. The first bill can be left a draft."""

    customer_id: Code
    plan: Code
    start_at: Instant | None = None
    draft_invoice: bool = False


class CancelAt(StrEnum):
    """When a subscription may be ended."""

    END = "end"


class Cancellation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the subscription shall end: with its open period."""

    at: CancelAt = CancelAt.END


class ChangeDraft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which plan follows, and when: now, or with the end of the open period."""

    plan: Code
    at: ChangeAt


class ComingChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of plan whose period is not billed yet; from its instant on the gate goes by it."""

    plan_code: str
    plan_version: int
    at: datetime


class SubscriptionFilter(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose subscriptions."""

    customer_id: Code | None = None


class SubscriptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A customer on a plan, and its open period. Times are on the tenant's clock."""

    subscription_id: str
    customer_id: str
    plan_code: str
    plan_version: int
    state: SubscriptionState
    started_at: datetime
    anchor_at: datetime
    time_zone: str
    cancel_at_end: bool
    ended_at: datetime | None
    created_at: datetime
    changed_at: datetime | None
    change: ComingChange | None
    period: Period | None


class ToldSubscription(SubscriptionView, frozen=True, kw_only=True):
    """A subscription that was changed, and whether the gateway knows it."""

    applied: bool = False


async def create(tx: Transaction, call: Call[SubscriptionDraft, Nothing]) -> ToldSubscription:
    """Put a customer on the plan that is offered now."""
    draft = call.body
    order = SubscriptionOrder(
        tenant_id=call.tenant_id, customer_id=draft.customer_id, plan_code=draft.plan, start_at=draft.start_at
    )
    made = await activate(tx, order, now=call.now, finalize=not draft.draft_invoice)
    return await _told(tx, made)


async def list_subscriptions(tx: Transaction, call: Call[Nothing, SubscriptionFilter]) -> Page[SubscriptionView]:
    """Subscriptions in the order of their birth."""
    query = call.query
    rows = await subscriptions.page(
        tx,
        tenant_id=call.tenant_id,
        customer_id=query.customer_id or "",
        after=place_of(query.cursor, "subscriptions"),
        count=query.limit + 1,
    )
    views = await _views(tx, rows)
    return page_of(views, query, listing="subscriptions", name=lambda view: view.subscription_id)


async def read(tx: Transaction, call: Call[Nothing, Nothing]) -> SubscriptionView:
    """One subscription."""
    subscription_id = call.path["subscription_id"]
    found = await subscriptions.by_id(tx, tenant_id=call.tenant_id, subscription_id=subscription_id)
    return (await _views(tx, [found]))[0]


async def cancel(tx: Transaction, call: Call[Cancellation, Nothing]) -> ToldSubscription:
    """Let the open period be the last one."""
    subscription_id = call.path["subscription_id"]
    canceled = await cancel_at_end(tx, tenant_id=call.tenant_id, subscription_id=subscription_id, now=call.now)
    return await _told(tx, canceled)


async def change(tx: Transaction, call: Call[ChangeDraft, Nothing]) -> ToldSubscription:
    """Put a subscription on another plan, or on the newest version of its own."""
    order = ChangeOrder(
        tenant_id=call.tenant_id,
        subscription_id=call.path["subscription_id"],
        plan_code=call.body.plan,
        at=call.body.at,
    )
    changed = await change_plan(tx, order, now=call.now)
    return await _told(tx, changed)


async def _told(tx: Transaction, row: Subscription) -> ToldSubscription:
    (view,) = await _views(tx, [row])
    return msgspec.convert(view, ToldSubscription, from_attributes=True)


async def _views(tx: Transaction, rows: Sequence[Subscription]) -> list[SubscriptionView]:
    if not rows:
        return []
    ids = [row.subscription_id for row in rows]
    periods = await subscriptions.open_periods(tx, tenant_id=rows[0].tenant_id, subscription_ids=ids)
    return [_view(row, periods.get(row.subscription_id)) for row in rows]


def _view(row: Subscription, opened: subscriptions.BillingPeriod | None) -> SubscriptionView:
    shown = {
        name: value
        for name, value in msgspec.structs.asdict(row).items()
        if name != "tenant_id" and not name.startswith("next_")
    }
    coming = None
    if row.next_plan_code is not None and row.next_plan_version is not None and row.next_at is not None:
        coming = ComingChange(plan_code=row.next_plan_code, plan_version=row.next_plan_version, at=row.next_at)
    period = Period(start_at=opened.start_at, end_at=opened.end_at) if opened else None
    return SubscriptionView(**shown, change=coming, period=period)


SUBSCRIPTIONS, SUBSCRIPTION = "/v1/subscriptions", "/v1/subscriptions/{subscription_id}"

ROUTES = (
    Route(
        method="POST",
        path=SUBSCRIPTIONS,
        summary="Put a customer on a plan",
        query=Nothing,
        body=SubscriptionDraft,
        answer=ToldSubscription,
        status=201,
        tells=lambda answer: answer.customer_id,
        act=create,
    ),
    Route(
        method="GET",
        path=SUBSCRIPTIONS,
        summary="List subscriptions",
        query=SubscriptionFilter,
        body=Nothing,
        answer=Page[SubscriptionView],
        act=list_subscriptions,
    ),
    Route(
        method="GET",
        path=SUBSCRIPTION,
        summary="Read a subscription",
        query=Nothing,
        body=Nothing,
        answer=SubscriptionView,
        act=read,
    ),
    Route(
        method="POST",
        path=SUBSCRIPTION + "/cancel",
        summary="Let a subscription end with its open period",
        query=Nothing,
        body=Cancellation,
        answer=ToldSubscription,
        tells=lambda answer: answer.customer_id,
        act=cancel,
    ),
    Route(
        method="POST",
        path=SUBSCRIPTION + "/change",
        summary="Change a subscription's plan, now or with the end of its period",
        query=Nothing,
        body=ChangeDraft,
        answer=ToldSubscription,
        tells=lambda answer: answer.customer_id,
        act=change,
    ),
)
