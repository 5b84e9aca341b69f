"""What Envoy asks takes turns as everything does: customers on one gRPC connection do not wait for each other."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.settings import GatewaySettings

NOISY_COUNT, PLACES = 200, GatewaySettings().customer_in_flight


async def test_calls_of_a_quiet_customer_pass_those_of_a_noisy_one(port: Any, neighbours: Any) -> None:
    """External authorization and the rate limit service, over the same connection."""
    extensions = {"feature": "export", "quantity": "1"}
    loud, still = ({"x-api-key": key} for key in (neighbours.noisy, neighbours.quiet))
    async with neighbours.held_up() as reached, asyncio.TaskGroup() as group:
        noisy = [group.create_task(port.check(extensions, loud)) for _ in range(NOISY_COUNT)]
        await reached(PLACES, NOISY_COUNT - PLACES)
        checked = group.create_task(port.check(extensions, still))
        limited = group.create_task(port.limit({"key": neighbours.quiet, "feature": "export"}))
        await reached(PLACES + 2, NOISY_COUNT - PLACES)
        await neighbours.go_on()
    assert [task.result().status.code for task in (*noisy, checked)] == [0] * (NOISY_COUNT + 1)
    assert limited.result().overall_code == 1
    order = await neighbours.order()
    assert [at for at, who in enumerate(order) if who == neighbours.quiet] == [PLACES, PLACES + 1]
    assert order.count(neighbours.noisy) == NOISY_COUNT
