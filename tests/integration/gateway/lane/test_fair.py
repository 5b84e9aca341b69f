"""A customer who asks without end stands in its own way only: told by the order in which Redis has served."""

from __future__ import annotations

import asyncio
import gc
import re
from typing import Any

from billing_core.errors import Unavailable
from gateway.settings import GatewaySettings

CONNECTIONS, EACH = 16, 63
NOISY_COUNT = CONNECTIONS * EACH
PLACES = GatewaySettings().customer_in_flight


async def test_a_quiet_caller_passes_a_thousand_requests_that_wait(
    wire: Any, check: Any, neighbours: Any, gateway: Any
) -> None:
    """Only what was at Redis already goes before it: as many as one customer may have there."""
    noisy = [await wire() for _ in range(CONNECTIONS)]
    quiet = await wire()
    async with neighbours.held_up() as reached:
        for one in noisy:
            await one.send(check(key=neighbours.noisy) * EACH)
        await reached(PLACES, NOISY_COUNT - PLACES)
        await quiet.send(check(key=neighbours.quiet))
        await reached(PLACES + 1, NOISY_COUNT - PLACES)
    assert (await quiet.reply()).json()["allowed"]
    for one in noisy:
        assert all(reply.json()["allowed"] for reply in await one.replies(EACH))
    order = await neighbours.order()
    assert order.count(neighbours.noisy) == NOISY_COUNT
    assert order.index(neighbours.quiet) <= PLACES
    assert gateway[0].links["decision"].waiting_count == 0


async def test_one_connection_that_is_full_of_requests_is_no_other_way(
    wire: Any, check: Any, neighbours: Any
) -> None:
    """Nor is a caller helped by asking for the same customer on many connections, one request on each."""
    noisy = [await wire() for _ in range(40)]
    quiet = await wire()
    async with neighbours.held_up() as reached:
        await noisy[0].send(check(key=neighbours.noisy) * 60)
        for one in noisy[1:]:
            await one.send(check(key=neighbours.noisy))
        await reached(PLACES, 60 + 39 - PLACES)
        await quiet.send(check(key=neighbours.quiet) * 3)
        await reached(PLACES + 3, 60 + 39 - PLACES)
    assert all(reply.json()["allowed"] for reply in await quiet.replies(3))
    await noisy[0].replies(60)
    await asyncio.gather(*(one.reply() for one in noisy[1:]))
    order = await neighbours.order()
    assert [at for at, who in enumerate(order) if who == neighbours.quiet] == [PLACES, PLACES + 1, PLACES + 2]


async def test_what_waited_too_long_is_refused_and_charged_nothing(
    wire: Any, check: Any, neighbours: Any, call: Any
) -> None:
    """503 with Retry-After by its deadline, and a scrape counts it; what came before and after is decided."""
    hasty, patient = await wire(), await wire()
    async with neighbours.held_up() as reached:
        await patient.send(check(key=neighbours.noisy) * PLACES)
        await reached(PLACES, 0)
        await hasty.send(check(key=neighbours.noisy, deadline_ms=300) * 2)
        late = await hasty.replies(2)
        await patient.send(check(key=neighbours.noisy))
        await reached(PLACES, 1)
    assert [(reply.status, reply.fields["retry-after"]) for reply in late] == [(503, "1")] * 2
    assert "turn" in late[0].json()["detail"]
    assert all(reply.json()["allowed"] for reply in await patient.replies(PLACES + 1))
    assert await neighbours.order() == [neighbours.noisy] * (PLACES + 1)
    gc.collect()
    kept = [one for one in gc.get_objects() if type(one) is Unavailable and one.detail == late[0].json()["detail"]]
    assert not kept  # what was told is forgotten
    _, page, _ = await call.get("/metrics")
    assert re.search(rb'^tallygate_shed_total{.*reason="late".*} 2\.0$', page, re.MULTILINE)


async def test_a_batch_passes_the_second_batch_of_another_customer(call: Any, neighbours: Any) -> None:
    """In bulk a customer may have as many places as a batch has checks; what is more waits its turn there too."""
    batches = [{"checks": [{"key": neighbours.noisy, "feature": "export"}] * 1_000}] * 2
    small = {"checks": [{"key": neighbours.quiet, "feature": "export"}] * 3}
    async with neighbours.held_up("bulk") as reached, asyncio.TaskGroup() as group:
        for batch in batches:
            group.create_task(call("/v1/check/batch", batch))
        await reached(1_000, 1_000)
        quiet = group.create_task(call("/v1/check/batch", small))
        await reached(1_003, 1_000)
        await neighbours.go_on()
    assert [answer["allowed"] for answer in quiet.result()[1]["answers"]] == [True] * 3
    order = await neighbours.order()
    assert [at for at, who in enumerate(order) if who == neighbours.quiet] == [1_000, 1_001, 1_002]
    assert len(order) == 2_003
