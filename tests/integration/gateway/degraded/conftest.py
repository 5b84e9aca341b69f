"""A gateway that may allow without Redis, before a Valkey of the test's own that may be stopped and killed.

house      the Valkey, the world in it (`calls` and `tokens` may go on without Redis, `export` may not), and a
           folder for journals
degraded   opens a gateway on it that has a lease of the features named
Echo       a wire to Valkey whose replies can be kept back: the scripts run, and nobody hears of it in time
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio

from billing_core.contract.keys import customer_keys
from billing_core.contract.snapshot import Guard
from gateway.command.embedded.valkey import Valkey, start_valkey
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings

LEASED = 20
DEADLINE_MS = 15
GRANTED = 1_000_000
NANOS = 100


class House:
    """What a test of an outage needs at hand."""

    def __init__(self, server: Valkey, world: Any, settings: GatewaySettings) -> None:
        self.server = server
        self.world = world
        self.settings = settings
        self.journals = Path(settings.journal_dir)

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """The server is stopped, and goes on afterwards."""
        os.kill(self.server.child.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.child.pid, signal.SIGCONT)

    async def begin_again(self) -> None:
        """Start the server that was killed, as whoever supervises it does."""
        self.server.begin_again()
        self.server.wait_ready()
        await self.world.valkey.connection_pool.disconnect()
        await self.world.vouch()

    async def wallet(self) -> dict[bytes, bytes]:
        return await self.world.valkey.hgetall(customer_keys("t1", "acme").wallet)

    async def is_settled(self, allowed: list[str]) -> None:
        """The equality: each decision was charged once and no other was; granted = spent + held + remaining."""
        entries = [entry for entry in await self.world.entries() if entry.charges]
        assert sorted(entry.body.event_id for entry in entries) == sorted(allowed)
        moved = sum(part.nanos for entry in entries for part in entry.movements)
        rated = sum(one.rated_nanos for entry in entries for one in entry.charges)
        wallet = await self.wallet()
        held, remaining = int(wallet.get(b"h:g1", b"0")), int(wallet[b"r:g1"])
        assert (moved + held + remaining, moved) == (GRANTED, rated)


@pytest.fixture
async def house(
    tmp_path: Path, started: Callable[[Valkey], Valkey], world: Any, settings: GatewaySettings
) -> AsyncIterator[House]:
    server = started(start_valkey(tmp_path / "v", appendfsync="always"))
    async with redis.asyncio.Redis.from_url(server.url) as client:
        world.valkey = client
        lent = {
            "calls": msgspec.structs.replace(world.features["calls"], guard=Guard(), outage_units=LEASED),
            "tokens": msgspec.structs.replace(world.features["tokens"], outage_units=LEASED, plan="pro"),
            "export": world.features["export"],
        }
        await world.build()
        await world.project(features=lent)
        await world.grant(GRANTED)
        yield House(
            server,
            world,
            msgspec.structs.replace(
                settings,
                redis_url=server.url,
                decision_deadline_ms=DEADLINE_MS,
                bulk_deadline_ms=200,
                link_hang_ms=300,
                journal_dir=str(tmp_path / "journal"),
            ),
        )


Degraded = Callable[..., Awaitable[tuple[Worker, Any, list[str]]]]


@pytest.fixture
def degraded(house: House, open_gateway: Any, eventually: Any) -> Degraded:
    """Gateway, client, and the decisions that it has allowed so far."""

    async def opened(*features: str, **told: object) -> tuple[Worker, Any, list[str]]:
        worker, call = await open_gateway(msgspec.structs.replace(house.settings, **told))
        await eventually(lambda: worker.listener.is_up)
        body: dict[str, object] = {"key": house.world.key, "idempotency_key": "first"}  # it may run unanswered
        body["charges"] = [{"feature": name} for name in features or ("tokens",)]
        allowed: list[str] = []
        async with asyncio.timeout(60):
            while not allowed:
                status, answer, _ = await call("/v1/check", body)
                allowed += [answer["decision_id"]] if status == 200 and answer["allowed"] else []
        await eventually(lambda: worker.outage and worker.outage.leased_units())
        return worker, call, allowed

    return opened


class Echo:
    """Bytes to the server pass; replies wait while `is_late`."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.on_time = asyncio.Event()
        self.on_time.set()

    @contextlib.asynccontextmanager
    async def open(self, path: Path) -> AsyncIterator[Echo]:
        listener = await asyncio.start_unix_server(self._join, path)
        try:
            yield self
        finally:
            listener.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self.behind)
        await asyncio.gather(self._there(reader, far_writer), self._back(far_reader, writer))

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65_536):
                writer.write(chunk)
            writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65_536):
                await self.on_time.wait()
                writer.write(chunk)
            writer.close()
