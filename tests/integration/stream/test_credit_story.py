"""Every kind of credit through the whole house, at random: scripts, stream, flusher, rebuild and books agree.

What happens is drawn from a seed: top-ups of money and credits, gifts, credit for one feature only, overdrafts
drawn, repaid, lowered and ended, holds, lapses, a Redis that was lost. Whenever all is flushed and recognized, the
laws of the books hold, reconcile is zero, and each grant is in the books with its exact share.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from billing_core.catalog.catalog import catalog_of
from billing_core.catalog.document import CatalogDocument
from billing_core.flows.billing.rate import rate
from billing_core.flows.billing.recognize import recognize_due
from billing_core.flows.money import grant as credit
from billing_core.flows.money.lapse import lapse_due
from billing_core.flows.money.top_up import TopUpOrder, top_up
from billing_core.flows.reconcile import reconcile
from billing_core.flows.setup.publish import publish
from billing_core.payments.payment import Method, TopUp
from billing_core.pricing.record import exact_of
from billing_core.store.billing.subscription import PeriodKey
from billing_core.store.money import ledger
from billing_core.values.clock import system_now
from billing_core.wallets.grant import GrantKind, Price

if TYPE_CHECKING:
    from tests.integration.stream.conftest import Works

STEPS, CHECK_EVERY = 90, 15
NANO = 10**9
QUANTITIES = {"input_tokens": (40, 4_000, 40_000), "chat": (1, 3, 7), "both": (1, 3, 7)}


def priced(feature: str, code: str, amount: str, currency: str = "") -> dict[str, Any]:
    words = {"meter": feature, "feature": feature, "unit_amount": amount, "currency": currency}
    return {"code": code, "model": "per_unit", "pay": "prepaid", **words}


CATALOG: dict[str, Any] = {
    "units": [{"code": "AIC"}],
    "meters": [
        {"code": one, "event": one, "aggregation": "sum", "field": "quantity"}
        for one in ("input_tokens", "chat", "both")
    ],
    "features": [{"code": one, "kind": "metered", "meter": one} for one in ("input_tokens", "chat", "both")],
    "plans": [
        {
            "code": "team",
            "currency": "USD",
            "entitlements": [{"feature": one} for one in ("input_tokens", "chat", "both")],
            "prices": [
                priced("input_tokens", "input", "0.0000025"),
                priced("chat", "chat", "1.000000007", "AIC"),
                priced("both", "both_aic", "0.5", "AIC"),
                priced("both", "both_usd", "0.01"),
            ],
        }
    ],
}


class Story:
    """One customer, and what chance does with its wallets."""

    def __init__(self, works: Works, seed: int) -> None:
        self.works = works
        self.chance = random.Random(seed)
        self.holds: list[str] = []
        self.references = 0

    async def step(self) -> None:
        acts: list[Callable[[], Awaitable[object]]] = [
            *[self.consume] * 8,
            *[self.consume_several] * 3,
            self.record,
            *(self.buy_money, self.buy_credits, self.give, self.lend, self.lend_credits),
            *(self.hold, self.settle, self.end_a_grant, self.lower),
        ]
        await self.chance.choice(acts)()
        await self.works.project()

    async def consume(self) -> None:
        feature, quantity = self._charge()
        await self.works.consume("c", quantity, feature=feature)

    def _charge(self) -> tuple[str, int]:
        feature = self.chance.choice(list(QUANTITIES))
        return feature, self.chance.choice(QUANTITIES[feature])

    async def consume_several(self) -> None:
        """Dollars and credits in one entry."""
        charges = dict(self._charge() for _ in range(3))
        await self.works.act("consume", "c", list(charges.items()))

    async def record(self) -> None:
        """What has happened is written down, whether the wallets can pay it or not."""
        charges = dict(self._charge() for _ in range(2))
        await self.works.act("record", "c", list(charges.items()))

    async def hold(self) -> None:
        reply = await self.works.consume("c", 1)
        if reply[0] == "allowed":
            self.holds.append(await self.works.hold("c", self.chance.randint(1, 50)))

    async def settle(self) -> None:
        if self.holds:
            await self.works.settle("c", self.holds.pop(), self.chance.randint(0, 60))

    async def buy_money(self) -> None:
        restricted = self.chance.choice([(), (), ("input_tokens",)])
        await self._buy(self.chance.choice([1, 5, 20]), TopUp(features=restricted))

    async def buy_credits(self) -> None:
        amount = self.chance.choice([1, 3, 20]) * NANO + self.chance.randint(0, 5)
        await self._buy(self.chance.choice([1, 999]), TopUp(unit="AIC", unit_nanos=amount))

    async def _buy(self, minor: int, bought: TopUp) -> None:
        self.references += 1
        order = TopUpOrder(
            tenant_id="t",
            customer_id="c",
            currency="USD",
            amount_minor=minor,
            method=Method.WIRE,
            top_up=bought,
            reference=f"b{self.references}",
        )
        await top_up(self.works.db, None, order=order, now=system_now())

    async def give(self) -> None:
        await self.works.grant("c", self.chance.randint(1, NANO // 50), currency=self.chance.choice(["USD", "AIC"]))

    async def lend(self) -> None:
        await self.works.grant("c", self.chance.choice([NANO // 50, NANO // 3]), kind=GrantKind.OVERDRAFT)

    async def lend_credits(self) -> None:
        terms = {"currency": "AIC", "price": Price(currency="USD", nanos=self.chance.randint(1, 10**10))}
        await self.works.grant("c", self.chance.choice([2 * NANO, 20 * NANO]), kind=GrantKind.OVERDRAFT, **terms)

    async def _any_grant(self) -> tuple[str, int] | None:
        rows = await self.works.raw.fetch("SELECT grant_id, amount_nanos FROM credit_grant ORDER BY grant_id")
        return tuple(self.chance.choice(rows)) if rows else None

    async def end_a_grant(self) -> None:
        if (found := await self._any_grant()) is not None:
            async with self.works.db.transaction() as tx:
                await credit.void(tx, tenant_id="t", grant_id=found[0], now=system_now())

    async def lower(self) -> None:
        rows = await self.works.raw.fetch(
            "SELECT grant_id, coalesce(lowered_nanos, amount_nanos) FROM credit_grant"
            " WHERE kind = 'overdraft' AND voided_at IS NULL ORDER BY grant_id"
        )
        if rows:
            grant_id, before = self.chance.choice(rows)
            limit = self.chance.randint(0, before)
            async with self.works.db.transaction() as tx:
                await credit.lower(tx, tenant_id="t", grant_id=grant_id, limit_nanos=limit)

    async def check(self) -> None:
        """All is flushed and recognized: the laws hold, and each grant's share is exact."""
        await lapse_due(self.works.db, now=system_now())
        await self.works.project()
        await self.works.flush()
        await recognize_due(self.works.db, now=system_now(), stretch_ms=0)
        report = await reconcile(self.works.db, self.works.stream)
        assert (report.findings, report.difference_nanos, report.parked_entries) == ((), 0, 0)
        assert await self.books() == await self.shares()
        await self.check_bill()

    async def check_bill(self) -> None:
        """What the gate charged in credits, paid or not, is what the bill's arithmetic says, to the nano."""
        row = await self.works.raw.fetchrow(
            "SELECT * FROM billing_period JOIN subscription USING (subscription_id)"
        )
        names = PeriodKey.__struct_fields__
        key = PeriodKey(**{name: row[name] for name in names})
        async with self.works.db.transaction() as tx:
            rated = await rate(tx, "t", keys=[key], recorded_until=system_now() + timedelta(hours=1))
        lines = [line for line in rated[(key.subscription_id, key.start_at)].lines if line.wallet]
        for line in lines:
            exact = sum((exact_of(part.amount_nanos) for part in line.parts), start=Fraction(0))
            assert (line.wallet, line.wallet_nanos + line.unpaid_nanos) == ("AIC", floor(exact))
            assert (line.amount_minor, line.prepaid_minor) == (0, 0)

    async def books(self) -> dict[str, int]:
        async with self.works.db.transaction() as tx:
            rows = await ledger.trial_balance(tx, tenant_id="t")
        assert sum(row.balance_nanos for row in rows) == 0
        assert {row.currency for row in rows} <= {"USD"}
        found = {row.account.value: row.balance_nanos for row in rows}
        return {name: found.get(name, 0) for name in ("cash", "contract_liability", "accounts_receivable")}

    async def shares(self) -> dict[str, int]:
        """What the books must say, from the grants themselves."""
        rows = await self.works.raw.fetch("SELECT * FROM credit_grant WHERE kind <> 'promotional'")
        paid, owed, drawn = 0, 0, 0
        for row in rows:
            over = row["kind"] == "overdraft"
            moved = row["spent_nanos"] if over else row["spent_nanos"] + row["lapsed_nanos"]
            share = row["price_nanos"] * moved // row["amount_nanos"]
            if over:
                drawn += share
            else:
                paid += row["price_nanos"]
                owed += row["price_nanos"] - share
        return {"cash": paid, "contract_liability": -owed, "accounts_receivable": drawn}


