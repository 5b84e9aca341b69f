"""Wallets over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

GRANTS = "/v1/customers/acme/wallets/USD/grants"


async def test_promotional_credit_stands_in_the_wallet(plane: Plane) -> None:
    """Not yet effective, or expired, credit is shown and not counted."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    body = {"amount": "25.00", "priority": 3, "expires_at": "2026-04-01T00:00:00+02:00", "note": "welcome"}
    given = await plane.ours.post(GRANTS, body, key="g-1")
    assert given.status == 201
    assert given.body == {
        "grant_id": given.body["grant_id"],
        "customer_id": "acme",
        "currency": "USD",
        "kind": "promotional",
        "amount_nanos": 25_000_000_000,
        "spent_nanos": 0,
        "lapsed_nanos": 0,
        "priority": 3,
        "effective_at": "2026-03-01T12:00:00Z",
        "expires_at": "2026-03-31T22:00:00Z",
        "features": [],
        "price": None,
        "lowered_nanos": None,
        "payment_id": None,
        "note": "welcome",
        "created_at": "2026-03-01T12:00:00Z",
        "voided_at": None,
        "applied": True,
    }
    later = {"amount": "1", "effective_at": "2026-05-01T00:00:00Z"}
    assert (await plane.ours.post(GRANTS, later, key="g-2")).status == 201
    assert (await plane.ours.post(GRANTS.replace("USD", "JPY"), {"amount": "0.5"}, key="g-3")).status == 201
    shown = (await plane.ours.get("/v1/customers/acme/wallets")).body
    assert [(one["currency"], one["balance_nanos"], len(one["grants"])) for one in shown["wallets"]] == [
        ("JPY", 500_000_000, 1),
        ("USD", 25_000_000_000, 2),
    ]
    await plane.ours.post("/v1/clock/advance", {"to": "2026-06-01T00:00:00Z"})
    shown = (await plane.ours.get("/v1/customers/acme/wallets")).body
    assert [one["balance_nanos"] for one in shown["wallets"]] == [500_000_000, 1_000_000_000]


async def test_a_retry_gives_once(plane: Plane) -> None:
    """Without a key nothing is given at all."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    before = await plane.count()
    missing = await plane.ours.post(GRANTS, {"amount": "1"})
    assert (missing.status, missing.body["field"]) == (400, "Idempotency-Key")
    assert await plane.count() == before
    first = await plane.ours.post(GRANTS, {"amount": "1"}, key="g")
    assert (await plane.ours.post(GRANTS, {"amount": "1"}, key="g")).raw == first.raw
    assert await plane.value("SELECT count(*) FROM credit_grant") == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        (GRANTS, {"amount": "-1"}, 400, "amount"),
        (GRANTS, {"amount": "0"}, 400, "amount"),
        (GRANTS, {"amount": "1.0000000001"}, 400, "amount"),
        (GRANTS, {"amount": "9007199.254740992"}, 400, "amount"),
        (GRANTS, {"amount": 1}, 400, "amount"),
        (GRANTS, {}, 400, "amount"),
        (GRANTS, {"amount": "1", "kind": "paid"}, 400, "kind"),
        (GRANTS, {"amount": "1", "kind": "free"}, 400, "kind"),
        (GRANTS, {"amount": "1", "priority": 256}, 400, "priority"),
        (GRANTS, {"amount": "1", "priority": 0.5}, 400, "priority"),
        (GRANTS, {"amount": "1", "surprise": 1}, 400, "surprise"),
        (GRANTS, {"amount": "1", "note": "a\0b"}, 400, "note"),
        (GRANTS, {"amount": "1", "expires_at": "2026-03-01T12:00:00Z"}, 400, "expires_at"),
        (GRANTS, {"amount": "1", "expires_at": "2026-03-02T00:00:00"}, 400, "expires_at"),
        (GRANTS.replace("USD", "XXZ"), {"amount": "1"}, 400, "currency"),
        (GRANTS.replace("USD", "usd"), {"amount": "1"}, 400, "currency"),
        (GRANTS.replace("acme", "nobody"), {"amount": "1"}, 404, "customer_id"),
    ],
)
async def test_credit_that_breaks_a_rule_is_refused_by_field(
    plane: Plane, path: str, body: dict[str, Any], status: int, field: str
) -> None:
    """And nothing is written."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    before = await plane.count()
    answer = await plane.ours.post(path, body, key="g")
    assert (answer.status, answer.body["field"]) == (status, field)
    assert await plane.count() == before


async def test_a_wallet_never_holds_more_than_a_script_can_add_up(plane: Plane) -> None:
    """2^53 - 1 nanos in all of a customer's grants of a currency."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})
    assert (await plane.ours.post(GRANTS, {"amount": "9007199.254740991"}, key="g-1")).status == 201
    answer = await plane.ours.post(GRANTS, {"amount": "0.000000001"}, key="g-2")
    assert (answer.status, answer.body["code"], answer.body["field"]) == (422, "unprocessable", "amount")
