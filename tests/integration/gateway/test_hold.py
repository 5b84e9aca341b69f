"""Holds over HTTP: placed, and ended in exactly one way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing_core.contract.keys import shard_of_customer, shard_of_hold
from billing_core.contract.usage_event import EntryKind
from billing_core.values.clock import system_now


@pytest.fixture(params=["lane", "aiohttp"])
def way(request: pytest.FixtureRequest) -> str:
    """Both servers answer alike."""
    return str(request.param)


async def place(call: Any, world: Any, **more: object) -> dict[str, Any]:
    body = {"key": world.key, "feature": "tokens", "quantity": 10, "mode": "hold", "ttl_ms": 60_000}
    status, answer, _ = await call("/v1/check", body | more)
    assert (status, answer["allowed"]) == (200, True)
    return answer


async def balance(call: Any, world: Any) -> tuple[int, int]:
    _, body, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    (wallet,) = body["wallets"]
    return wallet["balance_nanos"], wallet["held_nanos"]


async def test_a_hold_sets_aside_and_says_until_when(call: Any, world: Any) -> None:
    """Its id says where it lives and cannot be guessed."""
    await world.grant(5_000)
    answer = await place(call, world)
    assert (answer["cost_nanos"], answer["balance_nanos"]) == (1_000, 4_000)
    assert shard_of_hold(answer["hold"]["id"]) == shard_of_customer("t1", "acme")
    left = datetime.fromisoformat(answer["hold"]["expires_at"]).astimezone(UTC) - system_now()
    assert timedelta(seconds=50) < left <= timedelta(seconds=61)
    assert await balance(call, world) == (4_000, 1_000)
    assert await world.entries() == []


@pytest.mark.parametrize(
    ("used", "charged", "released", "uncollected"),
    [(4, 400, 600, 0), (10, 1_000, 0, 0), (15, 1_500, 0, 0), (60, 5_000, 0, 1_000), (0, 0, 1_000, 0)],
)
async def test_a_hold_settles_below_at_and_above(
    call: Any, world: Any, used: int, charged: int, released: int, uncollected: int
) -> None:
    """Above it charges what it can and says how much was not."""
    await world.grant(5_000)
    hold = (await place(call, world))["hold"]["id"]
    status, end, _ = await call(f"/v1/holds/{hold}/settle", {"feature": "tokens", "quantity": used})
    assert status == 200
    assert end == {
        "hold": hold,
        "outcome": "settled",
        "replayed": False,
        "currency": "USD",
        "charged_nanos": charged,
        "released_nanos": released,
        "uncollected_nanos": uncollected,
        "balance_nanos": 5_000 - charged,
    }
    assert await balance(call, world) == (5_000 - charged, 0)
    entries = [(entry.kind, entry.charges[0].quantity) for entry in await world.entries()]
    assert entries == ([(EntryKind.SETTLE, used)] if used else [])


async def test_what_is_not_named_settles_as_held(call: Any, world: Any) -> None:
    """An empty body settles the hold as it stands."""
    await world.grant(5_000)
    for raw in (b"", b"{}"):
        hold = (await place(call, world))["hold"]["id"]
        _, end, _ = await call(f"/v1/holds/{hold}/settle", raw=raw)
        assert (end["outcome"], end["charged_nanos"]) == ("settled", 1_000)


async def test_settling_again_gives_the_first_answer_back(call: Any, world: Any) -> None:
    """And with other quantities it is a conflict."""
    await world.grant(5_000)
    path = f"/v1/holds/{(await place(call, world))['hold']['id']}/settle"
    body = {"charges": [{"feature": "tokens", "quantity": 4}]}
    _, first, _ = await call(path, body)
    _, second, _ = await call(path, body)
    assert second == first | {"replayed": True}
    status, problem, _ = await call(path, {"feature": "tokens", "quantity": 5})
    assert (status, problem["code"]) == (409, "idempotency_conflict")
    assert await balance(call, world) == (4_600, 0)


async def test_a_released_hold_gives_everything_back_once(call: Any, world: Any) -> None:
    """It cannot be settled afterwards."""
    await world.grant(5_000)
    hold = (await place(call, world))["hold"]["id"]
    for replayed in (False, True):
        status, end, _ = await call(f"/v1/holds/{hold}/release")
        assert (status, end["outcome"], end["replayed"]) == (200, "released", replayed)
    status, problem, _ = await call(f"/v1/holds/{hold}/settle", {})
    assert (status, problem["code"], problem["detail"]) == (409, "conflict", "the hold is already released")
    assert await balance(call, world) == (5_000, 0)


async def test_many_who_end_one_hold_at_once_end_it_once(call: Any, world: Any) -> None:
    """Exactly one way wins."""
    await world.grant(5_000)
    hold = (await place(call, world))["hold"]["id"]
    ends = await asyncio.gather(
        *(call(f"/v1/holds/{hold}/settle", {"feature": "tokens", "quantity": n}) for n in range(20)),
        *(call(f"/v1/holds/{hold}/release") for _ in range(20)),
    )
    outcomes = {body["outcome"] for status, body, _ in ends if status == 200}
    assert len(outcomes) == 1
    assert sum(status == 200 and not body["replayed"] for status, body, _ in ends) == 1
    assert (await balance(call, world))[1] == 0


async def test_a_retried_hold_is_the_same_hold(call: Any, world: Any) -> None:
    """Set aside once; the first answer names it."""
    await world.grant(5_000)
    first = await place(call, world, idempotency_key="h1")
    second = await place(call, world, idempotency_key="h1")
    assert second == first | {"replayed": True}
    assert await balance(call, world) == (4_000, 1_000)


async def test_a_hold_that_is_refused_has_no_id(call: Any, world: Any, unchanged: Any) -> None:
    """Nothing is set aside."""
    async with unchanged():
        body = {"key": world.key, "feature": "tokens", "mode": "hold", "ttl_ms": 1_000}
        _, answer, _ = await call("/v1/check", body)
    assert (answer["reason"], "hold" in answer) == ("insufficient_balance", False)


@pytest.mark.parametrize("act", ["settle", "release"])
@pytest.mark.parametrize(
    "hold",
    ["hold_" + "0" * 32, "hold_fff" + "0" * 29, "hold_x", "nothing", "hold_" + "A" * 32, "%00", "hold_" + "é" * 32],
)
async def test_a_hold_that_nobody_placed_is_not_found(call: Any, unchanged: Any, act: str, hold: str) -> None:
    """Whatever is asked for in its place."""
    async with unchanged():
        status, problem, _ = await call(f"/v1/holds/{hold}/{act}")
    assert (status, problem["code"], problem["field"]) == (404, "not_found", "hold")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"feature": "tokens"}, 400, "quantity"),
        ({"quantity": 1}, 400, "quantity"),
        ({"feature": "tokens", "quantity": -1}, 400, "quantity"),
        ({"feature": "tokens", "quantity": 0.5}, 400, "quantity"),
        ({"feature": "tokens", "quantity": 2**53}, 400, "quantity"),
        ({"feature": "tokens", "quantity": True}, 400, "quantity"),
        ({"feature": "calls", "quantity": 1}, 422, "feature"),
        ({"charges": []}, 400, "charges"),
        ({"charges": [{"feature": "tokens"}] * 2}, 400, "charges"),
        ({"units": 1}, 400, "units"),
        ([], 400, "body"),
    ],
)
async def test_a_settlement_that_breaks_a_rule_leaves_the_hold_open(
    call: Any, world: Any, unchanged: Any, body: object, status: int, field: str
) -> None:
    """It can still be settled rightly."""
    await world.grant(5_000)
    hold = (await place(call, world))["hold"]["id"]
    async with unchanged():
        got, problem, _ = await call(f"/v1/holds/{hold}/settle", body)
    assert (got, problem["field"]) == (status, field)
    assert (await call(f"/v1/holds/{hold}/settle", {}))[0] == 200


async def test_a_release_takes_no_fields(call: Any, world: Any) -> None:
    """Or somebody believes that they meant something."""
    await world.grant(5_000)
    hold = (await place(call, world))["hold"]["id"]
    status, problem, _ = await call(f"/v1/holds/{hold}/release", {"quantity": 1})
    assert (status, problem["field"]) == (400, "quantity")
    assert (await call(f"/v1/holds/{hold}/release", {}))[0] == 200
