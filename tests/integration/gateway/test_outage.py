"""Redis hangs, dies or is cut off: every decision is answered by its deadline, and service comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio

from billing_core.errors import Unavailable
from gateway.command.embedded.valkey import Valkey, start_valkey
from gateway.settings import GatewaySettings
from gateway.state.endpoint import endpoint_of
from gateway.state.link import Link, LinkSettings
from gateway.state.pipe import PipeLimits
from lua.loader import LIBRARY

DEADLINE_MS = 15


@pytest.fixture
async def own_valkey(tmp_path: Path, started: Callable[[Valkey], Valkey], world: Any) -> AsyncIterator[Valkey]:
    """A Valkey of the test's own, with the world in it: this one may be stopped and killed."""
    server = started(start_valkey(tmp_path / "v", appendfsync="always"))
    async with redis.asyncio.Redis.from_url(server.url) as client:
        world.valkey = client
        await world.build()
        await world.grant(1_000_000)
        yield server


@pytest.fixture
async def strict(own_valkey: Valkey, settings: GatewaySettings, open_gateway: Any) -> Any:
    """A gateway with the default deadline."""
    _, call = await open_gateway(
        msgspec.structs.replace(
            settings,
            redis_url=own_valkey.url,
            decision_deadline_ms=DEADLINE_MS,
            bulk_deadline_ms=100,
            link_hang_ms=300,
        )
    )
    return call


async def settled(call: Any, body: dict[str, object], *, within_s: float) -> dict[str, Any]:
    """Ask until there is a decision."""
    async with asyncio.timeout(within_s):
        while True:
            status, answer, _ = await call("/v1/check", body)
            if status == 200:
                return answer
            assert (status, answer["code"]) == (503, "unavailable")
            await asyncio.sleep(0.002)


async def test_a_hung_redis_is_answered_by_the_deadline_and_forgotten_when_it_is_back(
    strict: Any, own_valkey: Valkey, world: Any
) -> None:
    """What was under way may have run: the retry's idempotency key tells, and nothing is charged twice."""
    body = {"key": world.key, "feature": "tokens", "quantity": 1}
    await settled(strict, body, within_s=10)
    before = len(await world.entries())
    os.kill(own_valkey.child.pid, signal.SIGSTOP)
    try:
        for number in range(30):
            status, problem, headers = await strict("/v1/check", body | {"idempotency_key": f"k{number}"})
            assert (status, problem["code"], headers["Retry-After"]) == (503, "unavailable", "1")
        assert (await strict.get("/healthz"))[0] == 200
        assert (await strict.get("/readyz"))[0] == 503
    finally:
        os.kill(own_valkey.child.pid, signal.SIGCONT)
    await settled(strict, body, within_s=30)
    for number in range(30):
        await settled(strict, body | {"idempotency_key": f"k{number}"}, within_s=10)
    assert len(await world.entries()) == before + 31


async def test_a_killed_redis_is_found_again_when_it_is_back(
    strict: Any, own_valkey: Valkey, world: Any, tmp_path: Path, started: Callable[[Valkey], Valkey]
) -> None:
    """With everything that it had answered: the append log is written before the answer."""
    body = {"key": world.key, "feature": "tokens", "quantity": 1}
    for number in range(10):
        await settled(strict, body | {"idempotency_key": f"k{number}"}, within_s=10)
    own_valkey.kill()
    status, problem, _ = await strict("/v1/check", body)
    assert (status, problem["code"]) == (503, "unavailable")
    again = started(start_valkey(tmp_path / "v", appendfsync="always"))
    assert again.url == own_valkey.url
    await world.valkey.connection_pool.disconnect()
    assert (await strict("/v1/check", body))[0] == 503, "nobody has looked at it yet: it might be an old copy"
    await world.vouch()
    answer = await settled(strict, body | {"idempotency_key": "k0"}, within_s=10)
    assert answer["replayed"]
    assert len(await world.entries()) == 10


class Network:
    """A wire between the link and Valkey that can stall: bytes vanish, and nobody is told."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.stalled = False
        self.connections = 0
        self.joined: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def open(self, path: Path) -> AsyncIterator[Network]:
        server = await asyncio.start_unix_server(self._join, path)
        try:
            yield self
        finally:
            server.close()
            await asyncio.gather(*self.joined)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.joined.append(task)
        far_reader, far_writer = await asyncio.open_unix_connection(self.behind)
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65_536):
                if not self.stalled:
                    writer.write(chunk)
            writer.close()
            await writer.wait_closed()


async def test_a_network_that_swallows_bytes_is_left_for_a_new_connection(
    redis_url: str, tmp_path: Path, eventually: Any
) -> None:
    """No reply is ever matched to the wrong command, however many were lost."""
    async with Network(redis_url.removeprefix("unix://")).open(tmp_path / "n.sock") as network:
        limits = PipeLimits(stall_ms=20, hang_ms=100)
        link = Link(LinkSettings(endpoint=endpoint_of(f"unix://{tmp_path}/n.sock"), limits=limits), LIBRARY)
        link.start()
        await link.up()
        assert await link.send(("ECHO", "a"), deadline_ms=1_000) == b"a"
        network.stalled = True
        for _ in range(3):
            with pytest.raises(Unavailable):
                await link.send(("ECHO", "lost"), deadline_ms=10)
        network.stalled = False
        await eventually(lambda: network.connections > 1 and link.is_up)
        for number in range(10):
            assert await link.send(("ECHO", number), deadline_ms=1_000) == str(number).encode()
        await link.stop()
