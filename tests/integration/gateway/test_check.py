"""POST /v1/check over real HTTP: decisions, replays and holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing_core.contract.keys import KeyRecord, Role
from billing_core.contract.snapshot import Status
from billing_core.contract.usage_event import EntryKind


@pytest.fixture(params=["straight", "lane", "aiohttp"])
def way(request: pytest.FixtureRequest) -> str:
    """All ways lead to the same answers."""
    return str(request.param)


async def test_an_allowed_check_debits_and_records_in_one_step(call: Any, world: Any) -> None:
    """Ten tokens at 100 nanos."""
    await world.grant(5_000)
    status, answer, _ = await call("/v1/check", {"key": world.key, "feature": "tokens", "quantity": 10})
    assert status == 200
    assert answer["decision_id"].startswith("dec_")
    charge = {
        "feature": "tokens",
        "limit_units": None,
        "remaining_units": None,
        "reset_at": None,
        "currency": "USD",
        "cost_nanos": 1_000,
    }
    assert answer == {
        "allowed": True,
        "reason": "allowed",
        "decision_id": answer["decision_id"],
        "replayed": False,
        "customer": "acme",
        "currency": "USD",
        "cost_nanos": 1_000,
        "balance_nanos": 4_000,
        "charges": [charge],
    }
    (entry,) = await world.entries()
    assert (entry.kind, entry.body.event_id, entry.body.key_hint) == (EntryKind.DEBIT, answer["decision_id"], "er")
    assert (entry.charges[0].quantity, entry.charges[0].charged_nanos) == (10, 1_000)


async def test_a_quantity_that_is_not_told_is_one(call: Any, world: Any) -> None:
    """A call is one call."""
    _, answer, _ = await call("/v1/check", {"key": world.key, "feature": "calls"})
    assert answer["charges"][0]["remaining_units"] == 9
    assert answer["charges"][0]["reset_at"].endswith("T00:00:00Z")


async def test_several_charges_are_taken_all_or_none(call: Any, world: Any) -> None:
    """The limit has room and the wallet has not: neither is touched."""
    await world.grant(500)
    charges = [{"feature": "calls"}, {"feature": "tokens", "quantity": 6}]
    _, answer, _ = await call("/v1/check", {"key": world.key, "charges": charges})
    assert (answer["allowed"], answer["reason"]) == (False, "insufficient_balance")
    assert (answer["refused_feature"], answer["cost_nanos"]) == ("tokens", 600)
    assert await world.entries() == []
    charges[1]["quantity"] = 5
    _, answer, _ = await call("/v1/check", {"key": world.key, "charges": charges})
    assert answer["allowed"]
    assert [charge["cost_nanos"] for charge in answer["charges"]] == [0, 500]
    assert answer["charges"][0]["remaining_units"] == 9


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"key": "tgk_nobody", "feature": "calls"}, "unknown_key"),
        ({"key": "ünknown", "feature": "calls"}, "unknown_key"),
        ({"key": "tgo_operator", "feature": "calls"}, "unknown_key"),
        ({"key": "tgk_caller", "feature": "nothing"}, "not_entitled"),
        ({"key": "tgk_caller", "feature": "closed"}, "not_entitled"),
        ({"key": "tgk_caller", "feature": "calls", "quantity": 11}, "limit_reached"),
        ({"key": "tgk_caller", "feature": "tokens"}, "insufficient_balance"),
    ],
)
async def test_a_refusal_is_a_decision(call: Any, unchanged: Any, body: dict[str, object], reason: str) -> None:
    """200, allowed false, one reason, nothing written."""
    async with unchanged():
        status, answer, _ = await call("/v1/check", body)
    assert (status, answer["allowed"], answer["reason"]) == (200, False, reason)


async def test_a_limit_says_when_to_come_back(call: Any, world: Any) -> None:
    """At the window's reset."""
    _, answer, _ = await call("/v1/check", {"key": world.key, "feature": "calls", "quantity": 11})
    assert 0 < answer["retry_after_ms"] <= 86_400_000


async def test_a_suspended_customer_is_refused(call: Any, world: Any) -> None:
    """Whatever the feature."""
    await world.project(status=Status.SUSPENDED)
    _, answer, _ = await call("/v1/check", {"key": world.key, "feature": "calls"})
    assert answer["reason"] == "suspended"


async def test_a_static_feature_tells_its_value(call: Any, world: Any) -> None:
    """And has no limit."""
    _, answer, _ = await call("/v1/check", {"key": world.key, "feature": "tier"})
    assert answer["charges"][0]["value"] == "gold"


async def test_a_peek_tells_what_would_happen_and_writes_nothing(call: Any, world: Any, unchanged: Any) -> None:
    """Cost included."""
    await world.grant(5_000)
    async with unchanged():
        body = {"key": world.key, "feature": "tokens", "quantity": 3, "mode": "peek"}
        _, answer, _ = await call("/v1/check", body)
    assert (answer["allowed"], answer["cost_nanos"]) == (True, 300)


async def test_a_retry_gets_the_first_answer_back(call: Any, world: Any) -> None:
    """The same decision, the same numbers, charged once."""
    await world.grant(5_000)
    body = {"key": world.key, "feature": "tokens", "quantity": 10, "idempotency_key": "r1"}
    _, first, _ = await call("/v1/check", body)
    await call("/v1/check", {"key": world.key, "feature": "tokens", "quantity": 7})
    _, second, _ = await call("/v1/check", body)
    assert second == first | {"replayed": True}
    assert len(await world.entries()) == 2


