"""Gateways that decide by themselves out of slices, before the test's own Valkey.

shop     the world with features that are sliced, a folder for sheets, and what is counted of it
sliced   opens a gateway that has a slice of a feature and decides on it by itself
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from billing_core.contract.keys import customer_keys, is_slice
from billing_core.contract.snapshot import Entitlement, Guard, Limit, Status
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import DAY, FEATURES, Call, World

UNITS = 20
NANOS = 100
PATIENCE_S = 60


def limited(ceiling: int) -> Entitlement:
    """So many calls a day, in slices."""
    guard = Guard(limits=(Limit(counter="calls@day", units=ceiling, ceiling=ceiling, window=DAY),))
    return msgspec.structs.replace(FEATURES["calls"], guard=guard, slice_units=UNITS)


class Shop:
    """What a test of slices needs at hand."""

    def __init__(self, world: World, settings: GatewaySettings) -> None:
        self.world = world
        self.settings = settings
        self.folder = Path(settings.journal_dir)
        self.granted = 0

    async def sell(
        self, nanos: int, *, calls: int = 1_000, status: Status = Status.ACTIVE, **more: Entitlement
    ) -> None:
        """Both features in slices: `tokens` out of a wallet with so much, `calls` under a limit."""
        tokens = msgspec.structs.replace(FEATURES["tokens"], slice_units=UNITS)
        features = {**FEATURES, "tokens": tokens, "calls": limited(calls), **more}
        await self.world.project(features=features, status=status)
        if nanos:
            await self.world.grant(nanos)
            self.granted = nanos

    async def wallet(self) -> dict[str, int]:
        """What is held and what remains of the grant."""
        wallet = await self.world.valkey.hgetall(customer_keys("t1", "acme").wallet)
        return {name: int(wallet.get(name.encode(), b"0")) for name in ("h:g1", "r:g1")}

    async def used(self, feature: str = "tokens") -> int:
        """Units in the stream, each event once."""
        entries = [entry for entry in await self.world.entries() if entry.charges]
        names = [entry.body.event_id for entry in entries]
        assert len(set(names)) == len(names)
        return sum(one.quantity for entry in entries for one in entry.charges if one.feature == feature)

    async def is_settled(self, allowed: int) -> None:
        """What was allowed is in the stream; granted = spent + held + remaining, and nothing is held."""
        assert await self.used() == allowed
        wallet = await self.wallet()
        assert (wallet["h:g1"], wallet["r:g1"]) == (0, self.granted - allowed * NANOS)

    def sheets(self) -> list[Path]:
        """The files of processes that live, or have left something."""
        return sorted(self.folder.glob("*.slices"))


async def ask(call: Call, **more: object) -> dict[str, Any]:
    """One decision."""
    status, answer, _ = await call("/v1/check", {"key": World.key, "feature": "tokens"} | more)
    assert status == 200, answer
    return answer


async def until_refused(call: Call, **more: object) -> int:
    """Ask until nothing is left; how often it was allowed."""
    count = 0
    while (await ask(call, **more))["allowed"]:
        count += 1
    return count


async def sold(shop: Shop, settings: GatewaySettings) -> int:
    """Ask a process that may only be starting, until it decides out of a slice; how much was allowed."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_S):
        call, count = Call(f"http://127.0.0.1:{settings.port}", session), 0
        while True:
            try:
                answer = await ask(call)
            except (aiohttp.ClientConnectionError, AssertionError):
                await asyncio.sleep(0.01)  # it does not listen yet, or Redis is not connected
                continue
            count += answer["allowed"]
            if answer.get("sliced"):
                return count


async def open_slices(shop: Shop) -> list[str]:
    """The holds that stand and are slices."""
    found: list[bytes] = []
    async for name in shop.world.valkey.scan_iter("*:chd:*"):
        found += await shop.world.valkey.zrange(name, 0, -1)
    return [hold_id.decode() for hold_id in found if is_slice(hold_id.decode())]


@pytest.fixture
async def shop(world: World, settings: GatewaySettings, tmp_path: Path) -> Shop:
    settings = msgspec.structs.replace(
        settings, journal_dir=str(tmp_path / "journal"), slice_ms=60_000, slice_after_count=2
    )
    return Shop(world, settings)


Sliced = Callable[..., Awaitable[tuple[Worker, Call, int]]]


@pytest.fixture
def sliced(shop: Shop, open_gateway: Any, eventually: Any, free_port: Callable[[], int]) -> Sliced:
    """Gateway, client, and how many units were allowed till the first came out of a slice."""

    async def opened(feature: str = "tokens", **told: object) -> tuple[Worker, Call, int]:
        settings = msgspec.structs.replace(shop.settings, **({"port": free_port()} | told))
        worker, call = await open_gateway(settings)
        await eventually(lambda: worker.listener.is_up and all(link.is_up for link in worker.links.values()))
        count = 0
        async with asyncio.timeout(60):
            while True:
                answer = await ask(call, feature=feature)
                count += answer["allowed"]
                if answer.get("sliced"):
                    return worker, call, count

    return opened


@pytest.fixture
def port_of(shop: Shop, free_port: Callable[[], int]) -> Callable[[], GatewaySettings]:
    """The settings of one more gateway, on a port of its own."""
    return lambda: msgspec.structs.replace(shop.settings, port=free_port())
