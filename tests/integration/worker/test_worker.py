"""The billing process as it is really run: a child with all roles, asked over HTTP and told to stop by a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from billing_core.contract.configuration import environment_of
from billing_core.errors import ConfigurationError
from billing_core.settings import BillingSettings
from billing_core.worker import roles_of

ROOT = Path(__file__).resolve().parents[3]
_TOKEN = (
    "INSERT INTO operator_token (digest, token_id, tenant_id, label, hint, created_at)"
    " VALUES ($1, $1, 't', '', 'abcd', now())"
)


@asynccontextmanager
async def worker(**told: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A billing process; killed at the end if it has not ended."""
    environ = os.environ | environment_of("billing", BillingSettings(**told)) | {"PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "billing_core.worker"), env=environ, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask(port: int, path: str) -> str:
    """The page, or nothing where it is not to be had yet."""
    url = f"http://127.0.0.1:{port}{path}"
    try:
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            return await answer.text() if answer.status == 200 else ""
    except aiohttp.ClientConnectionError:
        return ""


async def ready(port: int) -> None:
    """Ask until the process says that it is ready."""
    async with asyncio.timeout(30):
        while not await ask(port, "/readyz"):
            pass


async def test_all_roles_start_work_and_end_when_told(
    postgres_url: str, redis_url: str, valkey: Any, free_port: Callable[[], int]
) -> None:
    """Ready once the shards are built; a change is told at once; SIGTERM ends it with its lanes given back."""
    port, loop = free_port(), asyncio.get_running_loop()
    raw = await asyncpg.connect(postgres_url)
    async with worker(postgres_url=postgres_url, redis_url=redis_url, port=port, root_token="r" * 40) as process:
        await ready(port)
        page = ""
        while not ("tallygate_flush_lanes 16.0" in page and "tallygate_unbuilt_shards 0.0" in page):
            page = await ask(port, "/metrics")
        await raw.execute("INSERT INTO tenant VALUES ('t', 't', false, 0, now())")
        began_s, count = loop.time(), 20
        for number in range(count):
            await raw.execute(_TOKEN, f"d{number}")
            await raw.execute("INSERT INTO outbox (kind, tenant_id, subject) VALUES ('key', 't', $1)", f"d{number}")
            while not await valkey.exists(f"tg:key:d{number}"):
                pass
        assert (loop.time() - began_s) / count < 0.5, "the poll alone would take half a second on average"
        process.send_signal(signal.SIGTERM)
        _, words = await process.communicate()
        assert process.returncode == 0
        assert b"Traceback" not in words
    assert await raw.fetchval("SELECT count(*) FROM flush_lane WHERE owner <> ''") == 0
    assert await raw.fetchval("SELECT count(*) FROM flusher") == 0
    await raw.close()


async def test_a_role_that_nobody_knows_is_refused_in_one_line() -> None:
    """With status 2, before anything is opened."""
    async with worker(roles="api,dance") as process:
        _, said = await process.communicate()
    assert process.returncode == 2
    assert said.count(b"\n") == 1
    assert b"dance" in said


def test_a_process_without_a_role_is_refused() -> None:
    """Commas alone are no role."""
    assert roles_of(BillingSettings(roles=" relay ,, flush")) == ("relay", "flush")
    with pytest.raises(ConfigurationError, match="none"):
        roles_of(BillingSettings(roles=" , "))


async def test_a_broken_law_ends_the_process_loudly(
    postgres_url: str, redis_url: str, free_port: Callable[[], int]
) -> None:
    """It does not go on as if nothing had happened, and does not end as if all were well."""
    port = free_port()
    async with worker(postgres_url=postgres_url, redis_url=redis_url, port=port, root_token="r" * 40) as process:
        await ready(port)
        raw = await asyncpg.connect(postgres_url)
        await raw.execute("ALTER TABLE flush_lane RENAME COLUMN drained_at TO vanished")
        await raw.close()
        _, words = await process.communicate()
    assert process.returncode == 1
    assert b"drained_at" in words
