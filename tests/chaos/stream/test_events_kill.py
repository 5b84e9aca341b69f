"""Client-sent events while everything on their way is killed with SIGKILL: each is written, and once.

Valkey (its log written through), a gateway and a flusher are processes of their own. Senders send arrays over HTTP,
again and again until every event of one is answered, and mix in what was taken long ago; each process in turn is
killed under them and begun again.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from billing_core.contract.configuration import environment_of
from billing_core.contract.keys import digest_of, shards_of_events
from billing_core.flows.reconcile import reconcile
from billing_core.values.clock import system_now, to_ms
from gateway.command.embedded.valkey import Valkey, start_valkey
from gateway.settings import GatewaySettings
from tests.chaos.stream.conftest import ROOT, Hands, found, in_time
from tests.integration.stream.conftest import LONG_AGO, Works

TOKEN = "tgo_operator"
NAMES = [f"c{number}" for number in range(8)]
FRESH, AGAIN = 60, 20
DONE = {"accepted", "duplicate"}


class Post:
    """Where events are sent, and what became of them."""

    def __init__(self, works: Works, server: Valkey, hands: Hands, *, port: int) -> None:
        self.works, self.server, self.hands = works, server, hands
        self.accepted: Counter[str] = Counter()
        self.taken: list[dict[str, Any]] = []
        self.repeated = 0
        self._port = port
        self._stop = asyncio.Event()
        self.gateway: asyncio.subprocess.Process | None = None

    async def start_gateway(self) -> None:
        settings = GatewaySettings(port=self._port, redis_url=self.server.url)
        self.gateway = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "gateway.edge"),
            env=os.environ | environment_of("gateway", settings) | {"PYTHONPATH": str(ROOT)},
        )

    async def kill_gateway(self) -> None:
        assert self.gateway is not None
        self.gateway.kill()
        await self.gateway.wait()

    async def send(self, sender: int) -> None:
        """Send arrays until told to stop; the last one is answered too."""
        chance, number = random.Random(sender), 0
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self._port}", headers=headers) as session:
            while not self._stop.is_set():
                events = [self._event(f"{sender}-{number + n}", chance) for n in range(FRESH)]
                events += chance.sample(self.taken, min(AGAIN, len(self.taken)))
                chance.shuffle(events)
                number += FRESH
                while not await self._is_taken(session, events):
                    self.repeated += 1
                self.taken += events

    def _event(self, event_id: str, chance: random.Random) -> dict[str, Any]:
        fields = {"n": chance.randrange(100), "model": chance.choice(["small", "large"])}
        now_ms = to_ms(system_now())
        return {"id": event_id, "event": "llm", "time": now_ms, "customer": chance.choice(NAMES), "fields": fields}

    async def _is_taken(self, session: aiohttp.ClientSession, events: list[dict[str, Any]]) -> bool:
        """Send them; whether each was taken, now or before."""
        try:
            async with session.post("/v1/events", json=events) as reply:
                answer = await reply.json(content_type=None)
        except (aiohttp.ClientError, ValueError):
            await asyncio.sleep(0.005)  # whoever begins it again needs the processor too
            return False
        if reply.status not in {200, 207}:
            assert reply.status == 503, answer
            return False
        assert [one["id"] for one in answer["results"]] == [one["id"] for one in events]
        self.accepted.update(one["id"] for one in answer["results"] if one["status"] == "accepted")
        failed = [one["problem"]["status"] for one in answer["results"] if one["status"] not in DONE]
        assert set(failed) <= {503}, answer
        return not failed

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture
async def post(
    postgres_url: str, tmp_path: Path, started: Callable[[Any], Any], free_port: Callable[[], int]
) -> AsyncIterator[Post]:
    """A tenant with a meter and eight customers, and all processes up."""
    server = started(start_valkey(tmp_path, appendfsync="always"))
    hands = Hands(postgres_url, server.url)
    async for works in found(postgres_url, server.url):
        token = digest_of(TOKEN)
        await works.raw.execute(
            "INSERT INTO operator_token VALUES ($1, 'tok_1', 't', '', 'ator', $2)", token, LONG_AGO
        )
        await works.raw.execute("INSERT INTO outbox (kind, tenant_id, subject) VALUES ('key', 't', $1)", token)
        await works.raw.execute(
            "INSERT INTO meter (tenant_id, code, event, aggregation, field, created_at)"
            " VALUES ('t', 'tokens', 'llm', 'sum', 'n', $1)",
            LONG_AGO,
        )
        await works.raw.execute("INSERT INTO outbox (kind, tenant_id) VALUES ('meters', 't')")
        for name in NAMES:
            await works.customer(name)
        works.shards.update(shards_of_events("t"))
        made = Post(works, server, hands, port=free_port())
        await hands.start("relay")
        await made.start_gateway()
        yield made
        await made.kill_gateway()
        await hands.end()


async def test_events_are_written_once_whatever_is_killed(post: Post) -> None:
    """Valkey, the gateway, the flusher, Valkey again. All that was answered is there, and nothing else is."""
    works = post.works
    flusher = await post.hands.start("flush")
    async with asyncio.TaskGroup() as group:
        for sender in range(3):
            group.create_task(post.send(sender))
        for victim in ("valkey", "gateway", "flusher", "valkey"):
            written, taken = await works.count("usage_event"), len(post.taken)

            async def goes_on(written: int = written, taken: int = taken) -> bool:
                return await works.count("usage_event") > written + 100 and len(post.taken) > taken + 100

            await in_time(goes_on)
            if victim == "valkey":
                await asyncio.to_thread(post.server.kill)
                post.server.begin_again()
                await asyncio.to_thread(post.server.wait_ready)
            elif victim == "gateway":
                await post.kill_gateway()
                await post.start_gateway()
            else:
                flusher.kill()
                await flusher.wait()
                flusher = await post.hands.start("flush")
        post.stop()
    await in_time(works.drained)
    said = {one["id"]: one for one in post.taken}
    rows = await works.raw.fetch("SELECT event_id, customer_id, properties ->> 'n' AS n FROM usage_event")
    assert Counter(row["event_id"] for row in rows) == Counter(list(said))
    assert all(said[row["event_id"]]["customer"] == row["customer_id"] for row in rows)
    assert all(str(said[row["event_id"]]["fields"]["n"]) == row["n"] for row in rows)
    assert max(post.accepted.values()) == 1
    assert post.repeated > 0, "somebody was killed while he was asked"
    assert await works.count("parked_entry") == 0
    assert (await reconcile(works.db, works.stream)).findings == ()
