"""The window finds how much a gate bears: slowly up, quickly down."""

from __future__ import annotations

import asyncio

from gateway.command.client.persistence import Window


async def test_no_more_than_the_window_is_under_way() -> None:
    """Who comes later waits for room, and gets it."""
    window, under_way, peak = Window(3), 0, 0

    async def act() -> None:
        nonlocal under_way, peak
        async with window:
            under_way += 1
            peak = max(peak, under_way)
            await asyncio.sleep(0)
            under_way -= 1

    await asyncio.gather(*(act() for _ in range(20)))
    assert (peak, under_way) == (3, 0)
    assert window.size == 3


async def test_a_window_of_successes_opens_it_by_one() -> None:
    """Up to the most."""
    window = Window(64)
    begun = window.size
    for _ in range(int(begun)):
        async with window:
            pass
    assert begun + 0.9 < window.size <= begun + 1
    for _ in range(5_000):
        async with window:
            pass
    assert window.size == 64


async def test_refusals_that_come_together_count_as_one() -> None:
    """And one request is always let through."""
    window = Window(64)
    begun = window.size
    for _ in range(10):
        window.shrink()
    assert window.size == begun * 0.7
    assert Window(1).size == 1