@pytest.fixture
async def begin(works: Works) -> Callable[[int], Awaitable[Story]]:
    """A customer on a plan with prices in dollars, in credits, and in both."""

    async def make(seed: int) -> Story:
        document = msgspec.convert(CATALOG, CatalogDocument)
        async with works.db.transaction() as tx:
            await publish(tx, "t", catalog=catalog_of(document), now=system_now())
        await works.customer("c")
        await works.raw.execute("UPDATE subscription SET plan_version = 2")
        await works.raw.execute("UPDATE billing_period SET plan_version = 2")
        await works.dirty("c")
        await works.project()
        return Story(works, seed)

    return make


@pytest.mark.parametrize("seed", range(3))
async def test_every_kind_of_credit_ends_in_books_that_agree(
    begin: Callable[[int], Awaitable[Story]], seed: int
) -> None:
    """After every fifteen steps, and after Redis has lost everything."""
    story = await begin(seed)
    for number in range(1, STEPS + 1):
        await story.step()
        if number % CHECK_EVERY == 0:
            await story.check()
    for hold_id in story.holds:
        await story.works.settle("c", hold_id, 0)
    await story.check()
    await story.works.valkey.flushall()
    await story.works.build()
    await story.check()
    for _ in range(CHECK_EVERY):
        await story.step()
    await story.check()


async def test_an_overdraft_is_drawn_and_repaid_through_the_whole_house(
    begin: Callable[[int], Awaitable[Story]],
) -> None:
    """Drawn 1,000 tokens, repaid by the next top-up; the rest of it is what the customer has."""
    story = await begin(0)
    works = story.works
    limit = await works.grant("c", NANO, kind=GrantKind.OVERDRAFT)
    await works.project()
    assert (await works.consume("c", 1_000))[0] == "allowed"
    await story.check()
    assert (await story.books())["accounts_receivable"] == 2_500_000
    await story._buy(1, TopUp())
    await works.project()
    await story.check()
    assert await story.books() == {
        "cash": 10_000_000,
        "contract_liability": -7_500_000,
        "accounts_receivable": 0,
    }
    moved = await works.raw.fetch("SELECT nanos FROM movement WHERE kind = 'repay' ORDER BY part")
    assert [row["nanos"] for row in moved] == [2_500_000, -2_500_000]
    assert await works.spent(limit) == 0
