"""Told before the answer: at once where Redis is up, after whoever is at it, and never for ever."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from billing_core.adapters.projection import Projection
from billing_core.adapters.redis_client import REDIS_FAILURES, connect
from billing_core.api.app import AWAY
from billing_core.flows.project import Relay, RelayTally
from billing_core.values.clock import system_now

if TYPE_CHECKING:
    from tests.integration.stream.conftest import Works

LOCK = "SELECT outbox_id FROM outbox WHERE customer_id = $1 FOR UPDATE"


async def told(works: Works, customer: str, *, relay: Relay | None = None) -> bool:
    return await (relay or works.relay).tell_customer(tenant_id="t", customer_id=customer, now=system_now())


async def test_all_that_changed_of_a_customer_is_told_and_nothing_of_others(works: Works) -> None:
    """In the order of the changes; where nothing waits, all is told."""
    await works.customer("ada")
    await works.customer("bob")
    for customer in ("ada", "bob"):
        await works.grant(customer, 100)
        await works.dirty(customer)
    assert await told(works, "ada")
    assert await works.raw.fetch("SELECT DISTINCT customer_id FROM outbox") == [("bob",)]
    assert sum(1 for name in await works.wallet("ada") if name.startswith("r:")) == 1
    assert await works.wallet("bob") == {}
    assert await told(works, "ada")


async def test_what_a_relay_has_in_hand_is_waited_for(works: Works) -> None:
    """The answer comes when the relay is done, and not before."""
    await works.customer("ada")
    await works.grant("ada", 100)
    async with works.raw.transaction():
        await works.raw.fetch(LOCK, "ada")
        waiting = asyncio.create_task(told(works, "ada"))
        for _ in range(50):
            await works.raw.fetchval("SELECT 1")
        assert not waiting.done()
        await works.raw.execute("DELETE FROM outbox")
    assert await waiting
    assert await works.wallet("ada") == {}, "the relay that deleted the row would have told it"


async def test_nobody_waits_for_ever(works: Works) -> None:
    """Neither for a relay that hangs nor for a Redis that does not answer; the rows are still there."""
    await works.customer("ada")
    await works.grant("ada", 100)
    async with works.raw.transaction():
        await works.raw.fetch(LOCK, "ada")
        with pytest.raises(AWAY):
            await told(works, "ada")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        async with connect(f"redis://127.0.0.1:{mute.getsockname()[1]}/0") as nobody:
            relay = Relay(works.db, Projection(nobody), tally=RelayTally())
            with pytest.raises(REDIS_FAILURES):
                await told(works, "ada", relay=relay)
    assert await works.count("outbox") == 1
    assert await told(works, "ada")
    assert await works.count("outbox") == 0
