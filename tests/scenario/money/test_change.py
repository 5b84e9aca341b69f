"""A change of plan ends a period: each plan is billed for its own time, once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from billing_core.errors import Conflict, NotFound, StillRunning, Unprocessable
from billing_core.flows.billing.change import ChangeAt, ChangeOrder, change_plan
from billing_core.flows.billing.replay import replay
from billing_core.invoices.line import LineKind
from tests.scenario.money.conftest import CATALOG, TENANT

if TYPE_CHECKING:
    from billing_core.subscriptions.subscription import Subscription
    from tests.scenario.money.conftest import World


async def change(world: World, subscription: Subscription, plan: str, at: ChangeAt = ChangeAt.NOW) -> Subscription:
    order = ChangeOrder(tenant_id=TENANT, subscription_id=subscription.subscription_id, plan_code=plan, at=at)
    async with world.db.transaction() as tx:
        return await change_plan(tx, order, now=world.now)


async def bills(world: World) -> list[list[tuple[str, str, str, int]]]:
    """Each invoice as its lines: kind, plan, quantity, amount. Replaying every one gives the same."""
    found: list[list[tuple[str, str, str, int]]] = []
    for invoice in await world.invoices("ada"):
        async with world.db.transaction() as tx:
            again = await replay(tx, tenant_id=TENANT, invoice_id=invoice.invoice_id)
        assert again.is_same, again.differences
        lines = await world.lines(invoice)
        found.append([(line.kind.value, line.plan_code, line.quantity, line.amount_minor) for line in lines])
    return found


async def begun(world: World, plan: str = "team") -> Subscription:
    world.now = datetime(2026, 3, 1, tzinfo=UTC)
    await world.customer("ada")
    return await world.subscribe("ada", plan)


async def test_a_change_now_ends_the_period_and_bills_each_plan_for_its_time(world: World) -> None:
    """Usage before it at the old price, from it on at the new one; the new fee for what is left of the month."""
    subscription = await begun(world, "volume")
    await world.use("ada", "call", 3)
    world.now = datetime(2026, 3, 16, tzinfo=UTC)
    await world.use("ada", "call", 1)
    changed = await change(world, subscription, "team")
    assert (changed.plan_code, changed.next_plan_code, changed.next_at) == ("volume", "team", world.now)
    assert await change(world, subscription, "team") == changed
    assert await world.close() == 1
    await world.use("ada", "call", 2)
    world.now = datetime(2026, 4, 1, tzinfo=UTC)
    assert await world.close() == 1
    assert await bills(world) == [
        [("usage", "volume", "3", 3000), ("fee", "team", "1", 1600)],
        [("usage", "team", "3", 3000), ("fee", "team", "1", 3100)],
    ]
    found = await world.fetch("SELECT plan_code, next_plan_code, changed_at, anchor_at, state FROM subscription")
    assert found == [("team", None, datetime(2026, 3, 16, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC), "active")]


async def test_a_change_at_the_end_takes_effect_with_the_next_period(world: World) -> None:
    """Until then it can be replaced, or dropped by asking for the plan that is in force."""
    subscription = await begun(world)
    world.advance(days=3)
    assert (await change(world, subscription, "volume", ChangeAt.END)).next_plan_code == "volume"
    dropped = await change(world, subscription, "team", ChangeAt.END)
    assert (dropped.next_plan_code, dropped.next_at) == (None, None)
    coming = await change(world, subscription, "calendar", ChangeAt.END)
    assert coming.next_at == datetime(2026, 4, 1, tzinfo=UTC)
    world.now = datetime(2026, 4, 1, tzinfo=UTC)
    assert await world.close() == 1
    periods = await world.fetch("SELECT plan_code, state, end_at FROM billing_period ORDER BY start_at")
    assert periods == [
        ("team", "closed", datetime(2026, 4, 1, tzinfo=UTC)),
        ("calendar", "open", datetime(2026, 5, 1, tzinfo=UTC)),
    ]
    assert (await bills(world))[-1] == [("fee", "calendar", "1", 3100)]


async def test_a_change_waits_for_the_bill_of_the_change_before(world: World) -> None:
    """A period that is over and not billed yet is in the way; the same request may be sent again."""
    subscription = await begun(world)
    with pytest.raises(StillRunning):
        await change(world, subscription, "volume")
    world.advance(days=1)
    await change(world, subscription, "volume")
    world.advance(days=1)
    with pytest.raises(StillRunning):
        await change(world, subscription, "calendar")
    with pytest.raises(StillRunning):
        await world.cancel(subscription)
    assert await world.close() == 1
    assert (await change(world, subscription, "calendar")).next_plan_code == "calendar"


async def test_a_canceled_subscription_changes_no_more(world: World) -> None:
    """And canceling drops a change that was to come."""
    subscription = await begun(world)
    world.advance(days=1)
    await change(world, subscription, "volume", ChangeAt.END)
    assert (await world.cancel(subscription)).next_plan_code is None
    with pytest.raises(Conflict, match="is ending cannot change"):
        await change(world, subscription, "volume")
    world.now = datetime(2026, 4, 1, tzinfo=UTC)
    assert await world.close() == 1
    assert [line[0] for line in (await bills(world))[-1]] == []


async def test_who_subscribed_before_a_new_version_stays_until_somebody_changes_it(world: World) -> None:
    """The same plan by its code: on to the version that is offered now."""
    subscription = await begun(world)
    dearer = [{**plan, "fee_amount": "62.00"} if plan["code"] == "team" else plan for plan in CATALOG["plans"]]
    await world.publish({**CATALOG, "plans": dearer})
    world.now = datetime(2026, 4, 1, tzinfo=UTC)
    assert await world.close() == 1
    world.now = datetime(2026, 4, 16, tzinfo=UTC)
    changed = await change(world, subscription, "team")
    assert (changed.plan_version, changed.next_plan_version) == (1, 2)
    assert await world.close() == 1
    assert [bill[-1][3] for bill in await bills(world)] == [3100, 3100, 3100]


async def test_a_plan_in_another_currency_needs_a_new_subscription(world: World) -> None:
    """One bill has one currency; and what is not offered is not there."""
    subscription = await begun(world)
    world.advance(days=1)
    with pytest.raises(NotFound):
        await change(world, subscription, "nothing")
    await world.publish({**CATALOG, "plans": [*CATALOG["plans"], {"code": "euro", "currency": "EUR"}]})
    with pytest.raises(Unprocessable, match="in USD, not in EUR"):
        await change(world, subscription, "euro")


async def test_what_comes_late_is_corrected_by_the_plan_of_its_time(world: World) -> None:
    """A call of the old plan's days, told after its bill, costs what it cost then."""
    subscription = await begun(world, "volume")
    world.now = datetime(2026, 3, 16, tzinfo=UTC)
    await change(world, subscription, "team")
    assert await world.close() == 1
    await world.use("ada", "call", 6, at=datetime(2026, 3, 10, tzinfo=UTC))
    world.now = datetime(2026, 4, 1, tzinfo=UTC)
    assert await world.close() == 1
    last = (await bills(world))[-1]
    assert (LineKind.CORRECTION.value, "volume", "6", 600) in last
