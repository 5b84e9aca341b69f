"""Nobody is refused for units that somebody else has only set aside."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from billing_core.contract.keys import new_slice_id
from tests.integration.gateway.slice.conftest import NANOS, UNITS, Shop, ask, open_slices, until_refused


@pytest.mark.parametrize("more", [{}, {"idempotency_key": "k"}, {"mode": "hold", "ttl_ms": 60_000}])
async def test_slices_give_way_to_whoever_runs_short_elsewhere(
    shop: Shop, sliced: Any, more: dict[str, Any]
) -> None:
    """All that is left is asked for at another gateway, which has never heard of the customer before."""
    await shop.sell(1_000 * NANOS)
    worker, call, count = await sliced()
    _, other, elsewhere = await sliced()
    count += elsewhere
    for _ in range(3):
        count += (await ask(call))["allowed"]
    assert worker.local.left_units() > 0
    rest = 1_000 - count
    answer = await ask(other, quantity=rest + 1)
    assert (answer["allowed"], answer["reason"]) == (False, "insufficient_balance")
    answer = await ask(other, quantity=rest, **more)
    assert (answer["allowed"], answer["balance_nanos"], answer["replayed"]) == (True, 0, False)
    assert (await ask(call))["reason"] == (await ask(other))["reason"] == "insufficient_balance"
    assert await open_slices(shop) == []
    assert worker.local.tally.yielded > 0


async def test_a_keyed_order_is_not_refused_for_good_where_slices_can_give_way(
    shop: Shop, sliced: Any, open_gateway: Any, eventually: Any, free_port: Any
) -> None:
    """Though this gateway learns just now that the customer has any; what is short indeed is kept as the answer."""
    await shop.sell(1_000 * NANOS)
    _, _, count = await sliced()
    other, call = await open_gateway(msgspec.structs.replace(shop.settings, port=free_port()))
    await eventually(lambda: other.listener.is_up and all(link.is_up for link in other.links.values()))
    rest = 1_000 - count
    assert (await ask(call, quantity=rest, idempotency_key="all"))["allowed"] is True
    first = await ask(call, idempotency_key="more")
    again = await ask(call, idempotency_key="more")
    assert (first["reason"], first["replayed"]) == ("insufficient_balance", False)
    assert (again["reason"], again["replayed"]) == ("insufficient_balance", True)


@pytest.mark.parametrize("feature", ["tokens", "calls"])
async def test_two_gateways_allow_exactly_what_there_is(
    shop: Shop, sliced: Any, eventually: Any, feature: str
) -> None:
    """Callers at both at once, until both refuse; what the streams tell is what was allowed."""
    total = 12 * UNITS + 7
    await shop.sell(total * NANOS, calls=total)
    one, here, count = await sliced(feature)
    two, there, elsewhere = await sliced(feature)
    callers = [until_refused(call, feature=feature) for call in (here, there) for _ in range(4)]
    allowed = count + elsewhere + sum(await asyncio.gather(*callers))
    for call in (here, there):  # a slice that was on its way in the very moment of a refusal has come back by now
        allowed += await until_refused(call, feature=feature)
    assert allowed == total
    assert one.local.tally.decided + two.local.tally.decided > 0
    await eventually(lambda: not one.local._tasks and not two.local._tasks)
    assert await shop.used(feature) == total


async def test_a_slice_that_nobody_ends_is_waited_for_once(shop: Shop, sliced: Any) -> None:
    """A dead worker's, whose units are set aside till somebody finds its sheet: later refusals wait no more."""
    await shop.sell(1_000 * NANOS)
    worker, call, _ = await sliced(slice_ms=500)
    local = worker.local
    name = new_slice_id(int(next(iter(local._stands.of_kind))[0][2:6]))
    (holds,) = [key async for key in shop.world.valkey.scan_iter("*:chd:*")]
    await shop.world.valkey.zadd(holds, {name: 2**52})
    assert (await ask(call, quantity=1_000))["reason"] == "insufficient_balance"
    assert local._truce._stuck.get(name, now_s=local._now_s()) is True
