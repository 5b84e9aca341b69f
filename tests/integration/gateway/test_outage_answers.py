"""What is answered while Redis hangs, refuses or is slow, and what becomes of the attempts that nobody was told of.

Every decision is `unavailable` while it lasts: no door lets anybody through, and none invents another reason. An
attempt may have run all the same, so the balance is made for a third of them: whatever ran unseen, a retry under
the same key finds it, and in the end exactly a third is charged, each once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio

from gateway.command.chaos.wire import Wire
from gateway.command.embedded.valkey import Valkey, start_valkey
from gateway.settings import GatewaySettings


@pytest.fixture(params=["straight", "lane", "aiohttp"])
def way(request: pytest.FixtureRequest) -> str:
    """All ways lead to the same answers."""
    return str(request.param)


ATTEMPTS, AFFORDABLE = 30, 10
NANOS = 100
DEADLINE_MS = 15


@pytest.fixture
async def own_valkey(tmp_path: Path, started: Callable[[Valkey], Valkey], world: Any) -> AsyncIterator[Valkey]:
    """A Valkey of the test's own, with the world in it: this one may be hurt."""
    server = started(start_valkey(tmp_path / "v", appendfsync="always"))
    async with redis.asyncio.Redis.from_url(server.url) as client:
        world.valkey = client
        await world.build()
        await world.grant(AFFORDABLE * NANOS)
        yield server


@contextlib.asynccontextmanager
async def hung(server: Valkey, wire: Wire, world: Any) -> AsyncIterator[None]:
    """The process is stopped: it takes what is sent and says nothing."""
    os.kill(server.child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.child.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def refused(server: Valkey, wire: Wire, world: Any) -> AsyncIterator[None]:
    """The process is gone, and so is its socket's listener; who comes back is looked at before it is asked."""
    server.kill()
    yield
    server.begin_again()
    server.wait_ready()
    await world.valkey.connection_pool.disconnect()
    await world.vouch()


@contextlib.asynccontextmanager
async def slow(server: Valkey, wire: Wire, world: Any) -> AsyncIterator[None]:
    """Every byte comes later than a decision may take; so the scripts run, and nobody hears of it in time."""
    wire.obey(f"delay {4 * DEADLINE_MS}")
    yield
    wire.obey("flow")


@contextlib.asynccontextmanager
async def stalled(server: Valkey, wire: Wire, world: Any) -> AsyncIterator[None]:
    """No byte comes through until later."""
    wire.obey("stall")
    yield
    wire.obey("flow")


@contextlib.asynccontextmanager
async def wired(server: Valkey, socket: Path) -> AsyncIterator[Wire]:
    """A wire before the server; the test's gateway goes over it."""
    wire = Wire(str(server.socket_file))
    listener = await asyncio.start_unix_server(wire.join, socket)
    try:
        yield wire
    finally:
        listener.close()


def attempt(world: Any, number: int) -> dict[str, object]:
    return {"key": world.key, "feature": "tokens", "quantity": 1, "idempotency_key": f"k{number}"}


async def answer_of(call: Any, body: dict[str, object]) -> dict[str, Any]:
    """The first decision; until then nothing but `unavailable` may be said."""
    async with asyncio.timeout(30):
        while True:
            status, answer, _ = await call("/v1/check", body)
            if status == 200:
                return answer
            assert (status, answer["code"]) == (503, "unavailable")
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("outage", [hung, refused, slow, stalled])
async def test_an_outage_is_told_as_one_and_a_retry_finds_what_ran_unseen(
    outage: Any, own_valkey: Valkey, world: Any, settings: GatewaySettings, open_gateway: Any, tmp_path: Path
) -> None:
    """With the default deadline, by every door."""
    async with wired(own_valkey, tmp_path / "w.sock") as wire:
        url = own_valkey.url if outage is refused else f"unix://{tmp_path}/w.sock"
        _, call = await open_gateway(
            msgspec.structs.replace(
                settings,
                redis_url=url,
                decision_deadline_ms=DEADLINE_MS,
                bulk_deadline_ms=DEADLINE_MS,
                link_hang_ms=300,
            )
        )
        peek = {"key": world.key, "feature": "tokens", "quantity": 1, "mode": "peek"}
        assert (await answer_of(call, peek))["allowed"]
        async with outage(own_valkey, wire, world):
            answers = await asyncio.gather(
                *(call("/v1/check", attempt(world, number)) for number in range(ATTEMPTS))
            )
            assert {(status, problem["code"]) for status, problem, _ in answers} == {(503, "unavailable")}
            assert {headers["Retry-After"] for *_, headers in answers} == {"1"}
            assert await told_by_other_doors(call, world) == {"unavailable"}
        last = [await answer_of(call, attempt(world, number)) for number in range(ATTEMPTS)]
    assert Counter(answer["reason"] for answer in last) == {
        "allowed": AFFORDABLE,
        "insufficient_balance": ATTEMPTS - AFFORDABLE,
    }
    await world.valkey.connection_pool.disconnect()
    entries = [entry for entry in await world.entries() if entry.body.features == ("tokens",)]
    assert sum(part.nanos for entry in entries for part in entry.movements) == AFFORDABLE * NANOS
    assert {entry.body.event_id for entry in entries} == {one["decision_id"] for one in last if one["allowed"]}
    assert len(entries) == AFFORDABLE


async def told_by_other_doors(call: Any, world: Any) -> set[str]:
    """What holds, batches and proxies are told; for nothing that costs, so that the retries stay comparable."""
    free = {"key": world.key, "feature": "export"}
    proxy = "/v1/authorize/{}?feature=export&quantity=1"
    bearer = {"Authorization": f"Bearer {world.key}"}
    _, placed, _ = await call("/v1/check", free | {"mode": "hold", "ttl_ms": 1_000})
    _, batch, _ = await call("/v1/check/batch", {"checks": [free]})
    _, forward, _ = await call(proxy.format("forward"), method="GET", headers=bearer)
    _, _, nginx = await call(proxy.format("nginx"), method="GET", headers=bearer)
    problem = batch["answers"][0]["problem"] if "answers" in batch else batch
    return {placed["code"], problem["code"], forward["code"], nginx["X-Tallygate-Reason"]}
