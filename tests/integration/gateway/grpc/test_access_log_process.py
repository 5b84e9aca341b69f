"""Gateways that go while the real Envoy waits for a response: replaced in good order, or killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from billing_core.adapters.projection import sweep_shard
from billing_core.contract.keys import shard_of_customer
from gateway.edge.server import Server
from gateway.edge.worker import Worker
from lua.loader import SCRIPTS

HELD = 1_000_000


@pytest.fixture
def said() -> dict[str, str]:
    """Envoy sees soon who is there."""
    return {"interval: 5s": "interval: 0.1s"}


class Gateways:
    """One after the other, on one port."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._server: Server | None = None
        self.workers: list[Worker] = []

    async def replace(self) -> None:
        """The next one listens before the last one leaves."""
        last, worker = self._server, Worker(self._settings)
        self._server = Server(worker)
        self.workers.append(worker)
        await self._server.start()
        if last is not None:
            await last.stop()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()


class TestReplaced:
    """With GOAWAY, and an end of the stream that Envoy hears."""

    @pytest.fixture
    async def front(self, world: Any, settings: Any) -> AsyncIterator[Gateways]:
        assert world.version
        made = Gateways(settings)
        await made.replace()
        yield made
        await made.stop()

    async def test_what_is_told_meanwhile_is_settled_by_whoever_is_there(
        self, envoy: Any, world: Any, front: Gateways, eventually: Any
    ) -> None:
        """Ten times, with responses that end before, while and after a gateway is replaced; none is lost."""
        await world.grant(10**12)
        sizes: list[int] = []
        for turn in range(10):
            first = 10_000 + turn
            async with envoy.session.get(f"{envoy.url}/metered/x?first={first}", headers=envoy.key) as response:
                await response.content.readexactly(first)
                asked = [envoy.get(f"/metered/x?times={times}") for times in range(1, 21)]
                await asyncio.gather(*asked[:10])
                await asyncio.gather(front.replace(), *asked[10:])
                response.close()
            sizes += [first, *(6 * times for times in range(1, 21))]
        await envoy.settled(*sizes)
        tallies = [worker.access_log.read for worker in front.workers]
        await eventually(lambda: sum(read().get("settled", 0) for read in tallies) == len(sizes))
        assert {outcome for read in tallies for outcome in read()} == {"settled"}


class TestKilled:
    """Nobody hears what Envoy tells; the hold's end charges it."""

    @pytest.fixture
    def said(self, said: dict[str, str]) -> dict[str, str]:
        return said | {'ttl_ms: "600000"': 'ttl_ms: "100"'}

    @pytest.fixture
    async def front(self, world: Any, settings: Any, process: Any) -> Any:
        assert world.version
        return process(settings)

    async def test_the_end_of_the_hold_charges_what_was_held_and_nothing_else_does(
        self, envoy: Any, world: Any, front: Any, settings: Any, process: Any
    ) -> None:
        """`on_expiry: charge`; what Envoy still tells the next gateway finds a hold that has ended."""
        await world.grant(10**12)
        async with envoy.session.get(f"{envoy.url}/metered/x?first=1000", headers=envoy.key) as response:
            await response.content.readexactly(1_000)
            front.process.send_signal(signal.SIGKILL)
            await front.ended()
            sweep = sweep_shard(shard_of_customer("t1", "acme"), most=10)
            function, count = SCRIPTS["sweep"].function, len(sweep.keys)
            async with asyncio.timeout(60):
                while not await world.valkey.fcall(function, count, *sweep.keys, *sweep.args):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            response.close()
        await envoy.settled(HELD)
        process(settings)
        async with asyncio.timeout(60):
            while (await envoy.get("/v1/x", {}))[0] != 401:  # noqa: ASYNC110 - a process, not an event
                await asyncio.sleep(0.02)
        await envoy.get("/batch/x")
        entries = [entry for entry in await world.entries() if entry.charges]
        charged = sorted(charge.quantity for entry in entries for charge in entry.charges)
        assert charged == [10, HELD]
