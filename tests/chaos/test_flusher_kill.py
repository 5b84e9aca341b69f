"""Flushers are killed with SIGKILL in the middle of their work, several times, and nothing is lost or twice.

Two real flusher processes share the lanes while decisions, holds and settles go on; each in turn is killed as soon
as something was written, and replaced. Afterwards every decision that was allowed is one event, and every grant
adds up to the nano.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from billing_core.adapters.redis_client import connect
from billing_core.contract.configuration import environment_of
from billing_core.flows.reconcile import reconcile
from billing_core.settings import BillingSettings
from billing_core.store.database import Database
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works, eventually

ROOT = Path(__file__).resolve().parents[2]
KILLS = 4


@pytest.fixture
async def works(postgres_url: str, redis_url: str) -> AsyncIterator[Works]:
    """A founded tenant, and every shard built."""
    db = await Database.connect(postgres_url, size=4)
    raw = await asyncpg.connect(postgres_url)
    async with connect(redis_url) as valkey:
        made = Works(db, valkey, raw)
        await made.found()
        await made.build()
        yield made
    await raw.close()
    await db.close()


async def start_flusher(postgres_url: str, redis_url: str) -> asyncio.subprocess.Process:
    settings = BillingSettings(
        postgres_url=postgres_url, redis_url=redis_url, roles="flush", lease_ms=500, flush_interval_ms=2
    )
    environ = os.environ | environment_of("billing", settings) | {"PYTHONPATH": str(ROOT)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "billing_core.worker"), env=environ, stderr=asyncio.subprocess.DEVNULL
    )


async def test_flushers_that_are_killed_lose_nothing_and_double_nothing(
    works: Works, postgres_url: str, redis_url: str
) -> None:
    """Promise 2, attacked."""
    chance, names, stop = random.Random(11), [f"c{number}" for number in range(40)], asyncio.Event()
    for name in names:
        await works.customer(name, nanos=[10**7, 10**9])
    decided = tokens = 0

    async def decide() -> None:
        nonlocal decided, tokens
        while not stop.is_set():
            name, quantity = chance.choice(names), chance.randrange(1, 40)
            if chance.random() < 0.8:
                await works.consume(name, quantity)
            else:
                await works.settle(name, await works.hold(name, 20), quantity)
            decided, tokens = decided + 1, tokens + quantity

    flushers = [await start_flusher(postgres_url, redis_url) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(decide())
        for _ in range(KILLS):
            before = await works.count("movement")

            async def more_is_written(before: int = before) -> bool:
                return await works.count("movement") > before + 20

            await eventually(more_is_written, timeout_s=30)
            flushers.append(await start_flusher(postgres_url, redis_url))
            victim = flushers.pop(0)
            victim.kill()
            await victim.wait()
            report = await reconcile(works.db, works.stream)
            assert report.findings == ()
        stop.set()
    await eventually(works.drained, timeout_s=30)
    for flusher in flushers:
        flusher.terminate()
        assert await flusher.wait() in {0, -signal.SIGTERM}  # the second, where it was still starting
    await works.flush()
    report = await reconcile(works.db, works.stream)
    assert (report.findings, report.difference_nanos, report.unflushed_nanos) == ((), 0, 0)
    assert report.spent_nanos == tokens * NANOS_PER_TOKEN
    assert await works.count("usage_event") == decided
    assert await works.count("parked_entry") == 0
