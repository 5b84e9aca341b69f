"""A customer, gateways as processes of their own that can be put to sleep, and connections held in the hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import (
    Process,
    World,
    process,
    settings,
    unchanged,
    until,
    world,
)
from tests.integration.gateway.slice.conftest import port_of, shop

__all__ = ["port_of", "process", "settings", "shop", "unchanged", "world"]

PATIENCE_S = 30
SLEPT_S = 0.6  # clearly longer than what is borne
PEEK = {"feature": "tokens", "mode": "peek", "deadline_ms": 10_000}


class Line:
    """One connection: what is sent lies in the other side's socket until it is read there."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, path: str, body: object, headers: dict[str, str] | None = None) -> None:
        raw = msgspec.json.encode(body)
        told = {"Host": "gate", "Content-Type": "application/json", "Content-Length": len(raw), **(headers or {})}
        lines = (f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items()), "", "")
        self._writer.write("\r\n".join(lines).encode() + raw)

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers in lower case, and body."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            raw = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return int(status.split()[1]), headers, msgspec.json.decode(raw) if raw else None

    def hang_up(self) -> None:
        self._writer.close()


class Sleeper:
    """A gateway process and its port."""

    def __init__(self, process: Process, port: int) -> None:
        self.pid = process.process.pid
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._lines: list[Line] = []

    async def dial(self) -> Line:
        """A new connection; while the gateway sleeps it waits in the kernel to be accepted."""
        line = Line(*await asyncio.open_connection("127.0.0.1", self._port))
        self._lines.append(line)
        return line

    async def ask(self, path: str, body: object) -> Any:
        """What a fresh connection is answered."""
        line = await self.dial()
        line.send(path, body)
        return (await line.answer())[2]

    async def kept(self, world: World) -> Line:
        """A connection that was used before."""
        line = await self.dial()
        line.send("/v1/check", PEEK | {"key": world.key})
        assert (await line.answer())[0] == 200
        return line

    async def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        await until(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    async def wake(self) -> None:
        """Go on after a while; whatever was sent before has lain there for as long."""
        await asyncio.sleep(SLEPT_S)
        os.kill(self.pid, signal.SIGCONT)

    async def count(self, name: str) -> int:
        """One number of its metrics."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            families = {one.name: one for one in text_string_to_metric_families(await response.text())}
        return int(sum(sample.value for sample in families[name].samples))

    async def wallet(self, world: World) -> dict[str, int]:
        """What is left of each grant."""
        head = {"Authorization": f"Bearer {world.token}"}
        url = f"{self.url}/v1/customers/{world.customer}/wallets"
        async with aiohttp.ClientSession(headers=head) as session, session.get(url) as response:
            (wallet,) = (await response.json())["wallets"]
        return {grant["id"]: grant["remaining_nanos"] for grant in wallet["grants"]}

    def hang_up(self) -> None:
        for line in self._lines:
            line.hang_up()


Open = Callable[..., Any]


@pytest.fixture
async def open_sleeper(
    settings: GatewaySettings, free_port: Callable[[], int], process: Callable[..., Process]
) -> AsyncIterator[Open]:
    """Starts a gateway; it is ready, and knows the customer's key."""
    opened: list[Sleeper] = []

    async def start(world: World, **told: object) -> Sleeper:
        port = free_port()
        sleeper = Sleeper(process(msgspec.structs.replace(settings, port=port, **told)), port)
        opened.append(sleeper)
        async with asyncio.timeout(PATIENCE_S):
            while not await is_ready(sleeper):  # noqa: ASYNC110 - it is another process that becomes ready
                await asyncio.sleep(0.02)
        await sleeper.kept(world)
        return sleeper

    yield start
    for sleeper in opened:
        sleeper.hang_up()


async def is_ready(sleeper: Sleeper) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"{sleeper.url}/readyz") as response:
            return response.status == 200
    return False
