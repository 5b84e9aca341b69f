"""Two embedded servers in a folder of their own, Postgres writing its log through, and workers of ours at them."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import asyncpg
import msgspec
import redis.asyncio

from billing_core.contract.configuration import environment_of
from billing_core.settings import BillingSettings
from billing_core.store.migration import migrate
from gateway.command.embedded.postgres import Postgres, start_postgres
from gateway.command.embedded.valkey import Valkey, start_valkey

_LOOK_S: Final = 0.002


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """Two servers and a client of each."""

    postgres: Postgres
    valkey: Valkey
    url: str
    raw: Any
    client: Any


@asynccontextmanager
async def ground(*, appendfsync: str = "always") -> AsyncGenerator[Ground]:
    """Servers on the disk, and the schema."""
    folder = Path(tempfile.mkdtemp(prefix="tallygate-bench-"))
    postgres, valkey = start_postgres(folder), start_valkey(folder, appendfsync=appendfsync)
    keeper: Any = cast("Any", await asyncpg.connect(postgres.url("postgres")))
    await keeper.execute("CREATE DATABASE bench")
    await keeper.close()
    raw: Any = cast("Any", await asyncpg.connect(postgres.url("bench")))
    client: Any = redis.asyncio.Redis.from_url(valkey.url)
    try:
        await migrate(raw)
        yield Ground(postgres=postgres, valkey=valkey, url=postgres.url("bench"), raw=raw, client=client)
    finally:
        await client.aclose()
        await raw.close()
        valkey.stop()
        postgres.stop()
        shutil.rmtree(folder)


@asynccontextmanager
async def worker(on: Ground, *, roles: str) -> AsyncGenerator[int]:
    """A billing worker with these roles as a process of its own; its pid."""
    settings = BillingSettings(postgres_url=on.url, redis_url=on.valkey.url, roles=roles)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "billing_core.worker"), env=os.environ | environment_of("billing", settings)
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def flusher(on: Ground) -> AsyncGenerator[int]:
    """A worker that flushes and has said so; its pid."""
    async with worker(on, roles="flush") as pid:
        await until(on, "SELECT count(*) > 0 FROM flusher")
        yield pid


async def until(on: Ground, question: str, *, look_s: float = _LOOK_S) -> None:
    """Ask Postgres until it says yes, so often."""
    while not await on.raw.fetchval(question):  # noqa: ASYNC110 - the answer changes in another process
        await asyncio.sleep(look_s)
