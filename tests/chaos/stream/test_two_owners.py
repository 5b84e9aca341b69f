"""Two flushers that both believe they own a shard: one of them sleeps through its lease at the worst moment.

The sleeper is a real process, stopped at the stated point with everything in its hands. Another takes its lanes and
does the work; then the sleeper wakes and goes on with what it was doing.
"""

from __future__ import annotations

import signal

import pytest

from billing_core.flows.reconcile import reconcile
from tests.chaos.stream.conftest import Hands, in_time, stands
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works

NAMES = [f"c{number}" for number in range(20)]


async def decide(works: Works, tokens: int) -> int:
    """One decision for everybody; the tokens of all."""
    for name in NAMES:
        assert (await works.consume(name, tokens))[0] == "allowed"
    return tokens * len(NAMES)


@pytest.mark.parametrize("point", ["read-not-committed", "written-not-committed", "committed-not-trimmed"])
async def test_who_wakes_after_its_lease_writes_and_takes_nothing(works: Works, hands: Hands, point: str) -> None:
    """Read but not committed, in the middle of the transaction, and between commit and trim."""
    for name in NAMES:
        await works.customer(name, nanos=[10**9])
    tokens = await decide(works, 3)
    sleeper = await hands.start("flush", struck=(point, "SIGSTOP"))
    await stands(sleeper)
    await hands.start("flush")
    tokens += await decide(works, 5)
    await in_time(works.drained)
    assert (await reconcile(works.db, works.stream)).findings == ()
    tokens += await decide(works, 7)
    sleeper.send_signal(signal.SIGCONT)

    async def both_work() -> bool:
        shares = await works.raw.fetch("SELECT count(*) FROM flush_lane WHERE owner <> '' GROUP BY owner")
        return [share["count"] for share in shares] == [8, 8]

    await in_time(both_work)
    tokens += await decide(works, 11)
    await in_time(works.drained)
    await in_time(works.trimmed)
    report = await reconcile(works.db, works.stream)
    assert (report.findings, report.unflushed_nanos) == ((), 0)
    assert report.spent_nanos == tokens * NANOS_PER_TOKEN
    assert await works.count("usage_event") == await works.count("movement") == 4 * len(NAMES)
    assert await works.count("parked_entry") == 0
