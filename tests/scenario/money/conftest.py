"""A world with a clock: a tenant, its catalog and customers on a real Postgres, usage put in as a flusher would.

`world.now` is the real time of the flows; tests move it. `world.close()` and its like run one flow and then check
every law of the books, so that a scenario fails at the step that broke one.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientError, ClientSession, web

from billing_core.adapters.stripe_processor import StripeAccess, StripeProcessor, open_stripe
from billing_core.catalog.catalog import catalog_of
from billing_core.catalog.document import CatalogDocument
from billing_core.contract.keys import shard_of_customer
from billing_core.flows.billing import bill, subscribe
from billing_core.flows.billing.close import close_due
from billing_core.flows.billing.recognize import recognize_due
from billing_core.flows.billing.subscribe import SubscriptionOrder
from billing_core.flows.money.collect import Webhook, apply_webhook, collect_due
from billing_core.flows.money.dun import dun_due
from billing_core.flows.money.grant import issue
from billing_core.flows.money.lapse import lapse_due
from billing_core.flows.money.receive import mark_invoice_received, mark_received
from billing_core.flows.money.top_up import ToppedUp, TopUpOrder, top_up
from billing_core.flows.setup.enroll import CustomerDraft, TenantDraft, enroll_customer, found_tenant
from billing_core.flows.setup.publish import publish
from billing_core.invoices.invoice import Invoice
from billing_core.invoices.line import Line
from billing_core.payments.payment import Method, Payment, Receipt
from billing_core.store.billing import invoice as invoices
from billing_core.store.database import Database
from billing_core.store.money import ledger
from billing_core.store.money import payment as payments
from billing_core.store.query import INVARIANTS
from billing_core.store.setup.customer import Collection
from billing_core.store.usage import MOVEMENT_COLUMNS, USAGE_COLUMNS
from billing_core.subscriptions.subscription import Subscription
from billing_core.wallets.grant import GrantKind, GrantOrder

TENANT = "acme"

TOKENS: dict[str, Any] = {
    "code": "tokens",
    "meter": "tokens",
    "model": "per_unit",
    "unit_amount": "2.50",
    "per": 1_000_000,
    "pay": "prepaid",
    "feature": "token",
}

CATALOG: dict[str, Any] = {
    "units": [{"code": "AIC", "name": "AI credits"}],
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
            "prices": [TOKENS],
        },
        {
            "code": "credits",
            "currency": "USD",
            "anchor": "subscription",
            "entitlements": [{"feature": "token"}],
            "prices": [TOKENS | {"code": "credits", "currency": "AIC", "unit_amount": "2", "per": 1}],
        },
        {
            "code": "both",
            "currency": "USD",
            "anchor": "subscription",
            "entitlements": [{"feature": "token"}],
            "prices": [TOKENS | {"code": "credits", "currency": "AIC", "unit_amount": "2", "per": 1}, TOKENS],
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
            return await subscribe.cancel_at_end(
                tx, tenant_id=TENANT, subscription_id=subscription.subscription_id, now=self.now
            )

    async def use(
        self,
        customer: str,
        event: str,
        quantity: int = 1,
        *,
        at: datetime | None = None,
        grant: str = "",
        nanos: int = 0,
        uncollected: int = 0,
        kind: str = "debit",
        currency: str = "USD",
        **properties: str,
    ) -> None:
        """One usage event, and the movement of the grant that paid `nanos` of it, as one entry of the stream."""
        at = at or self.now
        async with self.db.session() as connection:
            await connection.execute("SELECT ensure_usage_month($1)", at)
        place, name = self._place(customer)
        charge = (currency, nanos, uncollected, nanos + uncollected, "", "")
        row = (*place, TENANT, customer, name, event, "gate", at, at, Decimal(quantity), properties, *charge)
        async with self.db.transaction() as tx:
            recorded_at = await self._recording(tx)
            await tx.copy("usage_event", USAGE_COLUMNS, records=[(*row, recorded_at)])
        if nanos:
            await self._move(place, (TENANT, customer, grant, currency, kind, nanos, name, at))

    async def lapse(self, customer: str, grant: str, nanos: int, *, at: datetime, currency: str = "USD") -> None:
        """What is left of a grant lapses."""
        place, name = self._place(customer)
        await self._move(place, (TENANT, customer, grant, currency, "lapse", nanos, name, at))

    async def repay(self, customer: str, grant: str, overdraft: str, nanos: int, *, currency: str = "USD") -> None:
        """A paid grant repays what is drawn on an overdraft: one entry with two movements."""
        (shard, ms, seq, _), name = self._place(customer)
        for part, (grant_id, moved) in enumerate(((grant, nanos), (overdraft, -nanos))):
            place = (shard, ms, seq, part)
            await self._move(place, (TENANT, customer, grant_id, currency, "repay", moved, name, self.now))

    async def grant(self, customer: str, nanos: int, kind: str = "promotional", **more: Any) -> str:
        """Credit that nobody paid for, or a limit to be overdrawn; its id."""
        order = GrantOrder(
            tenant_id=TENANT,
            customer_id=customer,
            amount_nanos=nanos,
            kind=GrantKind(kind),
            **({"currency": "USD"} | more),
        )
        async with self.db.transaction() as tx:
            return await issue(tx, order, now=self.now)

    def _place(self, customer: str) -> tuple[tuple[int, int, int, int], str]:
        self._events += 1
        return (shard_of_customer(TENANT, customer), 1_000_000 + self._events, 0, 0), f"evt_{self._events}"

    async def _move(self, place: tuple[int, int, int, int], moved: tuple[Any, ...]) -> None:
        """The movement, the grant's sums and the shard's watermark, as a flush leaves them."""
        grant, kind, nanos = moved[2], moved[4], moved[5]
        async with self.db.transaction() as tx:
            recorded_at = await self._recording(tx)
            await tx.copy("movement", MOVEMENT_COLUMNS, records=[(*place, *moved, recorded_at)])
            spent, lapsed = (0, nanos) if kind == "lapse" else (nanos, 0)
            await tx._connection.execute(
                "UPDATE credit_grant SET spent_nanos = spent_nanos + $2, lapsed_nanos = lapsed_nanos + $3,"
                " ended_at = CASE WHEN spent_nanos + $2 + lapsed_nanos + $3 = amount_nanos THEN $4::timestamptz END"
                " WHERE grant_id = $1",
                *(grant, spent, lapsed, moved[7]),
            )
            await tx._connection.execute("UPDATE shard SET watermark_ms = $2 WHERE shard = $1", *place[:2])

    async def _recording(self, tx: Any) -> datetime:
        return await tx._connection.fetchval("SELECT recording_instant()")

    async def close(self, *, finalize: bool = True) -> int:
        await self.check()
        closed = await close_due(self.db, now=self.now, finalize=finalize)
        await self.check()
        return closed

    async def collect(self, processor: Any, *, attempts: int = 4) -> int:
        settled = await collect_due(self.db, processor, now=self.now, attempts=attempts)
        await self.check()
        return settled

    async def recognize(self) -> int:
        booked = await recognize_due(self.db, now=self.now, stretch_ms=0)
        await self.check()
        return booked

    async def dun(self, overdue_days: int = 30) -> int:
        dunned = await dun_due(self.db, now=self.now, overdue_days=overdue_days)
        await self.check()
        return dunned

    async def standing(self, customer: str) -> tuple[str, bool, bool]:
        """The customer's status, and whether the operator and dunning have suspended it."""
        sql = "SELECT status, operator_suspended_at, dunning_suspended_at FROM customer WHERE customer_id = $1"
        ((status, operator, dunning),) = await self.fetch(sql, customer)
        return status, operator is not None, dunning is not None

    async def top_up(self, customer: str, minor: int, method: str = "wire", **more: Any) -> ToppedUp:
        order = TopUpOrder(
            tenant_id=TENANT,
            customer_id=customer,
            amount_minor=minor,
            method=Method(method),
            **({"currency": "USD"} | {name: value for name, value in more.items() if name != "processor"}),
        )
        done = await top_up(self.db, more.get("processor"), order=order, now=self.now)
        await self.check()
        return done

    async def receive(self, invoice: Invoice, method: str = "wire", reference: str = "FT-1") -> Payment:
        receipt = Receipt(method=Method(method), reference=reference)
        async with self.db.transaction() as tx:
            payment = await mark_invoice_received(
                tx, tenant_id=TENANT, invoice_id=invoice.invoice_id, receipt=receipt, now=self.now
            )
        await self.check()
        return payment

    async def receive_payment(self, payment: Payment, reference: str = "FT-1") -> Payment:
        receipt = Receipt(method=Method.WIRE, reference=reference)
        async with self.db.transaction() as tx:
            received = await mark_received(
                tx, tenant_id=TENANT, payment_id=payment.payment_id, receipt=receipt, now=self.now
            )
        await self.check()
        return received

    async def lapse_due(self) -> int:
        return await lapse_due(self.db, now=self.now)

    async def payments(self) -> list[Payment]:
        async with self.db.transaction() as tx:
            return await payments.page(tx, TENANT, chosen=payments.Filter(), count=1000)

    async def check(self) -> None:
        """Every law of the house holds."""
        async with self.db.session() as connection:
            for law in INVARIANTS.values():
                rows = await connection.fetch(law.sql, TENANT)
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


