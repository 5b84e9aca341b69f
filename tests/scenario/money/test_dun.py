"""Who does not pay is not served; who has paid is served again, each in the transaction of its cause."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_core.flows.money import dun
from billing_core.flows.setup.enroll import set_suspended
from billing_core.payments.payment import PaymentState

if TYPE_CHECKING:
    from billing_core.adapters.stripe_processor import StripeProcessor
    from tests.scenario.money.conftest import World

BROKE = ("cus_bob", "pm_card_chargeDeclinedInsufficientFunds")
ACTIVE, DUNNED, BOTH = ("active", False, False), ("suspended", False, True), ("suspended", True, True)


async def told(world: World, customer: str) -> int:
    """How often the gateway is to be told of the customer; then forgotten."""
    found = await world.fetch("SELECT count(*) FROM outbox WHERE kind = 'snapshot' AND customer_id = $1", customer)
    await world.execute("DELETE FROM outbox")
    return found[0][0]


async def test_the_last_failed_attempt_suspends_and_the_payment_lifts(
    world: World, stripe: StripeProcessor
) -> None:
    """Three declines are patience, the fourth is the end of it; a wire for the invoice is the way back."""
    await world.customer("bob", stripe=BROKE)
    await world.subscribe("bob", "team")
    await told(world, "bob")
    for days in (1, 3, 5):
        await world.collect(stripe)
        assert (await world.standing("bob"), await told(world, "bob")) == (ACTIVE, 0)
        world.advance(days=days)
    await world.collect(stripe)
    assert [payment.state for payment in await world.payments()] == [PaymentState.FAILED]
    assert (await world.standing("bob"), await told(world, "bob")) == (DUNNED, 1)
    (invoice,) = await world.invoices()
    await world.receive(invoice)
    assert (await world.standing("bob"), await told(world, "bob")) == (ACTIVE, 1)


async def test_what_is_overdue_beyond_the_days_suspends_and_only_all_of_it_paid_lifts(world: World) -> None:
    """30 days to pay and 30 more; of three that are overdue, two that are paid are not enough."""
    await world.customer("ada")
    subscription = await world.subscribe("ada", "team")
    world.now = subscription.started_at + timedelta(days=60)
    await world.close()
    assert await world.dun() == 1
    assert await world.standing("ada") == DUNNED
    assert await world.dun() == 0
    first, second, third = await world.invoices()
    assert second.due_at is not None
    world.now = second.due_at
    for number, invoice in enumerate((first, third)):
        await world.receive(invoice, reference=f"FT-{number}")
        assert await world.standing("ada") == DUNNED
    await told(world, "ada")
    await world.receive(second, reference="FT-9")
    assert (await world.standing("ada"), await told(world, "ada")) == (ACTIVE, 1)


async def test_nobody_is_suspended_before_the_day_or_where_days_do_not_count(world: World) -> None:
    """The edge is exact: at the instant itself, not before."""
    await world.customer("ada")
    subscription = await world.subscribe("ada", "team")
    world.now = subscription.started_at + timedelta(days=60) - timedelta(microseconds=1)
    assert await world.dun() == 0
    world.now += timedelta(microseconds=1)
    assert await world.dun(-1) == 0
    assert await world.dun() == 1


async def test_a_payment_does_not_lift_the_operators_word(world: World) -> None:
    """And the operator's resuming does not lift dunning."""
    await world.customer("ada")
    subscription = await world.subscribe("ada", "team")
    world.now = subscription.started_at + timedelta(days=60)
    async with world.db.transaction() as tx:
        await set_suspended(tx, "acme", customer_id="ada", suspended=True, now=world.now)
    await world.dun()
    assert await world.standing("ada") == BOTH
    (invoice,) = await world.invoices()
    await world.receive(invoice)
    assert await world.standing("ada") == ("suspended", True, False)
    async with world.db.transaction() as tx:
        await set_suspended(tx, "acme", customer_id="ada", suspended=False, now=world.now)
    assert await world.standing("ada") == ACTIVE


async def test_a_void_lifts_too(world: World) -> None:
    """What is not owed any more is not overdue."""
    await world.customer("ada")
    subscription = await world.subscribe("ada", "team")
    world.now = subscription.started_at + timedelta(days=60)
    await world.dun()
    (invoice,) = await world.invoices()
    await world.void(invoice)
    assert await world.standing("ada") == ACTIVE


async def test_a_payment_and_a_suspension_that_meet_leave_who_has_paid_served(world: World) -> None:
    """Whichever comes first: each locks the customer and looks after."""
    for name in (f"c{n}" for n in range(12)):
        await world.customer(name)
        subscription = await world.subscribe(name, "team")
    world.now = subscription.started_at + timedelta(days=60)
    unpaid = await world.invoices()
    receipts = [world.receive(invoice, reference=f"FT-{n}") for n, invoice in enumerate(unpaid)]
    await asyncio.gather(*receipts, *(world.dun() for _ in range(4)))
    await world.dun()
    assert {await world.standing(f"c{n}") for n in range(12)} == {ACTIVE}
    async with world.db.transaction() as tx:
        assert not await dun.lift(tx, tenant_id="acme", customer_id="c0", now=world.now)
