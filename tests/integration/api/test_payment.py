"""Money comes in over HTTP: top-ups, receipts, news of the processor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from billing_core.adapters.stripe_double.fault import FaultKind, Switch
from billing_core.adapters.stripe_double.state import INTENTS

if TYPE_CHECKING:
    from billing_core.adapters.stripe_double.server import Double
    from tests.integration.api.conftest import Plane

TOP_UPS = "/v1/customers/acme/wallets/USD/top-ups"
WIRE = {"amount": "25.00", "method": "wire", "reference": "bank-7"}


@pytest.fixture
async def acme(plane: Plane) -> None:
    """A customer of ours."""
    await plane.ours.post("/v1/customers", {"customer_id": "acme"})


async def _balances(plane: Plane) -> dict[str, int]:
    accounts = (await plane.ours.get("/v1/ledger/trial-balance")).body["accounts"]
    return {one["account"]: one["nanos"] for one in accounts}


async def test_a_transfer_that_was_seen_is_credit_at_once(plane: Plane, acme: None) -> None:
    """Payment, grant and booking together; a retry gives the same bytes and no second grant."""
    first = await plane.ours.post(TOP_UPS, WIRE, key="t-1")
    assert first.status == 201, first.raw
    payment = first.body["payment"]
    assert (payment["state"], payment["amount_minor"], payment["reference"]) == ("succeeded", 2500, "bank-7")
    wallet = (await plane.ours.get("/v1/customers/acme/wallets")).body["wallets"][0]
    assert (wallet["balance_nanos"], wallet["grants"][0]["kind"]) == (25_000_000_000, "paid")
    assert wallet["grants"][0]["grant_id"] == first.body["grant_id"]
    assert await _balances(plane) == {"cash": 25_000_000_000, "contract_liability": -25_000_000_000}
    again = await plane.ours.post(TOP_UPS, WIRE, key="t-1")
    assert (again.raw, again.headers["Idempotency-Replayed"]) == (first.raw, "true")
    assert await plane.value("SELECT count(*) FROM credit_grant") == 1
    other = await plane.ours.post(TOP_UPS, {**WIRE, "amount": "26.00"}, key="t-1")
    assert (other.status, other.body["code"]) == (409, "idempotency_conflict")


async def test_the_payment_itself_remembers_its_key(plane: Plane, acme: None) -> None:
    """When the kept answer is long gone, the same key still buys nothing twice."""
    first = await plane.ours.post(TOP_UPS, WIRE, key="t-1")
    await plane.value("DELETE FROM idempotent_answer")
    again = await plane.ours.post(TOP_UPS, WIRE, key="t-1")
    assert again.body == first.body
    await plane.value("DELETE FROM idempotent_answer")
    other = await plane.ours.post(TOP_UPS, {**WIRE, "amount": "26.00"}, key="t-1")
    assert (other.status, other.body["code"]) == (409, "idempotency_conflict")
    assert await plane.value("SELECT count(*) FROM payment") == 1


async def test_of_twins_one_pays(plane: Plane, acme: None) -> None:
    """The others wait, get the same answer, or are told to ask again."""
    answers = await asyncio.gather(*(plane.ours.post(TOP_UPS, WIRE, key="t-1") for _ in range(10)))
    for answer in answers:
        assert answer.status == 201 or (answer.status, answer.body["code"]) == (409, "still_running")
        assert answer.status == 201 or answer.body["retry_is_safe"]
    assert len({answer.raw for answer in answers if answer.status == 201}) == 1
    assert await plane.value("SELECT count(*) FROM credit_grant") == 1


async def test_a_transfer_that_is_waited_for_becomes_credit_when_it_is_seen(plane: Plane, acme: None) -> None:
    """Until then nothing is booked; the same receipt again changes nothing."""
    asked = (await plane.ours.post(TOP_UPS, {"amount": "5", "priority": 7}, key="t-1")).body
    assert (asked["payment"]["state"], asked["payment"]["method"], asked["grant_id"]) == ("pending", "wire", None)
    assert await _balances(plane) == {}
    path = f"/v1/payments/{asked['payment']['payment_id']}/receipts"
    for _ in range(2):
        seen = await plane.ours.post(path, {"method": "ach", "reference": "bank-8"})
        assert (seen.status, seen.body["state"], seen.body["method"]) == (201, "succeeded", "ach")
    assert await _balances(plane) == {"cash": 5_000_000_000, "contract_liability": -5_000_000_000}
    other = await plane.ours.post(path, {"method": "ach", "reference": "bank-9"})
    assert (other.status, other.body["field"]) == (409, "reference")


async def test_an_invoice_is_marked_as_paid(plane: Plane, acme: None) -> None:
    """The receivable is cleared, the invoice is paid."""
    plan = {"code": "pro", "currency": "USD", "fee_amount": "20", "anchor": "subscription"}
    await plane.ours.put("/v1/catalog", {"plans": [plan]})
    await plane.ours.post("/v1/subscriptions", {"customer_id": "acme", "plan": "pro"})
    invoice = (await plane.ours.get("/v1/invoices?state=finalized")).body["items"][0]
    path = f"/v1/invoices/{invoice['invoice_id']}"
    paid = await plane.ours.post(f"{path}/payments", {"method": "wire", "reference": "bank-1"}, key="p")
    assert (paid.status, paid.body["amount_minor"], paid.body["invoice_id"]) == (201, 2000, invoice["invoice_id"])
    shown = (await plane.ours.get(path)).body
    assert (shown["state"], shown["paid_minor"]) == ("paid", 2000)
    assert (await _balances(plane))["accounts_receivable"] == 0
    assert (await plane.ours.post(f"{path}/void")).status == 409
    again = await plane.ours.post(f"{path}/payments", {"method": "ach", "reference": "bank-2"})
    assert (again.status, again.body["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        (TOP_UPS, {**WIRE, "amount": "-25"}, 400, "amount"),
        (TOP_UPS, {**WIRE, "amount": "0"}, 400, "amount"),
        (TOP_UPS, {**WIRE, "amount": "25.001"}, 400, "amount"),
        (TOP_UPS, {**WIRE, "amount": 25}, 400, "amount"),
        (TOP_UPS, {**WIRE, "amount": "9007199.26"}, 400, "amount"),
        (TOP_UPS, {**WIRE, "method": "cash"}, 400, "method"),
        (TOP_UPS, {**WIRE, "method": "stripe"}, 422, "method"),
        (TOP_UPS, {**WIRE, "reference": "a\nb"}, 400, "reference"),
        (TOP_UPS, {**WIRE, "reference": "x" * 201}, 400, "reference"),
        (TOP_UPS, {**WIRE, "expires_at": "2026-03-01T12:00:00Z"}, 400, "expires_at"),
        (TOP_UPS, {**WIRE, "priority": -1}, 400, "priority"),
        (TOP_UPS.replace("USD", "XXZ"), WIRE, 400, "currency"),
        (TOP_UPS.replace("USD", "JPY"), {**WIRE, "amount": "0.5"}, 400, "amount"),
        (TOP_UPS.replace("acme", "nobody"), WIRE, 404, "customer_id"),
        ("/v1/invoices/inv_none/payments", {"method": "wire", "reference": "r"}, 404, "invoice_id"),
        ("/v1/payments/pay_none/receipts", {"method": "wire", "reference": "r"}, 404, "payment_id"),
        ("/v1/payments/pay_none/receipts", {"method": "stripe", "reference": "r"}, 404, "payment_id"),
        ("/v1/invoices/inv_none/payments", {"method": "stripe", "reference": "r"}, 400, "method"),
        ("/v1/invoices/inv_none/payments", {"method": "wire", "reference": ""}, 400, "reference"),
        (
            "/v1/invoices/inv_none/payments",
            {"method": "wire", "reference": "r", "received_at": "2026-03-01T12:00:01Z"},
            400,
            "received_at",
        ),
    ],
)
async def test_money_that_breaks_a_rule_is_refused_by_field(
    plane: Plane, acme: None, path: str, body: dict[str, Any], status: int, field: str
) -> None:
    """And nothing is written, not even a payment."""
    before = await plane.count()
    answer = await plane.ours.post(path, body, key="t")
    assert (answer.status, answer.body["field"]) == (status, field), answer.raw
    assert await plane.count() == before


@pytest.mark.parametrize("signature", [None, "", "junk", "t=1,v1=00", "t=99999999999999999999,v1=" + "0" * 64])
async def test_news_without_the_processors_signature_is_nobodys(plane: Plane, signature: str | None) -> None:
    """401, and nothing is kept of it."""
    before = await plane.count()
    headers = {} if signature is None else {"Stripe-Signature": signature}
    raw = b'{"id":"evt_1","type":"payment_intent.succeeded","data":{"object":{}}}'
    answer = await plane.nobody.ask("POST", "/v1/webhooks/stripe", raw=raw, headers=headers)
    assert (answer.status, answer.body["code"]) == (401, "unauthenticated")
    assert await plane.count() == before


STRIPE_CUSTOMER = {
    "customer_id": "shop",
    "collection": "stripe",
    "stripe_customer": "cus_shop",
    "stripe_payment_method": "pm_card_visa",
}
SHOP_TOP_UPS = TOP_UPS.replace("acme", "shop")


async def test_stripe_is_charged_at_once_and_once(plane: Plane, double: Double) -> None:
    """The customer's own way to pay, where none is named; the webhook tells nothing new."""
    await plane.ours.post("/v1/customers", STRIPE_CUSTOMER)
    paid = await plane.ours.post(SHOP_TOP_UPS, {"amount": "25.00"}, key="t-1")
    assert (paid.status, paid.body["payment"]["state"], paid.body["payment"]["method"]) == (
        201,
        "succeeded",
        "stripe",
    )
    assert (await plane.ours.post(SHOP_TOP_UPS, {"amount": "25.00"}, key="t-1")).raw == paid.raw
    await asyncio.gather(*double.postman._rounds)
    assert len(double.state.all_of(INTENTS)) == 1
    assert await plane.value("SELECT count(*) FROM webhook_event") > 0
    assert await plane.value("SELECT count(*) FROM credit_grant") == 1


async def test_a_charge_whose_answer_is_lost_is_settled_by_its_webhook(plane: Plane, double: Double) -> None:
    """Until the news comes the payment is processing, and so says every retry."""
    await plane.ours.post("/v1/customers", STRIPE_CUSTOMER)
    for kind in (FaultKind.LOSE_ANSWER, FaultKind.HOLD_WEBHOOK):
        double.faults.add(Switch(act="payment_intents.create", kind=kind))
    asked = await plane.ours.post(SHOP_TOP_UPS, {"amount": "25.00"}, key="t-1")
    assert (asked.status, asked.body["payment"]["state"], asked.body["grant_id"]) == (201, "processing", None)
    assert (await plane.ours.post(SHOP_TOP_UPS, {"amount": "25.00"}, key="t-1")).raw == asked.raw
    double.postman.release()
    await asyncio.gather(*double.postman._rounds)
    payment = (await plane.ours.get(f"/v1/payments/{asked.body['payment']['payment_id']}")).body
    assert payment["state"] == "succeeded"
    assert await _balances(plane) == {"cash": 25_000_000_000, "contract_liability": -25_000_000_000}
