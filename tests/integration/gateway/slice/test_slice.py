"""What a worker decides by itself was set aside before, and is charged once."""

from __future__ import annotations

from typing import Any

from tests.integration.gateway.slice.conftest import NANOS, UNITS, Shop, ask


async def test_a_hot_key_is_decided_without_redis_and_charged_as_one_event(
    shop: Shop, sliced: Any, eventually: Any
) -> None:
    """The answers name the usage event that will tell of them; cost, balance and limits are not known."""
    await shop.sell(1_000 * NANOS)
    worker, call, count = await sliced()
    answer = await ask(call)
    assert (answer["allowed"], answer["sliced"], answer["reason"]) == (True, True, "allowed")
    assert (answer["currency"], answer["balance_nanos"], answer["cost_nanos"]) == (None, None, 0)
    (charge,) = answer["charges"]
    assert (charge["limit_units"], charge["remaining_units"]) == (None, None)
    assert (await shop.wallet())["h:g1"] >= UNITS * NANOS
    await worker.local.stop()
    worker.local = None
    await shop.is_settled(count + 1)
    entries = {entry.body.event_id: entry for entry in await shop.world.entries()}
    (told,) = entries[answer["decision_id"]].charges
    assert entries[answer["decision_id"]].body.reason == "slice"
    assert told.quantity >= 2
