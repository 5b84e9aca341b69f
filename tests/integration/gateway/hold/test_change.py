"""Holds that go on: parts are charged as the work goes, and more is set aside, or not at all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing_core.values.clock import system_now


@pytest.fixture
async def hold(call: Any, world: Any) -> str:
    """Ten tokens of a hundred nanos set aside, for a minute, out of 5,000 nanos."""
    await world.grant(5_000)
    body = {"key": world.key, "feature": "tokens", "quantity": 10, "mode": "hold", "ttl_ms": 60_000}
    _, answer, _ = await call("/v1/check", body)
    return answer["hold"]["id"]


async def balance(call: Any, world: Any) -> tuple[int, int]:
    _, body, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    (wallet,) = body["wallets"]
    return wallet["balance_nanos"], wallet["held_nanos"]


async def charged_nanos(world: Any) -> list[int]:
    return sorted(sum(one.charged_nanos for one in entry.charges) for entry in await world.entries())


async def test_a_part_is_charged_now_and_the_rest_stays_held(call: Any, world: Any, hold: str) -> None:
    """Until the settlement, which adds to it."""
    part = {"feature": "tokens", "quantity": 4, "final": False}
    status, answer, _ = await call(f"/v1/holds/{hold}/settle", part)
    assert status == 200
    assert (answer["hold"], answer["outcome"], answer["replayed"]) == (hold, "charged", False)
    assert (answer["charged_nanos"], answer["held_nanos"], answer["balance_nanos"]) == (400, 600, 4_000)
    assert await balance(call, world) == (4_000, 600)
    _, end, _ = await call(f"/v1/holds/{hold}/settle", {"feature": "tokens", "quantity": 1})
    assert (end["outcome"], end["charged_nanos"], end["released_nanos"]) == ("settled", 100, 500)
    assert await balance(call, world) == (4_500, 0)
    assert await charged_nanos(world) == [100, 400]


async def test_a_part_that_is_sent_again_is_charged_once(call: Any, world: Any, hold: str) -> None:
    """By its key; with other quantities it is a conflict."""
    part = {"feature": "tokens", "quantity": 4, "final": False, "idempotency_key": "p1"}
    answers = await asyncio.gather(*(call(f"/v1/holds/{hold}/settle", part) for _ in range(5)))
    assert sorted(body["replayed"] for _, body, _ in answers) == [False, True, True, True, True]
    assert await balance(call, world) == (4_000, 600)
    status, problem, _ = await call(f"/v1/holds/{hold}/settle", part | {"quantity": 5})
    assert (status, problem["code"]) == (409, "idempotency_conflict")


async def test_a_part_may_keep_the_rest_for_longer(call: Any, hold: str) -> None:
    """From now on."""
    part = {"feature": "tokens", "quantity": 1, "final": False, "ttl_ms": 600_000}
    _, answer, _ = await call(f"/v1/holds/{hold}/settle", part)
    left = datetime.fromisoformat(answer["expires_at"]).astimezone(UTC) - system_now()
    assert timedelta(seconds=590) < left <= timedelta(seconds=601)


async def test_more_is_set_aside_or_nothing_is(call: Any, world: Any, hold: str) -> None:
    """Decided like a hold."""
    body = {"ttl_ms": 600_000, "feature": "tokens", "quantity": 30, "idempotency_key": "e1"}
    for replayed in (False, True):
        status, answer, _ = await call(f"/v1/holds/{hold}/extend", body)
        assert (status, answer["allowed"], answer["replayed"]) == (200, True, replayed)
        assert (answer["cost_nanos"], answer["balance_nanos"]) == (3_000, 1_000)
        assert answer["hold"]["id"] == hold
    assert await balance(call, world) == (1_000, 4_000)
    _, answer, _ = await call(f"/v1/holds/{hold}/extend", body | {"idempotency_key": "e2"})
    assert (answer["allowed"], answer["reason"]) == (False, "insufficient_balance")
    assert await balance(call, world) == (1_000, 4_000)


async def test_a_hold_is_extended_in_time_alone(call: Any, hold: str) -> None:
    """Nothing more is named."""
    status, answer, _ = await call(f"/v1/holds/{hold}/extend", {"ttl_ms": 600_000})
    left = datetime.fromisoformat(answer["hold"]["expires_at"]).astimezone(UTC) - system_now()
    assert (status, answer["allowed"]) == (200, True)
    assert timedelta(seconds=590) < left <= timedelta(seconds=601)


@pytest.mark.parametrize("end", ["settle", "release"])
async def test_what_has_ended_goes_on_no_more(call: Any, hold: str, end: str) -> None:
    """A conflict says how it ended; an id that nobody knows is not found."""
    await call(f"/v1/holds/{hold}/{end}")
    unknown = hold[:-3] + ("000" if hold[-3:] != "000" else "111")
    for path, body in (("settle", {"feature": "tokens", "quantity": 1, "final": False}), ("extend", {"ttl_ms": 5})):
        status, problem, _ = await call(f"/v1/holds/{hold}/{path}", body)
        assert (status, problem["detail"]) == (409, f"the hold is already {end}d")
        for other in (unknown, "hold_x"):
            status, problem, _ = await call(f"/v1/holds/{other}/{path}", body)
            assert (status, problem["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("extend", {}, "ttl_ms"),
        ("extend", {"ttl_ms": 0}, "ttl_ms"),
        ("extend", {"ttl_ms": 1, "feature": "tokens"}, "quantity"),
        ("extend", {"ttl_ms": 1, "feature": "tokens", "quantity": -1}, "quantity"),
        ("extend", {"ttl_ms": 1, "charges": [{"feature": "tokens", "set": 1}]}, "charges"),
        ("settle", {"final": False}, "feature"),
        ("settle", {"ttl_ms": 5}, "ttl_ms"),
        ("settle", {"idempotency_key": "k"}, "idempotency_key"),
        ("settle", {"charges": [{"feature": "tokens", "quantity": -1}]}, "charges"),
    ],
)
async def test_a_change_that_breaks_a_rule_is_refused(
    call: Any, hold: str, unchanged: Any, path: str, body: dict[str, object], field: str
) -> None:
    """Field and rule, and nothing else happens."""
    async with unchanged():
        status, problem, _ = await call(f"/v1/holds/{hold}/{path}", body)
    assert (status, problem["field"]) == (400, field)


async def test_work_settled_after_its_hold_was_given_back_is_charged_anew(
    call: Any, world: Any, eventually: Any
) -> None:
    """As far as the wallet goes; the rest is uncollected."""
    await world.grant(1_000)
    body = {"key": world.key, "feature": "tokens", "quantity": 4, "mode": "hold", "ttl_ms": 1}
    _, answer, _ = await call("/v1/check", body)
    hold = answer["hold"]["id"]
    until = datetime.fromisoformat(answer["hold"]["expires_at"])
    await eventually(lambda: system_now() > until + timedelta(milliseconds=5))
    await call("/v1/check", {"key": world.key, "feature": "tokens", "quantity": 8})
    status, end, _ = await call(f"/v1/holds/{hold}/settle")
    assert (status, end["outcome"]) == (200, "late")
    assert (end["charged_nanos"], end["uncollected_nanos"]) == (200, 200)
    assert await charged_nanos(world) == [200, 800]
