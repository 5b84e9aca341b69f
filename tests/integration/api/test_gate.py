"""What the control plane has answered, the very next check knows, whatever a running gateway has in its memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from billing_core.adapters.projection import Projection
from billing_core.flows.money.collect import collect_due
from billing_core.flows.project import Relay, RelayTally
from billing_core.values.clock import system_now
from gateway.edge.server import Server
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import until

if TYPE_CHECKING:
    from billing_core.adapters.stripe_double.server import Double
    from tests.integration.api.conftest import Plane

TIMES = 100
PRICE = {
    "code": "tokens",
    "meter": "tokens",
    "model": "per_unit",
    "unit_amount": "0.01",
    "pay": "prepaid",
    "feature": "token",
}
CATALOG: dict[str, Any] = {
    "units": [{"code": "AIC"}],
    "meters": [{"code": "tokens", "event": "token", "aggregation": "sum", "field": "quantity"}],
    "features": [{"code": "token", "kind": "metered", "meter": "tokens"}, {"code": "export", "kind": "switch"}],
    "plans": [
        {
            "code": "money",
            "currency": "USD",
            "entitlements": [{"feature": "token"}, {"feature": "export"}],
            "prices": [PRICE],
        },
        {
            "code": "credits",
            "currency": "USD",
            "entitlements": [{"feature": "token"}],
            "prices": [PRICE | {"currency": "AIC", "unit_amount": "1"}],
        },
        {"code": "fee", "currency": "USD", "fee_amount": "31.00", "entitlements": [{"feature": "export"}]},
    ],
}


class Gate:
    """A gateway, asked by a customer's key."""

    def __init__(self, plane: Plane, session: ClientSession) -> None:
        self._plane = plane
        self._session = session
        self.relay = Relay(plane.database, Projection(plane.redis), tally=RelayTally())
        self.key = ""

    async def enroll(self, plan: str, **more: str) -> None:
        """A customer on the plan, with a key; all of it known at the gate."""
        ours = self._plane.ours
        assert (await ours.put("/v1/catalog", CATALOG)).status == 200
        assert (await ours.post("/v1/customers", {"customer_id": "acme", **more})).status == 201
        assert (await ours.post("/v1/subscriptions", {"customer_id": "acme", "plan": plan})).status == 201
        self.key = (await ours.post("/v1/customers/acme/keys")).body["key"]

    async def check(self, feature: str = "token") -> str:
        """The reason that the gate gives: `allowed`, or why not."""
        body = {"key": self.key, "feature": feature, "quantity": 1}
        async with self._session.post("/v1/check", json=body) as reply:
            answer = await reply.json()
        return answer["reason"] if reply.status == 200 else answer["code"]


@pytest.fixture
async def gate(plane: Plane, redis_url: str, free_port: Callable[[], int]) -> AsyncIterator[Gate]:
    """A running gateway on the plane's Redis; the plane's clock is the real one."""
    plane.clock.now = system_now()
    port = free_port()
    settings = GatewaySettings(redis_url=redis_url, port=port, decision_deadline_ms=10_000, bulk_deadline_ms=10_000)
    server = Server(Worker(settings))
    await server.start()
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        yield Gate(plane, session)
    await server.stop()


async def test_a_top_up_is_seen_by_the_very_next_check(plane: Plane, gate: Gate) -> None:
    """One unit's price at a time, a hundred times: allowed once after each answer, and not twice."""
    await gate.enroll("money")
    assert await gate.check() == "insufficient_balance"
    for number in range(TIMES):
        body = {"amount": "0.01", "method": "wire", "reference": f"bank-{number}"}
        done = await plane.ours.post("/v1/customers/acme/wallets/USD/top-ups", body, key=f"t{number}")
        assert (done.status, done.body["applied"]) == (201, True)
        assert [await gate.check(), await gate.check()] == ["allowed", "insufficient_balance"]


async def test_a_top_up_is_seen_although_relays_reach_for_it_too(plane: Plane, gate: Gate) -> None:
    """Whoever comes first tells it; who comes second waits until it is told. The answer is never early."""
    await gate.enroll("money")

    async def relay() -> None:
        while True:
            await gate.relay.project(now=plane.clock.now, most=100)

    relays = [asyncio.create_task(relay()) for _ in range(2)]
    for number in range(TIMES // 2):
        body = {"amount": "0.01", "method": "wire", "reference": f"bank-{number}"}
        done = await plane.ours.post("/v1/customers/acme/wallets/USD/top-ups", body, key=f"t{number}")
        assert done.body["applied"]
        assert [await gate.check(), await gate.check()] == ["allowed", "insufficient_balance"]
    for task in relays:
        task.cancel()
    await asyncio.wait(relays)


async def test_credits_are_seen_by_the_very_next_check(plane: Plane, gate: Gate) -> None:
    """A price in credits is paid by credits; dollars in the other wallet pay nothing of it."""
    await gate.enroll("credits")
    await plane.ours.post("/v1/customers/acme/wallets/USD/grants", {"amount": "100"}, key="g")
    assert await gate.check() == "insufficient_balance"
    body = {"amount": "2", "price": {"currency": "USD", "amount": "1.00"}, "method": "wire", "reference": "b"}
    done = await plane.ours.post("/v1/customers/acme/wallets/AIC/top-ups", body, key="t")
    assert done.body["applied"]
    assert [await gate.check() for _ in range(3)] == ["allowed", "allowed", "insufficient_balance"]


async def test_the_operators_word_is_heard_by_the_very_next_check(plane: Plane, gate: Gate) -> None:
    """Suspended and resumed, again and again; a revoked key is nobody's."""
    await gate.enroll("money")
    for _ in range(TIMES):
        assert (await plane.ours.post("/v1/customers/acme/suspend")).body["applied"]
        assert await gate.check("export") == "suspended"
        assert (await plane.ours.post("/v1/customers/acme/resume")).body["applied"]
        assert await gate.check("export") == "allowed"


async def test_a_failing_card_suspends_and_a_payment_lets_the_next_check_through(
    plane: Plane, gate: Gate, double: Double
) -> None:
    """Four declines by Stripe, each told by webhook too, then a wire."""
    broke = {"stripe_customer": "cus_1", "stripe_payment_method": "pm_card_chargeDeclinedInsufficientFunds"}
    await gate.enroll("fee", collection="stripe", **broke)
    assert await gate.check("export") == "allowed"
    start, passed = plane.clock.now, timedelta()
    for days in (0, 1, 3, 5):
        passed += timedelta(days=days, minutes=1)
        await plane.ours.post("/v1/clock/advance", {"to": (start + passed).isoformat()})
        assert await collect_due(plane.database, plane.processor, now=plane.clock.now) == 1
        await until(lambda: not double.postman.waiting)  # a webhook holds the payment while it is heard
    customer = (await plane.ours.get("/v1/customers/acme")).body
    assert (customer["status"], customer["operator_suspended_at"]) == ("suspended", None)
    assert customer["dunning_suspended_at"] is not None
    await gate.relay.project(now=plane.clock.now, most=100)
    assert await gate.check("export") == "suspended"
    (invoice,) = (await plane.ours.get("/v1/invoices?state=finalized")).body["items"]
    receipt = {"method": "wire", "reference": "bank-7"}
    paid = await plane.ours.post(f"/v1/invoices/{invoice['invoice_id']}/payments", receipt)
    assert (paid.status, paid.body["applied"]) == (201, True)
    assert await gate.check("export") == "allowed"
    assert (await plane.ours.get("/v1/customers/acme")).body["status"] == "active"
