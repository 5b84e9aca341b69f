"""Subscriptions, the bills they make, and the usage below them, over HTTP."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

CATALOG: dict[str, Any] = {
    "meters": [
        {"code": "tokens", "event": "tokens", "aggregation": "sum", "field": "quantity"},
        {"code": "models", "event": "tokens", "aggregation": "unique", "field": "model"},
    ],
    "features": [{"code": "tokens", "kind": "metered", "meter": "tokens"}],
    "plans": [
        {
            "code": "pro",
            "currency": "USD",
            "anchor": "subscription",
            "fee_amount": "20",
            "entitlements": [{"feature": "tokens"}],
            "prices": [
                {"code": "use", "meter": "tokens", "model": "per_unit", "unit_amount": "2.50", "per": 1000000}
            ],
        }
    ],
}


@pytest.fixture
async def subscribed(plane: Plane) -> str:
    """Ours has a catalog, and acme a plan with a drafted first bill; the subscription's id."""
    await plane.ours.put("/v1/catalog", CATALOG)
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    body = {"customer_id": "acme", "plan": "pro", "draft_invoice": True}
    answer = await plane.ours.post("/v1/subscriptions", body)
    assert answer.status == 201, answer.raw
    return answer.body["subscription_id"]


async def test_a_customer_is_put_on_a_plan_and_taken_off_at_the_end(plane: Plane, subscribed: str) -> None:
    """With the period that is open now; the gateway is told."""
    path = f"/v1/subscriptions/{subscribed}"
    shown = (await plane.ours.get(path)).body
    assert shown == {
        "subscription_id": subscribed,
        "customer_id": "acme",
        "plan_code": "pro",
        "plan_version": 1,
        "state": "active",
        "started_at": "2026-03-01T12:00:00Z",
        "anchor_at": "2026-03-01T12:00:00Z",
        "time_zone": "UTC",
        "cancel_at_end": False,
        "ended_at": None,
        "created_at": "2026-03-01T12:00:00Z",
        "changed_at": None,
        "change": None,
        "period": {"start_at": "2026-03-01T12:00:00Z", "end_at": "2026-04-01T12:00:00Z"},
    }
    assert (await plane.ours.get("/v1/subscriptions?customer_id=acme")).body == {
        "items": [shown],
        "next_cursor": None,
    }
    assert (await plane.ours.get("/v1/subscriptions?customer_id=other")).body["items"] == []
    canceled = await plane.ours.post(f"{path}/cancel", {"at": "end"})
    assert (canceled.status, canceled.body) == (200, {**shown, "cancel_at_end": True, "applied": True})
    assert await plane.value("SELECT count(*) FROM outbox WHERE customer_id = 'acme'") == 0


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"customer_id": "nobody", "plan": "pro"}, 404, "customer_id"),
        ({"customer_id": "other", "plan": "none"}, 404, "plan"),
        ({"customer_id": "acme", "plan": "pro"}, 409, "customer_id"),
        ({"customer_id": "other", "plan": "pro", "start_at": "2027-01-01T00:00:00Z"}, 400, "start_at"),
        ({"customer_id": "other", "plan": "pro", "start_at": "2020-01-01T00:00:00Z"}, 400, "start_at"),
        ({"customer_id": "other", "plan": "pro", "start_at": "2026-03-01T12:00:00"}, 400, "start_at"),
        ({"customer_id": "other"}, 400, "plan"),
        ({"customer_id": "other", "plan": "pro", "surprise": 1}, 400, "surprise"),
    ],
)
async def test_a_subscription_that_breaks_a_rule_is_refused_by_field(
    plane: Plane, subscribed: str, body: dict[str, Any], status: int, field: str
) -> None:
    """Unknown ids, overlapping periods, a clock in the past; nothing is written."""
    await plane.ours.post("/v1/customers", {"customer_id": "other"})
    before = await plane.count()
    answer = await plane.ours.post("/v1/subscriptions", body, key="s")
    assert (answer.status, answer.body["field"]) == (status, field)
    assert await plane.count() == before


async def test_periods_never_overlap(plane: Plane, subscribed: str) -> None:
    """Where every other check is passed by, the constraint itself answers in its own words."""
    async with plane.database.session() as session:
        await session.execute(
            "UPDATE subscription SET state = 'ended', ended_at = '2026-03-01T12:30:00Z' WHERE subscription_id = $1",
            subscribed,
        )
    before = await plane.count()
    body = {"customer_id": "acme", "plan": "pro", "start_at": "2026-03-01T12:00:00Z"}
    answer = await plane.ours.post("/v1/subscriptions", body)
    assert (answer.status, answer.body["field"]) == (400, "start_at")
    assert "periods never overlap" in answer.body["detail"]
    assert await plane.count() == before


