"""Slices of processes that stop or die: what was used is charged once, and the rest is free again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import World
from tests.integration.gateway.degraded.conftest import Echo
from tests.integration.gateway.slice.conftest import NANOS, Shop, open_slices, sold


async def test_a_process_that_stops_gives_back_what_it_did_not_use(
    shop: Shop, process: Any, port_of: Callable[[], GatewaySettings]
) -> None:
    """Before it ends: nothing is held, and no sheet is left."""
    await shop.sell(1_000 * NANOS)
    settings = port_of()
    child = process(settings)
    count = await sold(shop, settings)
    assert (await shop.wallet())["h:g1"] > 0
    child.process.send_signal(signal.SIGTERM)
    assert await child.ended() == (0, "")
    await shop.is_settled(count)
    assert shop.sheets() == []


async def test_what_a_killed_process_used_is_settled_by_the_next(
    shop: Shop, process: Any, port_of: Callable[[], GatewaySettings], open_gateway: Any, eventually: Any
) -> None:
    """To the unit, though nothing of it was in Redis; and the rest is free again."""
    await shop.sell(1_000 * NANOS)
    settings = port_of()
    child = process(settings)
    count = await sold(shop, settings)
    child.process.kill()
    await child.ended()
    (sheet,) = shop.sheets()
    assert (await shop.wallet())["h:g1"] > 0
    worker, _ = await open_gateway(port_of())
    await eventually(lambda: not sheet.exists())
    await shop.is_settled(count)
    assert await open_slices(shop) == []
    assert worker.local.tally.lost == 0


async def test_a_settlement_that_nobody_heard_of_is_made_once(
    shop: Shop, started: Any, world: World, sliced: Any, eventually: Any, redis_url: str, tmp_path: Path
) -> None:
    """Redis ran it, and its reply was late: it is asked for again, and finds the first."""
    await shop.sell(1_000 * NANOS)
    behind = redis_url.partition("unix://")[2].partition("?")[0]
    async with Echo(behind).open(tmp_path / "e.sock") as echo:
        path = f"unix://{tmp_path / 'e.sock'}"
        patient = {"link_stall_ms": 60_000, "link_hang_ms": 60_000}  # the connection is not given up meanwhile
        worker, _, count = await sliced(redis_url=path, bulk_deadline_ms=1_000, **patient)
        echo.on_time.clear()
        worker.local.hear("slices:t1:acme")
        await eventually(lambda: worker.local._slicer._owed)
        echo.on_time.set()
        await eventually(lambda: not worker.local._slicer._owed and not worker.local._tasks)
        await shop.is_settled(count)
        assert list(worker.local._slicer._sheet.cells()) == []
