"""Gateways are killed again and again while they decide out of slices, and nothing that they answered is lost.

Each one finds what the one before has used, and settles it. Of each caller at most the one answer that it did not
get may be charged: the unit was counted, and the process died before it said so.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

import aiohttp

from gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import Call, until
from tests.integration.gateway.slice.conftest import NANOS, PATIENCE_S, UNITS, Shop, ask, open_slices, sold

CALLERS = 4
DEATHS = 3


async def killed(child: Any, settings: GatewaySettings) -> int:
    """Kill it once all callers had some answers, and still ask; how many they had."""
    answered, busy = 0, asyncio.Semaphore(0)

    async def insist(call: Call) -> int:
        count = 0
        with contextlib.suppress(aiohttp.ClientError):
            while True:
                count += (await ask(call))["allowed"]
                if count == 2 * UNITS:
                    busy.release()
        return count

    async with aiohttp.ClientSession() as session:
        call = Call(f"http://127.0.0.1:{settings.port}", session)
        callers = [asyncio.create_task(insist(call)) for _ in range(CALLERS)]
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(CALLERS):
                await busy.acquire()
        child.process.kill()
        answered += sum(await asyncio.gather(*callers))
    await child.ended()
    return answered


async def test_every_answer_of_gateways_that_are_killed_is_charged_once(
    shop: Shop, process: Any, port_of: Callable[[], GatewaySettings]
) -> None:
    """Nothing is held in the end, and no sheet is left."""
    await shop.sell(100_000 * NANOS)
    answered = 0
    for _ in range(DEATHS):
        settings = port_of()
        child = process(settings)
        answered += await sold(shop, settings)
        answered += await killed(child, settings)
        assert shop.sheets() != []
    left = shop.sheets()
    settings = port_of()
    child = process(settings)
    answered += await sold(shop, settings)
    await until(lambda: not any(sheet.exists() for sheet in left))
    child.process.send_signal(signal.SIGTERM)
    assert await child.ended() == (0, "")
    used = await shop.used()
    assert answered <= used <= answered + DEATHS * CALLERS
    await shop.is_settled(used)
    assert (await open_slices(shop), shop.sheets()) == ([], [])