async def test_a_retry_of_what_was_refused_is_refused(call: Any, world: Any) -> None:
    """Although money has come; a new attempt has a new key."""
    body = {"key": world.key, "feature": "tokens", "quantity": 10, "idempotency_key": "r1"}
    _, first, _ = await call("/v1/check", body)
    assert (first["reason"], first["replayed"]) == ("insufficient_balance", False)
    await world.grant(5_000)
    assert (await call("/v1/check", body))[1] == first | {"replayed": True}
    assert await world.entries() == []
    assert (await call("/v1/check", body | {"idempotency_key": "r2"}))[1]["allowed"]


async def test_a_hundred_retries_at_once_charge_once(call: Any, world: Any) -> None:
    """Whichever comes first."""
    await world.grant(5_000)
    body = {"key": world.key, "feature": "tokens", "quantity": 10, "idempotency_key": "r1"}
    answers = await asyncio.gather(*(call("/v1/check", body) for _ in range(100)))
    assert len({answer["decision_id"] for _, answer, _ in answers}) == 1
    assert sum(not answer["replayed"] for _, answer, _ in answers) == 1
    assert len(await world.entries()) == 1


async def test_another_body_under_a_known_key_is_a_conflict(call: Any, world: Any, unchanged: Any) -> None:
    """Not a decision."""
    body = {"key": world.key, "feature": "calls", "idempotency_key": "r1"}
    await call("/v1/check", body)
    async with unchanged():
        status, problem, _ = await call("/v1/check", body | {"quantity": 2})
    assert (status, problem["code"], problem["field"]) == (409, "idempotency_conflict", "idempotency_key")


async def test_a_hundred_at_once_on_a_balance_for_ten_are_ten(call: Any, world: Any) -> None:
    """floor(b / a), exactly."""
    await world.grant(1_099)
    answers = await asyncio.gather(
        *(call("/v1/check", {"key": world.key, "feature": "tokens"}) for _ in range(100))
    )
    assert sum(answer["allowed"] for _, answer, _ in answers) == 10
    assert len(await world.entries()) == 10


async def test_an_operator_checks_by_customer(call: Any, world: Any) -> None:
    """With its token."""
    headers = {"Authorization": f"bearer {world.token}"}
    status, answer, _ = await call("/v1/check", {"customer": "acme", "feature": "calls"}, headers=headers)
    assert (status, answer["allowed"], answer["customer"]) == (200, True, "acme")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "unauthenticated"),
        ({"Authorization": "Basic x"}, 401, "unauthenticated"),
        ({"Authorization": "Bearer tgo_nobody"}, 401, "unauthenticated"),
        ({"Authorization": "Bearer t\udcffx"}, 401, "unauthenticated"),
        ({"Authorization": "Bearer tgk_caller"}, 403, "forbidden"),
    ],
)
async def test_a_check_by_customer_needs_an_operator(
    call: Any, unchanged: Any, headers: dict[str, str], status: int, code: str
) -> None:
    """A customer's key may not act for others, nor for itself by name."""
    async with unchanged():
        got, problem, told = await call("/v1/check", {"customer": "acme", "feature": "calls"}, headers=headers)
    assert (got, problem["code"]) == (status, code)
    assert ("WWW-Authenticate" in told) == (status == 401)


async def test_a_customer_that_is_not_there_is_told_to_an_operator(call: Any, world: Any) -> None:
    """What a tenant does not own does not exist."""
    await world.credential("tgo_two", KeyRecord(tenant_id="t2", role=Role.OPERATOR))
    for token, customer in ((world.token, "nobody"), ("tgo_two", "acme")):
        headers = {"Authorization": f"Bearer {token}"}
        status, problem, _ = await call("/v1/check", {"customer": customer, "feature": "calls"}, headers=headers)
        assert (status, problem["code"], problem["field"]) == (404, "not_found", "customer")


async def test_a_key_whose_customer_is_not_projected_yet_is_asked_to_come_back(call: Any, world: Any) -> None:
    """It is nobody's mistake."""
    await world.credential("tgk_new", KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="new"))
    status, problem, headers = await call("/v1/check", {"key": "tgk_new", "feature": "calls"})
    assert (status, problem["retry_is_safe"], headers["Retry-After"]) == (503, True, "1")


async def test_a_shard_that_is_not_built_is_unavailable(call: Any, world: Any) -> None:
    """503, never 429."""
    async for name in world.valkey.scan_iter("*:epoch"):
        await world.valkey.delete(name)
    status, problem, _ = await call("/v1/check", {"key": world.key, "feature": "calls"})
    assert (status, problem["code"]) == (503, "unavailable")
    status, problem, _ = await call.get("/readyz")
    assert (status, problem["detail"]) == (503, "0 of 1024 shards are built")


async def test_charges_of_two_currencies_are_paid_from_two_wallets(call: Any, world: Any) -> None:
    """All or nothing; each charge says its currency, and the answer speaks of the first."""
    await world.grant(5_000)
    await world.project(features=world.features | {"euro": world.priced_in("EUR")})
    body = {"key": world.key, "charges": [{"feature": "tokens"}, {"feature": "euro"}]}
    _, answer, _ = await call("/v1/check", body)
    assert (answer["reason"], answer["refused_feature"]) == ("insufficient_balance", "euro")
    await world.grant(200, grant_id="g2", currency="EUR")
    _, answer, _ = await call("/v1/check", body)
    assert (answer["allowed"], answer["currency"], answer["cost_nanos"]) == (True, "USD", 100)
    assert [(one["currency"], one["cost_nanos"]) for one in answer["charges"]] == [("USD", 100), ("EUR", 100)]
