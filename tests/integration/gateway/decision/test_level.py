"""Budgets below the customer: who refused is named, and everybody on the way down is charged, or nobody."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_core.contract.keys import KeyRecord, Role
from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Rate,
    SpendCap,
    Window,
    WindowKind,
)

LIFE = Window(kind=WindowKind.LIFETIME)
CALLS = Entitlement(kind=FeatureKind.METERED, enabled=True)
PATH = ("team:ml", "user:bob", "key:k1")
OPERATOR = {"Authorization": "Bearer tgo_operator"}


def limited(units: int) -> Guard:
    return Guard(limits=(Limit(counter="calls@ever", units=units, ceiling=units, window=LIFE),))


@pytest.fixture
async def team(world: Any) -> Any:
    """Three calls for the team, one for bob in it, 250 nanos for the key."""
    cap = SpendCap(counter="$USD@ever", currency="USD", nanos=250, ceiling=250, window=LIFE)
    budgets = {
        "team:ml": Budget(guards={"calls": limited(3)}),
        "team:ml/user:bob": Budget(guards={"calls": limited(1)}),
        "team:ml/user:bob/key:k1": Budget(caps=(cap,)),
    }
    await world.project(budgets=budgets)
    record = KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="acme", hint="b1", path=PATH)
    await world.credential("tgk_bob", record)
    await world.grant(1_000)
    return world


async def test_a_key_stands_where_its_path_says_and_the_refusal_names_the_level(call: Any, team: Any) -> None:
    """The innermost that is exhausted, by its counter."""
    body = {"key": "tgk_bob", "feature": "calls"}
    _, answer, _ = await call("/v1/check", body)
    assert (answer["allowed"], answer["charges"][0]["limit_units"]) == (True, 1)
    _, answer, _ = await call("/v1/check", body)
    assert (answer["reason"], answer["level"], answer["limit"]) == (
        "limit_reached",
        "team:ml/user:bob",
        "calls@ever",
    )
    _, answer, _ = await call("/v1/check", {"key": "tgk_bob", "feature": "tokens", "quantity": 3})
    assert (answer["reason"], answer["level"], answer["limit"]) == (
        "limit_reached",
        "team:ml/user:bob/key:k1",
        "$USD@ever",
    )
    (entry,) = await team.entries()
    assert entry.body.path == "team:ml/user:bob/key:k1"


async def test_an_operator_states_the_path(call: Any, team: Any) -> None:
    """Another user of the team has what the team has left; without a path only the customer counts."""
    body = {"customer": "acme", "feature": "calls", "quantity": 3}
    status, answer, _ = await call("/v1/check", body | {"path": "team:ml/user:ann"}, headers=OPERATOR)
    assert (status, answer["allowed"]) == (200, True)
    _, answer, _ = await call("/v1/check", body | {"path": "team:ml", "quantity": 1}, headers=OPERATOR)
    assert (answer["reason"], answer["level"]) == ("limit_reached", "team:ml")
    _, answer, _ = await call("/v1/check", body, headers=OPERATOR)
    assert answer["allowed"]


async def test_a_proxy_is_told_the_level_too(call: Any, team: Any) -> None:
    """In the problem; and in the headers the tightest limit."""
    headers = {"X-Api-Key": "tgk_bob"}
    path = "/v1/authorize/forward?feature=calls&quantity=1"
    assert (await call(path, headers=headers))[0] == 200
    status, problem, told = await call(path, headers=headers)
    assert (status, problem["code"], problem["level"]) == (429, "limit_reached", "team:ml/user:bob")
    assert problem["violated-policies"] == ["calls"]
    assert (told["RateLimit-Policy"], told["RateLimit"]) == ('"calls";q=1', '"calls";r=0')


async def test_live_usage_tells_each_level_of_a_path(call: Any, team: Any, unchanged: Any) -> None:
    """With what it has used, in units or money."""
    charges = [{"feature": "calls"}, {"feature": "tokens"}]
    await call("/v1/check", {"key": "tgk_bob", "charges": charges})
    async with unchanged():
        path = "/v1/customers/acme/usage?path=team:ml/user:bob/key:k1"
        status, body, _ = await call.get(path, token="tgk_bob")
    assert (status, body["path"]) == (200, "team:ml/user:bob/key:k1")
    told = {
        (one["level"], one["kind"], one["counter"]): (one["used_units"], one["remaining_units"])
        for one in body["bounds"]
    }
    assert told == {
        ("customer", "limit", "calls@day"): (1, 9),
        ("team:ml", "limit", "calls@ever"): (1, 2),
        ("team:ml/user:bob", "limit", "calls@ever"): (1, 0),
        ("team:ml/user:bob/key:k1", "spend_cap", "$USD@ever"): (100, 150),
    }
    status, problem, _ = await call.get("/v1/customers/acme/usage?path=user:b/team:a", token="tgk_bob")
    assert (status, problem["field"]) == (400, "path")


async def test_a_rate_says_when_it_has_room_again(call: Any, world: Any) -> None:
    """Two at once, then one each ten seconds."""
    guard = Guard(rates=(Rate(counter="requests~0", units=1, per_ms=10_000, burst_units=2),))
    await world.project(features=world.features | {"calls": msgspec.structs.replace(CALLS, guard=guard)})
    body = {"key": world.key, "feature": "calls"}
    answers = [(await call("/v1/check", body))[1] for _ in range(3)]
    assert [one["reason"] for one in answers] == ["allowed", "allowed", "rate_limited"]
    assert (answers[2]["level"], answers[2]["limit"]) == ("customer", "requests~0")
    assert 0 < answers[2]["retry_after_ms"] <= 10_000
    headers = {"X-Api-Key": world.key}
    status, problem, told = await call("/v1/authorize/forward?feature=calls&quantity=1", headers=headers)
    assert (status, problem["code"], problem["violated-policies"]) == (429, "rate_limited", ["calls"])
    assert 0 < int(told["Retry-After"]) <= 10


async def test_concurrency_is_taken_by_holds_and_freed_by_their_ends(call: Any, world: Any) -> None:
    """A refusal says to come back soon."""
    await world.project(
        features=world.features | {"calls": msgspec.structs.replace(CALLS, guard=Guard(concurrent=1))}
    )
    hold = {"key": world.key, "feature": "calls", "mode": "hold", "ttl_ms": 60_000}
    _, first, _ = await call("/v1/check", hold)
    _, second, _ = await call("/v1/check", hold)
    assert (second["reason"], second["level"], second["retry_after_ms"]) == (
        "concurrency_limited",
        "customer",
        1_000,
    )
    headers = {"X-Api-Key": world.key}
    status, problem, told = await call("/v1/authorize/forward?feature=calls&quantity=1", headers=headers)
    assert (status, problem["code"], told["Retry-After"]) == (429, "concurrency_limited", "1")
    await call(f"/v1/holds/{first['hold']['id']}/settle")
    assert (await call("/v1/check", hold))[1]["allowed"]
