"""A founded tenant on real servers, and billing workers as processes of their own, some of which are struck.

`works` is that of the integration tests. `hands` starts workers with a short lease and ends them after the test,
whatever state they are in.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from billing_core.adapters.redis_client import connect
from billing_core.contract.configuration import environment_of
from billing_core.settings import BillingSettings
from billing_core.store.database import Database
from tests.integration.stream.conftest import Works, eventually

ROOT = Path(__file__).resolve().parents[3]
LONG_S = 60
LEASE_MS = 500


class Hands:
    """Workers, started and ended."""

    def __init__(self, postgres_url: str, redis_url: str) -> None:
        self._urls = {"postgres_url": postgres_url, "redis_url": redis_url}
        self._all: list[asyncio.subprocess.Process] = []

    async def start(self, roles: str, *, struck: tuple[str, str] | None = None) -> asyncio.subprocess.Process:
        """Start a worker; `struck` names a point and a signal of the saboteur."""
        settings = BillingSettings(roles=roles, lease_ms=LEASE_MS, flush_interval_ms=2, **self._urls)
        environ = os.environ | environment_of("billing", settings) | {"PYTHONPATH": str(ROOT)}
        module = ("tests.chaos.stream.saboteur", *struck) if struck else ("billing_core.worker",)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", *module), env=environ, stderr=asyncio.subprocess.DEVNULL
        )
        self._all.append(process)
        return process

    async def end(self) -> None:
        for process in self._all:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def is_stopped(process: asyncio.subprocess.Process) -> bool:
    """Whether the process stands still where it was struck."""
    assert process.returncode is None, "it has ended"
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


async def stands(process: asyncio.subprocess.Process) -> None:
    await in_time(lambda: is_stopped(process))


async def dies(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(LONG_S):
        assert await process.wait() == -signal.SIGKILL


async def in_time(holds: Callable[[], Awaitable[object]]) -> None:
    """Ask until it holds; a process of its own may be slow to start."""
    await eventually(holds, timeout_s=LONG_S)


async def found(postgres_url: str, redis_url: str) -> AsyncIterator[Works]:
    """A founded tenant, and every shard built."""
    db = await Database.connect(postgres_url, size=6)
    raw = await asyncpg.connect(postgres_url)
    async with connect(redis_url) as valkey:
        made = Works(db, valkey, raw)
        await made.found()
        await made.build()
        yield made
    await raw.close()
    await db.close()


@pytest.fixture
async def works(postgres_url: str, redis_url: str) -> AsyncIterator[Works]:
    """A founded tenant on the worker's Valkey."""
    async for made in found(postgres_url, redis_url):
        yield made


@pytest.fixture
async def hands(postgres_url: str, redis_url: str) -> AsyncIterator[Hands]:
    """Workers of the same servers."""
    made = Hands(postgres_url, redis_url)
    yield made
    await made.end()
