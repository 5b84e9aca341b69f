"""A change of plan, gate and bill together: what the gate took for each plan is what that plan's bill says.

Prices are counted anew with the plan, also for who comes back to it within the month; limits go on.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from billing_core.catalog.catalog import catalog_of
from billing_core.catalog.document import CatalogDocument
from billing_core.contract.keys import shard_of_customer
from billing_core.flows.billing.change import ChangeAt, ChangeOrder, change_plan
from billing_core.flows.billing.close import close_due
from billing_core.flows.billing.subscribe import SubscriptionOrder, activate
from billing_core.flows.setup.enroll import CustomerDraft, enroll_customer
from billing_core.flows.setup.publish import publish
from billing_core.store.billing import invoice as invoices
from billing_core.values.clock import system_now
from tests.integration.stream.conftest import eventually

if TYPE_CHECKING:
    from tests.integration.stream.conftest import Works

CENT = 10**7


def plan(code: str, **price: Any) -> dict[str, Any]:
    paid = {"code": "calls", "meter": "calls", "pay": "prepaid", "feature": "calls", **price}
    limits = [{"units": 1000, "interval": "year"}]
    return {
        "code": code,
        "currency": "USD",
        "entitlements": [{"feature": "calls", "limits": limits}],
        "prices": [paid],
    }


STEPS = [{"upto": 10, "unit_amount": "0.05"}, {"unit_amount": "0.01"}]
CATALOG = {
    "meters": [{"code": "calls", "event": "calls", "aggregation": "sum", "field": "quantity"}],
    "features": [{"code": "calls", "kind": "metered", "meter": "calls"}],
    "plans": [
        plan("steps", model="graduated", tiers=STEPS),
        plan("even", model="per_unit", unit_amount="0.02"),
    ],
}


class Story:
    """One customer that changes its mind."""

    def __init__(self, works: Works) -> None:
        self.works = works
        self.subscription = ""

    async def begin(self) -> None:
        works, now = self.works, system_now()
        catalog = catalog_of(msgspec.convert(CATALOG, CatalogDocument))
        async with works.db.transaction() as tx:
            await publish(tx, "t", catalog=catalog, now=now)
            await enroll_customer(tx, "t", draft=CustomerDraft(customer_id="c"), now=now)
            order = SubscriptionOrder(tenant_id="t", customer_id="c", plan_code="steps", start_at=now)
            self.subscription = (await activate(tx, order, now=now)).subscription_id
        works.shards.add(shard_of_customer("t", "c"))
        await works.grant("c", 10**12)
        await works.project()

    async def use(self, units: int) -> tuple[int, int]:
        """What it cost, in cents, and what the limit has left."""
        reply = await self.works.consume("c", units, feature="calls")
        assert reply[0] == "allowed"
        return int(reply[7]) // CENT, int(reply[14])

    async def change(self, code: str) -> None:
        """At once; told, and billed up to here."""
        order = ChangeOrder(tenant_id="t", subscription_id=self.subscription, plan_code=code, at=ChangeAt.NOW)
        async with self.works.db.transaction() as tx:
            await change_plan(tx, order, now=system_now())
        await self.works.project()

    async def bill(self) -> None:
        """The period that is over, as soon as everything before its end is flushed."""
        async with self.works.flusher():
            await eventually(lambda: close_due(self.works.db, now=system_now()))

    async def bills(self) -> list[list[tuple[str, str, int, int]]]:
        """Plan, units, amount and what came out of the wallet, line by line; bills of nothing left out."""
        found: list[list[tuple[str, str, int, int]]] = []
        async with self.works.db.transaction() as tx:
            for one in await invoices.page(tx, tenant_id="t", customer_id="c", count=100):
                lines = [row.line for row in await invoices.lines_of(tx, tenant_id="t", invoice_id=one.invoice_id)]
                assert one.due_minor == 0
                found.append(
                    [(line.plan_code, line.quantity, line.amount_minor, line.prepaid_minor) for line in lines]
                )
        return sorted(lines for lines in found if lines)


async def test_each_plan_is_paid_for_what_was_used_under_it(works: Works) -> None:
    """Up the steps, over to the even price, and back to the first step: gate and bills agree to the cent."""
    story = Story(works)
    await story.begin()
    assert await story.use(8) == (40, 992)
    assert await story.use(4) == (12, 988)
    await story.change("even")
    assert await story.use(5) == (10, 983)
    await story.bill()
    await story.change("steps")
    assert await story.use(8) == (40, 975)
    await story.bill()
    await works.advance(timedelta(days=35))
    await story.bill()
    assert await story.bills() == [
        [("even", "5", 10, 10)],
        [("steps", "12", 52, 52)],
        [("steps", "8", 40, 40)],
    ]
