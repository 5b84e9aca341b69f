"""The caller says by when it needs an answer, and has it by then, whatever Redis does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio

from gateway.command.embedded.valkey import Valkey, start_valkey
from gateway.edge.wire import MAX_DEADLINE_MS

LATE_MS = 1_000  # far from the settings' ten seconds; how late answers really are is measured by bench/outage
TRIES = 20


@pytest.fixture
async def hung(
    world: Any, settings: Any, open_gateway: Any, tmp_path: Path, started: Callable[[Valkey], Valkey]
) -> AsyncIterator[Any]:
    """A gateway whose Redis has stopped for a while; link and key were good before."""
    server = started(start_valkey(tmp_path / "v", appendfsync="no"))
    async with redis.asyncio.Redis.from_url(server.url) as client:
        world.valkey = client
        await world.build()
        await world.grant(1_000_000)
        hurried = msgspec.structs.replace(settings, redis_url=server.url, link_stall_ms=60_000, link_hang_ms=60_000)
        _, call = await open_gateway(hurried)
        hold = {"key": world.key, "feature": "tokens", "mode": "hold", "ttl_ms": 60_000, "deadline_ms": 9_000}
        _, held, _ = await call("/v1/check", hold)
        os.kill(server.child.pid, signal.SIGSTOP)
        yield call, held["hold"]["id"]
        os.kill(server.child.pid, signal.SIGCONT)


async def quickest_ms(call: Any, path: str, body: object, headers: dict[str, str] | None = None) -> float:
    """The quickest of some answers, all `unavailable`: how late they are by design, and not by a busy machine."""
    taken: list[float] = []
    for _ in range(TRIES):
        began_s = time.perf_counter()
        status, answer, _ = await call(path, body, headers=headers)
        taken.append((time.perf_counter() - began_s) * 1_000)
        problem = answer["answers"][0]["problem"] if status == 200 else answer
        assert problem["code"] == "unavailable"
    return min(taken)


@pytest.mark.parametrize("budget_ms", [3, 40])
async def test_every_way_to_ask_has_its_callers_deadline(hung: Any, world: Any, budget_ms: int) -> None:
    """Check, batch, settle, release and a proxy's question; the settings of this gateway say ten seconds."""
    call, hold = hung
    check = {"key": world.key, "feature": "calls"}
    told = {"deadline_ms": budget_ms}
    headers = {"Authorization": f"Bearer {world.key}", "Tallygate-Deadline-Ms": str(budget_ms)}
    for path, body, more in (
        ("/v1/check", check | told, None),
        ("/v1/check/batch", {"checks": [check]} | told, None),
        (f"/v1/holds/{hold}/settle", told, None),
        (f"/v1/holds/{hold}/release", told, None),
        ("/v1/authorize/forward?feature=calls&quantity=1", None, headers),
    ):
        quickest = await quickest_ms(call, path, body, more)
        assert budget_ms <= quickest <= budget_ms + LATE_MS, path


async def test_an_unknown_key_is_looked_up_within_the_same_deadline(hung: Any) -> None:
    """One budget for the look-up and the decision."""
    call, _ = hung
    quickest = await quickest_ms(call, "/v1/check", {"key": "tgk_new", "feature": "calls", "deadline_ms": 20})
    assert quickest <= 20 + LATE_MS


@pytest.mark.parametrize("told", [0, -1, MAX_DEADLINE_MS + 1, 1.5, "ten"])
async def test_a_deadline_that_breaks_its_rule_is_named(call: Any, world: Any, told: object) -> None:
    """Field and rule."""
    body = {"key": world.key, "feature": "calls", "deadline_ms": told}
    status, problem, _ = await call("/v1/check", body)
    assert (status, problem["field"]) == (400, "deadline_ms")
    headers = {"X-Api-Key": world.key, "Tallygate-Deadline-Ms": str(told)}
    status, problem, _ = await call("/v1/authorize/forward?feature=export&quantity=1", headers=headers)
    assert (status, problem["field"]) == (400, "Tallygate-Deadline-Ms")


async def test_a_batch_has_one_deadline(call: Any, world: Any) -> None:
    """It stands beside the checks, not in them."""
    check = {"key": world.key, "feature": "export"}
    status, problem, _ = await call("/v1/check/batch", {"checks": [check, check | {"deadline_ms": 10}]})
    assert (status, problem["field"]) == (400, "checks[1].deadline_ms")
