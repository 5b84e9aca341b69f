"""A hold that is charged in parts, expires and is settled late: each entry arrives once, and no nano is missing."""

from __future__ import annotations

from typing import Any

from billing_core.contract.keys import customer_keys, hold_key
from billing_core.flows.reconcile import reconcile
from lua.loader import SCRIPTS
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works


async def part(works: Works, customer: str, hold_id: str, tokens: int) -> list[Any]:
    """Charge so many tokens out of the hold, under its own body."""
    keys = customer_keys("t", customer)
    names = keys.epoch, hold_key(hold_id, keys.shard), keys.shard_holds, keys.stream, keys.idempotency_prefix
    return await works.valkey.fcall(SCRIPTS["part"].function, 5, *names, "", 0, "", 0, 1, "input_tokens", tokens)


async def require_whole(works: Works, *, held_tokens: int) -> None:
    """Spent, flushed or not, held and remaining are what was granted."""
    report = await reconcile(works.db, works.stream)
    assert (report.difference_nanos, report.findings) == (0, ())
    assert report.held_nanos == held_tokens * NANOS_PER_TOKEN


async def told_events(works: Works) -> dict[str, tuple[int, int, int]]:
    """By event id: quantity, charged and uncollected nanos."""
    rows = await works.raw.fetch("SELECT event_id, quantity, charged_nanos, uncollected_nanos FROM usage_event")
    assert len({row["event_id"] for row in rows}) == len(rows)
    return {row["event_id"]: (int(row["quantity"]), row["charged_nanos"], row["uncollected_nanos"]) for row in rows}


async def test_parts_and_a_late_settlement_reach_the_books_once_each(works: Works) -> None:
    """The parts while it is open, the rest behind its deadline, as far as the wallet goes."""
    await works.customer("c", nanos=[100 * NANOS_PER_TOKEN])
    hold_id = await works.hold("c", 60, ttl_ms=3_000)
    for tokens, left in ((10, 50), (20, 30)):
        reply = await part(works, "c", hold_id, tokens)
        assert (reply[0], reply[5]) == (b"charged", left * NANOS_PER_TOKEN)
        await require_whole(works, held_tokens=left)
    await works.flush()
    await require_whole(works, held_tokens=30)
    keys = customer_keys("t", "c")
    while not await works.valkey.fcall(
        SCRIPTS["sweep"].function, 3, keys.epoch, keys.shard_holds, keys.stream, 10
    ):  # the deadline is the server's
        pass
    await require_whole(works, held_tokens=0)
    late = await works.settle("c", hold_id, 75)
    assert (late[0], late[4], late[6]) == (b"late", 70 * NANOS_PER_TOKEN, 5 * NANOS_PER_TOKEN)
    await works.flush()
    await require_whole(works, held_tokens=0)
    assert await told_events(works) == {
        f"{hold_id}.1": (10, 10 * NANOS_PER_TOKEN, 0),
        f"{hold_id}.2": (20, 20 * NANOS_PER_TOKEN, 0),
        hold_id: (75, 70 * NANOS_PER_TOKEN, 5 * NANOS_PER_TOKEN),
    }
