"""What could not be sent is sent again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing_core.errors import Unavailable
from gateway.edge.proxy.settlement import Settlements, settlement_of


class Books:
    """Notes which holds are released; those of `away` cannot be told, and `stuck` ones never answer."""

    def __init__(self, away: set[str]) -> None:
        self.away = away
        self.stuck = asyncio.Event()
        self.is_stuck = False
        self.released: list[str] = []

    async def release(self, hold_id: str, **_: Any) -> None:
        if hold_id in self.away:
            raise Unavailable("Redis cannot decide now")
        if self.is_stuck:
            self.stuck.set()
            await asyncio.Event().wait()
        self.released.append(hold_id)


async def waiting(books: Books) -> Settlements:
    """Settlements of all that was away, in its order."""
    settlements = Settlements(books, deadline_ms=1_000)  # type: ignore[arg-type]
    for hold_id in sorted(books.away):
        with pytest.raises(Unavailable):
            await settlements.end(settlement_of(hold_id, None))
    return settlements


async def test_who_cannot_be_told_keeps_nobody_from_being_told() -> None:
    """A shard that is not there for long, or that somebody has made up."""
    books = Books({f"a{place}" for place in range(6)} | {"b1", "b2"})
    settlements = await waiting(books)
    books.away -= {"b1", "b2"}
    for _ in range(2):
        await settlements.retry()
    assert (books.released, settlements.waiting_count) == (["b1", "b2"], 6)


async def test_what_is_being_sent_when_the_process_ends_still_waits() -> None:
    """The last round sends it: settling twice is harmless, and not at all is not."""
    books = Books({"a"})
    settlements = await waiting(books)
    books.away.clear()
    books.is_stuck = True
    keeping = asyncio.create_task(settlements.retry())
    await books.stuck.wait()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert settlements.waiting_count == 1
    books.is_stuck = False
    await settlements.retry()
    assert (books.released, settlements.waiting_count) == (["a"], 0)
