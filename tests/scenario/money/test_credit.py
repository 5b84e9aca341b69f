"""Credits: the books have the money that they cost, to the nano; a bill tells what they paid and asks nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from billing_core.errors import InvalidInput
from billing_core.flows.billing.replay import events_of_line, replay
from billing_core.payments.payment import TopUp
from billing_core.store.meter import Place

if TYPE_CHECKING:
    from billing_core.invoices.invoice import Invoice
    from tests.scenario.money.conftest import World

NANO = 10**9
FEBRUARY_END = datetime(2026, 2, 28, 9, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, tzinfo=UTC)


async def credits_bought(world: World, credit_count: int, minor: int, *, reference: str = "FT-1") -> str:
    bought = TopUp(unit="AIC", unit_nanos=credit_count * NANO)
    done = await world.top_up("ada", minor, reference=reference, top_up=bought)
    assert done.grant_id is not None
    return done.grant_id


async def same(world: World, invoice: Invoice) -> bool:
    async with world.db.transaction() as tx:
        return (await replay(tx, tenant_id="acme", invoice_id=invoice.invoice_id)).is_same


async def events_under(world: World, invoice: Invoice, line_no: int) -> list[str]:
    async with world.db.transaction() as tx:
        found = await events_of_line(
            tx, tenant_id="acme", invoice_id=invoice.invoice_id, line_no=line_no, after=Place(), count=100
        )
    return [one.event_id for one in found]


async def test_three_credits_for_ten_dollars_are_ten_dollars_however_they_go(world: World) -> None:
    """3.333333333, then 3.333333333, then 3.333333334 that lapses; nothing is owed in the end."""
    await world.customer("ada")
    grant = await credits_bought(world, 3, 1000)
    assert await world.books() == {"cash": 10 * NANO, "contract_liability": -10 * NANO}
    for expected in (3_333_333_333, 6_666_666_666):
        await world.use("ada", "token", 1, grant=grant, nanos=NANO, currency="AIC")
        assert await world.recognize() == 1
        assert (await world.books())["revenue_usage"] == -expected
    await world.lapse("ada", grant, NANO, at=JUNE, currency="AIC")
    assert await world.recognize() == 1
    assert await world.books() == {
        "cash": 10 * NANO,
        "revenue_usage": -6_666_666_666,
        "revenue_breakage": -3_333_333_334,
    }


async def test_a_gift_of_credits_is_in_no_books(world: World) -> None:
    """Nobody paid; and a bill in credits is no money either."""
    await world.customer("ada")
    await world.subscribe("ada", "credits")
    gift = await world.grant("ada", 100 * NANO, currency="AIC")
    await world.use("ada", "token", 5, grant=gift, nanos=10 * NANO, currency="AIC")
    assert await world.recognize() == 0
    world.now = FEBRUARY_END
    await world.close()
    assert await world.books() == {}


async def test_what_credits_could_not_pay_never_becomes_money(world: World) -> None:
    """The line tells 8 paid and 12 unpaid credits; the invoice asks for nothing, and replays to the same bytes."""
    await world.customer("ada")
    await world.subscribe("ada", "credits")
    grant = await credits_bought(world, 8, 400)
    await world.use("ada", "token", 4, grant=grant, nanos=8 * NANO, currency="AIC")
    await world.use("ada", "token", 6, uncollected=12 * NANO, currency="AIC", kind="settle")
    await world.use("ada", "token", 1, currency="")
    world.now = FEBRUARY_END
    await world.close()
    await world.recognize()
    (invoice,) = await world.invoices()
    (line,) = await world.lines(invoice)
    assert (line.quantity, line.wallet, line.wallet_nanos, line.unpaid_nanos) == ("11", "AIC", 8 * NANO, 12 * NANO)
    assert (line.amount_minor, line.prepaid_minor, line.event_count) == (0, 0, 3)
    assert (invoice.total_minor, invoice.due_minor, invoice.state) == (0, 0, "paid")
    assert await same(world, invoice)
    assert await world.books() == {"cash": 4 * NANO, "revenue_usage": -4 * NANO}
    await world.use("ada", "token", 50, at=datetime(2026, 2, 10, tzinfo=UTC), uncollected=NANO, currency="AIC")
    world.now = datetime(2026, 3, 31, 9, tzinfo=UTC)
    await world.close()
    assert [one.due_minor for one in await world.invoices()] == [0, 0]


async def test_each_wallet_pays_for_its_own_events(world: World) -> None:
    """Credits first, then dollars: a line each, and what no wallet was asked for is due in dollars."""
    await world.customer("ada")
    await world.subscribe("ada", "both")
    aic = await credits_bought(world, 10, 500)
    usd = (await world.top_up("ada", 2500, reference="FT-2")).grant_id
    assert usd is not None
    await world.use("ada", "token", 5, grant=aic, nanos=10 * NANO, currency="AIC")
    await world.use("ada", "token", 2_000_000, grant=usd, nanos=5 * NANO)
    await world.use("ada", "token", 400_000, currency="")
    world.now = FEBRUARY_END
    await world.close()
    (invoice,) = await world.invoices()
    in_credits, in_dollars = await world.lines(invoice)
    assert (in_credits.quantity, in_credits.wallet_nanos, in_credits.amount_minor) == ("5", 10 * NANO, 0)
    assert (in_dollars.quantity, in_dollars.amount_minor, in_dollars.prepaid_minor) == ("2400000", 600, 500)
    assert (invoice.due_minor, await same(world, invoice)) == (100, True)
    assert await events_under(world, invoice, 1) == ["evt_1"]
    assert await events_under(world, invoice, 2) == ["evt_2", "evt_3"]


@pytest.mark.parametrize(
    ("bought", "field"),
    [
        (TopUp(unit="XYZ", unit_nanos=NANO), "currency"),
        (TopUp(unit="AIC", unit_nanos=0), "amount"),
        (TopUp(unit="AIC", unit_nanos=2**53), "amount"),
        (TopUp(features=("nothing",)), "features"),
        (TopUp(features=("token", "token")), "features[1]"),
        (TopUp(features=("a b",)), "features[0]"),
    ],
)
async def test_a_top_up_that_breaks_a_rule_moves_no_money(world: World, bought: TopUp, field: str) -> None:
    """Refused before anybody is charged."""
    await world.customer("ada")
    with pytest.raises(InvalidInput) as refusal:
        await world.top_up("ada", 1000, reference="FT-1", top_up=bought)
    assert refusal.value.field == field
    assert await world.payments() == []


async def test_money_that_comes_later_buys_what_was_ordered(world: World) -> None:
    """A wire is waited for; meanwhile the catalog has dropped the unit, and the credits come all the same."""
    await world.customer("ada")
    bought = TopUp(unit="AIC", unit_nanos=7 * NANO, features=("token",))
    assert (await world.top_up("ada", 1000, top_up=bought)).grant_id is None
    await world.publish({"meters": [], "features": [], "plans": []})
    (payment,) = await world.payments()
    await world.receive_payment(payment)
    sql = "SELECT currency, amount_nanos, features, price_nanos, price_currency FROM credit_grant"
    assert await world.fetch(sql) == [("AIC", 7 * NANO, ["token"], 10 * NANO, "USD")]
    assert await world.books() == {"cash": 10 * NANO, "contract_liability": -10 * NANO}
