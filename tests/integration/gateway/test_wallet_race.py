"""Promise 1, attacked through the front door: many debits of one wallet at once, through several processes.

For concurrent debits of `a` against a balance `b`, exactly `floor(b / a)` are granted, whichever way they come in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import aiohttp
import msgspec
import pytest

from gateway.settings import GatewaySettings

PROCESSES = 3
NANOS = 700  # of one debit: 7 units at 100 nanos
PATIENCE_S = 30


async def check(door: Any, number: int) -> bool:
    """`POST /v1/check`, under a key of its own."""
    body = {"key": "tgk_caller", "feature": "tokens", "quantity": 7, "idempotency_key": f"race-{number}"}
    async with door.session.post(f"{door.url}/v1/check", json=body) as response:
        answer = await response.json()
    assert (response.status, answer["reason"]) in ((200, "allowed"), (200, "insufficient_balance"))
    return answer["allowed"]


async def hold(door: Any, number: int) -> bool:
    """`POST /v1/check` in the mode `hold`: what is held is nobody else's."""
    body = {"key": "tgk_caller", "feature": "tokens", "quantity": 7, "mode": "hold", "ttl_ms": 3_600_000}
    async with door.session.post(f"{door.url}/v1/check", json=body) as response:
        answer = await response.json()
    assert (response.status, answer["reason"]) in ((200, "allowed"), (200, "insufficient_balance"))
    return answer["allowed"]


async def batch(door: Any, number: int) -> bool:
    """`POST /v1/check/batch` of one."""
    body = {"checks": [{"key": "tgk_caller", "feature": "tokens", "quantity": 7}]}
    async with door.session.post(f"{door.url}/v1/check/batch", json=body) as response:
        (answer,) = (await response.json())["answers"]
    assert answer["reason"] in ("allowed", "insufficient_balance")
    return answer["allowed"]


async def forward(door: Any, number: int) -> bool:
    """`/v1/authorize/forward`: 200, or 402."""
    return await _authorize(door, "forward?feature=tokens&quantity=7") == 200


async def nginx(door: Any, number: int) -> bool:
    """`/v1/authorize/nginx`: 200, or 403 with the real status beside it."""
    return await _authorize(door, "nginx?feature=tokens&quantity=7") == 200


async def envoy(door: Any, number: int) -> bool:
    """`/v1/authorize/envoy`, and behind it a path of the client's own: 200, or 402."""
    return await _authorize(door, f"envoy/tokens/7/{number}") == 200


async def forward_hold(door: Any, number: int) -> bool:
    """`/v1/authorize/forward` in the mode `hold`."""
    return await _authorize(door, "forward?mode=hold&ttl_ms=3600000&feature=tokens&quantity=7") == 200


async def _authorize(door: Any, asked: str) -> int:
    url, headers = f"{door.url}/v1/authorize/{asked}", {"Authorization": "Bearer tgk_caller"}
    async with door.session.get(url, headers=headers) as response:
        await response.read()
    status = int(response.headers.get("X-Tallygate-Status", response.status))
    assert status in (200, 402)
    return status


DOORS = (check, forward, nginx, envoy, hold, forward_hold, batch)


class Door:
    """A client whose requests spread over all processes: each new connection goes to one of them."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session


@pytest.fixture
async def door(world: Any, settings: GatewaySettings, process: Callable[..., Any], tmp_path: Any) -> Any:
    """Several processes on one port, all of them ready."""
    for index in range(PROCESSES):
        process(msgspec.structs.replace(settings, run_dir=str(tmp_path / "run"), worker_index=index))
    url = f"http://127.0.0.1:{settings.port}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as probe:
        ready: set[int] = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(ready) < PROCESSES:
                with contextlib.suppress(aiohttp.ClientError):
                    async with probe.get(f"{url}/healthz") as response:
                        worker = (await response.json())["worker"]
                    async with probe.get(f"{url}/readyz") as response:
                        ready |= {worker} if response.status == 200 else set()
                await asyncio.sleep(0.01)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)) as session:
        yield Door(url, session)


async def test_a_thousand_debits_at_once_are_granted_until_the_balance_is_gone(door: Any, world: Any) -> None:
    """333 debits and a rest that buys none, by seven doors in turn; then every retry gets its answer back."""
    await world.grant(333 * NANOS + NANOS - 1)
    ways = list(islice(cycle(DOORS), 1_000))
    granted = await asyncio.gather(*(way(door, number) for number, way in enumerate(ways)))
    assert sum(granted) == 333
    by_way = Counter(way.__name__ for way, is_granted in zip(ways, granted, strict=True) if is_granted)
    entries = await world.entries()
    assert len(entries) == 333 - by_way["hold"] - by_way["forward_hold"]
    assert len({entry.body.event_id for entry in entries}) == len(entries)
    again = await asyncio.gather(*(check(door, number) for number in range(0, 1_000, len(DOORS))))
    assert again == granted[:: len(DOORS)]
    assert len(await world.entries()) == len(entries)


async def test_fifty_at_once_on_a_balance_for_ten_are_ten(door: Any, world: Any) -> None:
    """By each door alone."""
    for way in DOORS:
        await world.grant(10 * NANOS, grant_id=way.__name__)
        assert sum(await asyncio.gather(*(way(door, number) for number in range(50)))) == 10, way