SECRET = "whsec_of_these_tests"


class Double:
    """The Stripe double as a process of its own, and a receiver of its webhooks."""

    def __init__(self, port: int, hook_port: int, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.journal = folder / "journal.jsonl"
        self.heard: list[Webhook] = []
        self.answer: Callable[[Webhook], Any] = self._take
        self._words = (
            *(sys.executable, "-P", "-m", "billing_core.adapters.stripe_double", "--port", str(port)),
            *("--journal", str(self.journal), "--adopt-customers", "--webhook-secret", SECRET),
            *("--webhook-url", f"http://127.0.0.1:{hook_port}/hook"),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.client = ClientSession()

    async def _take(self, webhook: Webhook) -> int:
        self.heard.append(webhook)
        return 200

    async def hook(self, request: web.Request) -> web.Response:
        heard = Webhook(payload=await request.read(), signature=request.headers["Stripe-Signature"])
        return web.Response(status=await self.answer(heard))

    async def start(self) -> None:
        self._process = subprocess.Popen(self._words)  # noqa: ASYNC220 - it returns at once
        await eventually(self.is_ready)

    def kill(self) -> None:
        """kill -9 of the process that `start` made."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def is_ready(self) -> bool:
        try:
            async with self.client.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        except ClientError:
            return False

    async def fault(
        self, kind: str, act: str = "payment_intents.create", *, times: int = 1, delay_ms: int = 0
    ) -> None:
        switch = {"act": act, "kind": kind, "times": times, "delay_ms": delay_ms}
        async with self.client.post(f"{self.url}/_control/faults", json=switch) as answer:
            assert answer.status == 200

    async def clear(self) -> None:
        async with self.client.delete(f"{self.url}/_control/faults") as answer:
            assert answer.status == 200

    async def settle(self, intent: str) -> None:
        async with self.client.post(f"{self.url}/_control/settle/{intent}") as answer:
            assert answer.status == 200

    async def summary(self) -> dict[str, int]:
        async with self.client.get(f"{self.url}/_control/summary") as answer:
            return await answer.json()

    async def is_told(self) -> bool:
        return (await self.summary())["webhooks_waiting"] == 0


async def eventually(holds: Callable[[], Any], *, timeout_s: float = 60) -> None:
    """Ask until it holds; whoever makes it hold has the processor between two questions."""
    async with asyncio.timeout(timeout_s):
        while not await holds():  # noqa: ASYNC110 - what is asked for happens in another process
            await asyncio.sleep(0.005)


@pytest.fixture
async def double(free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[Double]:
    """A running double that tells its webhooks to `double.answer`."""
    hook_port = free_port()
    made = Double(free_port(), hook_port, tmp_path)
    app = web.Application()
    app.router.add_post("/hook", made.hook)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", hook_port).start()
    await made.start()
    try:
        yield made
    finally:
        made.kill()
        await made.client.close()
        await runner.cleanup()


@pytest.fixture
async def stripe(double: Double) -> AsyncIterator[StripeProcessor]:
    """The real client library, pointed at the double."""
    access = StripeAccess(api_key="sk_test_double", api_base=double.url, webhook_secret=SECRET, timeout_s=10)
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(open_stripe(access))


@pytest.fixture
def told(world: World, stripe: StripeProcessor) -> Callable[[Webhook], Any]:
    """Apply a webhook to the world, as the control plane does; the status to answer."""

    async def apply(webhook: Webhook) -> int:
        await apply_webhook(world.db, stripe, webhook=webhook, now=world.now)
        return 200

    return apply
