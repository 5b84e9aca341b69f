"""A builder dies or falls asleep at every step of a rebuild; the next one finishes, and nothing is given twice."""

from __future__ import annotations

import signal

import pytest

from billing_core.contract.keys import epoch_key, shard_of_customer
from billing_core.flows.reconcile import reconcile
from tests.chaos.stream.conftest import Hands, dies, in_time, stands
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works

POINTS = ("shard-fenced", "epoch-raised", "shard-written-not-opened", "shard-opened")
CONNECTIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"

NAMES = [f"c{number}" for number in range(6)]
TOKENS = 20


async def spend(works: Works) -> int:
    """Spend as much as there is for everybody; how many decisions were allowed."""
    replies = [(await works.consume(name, 1))[0] for name in NAMES for _ in range(TOKENS)]
    return replies.count("allowed")


async def all_serve(works: Works) -> bool:
    return await works.valkey.exists(*{epoch_key(shard_of_customer("t", name)) for name in NAMES}) == len(
        works.shards
    )


@pytest.mark.parametrize("point", POINTS)
async def test_a_builder_that_died_is_followed_by_one_that_finishes(works: Works, hands: Hands, point: str) -> None:
    """Half of the money was spent and is in Postgres when Redis loses everything."""
    for name in NAMES:
        await works.customer(name, nanos=[TOKENS * NANOS_PER_TOKEN])
        await works.consume(name, TOKENS // 2)
    await works.flush()
    await works.valkey.flushall()
    await hands.start("flush")
    await dies(await hands.start("relay", struck=(point, "SIGKILL")))
    await hands.start("relay")
    await in_time(lambda: all_serve(works))
    assert await spend(works) == len(NAMES) * (TOKENS - TOKENS // 2)
    await in_time(works.drained)
    report = await reconcile(works.db, works.stream)
    assert (report.findings, report.remaining_nanos, report.unflushed_nanos) == ((), 0, 0)


async def test_a_builder_that_wakes_after_another_has_built_writes_nothing(works: Works, hands: Hands) -> None:
    """It slept with its whole image in its hands, and money was spent meanwhile."""
    for name in NAMES:
        await works.customer(name, nanos=[TOKENS * NANOS_PER_TOKEN])
    await works.flush()
    await works.valkey.flushall()
    others = {row["pid"] for row in await works.raw.fetch(CONNECTIONS)}
    sleeper = await hands.start("relay", struck=("shard-written-not-opened", "SIGSTOP"))
    await stands(sleeper)
    for row in await works.raw.fetch(
        CONNECTIONS
    ):  # Postgres finds that the sleeper's machine is gone; by itself, later
        if row["pid"] not in others:
            await works.raw.fetchval("SELECT pg_terminate_backend($1)", row["pid"])
    await hands.start("flush")
    await hands.start("relay")
    await in_time(lambda: all_serve(works))
    assert await spend(works) == len(NAMES) * TOKENS
    sleeper.send_signal(signal.SIGCONT)
    await in_time(works.drained)
    assert await spend(works) == 0
    report = await reconcile(works.db, works.stream)
    assert (report.findings, report.remaining_nanos) == ((), 0)
