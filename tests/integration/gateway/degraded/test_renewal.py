"""A lease that is filled up again is set aside again: as much as its book says, and once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from gateway.admission.caller import caller_of_customer
from gateway.admission.degraded.outage import _entry
from gateway.admission.degraded.replay import Fate
from gateway.admission.order import Charge, Order, Terms, plan
from tests.integration.gateway.degraded.conftest import LEASED, NANOS, Echo, House

USED = LEASED // 2 + 1


async def held_nanos(house: House) -> int:
    return int((await house.wallet())[b"h:g1"])


async def test_each_renewal_sets_aside_what_the_lease_is_filled_up_by(
    degraded: Any, house: House, eventually: Any
) -> None:
    """The same units are missing after each of two outages; the second is no retry of the first."""
    worker, call, _ = await degraded()
    for _ in range(2):
        with house.hung():
            for _ in range(USED):
                status, _, _ = await call("/v1/check", {"key": house.world.key, "feature": "tokens"})
                assert status == 200
        await eventually(lambda: not worker.outage.pending_count() and worker.outage.leased_units() == LEASED)
    assert await held_nanos(house) == LEASED * NANOS


async def test_a_renewal_whose_answer_is_lost_is_not_done_twice(
    degraded: Any, house: House, eventually: Any, tmp_path: Path
) -> None:
    """It is asked for again under its name until it is known what became of it."""
    async with Echo(str(house.server.socket_file)).open(tmp_path / "e.sock") as echo:
        worker, _, _ = await degraded(
            redis_url=f"unix://{tmp_path}/e.sock", link_stall_ms=60_000, link_hang_ms=60_000
        )
        echo.on_time.clear()
        ((_, lease),) = worker.outage.leases.items()
        expired = worker.outage._bulk.tally.expired
        lease.left["tokens"] -= USED
        await eventually(lambda: worker.outage._bulk.tally.expired > expired + 2)
        echo.on_time.set()
        await eventually(lambda: worker.outage.leased_units() == LEASED)
        assert await held_nanos(house) == (LEASED + USED) * NANOS


async def test_a_key_that_was_used_for_something_else_does_not_let_its_order_go_free(
    degraded: Any, house: House
) -> None:
    """It is charged under a name of its own, and a second time finds the first."""
    worker, call, _ = await degraded(decision_deadline_ms=5_000)  # Redis itself takes the key
    other = {"key": house.world.key, "feature": "tokens", "quantity": 2, "idempotency_key": "k"}
    assert (await call("/v1/check", other))[1]["allowed"]
    ((_, lease),) = worker.outage.leases.items()
    order = Order(charges=(Charge(feature="tokens", quantity=1),), idempotency_key="k")
    act = plan(order, caller_of_customer("t1", "acme"), terms=Terms(window_ms=60_000))
    entry = _entry(lease, act, order=order, at_ms=1_772_000_000_000)
    fates = [await worker.outage._replay.charge(one) for one in (entry, msgspec.structs.replace(entry))]
    assert fates == [Fate.RECORDED, Fate.KNOWN]
    told = {one.body.event_id: one.charges[0].quantity for one in await house.world.entries() if one.charges}
    assert told[f"{act.decision_id}.{entry.at_ms}"] == 1
    assert told[act.decision_id] == 2
