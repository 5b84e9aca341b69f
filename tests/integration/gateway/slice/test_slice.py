"""What a worker decides by itself was set aside before, and is charged once."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from billing_core.contract.keys import SLICES_PREFIX, hold_key, shard_of_hold
from billing_core.contract.snapshot import Status
from tests.integration.gateway.conftest import FEATURES
from tests.integration.gateway.slice.conftest import NANOS, UNITS, Shop, ask, open_slices, until_refused

PUSH = f"{SLICES_PREFIX}t1:acme"


async def test_a_hot_key_is_decided_without_redis_and_charged_as_one_event(shop: Shop, sliced: Any) -> None:
    """The answers name the usage event that will tell of them; cost, balance and limits are not known."""
    await shop.sell(1_000 * NANOS)
    worker, call, count = await sliced()
    answer = await ask(call)
    assert (answer["allowed"], answer["sliced"], answer["reason"]) == (True, True, "allowed")
    assert (answer["currency"], answer["balance_nanos"], answer["cost_nanos"]) == (None, None, 0)
    (charge,) = answer["charges"]
    assert (charge["limit_units"], charge["remaining_units"]) == (None, None)
    assert (await shop.wallet())["h:g1"] >= UNITS * NANOS
    assert (
        await ask(call) == answer == await ask(call, path=None)
    )  # the way that is known by heart, and the long one
    await worker.local.stop()
    worker.local = None
    await shop.is_settled(count + 3)
    entries = {entry.body.event_id: entry for entry in await shop.world.entries()}
    (told,) = entries[answer["decision_id"]].charges
    assert (entries[answer["decision_id"]].body.reason, told.quantity >= 2) == ("slice", True)
    assert entries[answer["decision_id"]].body.key_hint == "er"


async def test_a_proxy_is_told_the_plan_out_of_a_slice(shop: Shop, sliced: Any) -> None:
    """As Redis told it when the slice was taken."""
    told = msgspec.structs.replace(FEATURES["tokens"], slice_units=UNITS, plan="pro")
    await shop.sell(1_000 * NANOS, tokens=told)
    worker, call, _ = await sliced()
    decided = worker.local.tally.decided
    headers = {"Authorization": f"Bearer {shop.world.key}"}
    _, _, told = await call("/v1/authorize/forward?feature=tokens&quantity=1", method="GET", headers=headers)
    assert (told["X-Tallygate-Plan"], worker.local.tally.decided) == ("pro", decided + 1)


async def test_the_next_slice_is_there_when_one_is_used_up(shop: Shop, sliced: Any) -> None:
    """Each becomes one event, and all that was used stands in them."""
    await shop.sell(1_000 * NANOS)
    worker, call, count = await sliced()
    for _ in range(10 * UNITS):
        count += (await ask(call))["allowed"]
    _, page, _ = await call.get("/metrics")
    assert "tallygate_sliced_units" in page.decode()
    tally = worker.local.tally
    assert tally.taken >= 5
    await worker.local.stop()
    worker.local = None
    await shop.is_settled(count)
    told = [entry for entry in await shop.world.entries() if entry.body.reason == "slice"]
    assert sum(entry.charges[0].quantity for entry in told) == tally.settled_units == tally.decided


@pytest.mark.parametrize(
    "more",
    [
        {"idempotency_key": "k"},
        {"mode": "peek"},
        {"mode": "hold", "ttl_ms": 60_000},
        {"mode": "record"},
        {"shadow": True},
        {"feature": "calls"},
        {"quantity": 0},
        {"quantity": UNITS + 1},
        {"feature": None, "charges": [{"feature": "tokens"}, {"feature": "calls"}]},
    ],
)
async def test_what_has_to_be_told_apart_is_decided_by_redis(shop: Shop, sliced: Any, more: dict[str, Any]) -> None:
    """The slice is there, and is not used for it."""
    await shop.sell(1_000 * NANOS)
    worker, call, _ = await sliced()
    left = worker.local.left_units()
    answer = await ask(call, **more)
    assert (answer["allowed"], answer.get("sliced")) == (True, None)
    assert worker.local.left_units() >= left


async def test_a_retry_finds_its_answer_although_slices_are_there(shop: Shop, sliced: Any) -> None:
    """The first and the second are one, at whichever gateway."""
    await shop.sell(1_000 * NANOS)
    _, call, _ = await sliced()
    _, other, _ = await sliced()
    first, again = await ask(call, idempotency_key="k"), await ask(other, idempotency_key="k")
    assert (again["decision_id"], again["replayed"]) == (first["decision_id"], True)


async def test_a_feature_that_is_not_sliced_or_not_any_more_is_decided_by_redis(
    shop: Shop, sliced: Any, eventually: Any
) -> None:
    """Each slice is taken only where the snapshot still says so; nobody was told of the new one."""
    await shop.sell(1_000 * NANOS, calls=10_000)
    worker, call, count = await sliced()
    await shop.world.project(features={**FEATURES, "tokens": FEATURES["tokens"]})
    async with asyncio.timeout(60):
        while worker.local.left_units():
            count += (await ask(call))["allowed"]
    for _ in range(UNITS):
        answer = await ask(call)
        count += answer["allowed"]
        assert answer.get("sliced") is None
    await eventually(lambda: not worker.local._tasks)
    await shop.is_settled(count)


@pytest.mark.parametrize("status", [Status.SUSPENDED, Status.ACTIVE])
async def test_a_new_snapshot_reaches_slices_at_once(
    shop: Shop, sliced: Any, eventually: Any, status: Status
) -> None:
    """Whoever is suspended, or has another plan, is refused once the push is heard; what was used is charged."""
    await shop.sell(1_000 * NANOS)
    worker, call, count = await sliced()
    closed = msgspec.structs.replace(FEATURES["tokens"], enabled=status is Status.SUSPENDED, slice_units=UNITS)
    await shop.sell(0, status=status, tokens=closed)
    await shop.world.forget(PUSH)
    await eventually(lambda: not worker.local.left_units())
    answer = await ask(call)
    expected = "suspended" if status is Status.SUSPENDED else "not_entitled"
    assert (answer["allowed"], answer["reason"]) == (False, expected)
    await eventually(lambda: not worker.local._tasks)
    await shop.is_settled(count)


async def test_a_slice_is_used_for_its_moment_and_no_longer(shop: Shop, sliced: Any, eventually: Any) -> None:
    """Though units are left, and though nobody was told of anything."""
    await shop.sell(1_000 * NANOS)
    worker, call, count = await sliced()
    local, later_s = worker.local, shop.settings.slice_ms / 1_000
    now_s = local._now_s
    assert local.left_units() > 0
    local._now_s = lambda: now_s() + later_s
    answer = await ask(call)
    assert (answer["allowed"], answer.get("sliced")) == (True, None)
    await eventually(lambda: not local._tasks)
    local._now_s = now_s
    await worker.local.stop()
    worker.local = None
    await shop.is_settled(count + 1)


async def test_a_revoked_key_is_refused_with_a_slice_of_its_own(shop: Shop, sliced: Any, eventually: Any) -> None:
    """Who somebody is, is looked at for each order."""
    await shop.sell(1_000 * NANOS)
    worker, call, _ = await sliced()
    await shop.world.valkey.delete(*[key async for key in shop.world.valkey.scan_iter("tg:key:*")])
    heard = worker.listener.heard
    await shop.world.forget("*")
    await eventually(lambda: worker.listener.heard > heard)
    assert (await ask(call))["reason"] == "unknown_key"


async def test_nothing_is_taken_while_pushes_do_not_arrive(shop: Shop, sliced: Any) -> None:
    """A slice would not hear that it is to end."""
    await shop.sell(1_000 * NANOS)
    worker, call, _ = await sliced()
    worker.local._is_told = lambda: False
    taken = worker.local.tally.taken
    for _ in range(4 * UNITS):
        await ask(call)
    assert worker.local.tally.taken == taken
    assert (await ask(call)).get("sliced") is None


async def test_a_slice_whose_hold_is_gone_is_charged_all_the_same(shop: Shop, sliced: Any) -> None:
    """Redis has lost it: what was used is recorded, once, under the id that was answered."""
    await shop.sell(1_000 * NANOS)
    worker, call, count = await sliced()
    answer = await ask(call)
    for hold_id in await open_slices(shop):
        await shop.world.valkey.delete(hold_key(hold_id, shard_of_hold(hold_id) or 0))
    await worker.local.stop()
    worker.local = None
    assert await shop.used() == count + 1
    kinds = {entry.body.event_id: entry.kind.value for entry in await shop.world.entries()}
    assert kinds[answer["decision_id"]] == "debit"


async def test_every_unit_of_a_limit_is_used_and_none_beyond_it(shop: Shop, sliced: Any) -> None:
    """One worker, slices that do not fit any more at the end, callers at once."""
    await shop.sell(0, calls=5 * UNITS + 3)
    worker, call, count = await sliced("calls")
    counts = await asyncio.gather(*(until_refused(call, feature="calls") for _ in range(8)))
    assert count + sum(counts) == 5 * UNITS + 3
    assert (await ask(call, feature="calls"))["limit"] == "calls@day"
    assert worker.local.tally.decided > 0
