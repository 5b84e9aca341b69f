"""Credits, limits to overdraw and what only some features may use, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.api.conftest import Plane

CATALOG: dict[str, Any] = {
    "units": [{"code": "AIC", "name": "AI credits"}],
    "meters": [{"code": "tokens", "event": "token", "aggregation": "sum", "field": "quantity"}],
    "features": [{"code": "token", "kind": "metered", "meter": "tokens"}, {"code": "dark", "kind": "switch"}],
    "plans": [],
}
WALLETS = "/v1/customers/acme/wallets"
PRICE = {"currency": "USD", "amount": "10.00"}
SEEN = {"method": "wire", "reference": "bank-7"}


@pytest.fixture
async def acme(plane: Plane) -> None:
    """A customer of ours, whose catalog has the unit AIC."""
    assert (await plane.ours.put("/v1/catalog", CATALOG)).status == 200
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})


async def test_credits_are_bought_with_money(plane: Plane, acme: None) -> None:
    """1,000 credits for 10.00 USD: the payment is in dollars, the grant in credits, the books in dollars."""
    body = {"amount": "1000", "price": PRICE, "features": ["token"], "priority": 3, **SEEN}
    bought = await plane.ours.post(f"{WALLETS}/AIC/top-ups", body, key="t")
    assert bought.status == 201, bought.raw
    assert (bought.body["payment"]["currency"], bought.body["payment"]["amount_minor"]) == ("USD", 1000)
    (wallet,) = (await plane.ours.get(WALLETS)).body["wallets"]
    assert (wallet["currency"], wallet["balance_nanos"]) == ("AIC", 1000 * 10**9)
    (grant,) = wallet["grants"]
    assert grant["grant_id"] == bought.body["grant_id"]
    assert (grant["kind"], grant["features"], grant["priority"]) == ("paid", ["token"], 3)
    assert grant["price"] == {"currency": "USD", "nanos": 10 * 10**9}
    accounts = (await plane.ours.get("/v1/ledger/trial-balance")).body["accounts"]
    assert {(one["account"], one["currency"]): one["nanos"] for one in accounts} == {
        ("cash", "USD"): 10 * 10**9,
        ("contract_liability", "USD"): -10 * 10**9,
    }
    assert (await plane.ours.post(f"{WALLETS}/AIC/top-ups", body, key="t")).body["payment"] == bought.body[
        "payment"
    ]
    other = await plane.ours.post(f"{WALLETS}/AIC/top-ups", {**body, "amount": "2000"}, key="t")
    assert (other.status, other.body["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("AIC/top-ups", {"amount": "10"}, "price"),
        ("AIC/top-ups", {"amount": "10", "price": {"currency": "AIC", "amount": "1"}}, "currency"),
        ("AIC/top-ups", {"amount": "10", "price": {"currency": "USD", "amount": "0.001"}}, "price.amount"),
        ("AIC/top-ups", {"amount": "10", "price": {"currency": "USD", "amount": "0"}}, "price.amount"),
        ("AIC/top-ups", {"amount": "0", "price": PRICE}, "amount"),
        ("AIC/top-ups", {"amount": "9007199.254740992", "price": PRICE}, "amount"),
        ("USD/top-ups", {"amount": "10", "price": PRICE}, "price"),
        ("XYZ/top-ups", {"amount": "10", "price": PRICE}, "currency"),
        ("USD/top-ups", {"amount": "10", "features": ["dark"]}, "features"),
        ("USD/top-ups", {"amount": "10", "features": ["token", "token"]}, "features[1]"),
        ("AIC/grants", {"amount": "10", "price": PRICE}, "price"),
        ("AIC/grants", {"amount": "10", "kind": "overdraft"}, "price"),
        ("USD/grants", {"amount": "10", "kind": "overdraft", "price": PRICE | {"amount": "9"}}, "price"),
        ("AIC/grants", {"amount": "10", "kind": "paid"}, "kind"),
        ("XYZ/grants", {"amount": "10"}, "currency"),
        ("USD/grants", {"amount": "10", "features": ["nothing"]}, "features"),
        ("USD/grants", {"amount": "10", "features": ["a b"]}, "features[0]"),
    ],
)
async def test_what_breaks_a_rule_is_refused_by_field(
    plane: Plane, acme: None, path: str, body: dict[str, Any], field: str
) -> None:
    """And nothing is written, not even a payment."""
    before = await plane.count()
    words = {**body, **SEEN} if path.endswith("top-ups") else body
    answer = await plane.ours.post(f"{WALLETS}/{path}", words, key="t")
    assert (answer.status, answer.body["field"]) == (400, field), answer.raw
    assert await plane.count() == before


async def test_a_limit_is_given_lowered_and_ended(plane: Plane, acme: None) -> None:
    """It is no balance; lowering only lowers, and a void one is lowered no more."""
    given = await plane.ours.post(f"{WALLETS}/USD/grants", {"amount": "10", "kind": "overdraft"}, key="g")
    assert (given.status, given.body["price"]["nanos"]) == (201, 10 * 10**9)
    (wallet,) = (await plane.ours.get(WALLETS)).body["wallets"]
    assert [wallet[name] for name in ("balance_nanos", "overdraft_nanos", "owed_nanos")] == [0, 10 * 10**9, 0]
    path = f"/v1/customers/acme/grants/{given.body['grant_id']}"
    lowered = await plane.ours.post(f"{path}/lower", {"amount": "4"})
    assert (lowered.status, lowered.body["lowered_nanos"]) == (200, 4 * 10**9)
    raised = await plane.ours.post(f"{path}/lower", {"amount": "5"})
    assert (raised.status, raised.body["field"]) == (400, "amount")
    voided = await plane.ours.post(f"{path}/void")
    assert (voided.status, voided.body["voided_at"] is None) == (200, False)
    assert (await plane.ours.post(f"{path}/void")).body["voided_at"] == voided.body["voided_at"]
    late = await plane.ours.post(f"{path}/lower", {"amount": "0"})
    assert (late.status, late.body["field"]) == (422, "grant_id")
    gift = (await plane.ours.post(f"{WALLETS}/USD/grants", {"amount": "1"}, key="h")).body["grant_id"]
    wrong = await plane.ours.post(f"/v1/customers/acme/grants/{gift}/lower", {"amount": "0"})
    assert (wrong.status, wrong.body["field"]) == (422, "grant_id")
    await plane.ours.post("/v1/customers", {"customer_id": "other"})
    stranger = await plane.ours.post(f"/v1/customers/other/grants/{gift}/void")
    assert (stranger.status, stranger.body["field"]) == (404, "grant_id")
