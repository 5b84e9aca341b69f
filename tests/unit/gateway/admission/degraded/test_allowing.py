"""What is allowed without Redis stands in the journal, whatever happens beside it; no Redis is there at all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from billing_core.contract.keys import new_hold_id
from billing_core.errors import Unavailable
from billing_core.values.clock import system_now
from gateway.admission.caller import caller_of_customer
from gateway.admission.degraded.journal import Journal
from gateway.admission.degraded.lease import Lease, LeasePool, name_of
from gateway.admission.degraded.lessee import Lessee
from gateway.admission.degraded.outage import Outage
from gateway.admission.degraded.record import Left, left_of
from gateway.admission.order import Charge, Order, Terms, plan
from gateway.settings import GatewaySettings
from gateway.state.endpoint import Endpoint
from gateway.state.link import Link, LinkSettings
from lua.loader import LIBRARY

ACME = caller_of_customer("t1", "acme")
ORDER = Order(charges=(Charge(feature="calls", quantity=3),))
ACT = plan(ORDER, ACME, terms=Terms(window_ms=60_000, keyed=True))
MIB = 2**20


def nobody() -> Link:
    """A link to a server that is not there."""
    return Link(LinkSettings(endpoint=Endpoint(path="/nowhere")), LIBRARY)


def lease() -> Lease:
    return Lease(ACME, "hold_1", units={"calls": 10}, now_s=0.0, until_s=float("inf"))


def outage(folder: Path, *, max_bytes: int = MIB) -> Outage:
    settings = GatewaySettings(journal_dir=str(folder), journal_max_bytes=max_bytes)
    return Outage(nobody(), settings=settings, clock=system_now)


def left_in(folder: Path) -> Left:
    (file,) = folder.glob("*.journal")
    return left_of(file.read_bytes())


async def test_what_is_just_being_allowed_is_not_forgotten_with_what_is_done(tmp_path: Path) -> None:
    """The kernel has it, and whoever asked is not told yet: in this moment the journal does not begin anew."""
    ours = outage(tmp_path)
    ours._done_count = 1  # something was charged, and nothing is waiting to be
    allowing = asyncio.create_task(ours.allow(lease(), ACT, order=ORDER))
    async with asyncio.timeout(10):
        while not left_in(tmp_path).entries:  # noqa: ASYNC110 - the turns of the loop are what is told apart
            await asyncio.sleep(0)
    assert not allowing.done()
    await ours._charge_pending()
    assert await allowing is not None
    assert [entry.decision_id for entry in left_in(tmp_path).entries] == [ACT.decision_id]
    await ours.stop()


async def test_what_the_journal_does_not_take_is_not_allowed(tmp_path: Path) -> None:
    """The units are there again, nothing is owed, and no retry is told that it was allowed."""
    ours, held = outage(tmp_path, max_bytes=1), lease()
    assert await ours.allow(held, ACT, order=ORDER) is None
    assert (held.left, held.owed_count, ours.pending_count()) == ({"calls": 10}, 0, 0)
    assert ours.recall(ACT) is None
    await ours.stop()


async def test_a_lease_is_written_down_before_it_is_asked_for(tmp_path: Path) -> None:
    """Whatever became of the question: whoever finds the journal gives the hold back, and so does this process."""
    settings = GatewaySettings(journal_dir=str(tmp_path))
    journal, pool = Journal(tmp_path, max_bytes=MIB), LeasePool(1, idle_s=1.0)
    lessee = Lessee(nobody(), pool, journal=journal, settings=settings, clock=system_now)
    with pytest.raises(Unavailable):
        await lessee.take(name_of(ACME, ORDER), ACME, units={"calls": 10})
    assert len(left_in(tmp_path).hold_ids) == 1
    assert list(left_in(tmp_path).hold_ids) == lessee.hold_ids()
    await journal.close(is_empty=False)


async def test_a_lease_that_owes_is_not_given_back(tmp_path: Path) -> None:
    """What was allowed on it is still to be charged on it."""
    journal, pool = Journal(tmp_path, max_bytes=MIB), LeasePool(1, idle_s=1.0)
    settings = GatewaySettings(journal_dir=str(tmp_path))
    lessee = Lessee(nobody(), pool, journal=journal, settings=settings, clock=system_now)
    name, held = name_of(ACME, ORDER), lease()
    pool.add(name, held)
    held.take(ORDER.charges)
    await lessee.give_back([name])
    assert pool.get(name) is held
    await journal.close(is_empty=False)


async def test_a_lease_that_owes_is_not_filled_up(tmp_path: Path) -> None:
    """Only once it is known what was charged on it is it known what is missing."""
    journal, pool = Journal(tmp_path, max_bytes=MIB), LeasePool(1, idle_s=1.0)
    settings = GatewaySettings(journal_dir=str(tmp_path))
    lessee = Lessee(nobody(), pool, journal=journal, settings=settings, clock=system_now)
    hold_id = new_hold_id(ACME.keys.shard)
    held = Lease(ACME, hold_id, units={"calls": 4}, now_s=time.perf_counter(), until_s=float("inf"))
    pool.add(name_of(ACME, ORDER), held)
    held.take(ORDER.charges)
    await lessee.renew()
    held.owed_count = 0
    with pytest.raises(Unavailable):
        await lessee.renew()
    await journal.close(is_empty=False)
