"""A world with a clock: a tenant, its catalog and customers on a real Postgres, usage put in as a flusher would.

`world.now` is the real time of the flows; tests move it. `world.close()` and its like run one flow and then check
every law of the books, so that a scenario fails at the step that broke one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from billing_core.catalog.catalog import catalog_of
from billing_core.catalog.document import CatalogDocument
from billing_core.contract.keys import shard_of_customer
from billing_core.flows import bill, subscribe
from billing_core.flows.close import close_due
from billing_core.flows.enroll import CustomerDraft, TenantDraft, enroll_customer, found_tenant
from billing_core.flows.publish import publish
from billing_core.flows.subscribe import SubscriptionOrder
from billing_core.invoices.invoice import Invoice
from billing_core.invoices.line import Line
from billing_core.store import invoice as invoices
from billing_core.store import ledger
from billing_core.store.customer import Collection
from billing_core.store.database import Database
from billing_core.store.query import INVARIANTS
from billing_core.store.usage import MOVEMENT_COLUMNS, USAGE_COLUMNS
from billing_core.subscriptions.subscription import Subscription

TENANT = "acme"

CATALOG: dict[str, Any] = {
    "meters": [
        {"code": "calls", "event": "call", "aggregation": "sum", "field": "quantity"},
        {"code": "tokens", "event": "token", "aggregation": "sum", "field": "quantity"},
        {"code": "hosts", "event": "host", "aggregation": "sum", "field": "hours", "group_by": ["region"]},
    ],
    "features": [
        {"code": "call", "kind": "metered", "meter": "calls"},
        {"code": "token", "kind": "metered", "meter": "tokens"},
    ],
    "plans": [
        {
            "code": "team",
            "currency": "USD",
            "fee_amount": "31.00",
            "anchor": "subscription",
            "prices": [
                {"code": "calls", "name": "Calls", "meter": "calls", "model": "per_unit", "unit_amount": "10"}
            ],
        },
        {
            "code": "calendar",
            "currency": "USD",
            "fee_amount": "31.00",
            "time_zone": "Europe/Berlin",
            "prices": [
                {
                    "code": "hosts",
                    "meter": "hosts",
                    "model": "per_unit",
                    "unit_amount": "15.00",
                    "per": "hours_of_period",
                }
            ],
        },
        {
            "code": "prepaid",
            "currency": "USD",
            "anchor": "subscription",
            "entitlements": [{"feature": "token"}],
            "prices": [
                {
                    "code": "tokens",
                    "meter": "tokens",
                    "model": "per_unit",
                    "unit_amount": "2.50",
                    "per": 1_000_000,
                    "pay": "prepaid",
                    "feature": "token",
                }
            ],
        },
        {
            "code": "volume",
            "currency": "USD",
            "anchor": "subscription",
            "prices": [
                {
                    "code": "calls",
                    "meter": "calls",
                    "model": "volume",
                    "tiers": [{"upto": 5, "unit_amount": "10"}, {"unit_amount": "1"}],
                }
            ],
        },
    ],
}


class World:
    """One tenant and what happens to it."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.now = datetime(2026, 1, 31, 9, tzinfo=UTC)
        self._events = 0

    async def found(self, catalog: dict[str, Any] = CATALOG) -> None:
        async with self.db.transaction() as tx:
            await found_tenant(tx, TenantDraft(tenant_id=TENANT), now=self.now)
        await self.publish(catalog)
        await self.execute("UPDATE flush_lane SET drained_at = 'infinity'")

    async def publish(self, catalog: dict[str, Any]) -> None:
        document = msgspec.convert(catalog, CatalogDocument)
        async with self.db.transaction() as tx:
            await publish(tx, TENANT, catalog=catalog_of(document), now=self.now)

    async def customer(self, name: str, *, stripe: tuple[str, str] | None = None, zone: str = "UTC") -> str:
        draft = CustomerDraft(
            customer_id=name,
            time_zone=zone,
            collection=Collection.STRIPE if stripe else Collection.OFFLINE,
            stripe_customer=stripe[0] if stripe else "",
            stripe_payment_method=stripe[1] if stripe else "",
        )
        async with self.db.transaction() as tx:
            await enroll_customer(tx, TENANT, draft=draft, now=self.now)
        return name

    async def subscribe(
        self, customer: str, plan: str, *, start_at: datetime | None = None, finalize: bool = True
    ) -> Subscription:
        order = SubscriptionOrder(tenant_id=TENANT, customer_id=customer, plan_code=plan, start_at=start_at)
        async with self.db.transaction() as tx:
            return await subscribe.activate(tx, order, now=self.now, finalize=finalize)

    async def cancel(self, subscription: Subscription) -> Subscription:
        async with self.db.transaction() as tx:
            return await subscribe.cancel_at_end(tx, tenant_id=TENANT, subscription_id=subscription.subscription_id)

    async def use(
        self,
        customer: str,
        event: str,
        quantity: int = 1,
        *,
        at: datetime | None = None,
        nanos: tuple[int, int] = (0, 0),
        **properties: str,
    ) -> None:
        """One usage event; `nanos` are what the gate charged and could not collect."""
        self._events += 1
        at = at or self.now
        async with self.db.session() as connection:
            await connection.execute("SELECT ensure_usage_month($1)", at)
        row = (
            *(shard_of_customer(TENANT, customer), 1_000_000 + self._events, 0, 0, TENANT, customer),
            *(f"evt_{self._events}", event, "gate", at, at, Decimal(quantity), properties, "USD", *nanos, ""),
        )
        async with self.db.transaction() as tx:
            await tx.copy("usage_event", USAGE_COLUMNS, [(*row, await self._recording(tx))])

    async def burn(
        self, customer: str, grant: str, nanos: int, *, at: datetime | None = None, kind: str = "debit"
    ) -> None:
        """One movement of a grant, and the shard's watermark behind it."""
        self._events += 1
        at, shard = at or self.now, shard_of_customer(TENANT, customer)
        row = (shard, 1_000_000 + self._events, 0, 0, TENANT, customer, grant, "USD", kind, nanos)
        async with self.db.transaction() as tx:
            await tx.copy(
                "movement", MOVEMENT_COLUMNS, [(*row, f"evt_{self._events}", at, await self._recording(tx))]
            )
        column = "lapsed_nanos" if kind == "lapse" else "spent_nanos"
        await self.execute(f"UPDATE credit_grant SET {column} = {column} + $1 WHERE grant_id = $2", nanos, grant)
        await self.execute("UPDATE shard SET watermark_ms = $2 WHERE shard = $1", shard, 1_000_000 + self._events)

    async def _recording(self, tx: Any) -> datetime:
        return await tx._connection.fetchval("SELECT recording_instant()")

    async def close(self, *, finalize: bool = True) -> int:
        await self.check()
        closed = await close_due(self.db, now=self.now, finalize=finalize)
        await self.check()
        return closed

    async def check(self) -> None:
        """Every law of the house holds."""
        async with self.db.session() as connection:
            for law in INVARIANTS.values():
                rows = await connection.fetch(law.sql)
                assert [dict(row) for row in rows] == [], law.name

    async def execute(self, sql: str, *values: object) -> None:
        async with self.db.session() as connection:
            await connection.execute(sql, *values)

    async def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        async with self.db.session() as connection:
            return [tuple(row) for row in await connection.fetch(sql, *values)]

    async def invoices(self, customer: str = "") -> list[Invoice]:
        """In the order of their periods."""
        async with self.db.transaction() as tx:
            found = await invoices.page(tx, tenant_id=TENANT, customer_id=customer, count=1000)
        return sorted(found, key=lambda invoice: (invoice.period_end_at, invoice.created_at))

    async def lines(self, invoice: Invoice) -> list[Line]:
        async with self.db.transaction() as tx:
            rows = await invoices.lines_of(tx, tenant_id=TENANT, invoice_id=invoice.invoice_id)
        return [row.line for row in rows]

    async def void(self, invoice: Invoice) -> Invoice:
        async with self.db.transaction() as tx:
            return await bill.void(tx, tenant_id=TENANT, invoice_id=invoice.invoice_id, now=self.now)

    async def finalize(self, invoice: Invoice) -> Invoice:
        async with self.db.transaction() as tx:
            return await bill.finalize(tx, tenant_id=TENANT, invoice_id=invoice.invoice_id, now=self.now)

    async def books(self) -> dict[str, int]:
        """How the accounts stand, in nanos, those that stand at nothing left out."""
        async with self.db.transaction() as tx:
            rows = await ledger.trial_balance(tx, tenant_id=TENANT)
        assert sum(row.balance_nanos for row in rows) == 0
        return {row.account.value: row.balance_nanos for row in rows if row.balance_nanos}

    def advance(self, **parts: int) -> None:
        self.now += timedelta(**parts)


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    """A tenant with the catalog of these tests, at 31 January 2026, 9:00 UTC."""
    db = await Database.connect(postgres_url, size=6)
    made = World(db)
    try:
        await made.found()
        yield made
    finally:
        await db.close()
