"""A close that is killed, or run twice at once, bills each period once and leaves no number out."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from billing_core.errors import Unavailable
from billing_core.flows.billing import bill, close
from billing_core.flows.billing.close import close_due

if TYPE_CHECKING:
    from tests.scenario.money.conftest import World

END = datetime(2026, 2, 28, 9, tzinfo=UTC)
CUSTOMERS = 23


async def furnish(world: World) -> None:
    for n in range(CUSTOMERS):
        await world.customer(f"c{n:02}")
        await world.subscribe(f"c{n:02}", "team")
        await world.use(f"c{n:02}", "call", n)
    world.now = END


async def is_billed_once(world: World) -> None:
    await world.check()
    assert await world.fetch("SELECT state, count(*) FROM billing_period GROUP BY 1 ORDER BY 1") == [
        ("closed", CUSTOMERS),
        ("open", CUSTOMERS),
    ]
    bills = [invoice for invoice in await world.invoices() if invoice.reason == "period"]
    assert {bill.customer_id: bill.total_minor for bill in bills} == {
        f"c{n:02}": 3100 + 1000 * n for n in range(CUSTOMERS)
    }
    assert len(bills) == CUSTOMERS
    numbers = sorted(invoice.number or "" for invoice in await world.invoices())
    assert numbers == [f"INV-{n:06d}" for n in range(1, 2 * CUSTOMERS + 1)]
    assert await world.fetch("SELECT count(*), count(DISTINCT invoice_id) FROM payment") == [(46, 46)]


async def test_a_close_killed_with_9_again_and_again_is_whole_in_the_end(world: World, postgres_url: str) -> None:
    """Four real processes, killed before and after commits; the laws hold after each, and the fifth ends it."""
    await furnish(world)
    child = (sys.executable, Path(__file__).parent / "close_child.py", postgres_url, END.isoformat())
    left: list[int] = []
    for chunk, point in ((1, "before"), (1, "after"), (2, "before"), (2, "after")):
        done = await asyncio.to_thread(subprocess.run, (*child, str(chunk), point), check=False)
        assert done.returncode == -9
        await world.check()
        ((count,),) = await world.fetch(
            "SELECT count(*) FROM billing_period WHERE state = 'open' AND end_at <= $1", END
        )
        left.append(count)
    assert left == [23, 18, 13, 3]
    assert await world.close() == 3
    await is_billed_once(world)


async def test_a_close_that_fails_says_why_and_keeps_what_was_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third part fails while the fourth is being reckoned: two are whole, and the next close does the rest."""
    await furnish(world)
    real, written = bill.write, itertools.count(1)

    async def write(*words: Any, **more: Any) -> Any:
        if next(written) == 3:
            raise Unavailable("the disk is full")
        return await real(*words, **more)

    monkeypatch.setattr(close, "INVOICES_WRITTEN_TOGETHER", 5)
    monkeypatch.setattr(bill, "write", write)
    with pytest.raises(Unavailable, match="the disk is full"):
        await world.close()
    await world.check()
    assert await world.close() == CUSTOMERS - 2 * 5
    await is_billed_once(world)
    ends = sorted((one.number or "", one.customer_id) for one in await world.invoices() if one.reason == "period")
    parts = [int(customer[1:]) // 5 for _, customer in ends]
    assert parts == sorted(parts), "bills are numbered in the order of the periods, part by part"


async def test_two_closes_at_once_share_the_periods(world: World) -> None:
    """Whoever comes second to a period finds it closed."""
    await furnish(world)
    done = await asyncio.gather(*(close_due(world.db, now=world.now) for _ in range(3)))
    assert sum(done) == CUSTOMERS
    await is_billed_once(world)
