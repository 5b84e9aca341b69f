"""A closed period over HTTP: the bill, the events below each line, and the bill made again."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from billing_core.flows.billing.close import close_due

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

PRICE = {"code": "use", "meter": "tokens", "model": "per_unit", "unit_amount": "2.50", "per": 1000}
CATALOG: dict[str, Any] = {
    "meters": [{"code": "tokens", "event": "tokens", "aggregation": "sum", "field": "quantity"}],
    "features": [{"code": "tokens", "kind": "metered", "meter": "tokens"}],
    "plans": [
        {"code": "pro", "currency": "USD", "entitlements": [{"feature": "tokens"}], "prices": [PRICE]},
    ],
}
EVENTS = 7


@pytest.fixture
async def billed(plane: Plane) -> str:
    """Seven events of March, billed on 1 April; the path of the invoice."""
    await plane.ours.put("/v1/catalog", CATALOG)
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    assert (await plane.ours.post("/v1/subscriptions", {"customer_id": "acme", "plan": "pro"})).status == 201
    async with plane.database.session() as session:
        for number in range(EVENTS):
            await session.execute(
                """INSERT INTO usage_event (shard, stream_ms, stream_seq, part, tenant_id, customer_id, event_id,
                       name, source, event_at, decided_at, recorded_at, quantity)
                   VALUES ($1 % 3, $1, 0, 0, 'ours', 'acme', $2, 'tokens',
                       'gate', $3, now(), now() - interval '1 minute', $4)""",
                number,
                f"e{number}",
                plane.clock.now + timedelta(hours=number // 2),
                Decimal(100 * number),
            )
        await session.execute("UPDATE flush_lane SET drained_at = 'infinity'")
    await plane.ours.post("/v1/clock/advance", {"to": "2026-04-01T00:00:00Z"})
    assert await close_due(plane.database, now=plane.clock.now) == 1
    invoices = (await plane.ours.get("/v1/invoices")).body["items"]
    assert [one["state"] for one in invoices] == ["finalized"]
    return f"/v1/invoices/{invoices[0]['invoice_id']}"


async def test_a_line_leads_to_its_events_page_by_page(plane: Plane, billed: str) -> None:
    """Every event once, in the order of time, shard and stream, whatever the size of a page."""
    line = (await plane.ours.get(billed)).body["lines"][0]
    assert (line["quantity"], line["amount_minor"], line["event_count"]) == ("2100", 525, EVENTS)
    for limit in (1, 2, 3, 7, 8):
        found: list[str] = []
        path: str | None = f"{billed}/lines/1/events?limit={limit}"
        while path:
            page = (await plane.ours.get(path)).body
            found += [one["event_id"] for one in page["items"]]
            assert len(page["items"]) <= limit
            cursor = page["next_cursor"]
            path = f"{billed}/lines/1/events?limit={limit}&cursor={cursor}" if cursor else None
        assert found == [f"e{number}" for number in sorted(range(EVENTS), key=lambda n: (n // 2, n % 3))]
    other = (await plane.ours.get("/v1/invoices?limit=1")).body["next_cursor"]
    assert other is None
    junk = await plane.ours.get(f"{billed}/lines/1/events?cursor=WyJldmVudHMiLCIxLjIiXQ")
    assert (junk.status, junk.body["field"]) == (400, "cursor")


async def test_a_bill_is_made_again_with_the_same_bytes_or_says_what_differs(plane: Plane, billed: str) -> None:
    """An event that was changed behind its back shows as another quantity, amount and digest."""
    assert (await plane.ours.get(f"{billed}/replay")).body["same"] is True
    async with plane.database.session() as session:
        await session.execute("UPDATE usage_event SET quantity = quantity + 1000 WHERE event_id = 'e3'")
    replayed = (await plane.ours.get(f"{billed}/replay")).body
    assert replayed["same"] is False
    fields = {one["field"]: (one["billed"], one["replayed"]) for one in replayed["differences"]}
    assert fields["amount_minor"] == ("525", "775")
    assert {"quantity", "event_digest"} <= set(fields)
