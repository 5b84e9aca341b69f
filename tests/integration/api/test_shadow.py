"""What shadow mode let through, over HTTP: pages, bounds, reasons counted, and nobody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

ROWS = """
INSERT INTO shadow_decision
SELECT 7, 1000 + n, {place}, part, '{tenant}', 'c' || n % 3, 'dec_' || n, 'calls', n,
       '2026-03-01T00:00:00Z'::timestamptz + n * interval '1 day',
       CASE WHEN n % 2 = 0 THEN 'limit_reached' ELSE 'insufficient_balance' END, 'team:ml', 'team:ml/key:k', 'hint',
       now()
FROM generate_series(0, 9) AS n, generate_series(0, 1) AS part
"""


@pytest.fixture
async def shadows(plane: Plane) -> None:
    """Ten requests of two charges each, on ten days; and as many of the other tenant."""
    for place, tenant_id in enumerate(("ours", "theirs")):
        await plane.value(ROWS.format(place=place, tenant=tenant_id))


async def test_they_come_in_pages_oldest_first(plane: Plane, shadows: None) -> None:
    """Each charge once, with its reason and level; the reasons count requests of the whole list."""
    seen: list[tuple[str, str]] = []
    cursor, pages = "", 0
    while cursor is not None:
        page = (await plane.ours.get(f"/v1/shadow-decisions?limit=7&cursor={cursor}")).body
        seen += [(one["decision_id"], one["reason"]) for one in page["items"]]
        assert page["reasons"] == [
            {"reason": "insufficient_balance", "decisions": 5, "customers": 3},
            {"reason": "limit_reached", "decisions": 5, "customers": 3},
        ]
        cursor, pages = page["next_cursor"], pages + 1
    reasons = ("limit_reached", "insufficient_balance")
    assert seen == [(f"dec_{n}", reasons[n % 2]) for n in range(10) for _ in range(2)]
    assert pages == 3


async def test_a_stretch_of_time_and_one_customer(plane: Plane, shadows: None) -> None:
    """From inclusive, to exclusive; the reasons are of what was asked for."""
    query = "from=2026-03-02T00:00:00Z&to=2026-03-05T00:00:00Z&customer_id=c0"
    page = (await plane.ours.get(f"/v1/shadow-decisions?{query}")).body
    assert {one["decision_id"] for one in page["items"]} == {"dec_3"}
    assert page["reasons"] == [{"reason": "insufficient_balance", "decisions": 1, "customers": 1}]
    assert page["items"][0] == {
        "decision_id": "dec_3",
        "customer_id": "c0",
        "feature": "calls",
        "quantity": 3,
        "decided_at": "2026-03-04T00:00:00Z",
        "reason": "insufficient_balance",
        "level": "team:ml",
        "path": "team:ml/key:k",
        "key_hint": "hint",
    }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cursor=nonsense", "cursor"),
        ("from=2026-03-02T00:00:00Z&to=2026-03-02T00:00:00Z", "to"),
        ("customer_id=no%20code", "customer_id"),
        ("limit=0", "limit"),
    ],
)
async def test_what_cannot_be_asked_is_told_by_field(plane: Plane, query: str, field: str) -> None:
    """A problem of the house, and its field."""
    answer = await plane.ours.get(f"/v1/shadow-decisions?{query}")
    assert (answer.status, answer.body["field"]) == (400, field)
