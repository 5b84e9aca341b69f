"""What was paid ahead becomes revenue as it is served, on the day it is served, and nothing is left over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from billing_core.errors import InvariantBroken
from billing_core.flows.billing import recognize
from billing_core.store.billing import schedule as schedules

if TYPE_CHECKING:
    from tests.scenario.money.conftest import World

NANO = 10**9
FEBRUARY_END = datetime(2026, 2, 28, 9, tzinfo=UTC)


async def revenue(world: World) -> list[tuple[str, str, int]]:
    async with world.db.transaction() as tx:
        found = await recognize.report(
            tx, tenant_id="acme", from_at=datetime(2020, 1, 1, tzinfo=UTC), to_at=datetime(2030, 1, 1, tzinfo=UTC)
        )
    return [(line.month, line.account.value, line.nanos) for line in found.lines]


async def test_a_prepaid_customers_money_from_top_up_to_revenue(world: World) -> None:
    """25.00 in; 4.00 burn, 1.00 more could not be collected and is due; 21.00 lapse in June."""
    await world.customer("ada")
    await world.subscribe("ada", "prepaid")
    topped = await world.top_up("ada", 2500, reference="FT-1")
    assert topped.grant_id is not None
    grant, later = topped.grant_id, datetime(2026, 2, 2, 8, tzinfo=UTC)
    await world.use("ada", "token", 1_200_000, grant=grant, nanos=3 * NANO)
    await world.use("ada", "token", 800_000, grant=grant, nanos=NANO, uncollected=NANO, at=later, kind="settle")
    assert await world.recognize() == 2
    assert await world.recognize() == 0
    world.now = FEBRUARY_END
    await world.close()
    (invoice,) = await world.invoices()
    (line,) = await world.lines(invoice)
    assert (line.amount_minor, line.prepaid_minor, line.due_minor) == (500, 400, 100)
    assert (invoice.total_minor, invoice.prepaid_minor, invoice.due_minor) == (500, 400, 100)
    await world.lapse("ada", grant, 21 * NANO, at=datetime(2026, 6, 1, tzinfo=UTC))
    await world.recognize()
    assert await revenue(world) == [
        ("2026-01", "revenue_usage", 3 * NANO),
        ("2026-02", "revenue_usage", 2 * NANO),
        ("2026-06", "revenue_breakage", 21 * NANO),
    ]
    assert await world.books() == {
        "cash": 25 * NANO,
        "accounts_receivable": NANO,
        "revenue_usage": -5 * NANO,
        "revenue_breakage": -21 * NANO,
    }


async def test_promotional_credit_is_in_no_books(world: World) -> None:
    """It covers usage on the bill and is neither liability nor revenue."""
    await world.customer("ada")
    await world.execute(
        "INSERT INTO credit_grant"
        " (tenant_id, grant_id, customer_id, currency, kind, amount_nanos, effective_at, created_at)"
        " VALUES ('acme', 'gra_gift', 'ada', 'USD', 'promotional', 5000000000, now(), now())"
    )
    await world.use("ada", "token", 400_000, grant="gra_gift", nanos=NANO)
    assert await world.recognize() == 0
    assert await world.books() == {}
    assert await world.fetch("SELECT count(*) FROM shard WHERE recognized_ms < watermark_ms") == [(0,)]


async def test_a_fee_is_earned_day_by_day_and_ends_at_nothing(world: World) -> None:
    """31.00 over the 28 days from 31 January: one day of January, 27 of February, the remainder on the last."""
    await world.customer("ada")
    subscription = await world.subscribe("ada", "team")
    await world.cancel(subscription)
    assert await world.recognize() == 0
    for _ in range(5):
        world.advance(days=1)
        assert await world.recognize() == 1
        assert await world.recognize() == 0
    day = 31 * NANO // 28
    assert (await world.books())["revenue_fees"] == -5 * day
    world.now = FEBRUARY_END
    await world.close()
    await world.recognize()
    assert await revenue(world) == [
        ("2026-01", "revenue_fees", day),
        ("2026-02", "revenue_fees", 31 * NANO - day),
    ]
    assert await world.books() == {"accounts_receivable": 31 * NANO, "revenue_fees": -31 * NANO}


async def test_a_void_takes_back_the_days_that_were_earned(world: World) -> None:
    """And later days earn nothing."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    world.advance(days=10)
    await world.recognize()
    await world.void((await world.invoices())[0])
    world.advance(days=10)
    assert await world.recognize() == 0
    assert await world.books() == {}
    await world.check()


async def test_a_stretch_is_booked_once_however_many_book_it(world: World) -> None:
    """The mark moves from the value that was read; the one who comes second keeps nothing."""
    await world.customer("ada")
    topped = await world.top_up("ada", 2500, reference="FT-1")
    assert topped.grant_id is not None
    await world.use("ada", "token", 400_000, grant=topped.grant_id, nanos=NANO)
    async with world.db.transaction() as tx:
        (stretch,) = await schedules.stretches(tx, recognized_before_ms=2**53)
    await world.recognize()
    with pytest.raises(InvariantBroken, match=r"booked once|shard_recognize"):
        async with world.db.transaction() as tx:
            await recognize._burn(tx, stretch)
    await world.check()
    assert (await world.books())["revenue_usage"] == -NANO


async def test_two_workers_earn_a_day_once(world: World) -> None:
    """Schedules that one has locked are skipped by the other."""
    for n in range(12):
        await world.customer(f"c{n}")
        await world.subscribe(f"c{n}", "team")
    world.advance(days=3)
    await asyncio.gather(world.recognize(), world.recognize())
    assert (await world.books())["revenue_fees"] == -12 * 3 * (31 * NANO // 28)
    world.now += timedelta(days=400)
    await world.recognize()
    assert (await world.books())["revenue_fees"] == -12 * 31 * NANO
