"""Redis' clock is known by its narrowest sample, and forgotten when a newer one contradicts it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing_core.contract.keys import epoch_key
from billing_core.errors import Unavailable
from gateway.state.clock import Sample, ServerClock


class Server:
    """Answers TIME after a while; the test's own clock passes meanwhile."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.trip_s = 0.002
        self.ahead_s = 5_000.0
        self.is_away = False
        self.asked = asyncio.Event()
        self.keys: list[str] = []

    async def up(self) -> None:
        return

    def run(self, name: str, keys: tuple[Any, ...], *, args: tuple[Any, ...], deadline_ms: int) -> Any:
        assert (name, args) == ("clock", ())
        assert deadline_ms > 0
        self.keys.append(keys[0])
        self.asked.set()
        if self.is_away:
            raise Unavailable("away")
        future = asyncio.get_running_loop().create_future()
        self.now_s += self.trip_s / 2
        micros = round((self.now_s + self.ahead_s) * 1e6)
        self.now_s += self.trip_s / 2
        future.set_result([str(micros // 1_000_000).encode(), str(micros % 1_000_000).encode()])
        return future


async def looked(server: Server, clock: ServerClock) -> None:
    """One look, and no second one."""
    keeping = asyncio.create_task(clock.keep())
    await server.asked.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


def clock_of(server: Server) -> ServerClock:
    return ServerClock(server, now_s=lambda: server.now_s)


async def test_a_moment_is_told_on_redis_clock_with_the_benefit_of_the_doubt() -> None:
    """Never earlier than it is, and at most the doubt and a millisecond later."""
    server = Server()
    clock = clock_of(server)
    await looked(server, clock)
    exact_ms = (101.0 + server.ahead_s) * 1_000
    assert exact_ms < clock.at_ms(101.0, shard=7) <= exact_ms + 1 + 1


async def test_nothing_is_told_before_the_first_look() -> None:
    """0 is what the scripts take for no deadline at all."""
    server = Server()
    server.is_away = True
    clock = clock_of(server)
    assert clock.at_ms(101.0, shard=7) == 0
    await looked(server, clock)
    assert clock.at_ms(101.0, shard=7) == 0


def test_the_narrowest_sample_is_believed_as_long_as_nothing_contradicts_it() -> None:
    """A slow round trip says less."""
    clock = clock_of(Server.__new__(Server))
    clock.learn(Sample(ahead_ms=1_000.0, doubt_ms=0.5))
    clock.learn(Sample(ahead_ms=1_040.0, doubt_ms=60.0))
    assert clock.at_ms(0.0, shard=7) == 1_001


@pytest.mark.parametrize("ahead_ms", [900.0, 1_100.0, 5_000_000.0])
def test_a_clock_that_was_set_is_learnt_anew(ahead_ms: float) -> None:
    """Forwards, backwards, or another server's."""
    clock = clock_of(Server.__new__(Server))
    clock.learn(Sample(ahead_ms=1_000.0, doubt_ms=0.5))
    clock.learn(Sample(ahead_ms=ahead_ms, doubt_ms=2.0))
    assert clock.at_ms(0.0, shard=7) == int(ahead_ms) + 3


def test_an_old_sample_is_forgotten_so_that_drift_is_followed() -> None:
    """A hair a second, for ever, is far."""
    clock = clock_of(Server.__new__(Server))
    clock.learn(Sample(ahead_ms=1_000.0, doubt_ms=0.1))
    for second in range(40):
        clock.learn(Sample(ahead_ms=1_000.0 + second * 0.05, doubt_ms=0.6))
    assert clock.at_ms(0.0, shard=7) >= 1_002


async def test_each_shard_of_a_cluster_has_a_clock_that_is_asked_where_the_shard_is() -> None:
    """From its first use on."""
    server = Server()
    clock = ServerClock(server, is_cluster=True, now_s=lambda: server.now_s)
    assert [clock.at_ms(101.0, shard=shard) for shard in (3, 9, 3)] == [0, 0, 0]
    await looked(server, clock)
    assert server.keys == [epoch_key(3), epoch_key(9)]
    assert clock.at_ms(101.0, shard=9) > 0
    assert clock.at_ms(101.0, shard=4) == 0
