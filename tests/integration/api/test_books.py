"""The books over HTTP: revenue by month, and the proof that all adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from billing_core.flows.billing.recognize import recognize_due

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

PLAN = {"code": "pro", "currency": "USD", "fee_amount": "31", "anchor": "subscription"}
TOP_UP = {"amount": "25.00", "method": "wire", "reference": "bank-7"}


@pytest.fixture
async def acme(plane: Plane) -> None:
    """A customer of ours with a plan of 31.00 a month from 1 March, and 25.00 of credit."""
    await plane.ours.put("/v1/catalog", {"plans": [PLAN]})
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    assert (await plane.ours.post("/v1/subscriptions", {"customer_id": "acme", "plan": "pro"})).status == 201
    top_up = await plane.ours.post("/v1/customers/acme/wallets/USD/top-ups", TOP_UP, key="t")
    assert top_up.status == 201


async def test_revenue_is_told_by_month_account_and_customer(plane: Plane, acme: None) -> None:
    """Positive, within the stretch that is asked for."""
    await plane.ours.post("/v1/clock/advance", {"to": "2026-03-11T12:00:00Z"})
    assert await recognize_due(plane.database, now=plane.clock.now) > 0
    items = (await plane.ours.get("/v1/revenue")).body["items"]
    assert {(one["month"], one["account"], one["customer_id"], one["currency"]) for one in items} == {
        ("2026-03", "revenue_fees", "acme", "USD")
    }
    assert sum(one["nanos"] for one in items) == 10_000_000_000
    assert (await plane.ours.get("/v1/revenue?from=2026-04-01T00:00:00Z")).body["items"] == []
    assert (await plane.theirs.get("/v1/revenue")).body["items"] == []
    accounts: list[dict[str, Any]] = (await plane.ours.get("/v1/ledger/trial-balance")).body["accounts"]
    assert sum(one["nanos"] for one in accounts) == 0
    assert {one["account"]: one["nanos"] for one in accounts}["deferred_revenue"] == -21_000_000_000


async def test_wallets_are_proved_against_postgres(plane: Plane, acme: None) -> None:
    """Credit is in the wallet when the top-up is answered; others see nothing of it."""
    proof = await plane.ours.post("/v1/reconcile")
    assert proof.status == 200
    names = ("grants", "granted_nanos", "remaining_nanos", "pending_nanos", "difference_nanos")
    assert {name: proof.body[name] for name in names} == {
        "grants": 1,
        "granted_nanos": 25_000_000_000,
        "remaining_nanos": 25_000_000_000,
        "pending_nanos": 0,
        "difference_nanos": 0,
    }
    assert proof.body["findings"] == []
    other = (await plane.theirs.post("/v1/reconcile")).body
    assert (other["grants"], other["findings"]) == (0, [])
