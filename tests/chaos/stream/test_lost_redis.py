"""Valkey loses what it had, or has old things again, while callers go on; Postgres knows better.

Everything here is a process of its own: Valkey, Postgres, a gateway that callers speak HTTP to, and workers that
flush, tell and build. What Redis had not handed over when it was emptied is lost, and so is its price; what
Postgres has is never given back, never counted twice, and no wallet ends below zero.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from billing_core.contract.configuration import environment_of
from billing_core.contract.keys import digest_of
from billing_core.flows.reconcile import reconcile
from gateway.command.embedded.valkey import Valkey, start_valkey
from gateway.settings import GatewaySettings
from tests.chaos.stream.conftest import ROOT, Hands, found, in_time
from tests.integration.stream.conftest import LONG_AGO, NANOS_PER_TOKEN, Works

NAMES = [f"c{number}" for number in range(8)]
TOKENS = 4_000_000
TOKEN = "tgo_operator"


class Place:
    """The servers of one test, a gateway, and what callers were answered."""

    def __init__(self, works: Works, server: Valkey, session: aiohttp.ClientSession) -> None:
        self.works = works
        self.server = server
        self.allowed: Counter[str] = Counter()
        self.decisions: set[str] = set()
        self._session = session
        self._stop = asyncio.Event()

    async def check(self, name: str, tokens: int = 1) -> str:
        """One decision over HTTP: its reason."""
        body = {"customer": name, "feature": "input_tokens", "quantity": tokens}
        async with self._session.post("/v1/check", json=body) as reply:
            answer = await reply.json(content_type=None)
        if reply.status == 200 and answer["allowed"]:
            self.allowed[name] += 1
            self.decisions.add(answer["decision_id"])
        return answer["reason"] if reply.status == 200 else "unavailable"

    async def call(self) -> None:
        """Ask for one customer after the other until told to stop."""
        while not self._stop.is_set():
            for name in NAMES:
                await self.check(name)

    def stop(self) -> None:
        self._stop.set()

    async def is_up(self) -> bool:
        """Whether the gateway listens, and everybody is served."""
        try:
            return await self.is_served()
        except aiohttp.ClientConnectionError:
            return False

    async def is_served(self) -> bool:
        return [await self.check(name) for name in NAMES] == ["allowed"] * len(NAMES)

    async def remaining(self) -> dict[str, int]:
        """What each customer's wallet says."""
        wallets = {name: await self.works.wallet(name) for name in NAMES}
        return {
            name: sum(int(value) for field, value in wallet.items() if field[:2] in {"r:", "h:"})
            for name, wallet in wallets.items()
        }


@pytest.fixture
async def place(
    postgres_url: str, tmp_path: Path, started: Callable[[Any], Any], free_port: Callable[[], int]
) -> AsyncIterator[Place]:
    """A tenant, eight customers with money for four million tokens, all processes up, and two callers."""
    options = ("--enable-debug-command", "yes", "--save", "")
    server = started(start_valkey(tmp_path, appendfsync="everysec", options=options))
    hands, port = Hands(postgres_url, server.url), free_port()
    async for works in found(postgres_url, server.url):
        await works.raw.execute(
            "INSERT INTO operator_token VALUES ($1, 'tok_1', 't', '', 'ator', $2)", digest_of(TOKEN), LONG_AGO
        )
        await works.raw.execute(
            "INSERT INTO outbox (kind, tenant_id, subject) VALUES ('key', 't', $1)", digest_of(TOKEN)
        )
        for name in NAMES:
            await works.customer(name, nanos=[TOKENS * NANOS_PER_TOKEN])
        await hands.start("relay")
        await hands.start("flush")
        settings = GatewaySettings(port=port, redis_url=server.url, decision_deadline_ms=1_000)
        gateway = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "gateway.edge"),
            env=os.environ | environment_of("gateway", settings) | {"PYTHONPATH": str(ROOT)},
        )
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as session:
            made = Place(works, server, session)

            await in_time(made.is_up)
            yield made
        gateway.kill()
        await gateway.wait()
        await hands.end()


async def has_flushed(place: Place, tokens: int) -> bool:
    return await place.works.count("usage_event") >= tokens


async def prove(place: Place) -> None:
    """What holds after any loss: Postgres has nothing twice and nothing made up, and the wallets agree with it."""
    works = place.works
    await in_time(works.drained)
    report = await reconcile(works.db, works.stream)
    assert (report.findings, report.difference_nanos, report.unflushed_nanos) == ((), 0, 0)
    rows = await works.raw.fetch("SELECT event_id, quantity FROM usage_event")
    events = [row["event_id"] for row in rows]
    assert len(events) == len(set(events)), "no event is there twice"
    assert set(events) <= place.decisions, "nobody is charged for what was not granted"
    assert await works.count("parked_entry") == 0
    remaining = await place.remaining()
    assert min(remaining.values()) >= 0
    used = sum(int(row["quantity"]) for row in rows)
    assert sum(remaining.values()) == (len(NAMES) * TOKENS - used) * NANOS_PER_TOKEN


async def test_valkey_that_is_emptied_under_load_is_made_anew(place: Place) -> None:
    """Three times; callers are told `unavailable` until their shard stands, and are served again without a hand."""
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(place.call())
        for turn in range(1, 4):
            flushed = await place.works.count("usage_event")
            await in_time(lambda flushed=flushed: has_flushed(place, flushed + 50))
            await place.works.valkey.flushall()
            await in_time(place.is_served)
            epochs = await place.works.raw.fetchval("SELECT max(epoch) FROM shard")
            assert epochs == turn + 1
        place.stop()
    await prove(place)


async def test_an_old_copy_of_valkey_gives_no_spent_money_back(place: Place) -> None:
    """A copy of its log from the middle of the load is put in its place after a crash, and callers never pause.

    All that the copy had forgotten is in Postgres; so everything granted is charged, and nothing is granted twice.
    """
    folder = Path(place.server.program.argv[place.server.program.argv.index("--dir") + 1])
    copy = folder.with_name("copy")
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(place.call())
        await in_time(lambda: has_flushed(place, 200))
        await asyncio.to_thread(shutil.copytree, folder, copy)
        flushed = await place.works.count("usage_event")
        await in_time(lambda: has_flushed(place, flushed + 500))
        await asyncio.to_thread(place.server.kill)
        shutil.rmtree(folder / "appendonlydir")
        shutil.copytree(copy / "appendonlydir", folder / "appendonlydir")
        place.server.begin_again()
        await asyncio.to_thread(place.server.wait_ready)
        await in_time(place.is_served)
        place.stop()
    await prove(place)
    assert await place.works.raw.fetchval("SELECT max(epoch) FROM shard") > 1
    for name, nanos in (await place.remaining()).items():
        asked = [
            await place.check(name, tokens)
            for tokens in (nanos // NANOS_PER_TOKEN + 1, nanos // NANOS_PER_TOKEN, 1)
        ]
        assert asked == ["insufficient_balance", "allowed", "insufficient_balance"]
    await prove(place)
    assert set((await place.remaining()).values()) == {0}
