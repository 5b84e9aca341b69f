"""Overdrafts: what is drawn is owed and earned at once; the next paid credit repays it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from billing_core.errors import InvalidInput, Unprocessable
from billing_core.flows.money import grant as credit
from billing_core.payments.payment import TopUp
from billing_core.wallets.grant import Price

if TYPE_CHECKING:
    from tests.scenario.money.conftest import World

NANO = 10**9


async def test_what_is_drawn_is_owed_until_new_credit_repays_it(world: World) -> None:
    """Limit 10.00; 3.00 are drawn, 5.00 topped up, of which 3.00 repay: 2.00 are left to be served."""
    await world.customer("ada")
    limit = await world.grant("ada", 10 * NANO, "overdraft")
    await world.use("ada", "token", 1_200_000, grant=limit, nanos=3 * NANO)
    assert await world.recognize() == 1
    assert await world.books() == {"accounts_receivable": 3 * NANO, "revenue_usage": -3 * NANO}
    new = (await world.top_up("ada", 500, reference="FT-1")).grant_id
    assert new is not None
    await world.repay("ada", new, limit, 3 * NANO)
    assert await world.recognize() == 1
    assert await world.books() == {
        "cash": 5 * NANO,
        "contract_liability": -2 * NANO,
        "revenue_usage": -3 * NANO,
    }
    assert await world.fetch("SELECT spent_nanos FROM credit_grant ORDER BY kind") == [(0,), (3 * NANO,)]


async def test_a_draw_and_its_repayment_in_one_stretch_are_two_bookings(world: World) -> None:
    """So that the receivable shows both ways."""
    await world.customer("ada")
    limit = await world.grant("ada", 10 * NANO, "overdraft")
    new = (await world.top_up("ada", 100, reference="FT-1")).grant_id
    assert new is not None
    await world.use("ada", "token", 400_000, grant=limit, nanos=NANO)
    await world.repay("ada", new, limit, NANO)
    assert await world.recognize() == 2
    assert await world.books() == {"cash": NANO, "revenue_usage": -NANO}


async def test_credits_that_were_drawn_dear_and_bought_cheap_are_revenue_of_what_came(world: World) -> None:
    """10 credits drawn at 1.00 each, repaid by credits at 0.50: the revenue is what was paid in the end."""
    await world.customer("ada")
    price = Price(currency="USD", nanos=100 * NANO)
    limit = await world.grant("ada", 100 * NANO, "overdraft", currency="AIC", price=price)
    await world.use("ada", "token", 5, grant=limit, nanos=10 * NANO, currency="AIC")
    await world.recognize()
    assert (await world.books())["accounts_receivable"] == 10 * NANO
    bought = TopUp(unit="AIC", unit_nanos=20 * NANO)
    new = (await world.top_up("ada", 1000, reference="FT-1", top_up=bought)).grant_id
    assert new is not None
    await world.repay("ada", new, limit, 10 * NANO, currency="AIC")
    await world.recognize()
    assert await world.books() == {
        "cash": 10 * NANO,
        "contract_liability": -5 * NANO,
        "revenue_usage": -5 * NANO,
    }


async def test_a_limit_that_lapses_undrawn_is_nothing_to_the_books(world: World) -> None:
    """Only what was drawn is owed, also after the overdraft has ended, and can still be repaid."""
    await world.customer("ada")
    limit = await world.grant("ada", 10 * NANO, "overdraft")
    await world.use("ada", "token", 400_000, grant=limit, nanos=NANO)
    async with world.db.transaction() as tx:
        assert await credit.void(tx, tenant_id="acme", grant_id=limit, now=world.now)
    await world.lapse("ada", limit, 9 * NANO, at=world.now)
    assert await world.recognize() == 1
    assert await world.books() == {"accounts_receivable": NANO, "revenue_usage": -NANO}
    assert await world.fetch("SELECT ended_at IS NOT NULL FROM credit_grant") == [(True,)]
    new = (await world.top_up("ada", 100, reference="FT-1")).grant_id
    assert new is not None
    await world.repay("ada", new, limit, NANO)
    await world.recognize()
    assert await world.books() == {"cash": NANO, "revenue_usage": -NANO}
    ended = "SELECT spent_nanos, lapsed_nanos, ended_at IS NOT NULL FROM credit_grant WHERE kind = 'overdraft'"
    assert await world.fetch(ended) == [(0, 9 * NANO, False)]
    await world.lapse("ada", limit, NANO, at=world.now)
    assert await world.fetch(ended) == [(0, 10 * NANO, True)]
    await world.check()


async def test_a_limit_is_lowered_and_never_raised(world: World) -> None:
    """What is asked of the wallet is asked again until nothing stands above the new limit."""
    await world.customer("ada")
    limit = await world.grant("ada", 10 * NANO, "overdraft")
    async with world.db.transaction() as tx:
        await credit.lower(tx, tenant_id="acme", grant_id=limit, limit_nanos=4 * NANO)
        with pytest.raises(InvalidInput, match="above the limit of today"):
            await credit.lower(tx, tenant_id="acme", grant_id=limit, limit_nanos=5 * NANO)
    from_wallet = "SELECT count(*) FROM outbox WHERE kind = 'lapse'"
    assert await world.fetch(from_wallet) == [(1,)]
    world.now += timedelta(seconds=10)
    assert await world.lapse_due() == 1
    await world.lapse("ada", limit, 6 * NANO, at=world.now)
    world.now += timedelta(seconds=10)
    assert await world.lapse_due() == 0
    gift = await world.grant("ada", NANO)
    async with world.db.transaction() as tx:
        with pytest.raises(Unprocessable, match="only an overdraft"):
            await credit.lower(tx, tenant_id="acme", grant_id=gift, limit_nanos=0)
