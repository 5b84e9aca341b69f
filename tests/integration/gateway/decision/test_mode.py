"""Ways to decide: what was done already, what would have been refused, and levels that go up and down."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from billing_core.contract.snapshot import Entitlement, FeatureKind, Guard, Limit, Status, Window, WindowKind
from billing_core.contract.usage_event import EntryKind

LIFE = Window(kind=WindowKind.LIFETIME)
SEATS = Entitlement(
    kind=FeatureKind.GAUGE,
    enabled=True,
    guard=Guard(limits=(Limit(counter="seats@ever", units=5, ceiling=5, window=LIFE),)),
)


async def test_what_was_done_already_is_never_refused(call: Any, world: Any) -> None:
    """Over the limit, over the wallet, suspended: it is recorded, and what the wallet lacks is uncollected."""
    await world.grant(150)
    await world.project(status=Status.SUSPENDED)
    charges = [{"feature": "calls", "quantity": 11}, {"feature": "tokens", "quantity": 2}]
    body = {"key": world.key, "charges": charges, "mode": "record", "idempotency_key": "r1"}
    for replayed in (False, True):
        _, answer, _ = await call("/v1/check", body)
        assert (answer["allowed"], answer["reason"], answer["replayed"]) == (True, "allowed", replayed)
    (entry,) = await world.entries()
    assert [one.quantity for one in entry.charges] == [11, 2]
    assert (
        sum(one.charged_nanos for one in entry.charges) + sum(one.uncollected_nanos for one in entry.charges) == 200
    )


async def test_shadow_refuses_nothing_and_says_what_would_have_been(call: Any, world: Any) -> None:
    """Recorded as such; what would have been allowed is charged as always."""
    body = {"key": world.key, "feature": "calls", "shadow": True}
    _, answer, _ = await call("/v1/check", body | {"quantity": 10})
    assert (answer["allowed"], "would" in answer) == (True, False)
    _, answer, _ = await call("/v1/check", body)
    assert (answer["allowed"], answer["reason"], answer["would"]) == (True, "allowed", "limit_reached")
    debit, shadow = await world.entries()
    assert (debit.kind, shadow.kind) == (EntryKind.DEBIT, EntryKind.SHADOW)
    assert (shadow.refusal, shadow.level) == ("limit_reached", "customer")
    _, answer, _ = await call("/v1/check", body | {"shadow": False})
    assert answer["reason"] == "limit_reached"


async def test_a_shadow_hold_can_be_settled(call: Any, world: Any) -> None:
    """Whether it would have been refused or not."""
    body = {"key": world.key, "feature": "tokens", "mode": "hold", "ttl_ms": 60_000, "shadow": True}
    _, answer, _ = await call("/v1/check", body)
    assert (answer["allowed"], answer["would"]) == (True, "insufficient_balance")
    status, end, _ = await call(f"/v1/holds/{answer['hold']['id']}/settle")
    assert (status, end["outcome"], end["charged_nanos"]) == (200, "settled", 0)


async def test_a_route_of_a_proxy_may_be_in_shadow(call: Any, world: Any) -> None:
    """The operator writes it in front of the feature; a client's query comes behind, and changes nothing."""
    headers, path = {"X-Api-Key": world.key}, "/v1/authorize/forward?{}feature=calls&quantity=11{}"
    status, _, told = await call(path.format("shadow=1&", ""), headers=headers)
    assert (status, told["X-Tallygate-Would"]) == (200, "limit_reached")
    for front, behind in (("", "&shadow=1"), ("shadow=0&", ""), ("", "")):
        status, problem, _ = await call(path.format(front, behind), headers=headers)
        assert (status, problem["code"]) == (429, "limit_reached")


async def test_all_proxies_may_be_in_shadow_by_a_setting(world: Any, settings: Any, open_gateway: Any) -> None:
    """nginx is told too."""
    _, call = await open_gateway(msgspec.structs.replace(settings, authorize_shadow=True))
    path = "/v1/authorize/nginx?feature=calls&quantity=11"
    status, _, told = await call(path, headers={"X-Api-Key": world.key})
    assert (status, told["X-Tallygate-Would"]) == (200, "limit_reached")


@pytest.fixture
async def seats(world: Any) -> Any:
    await world.project(features=world.features | {"seats": SEATS})
    return world


async def test_a_gauge_goes_up_and_down_and_is_set(call: Any, seats: Any) -> None:
    """Never above its limit, never below zero; going down is always allowed."""
    body = {"key": seats.key, "feature": "seats"}
    told = []
    for more in ({"quantity": 3}, {"quantity": -1}, {"set": 5}, {"quantity": 1}, {"set": 0}):
        _, answer, _ = await call("/v1/check", body | more)
        told.append((answer["allowed"], answer["charges"][0]["remaining_units"]))
    assert told == [(True, 2), (True, 3), (True, 0), (False, 0), (True, 5)]
    assert [entry.charges[0].quantity for entry in await seats.entries()] == [3, 2, 5, 0]
    status, problem, _ = await call("/v1/check", body | {"quantity": -1})
    assert (status, problem["field"], "below zero" in problem["detail"]) == (422, "level", True)
    for wrong in ({"quantity": -1}, {"set": 1}):
        status, problem, _ = await call("/v1/check", {"key": seats.key, "feature": "calls"} | wrong)
        assert (status, problem["field"]) == (422, "quantity")


async def test_many_who_want_the_last_seats_get_just_those(call: Any, seats: Any) -> None:
    """Eight at once for five."""
    answers = await asyncio.gather(*(call("/v1/check", {"key": seats.key, "feature": "seats"}) for _ in range(8)))
    assert sum(answer["allowed"] for _, answer, _ in answers) == 5
