"""Workers are replaced one by one under load, as processes, and no caller is turned away."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from gateway.edge.scrape.siblings import socket_path
from gateway.settings import GatewaySettings

REPLACED = 3


async def test_a_rolling_restart_turns_nobody_away_and_loses_nothing(
    world: Any,
    settings: GatewaySettings,
    process: Callable[..., Any],
    eventually: Any,
    wire: Any,
    check: Any,
    tmp_path: Path,
) -> None:
    """Who connects anew for each request, and who keeps a connection; what was allowed is in the stream, once each.

    A worker that has just begun may say for a moment that it has no Redis yet: that is an answer too.
    """
    await world.grant(10**9)
    url, ended, seen = f"http://127.0.0.1:{settings.port}/v1/check", asyncio.Event(), Counter[int]()
    body, run_dir = {"key": world.key, "feature": "tokens"}, str(tmp_path / "run")

    async def ask_on(session: aiohttp.ClientSession) -> None:
        while not ended.is_set():
            async with session.post(url, json=body) as response:
                await response.read()
                seen[response.status] += 1

    async def ask_anew() -> None:
        while not ended.is_set():
            line = await wire()
            await line.send(check("Connection: close", feature="tokens"))
            seen[(await line.reply()).status] += 1
            line.writer.close()

    async def begin(index: int) -> Any:
        """A worker that listens: its socket for siblings is opened after its port."""
        worker = process(msgspec.structs.replace(settings, run_dir=run_dir, worker_index=index))
        await eventually(socket_path(run_dir, settings.port, index=index).exists, within_s=60)
        return worker

    workers = [await begin(0), await begin(1)]
    async with aiohttp.ClientSession() as session:
        asking = [asyncio.create_task(ask_on(session)) for _ in range(4)]
        asking += [asyncio.create_task(ask_anew()) for _ in range(4)]
        for index in range(REPLACED):
            enough = seen[200] + 50
            await eventually(lambda enough=enough: seen[200] >= enough or any(one.done() for one in asking))
            workers.append(await begin(index + 2))
            old = workers.pop(0)
            old.process.send_signal(signal.SIGTERM)
            assert await old.ended() == (0, "")
        ended.set()
        await asyncio.gather(*asking)
    assert set(seen) <= {200, 503}
    assert len(await world.entries()) == seen[200]