async def test_a_draft_is_finalized_and_voided(plane: Plane, subscribed: str) -> None:
    """A draft has no number; a void invoice keeps it; the books are at zero again."""
    draft = (await plane.ours.get("/v1/invoices?state=draft")).body["items"][0]
    assert (draft["number"], draft["total_minor"], draft["reason"]) == (None, 2000, "activation")
    path = f"/v1/invoices/{draft['invoice_id']}"
    final = await plane.ours.post(f"{path}/finalize")
    assert (final.status, final.body["state"], final.body["number"]) == (200, "finalized", "INV-000001")
    assert [(line["line_no"], line["kind"], line["amount_minor"]) for line in final.body["lines"]] == [
        (1, "fee", 2000)
    ]
    assert (await plane.ours.get(path)).body == final.body
    payments = (await plane.ours.get(f"/v1/payments?invoice_id={draft['invoice_id']}")).body["items"]
    assert [(one["state"], one["amount_minor"], one["method"]) for one in payments] == [("pending", 2000, "wire")]
    assert (await plane.ours.get(f"/v1/payments/{payments[0]['payment_id']}")).body == payments[0]
    balance = (await plane.ours.get("/v1/ledger/trial-balance")).body["accounts"]
    assert {one["account"]: one["nanos"] for one in balance} == {
        "accounts_receivable": 20_000_000_000,
        "deferred_revenue": -20_000_000_000,
    }
    voided = await plane.ours.post(f"{path}/void")
    assert (voided.status, voided.body["state"], voided.body["number"]) == (200, "void", "INV-000001")
    assert voided.body["applied"]
    balance = (await plane.ours.get("/v1/ledger/trial-balance")).body["accounts"]
    assert {one["nanos"] for one in balance} == {0}
    assert (await plane.ours.post(f"{path}/finalize")).status == 409
    replayed = (await plane.ours.get(f"{path}/replay")).body
    assert (replayed["same"], replayed["line_count"], replayed["differences"]) == (True, 1, [])
    assert (await plane.ours.get(f"{path}/lines/1/events")).status == 422
    assert (await plane.ours.get(f"{path}/lines/2/events")).status == 404
    assert (await plane.ours.get(f"{path}/lines/one/events")).status == 404


async def _use(
    plane: Plane, number: int, quantity: str, charge: tuple[str, int, int] = ("", 0, 0), **properties: str
) -> None:
    async with plane.database.session() as session:
        await session.execute(
            """INSERT INTO usage_event (shard, stream_ms, stream_seq, part, tenant_id, customer_id, event_id, name,
                   source, event_at, decided_at, recorded_at, quantity, properties,
                   currency, charged_nanos, uncollected_nanos)
               VALUES (1, $1, 0, 0,
                   'ours', 'acme', $2, 'tokens', 'gate', '2026-03-01T11:00:00Z', now(), now(), $3, $4,
                   $5, $6, $7)""",
            number,
            f"e{number}",
            Decimal(quantity),
            properties,
            *charge,
        )


async def test_usage_is_told_by_meter_and_by_group(plane: Plane, subscribed: str) -> None:
    """The present calendar month where nothing else is asked for; zero where there was none."""
    for number, model in enumerate(("large", "small", "small"), start=1):
        await _use(plane, number, "10", model=model)
    path = "/v1/customers/acme/usage"
    shown = (await plane.ours.get(path)).body
    assert (shown["from"], shown["to"]) == ("2026-03-01T00:00:00Z", "2026-03-01T12:00:00Z")
    rows = {(one["meter"], one["quantity"], one["event_count"]) for one in shown["items"]}
    assert rows == {("tokens", "30", 3), ("models", "2", 3)}
    grouped = (await plane.ours.get(f"{path}?meter=tokens&group_by=model")).body["items"]
    assert [(one["group"], one["quantity"]) for one in grouped] == [
        ({"model": "large"}, "10"),
        ({"model": "small"}, "20"),
    ]
    empty = (await plane.ours.get(f"{path}?meter=tokens&from=2026-03-01T11:30:00Z")).body["items"]
    assert [(one["quantity"], one["event_count"]) for one in empty] == [("0", 0)]


async def test_each_wallet_is_told_for_itself(plane: Plane, subscribed: str) -> None:
    """Credits and dollars are never added up."""
    for number, charge in enumerate((("USD", 5, 1), ("AIC", 7, 0), ("AIC", 0, 3), ("", 0, 0)), start=1):
        await _use(plane, number, "1", charge, model="large" if number < 3 else "small")
    told = (await plane.ours.get("/v1/customers/acme/usage?meter=tokens&group_by=model")).body["items"]
    dollars = {"currency": "USD", "charged_nanos": 5, "uncollected_nanos": 1}
    credit = {"currency": "AIC", "charged_nanos": 7, "uncollected_nanos": 0}
    lost = {"currency": "AIC", "charged_nanos": 0, "uncollected_nanos": 3}
    assert [one["charges"] for one in told] == [[credit, dollars], [lost]]


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("meter=none", 404, "meter"),
        ("meter=%00", 400, "meter"),
        ("from=2026-03-02T00:00:00Z", 400, "to"),
        ("to=2026-03-02T00:00:00", 400, "to"),
        ("group_by=a,a", 400, "group_by"),
        ("group_by=a,b,c,d,e", 400, "group_by"),
        ("group_by=a%00", 400, "group_by"),
        ("metre=tokens", 400, "metre"),
    ],
)
async def test_a_question_that_breaks_a_rule_is_refused_by_field(
    plane: Plane, subscribed: str, query: str, status: int, field: str
) -> None:
    """A misspelt filter never shows everything."""
    answer = await plane.ours.get(f"/v1/customers/acme/usage?{query}")
    assert (answer.status, answer.body["field"]) == (status, field)
