"""Holds of silent customers end, and what is left of dead grants leaves the wallet."""

from __future__ import annotations

from datetime import timedelta

from billing_core.contract.keys import customer_keys
from billing_core.flows.money.grant import void
from billing_core.flows.money.lapse import lapse_due
from billing_core.flows.reconcile import reconcile
from billing_core.flows.sweep import sweep
from billing_core.values.clock import system_now
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works, eventually


async def test_holds_of_silent_customers_end_as_they_were_told(works: Works) -> None:
    """One is released, one is charged as held; what is not due stays."""
    (grant,) = await works.customer("c", nanos=[10**9])
    (other,) = await works.customer("d", nanos=[10**9])
    await works.hold("d", 30, ttl_ms=3_600_000)  # first: a decision ends what is due of its customer in passing
    await works.hold("c", 10, ttl_ms=1)
    await works.hold("d", 20, ttl_ms=1, on_expiry="charge")
    ended = 0

    async def both_have_ended() -> bool:
        nonlocal ended
        ended += await sweep(works.redis, works.stream)
        return ended == 2

    await eventually(both_have_ended)
    assert await sweep(works.redis, works.stream) == 0
    assert (await works.wallet("c"))[f"h:{grant}"] == 0
    assert (await works.wallet("d"))[f"h:{other}"] == 30 * NANOS_PER_TOKEN
    await works.flush()
    assert await works.spent(grant) == 0
    assert await works.spent(other) == 20 * NANOS_PER_TOKEN
    assert (await reconcile(works.db, works.stream)).findings == ()


async def test_more_holds_than_one_call_may_end_are_all_ended(works: Works) -> None:
    """The sweeper goes on while a shard answers that there may be more."""
    await works.customer("c", nanos=[10**9])
    for _ in range(450):
        await works.hold("c", 1, ttl_ms=3_600_000)
    keys = customer_keys("t", "c")
    for hold_id in await works.valkey.zrange(keys.shard_holds, 0, -1):
        await works.valkey.zadd(keys.shard_holds, {hold_id: 1})
    assert await sweep(works.redis, works.stream) == 450


async def test_what_is_left_of_an_expired_grant_lapses_at_its_instant(works: Works) -> None:
    """Prepaid 1200, consumed 800: 400 expire, and the grant is ended with its last movement."""
    expires_at = system_now() + timedelta(days=30)
    await works.customer("c")
    grant = await works.grant("c", 1_200 * NANOS_PER_TOKEN, expires_at=expires_at)
    await works.project()
    await works.consume("c", 800)
    assert await lapse_due(works.db, now=expires_at - timedelta(milliseconds=1)) == 0
    await works.advance(timedelta(days=31))
    assert await lapse_due(works.db, now=system_now()) == 1
    assert await lapse_due(works.db, now=system_now()) == 0
    await works.project()
    assert (await works.wallet("c"))[f"r:{grant}"] == 0
    await works.flush()
    row = await works.raw.fetchrow("SELECT * FROM credit_grant")
    assert (row["spent_nanos"], row["lapsed_nanos"]) == (800 * NANOS_PER_TOKEN, 400 * NANOS_PER_TOKEN)
    lapse = await works.raw.fetchrow("SELECT * FROM movement WHERE kind = 'lapse'")
    assert lapse["nanos"] == 400 * NANOS_PER_TOKEN
    assert row["ended_at"] == lapse["event_at"] > expires_at
    assert (await works.consume("c", 1))[0] == "insufficient_balance"
    assert await lapse_due(works.db, now=system_now() + timedelta(hours=1)) == 0
    assert (await reconcile(works.db, works.stream)).findings == ()


async def test_what_a_hold_gives_back_to_an_expired_grant_lapses_too(works: Works) -> None:
    """It is asked for again until the whole amount is spent or lapsed."""
    await works.customer("c")
    grant = await works.grant("c", 100 * NANOS_PER_TOKEN, expires_at=system_now() + timedelta(days=1))
    await works.project()
    hold_id = await works.hold("c", 60)
    await works.advance(timedelta(days=2))
    await lapse_due(works.db, now=system_now())
    await works.project()
    await works.flush()
    assert await works.raw.fetchval("SELECT ended_at FROM credit_grant") is None
    assert (await works.settle("c", hold_id, 10))[0] == b"settled"
    assert (await works.wallet("c"))[f"r:{grant}"] == 50 * NANOS_PER_TOKEN
    assert await lapse_due(works.db, now=system_now()) == 0, "it was asked for a moment ago"
    assert await lapse_due(works.db, now=system_now() + timedelta(seconds=10)) == 1
    await works.project()
    await works.flush()
    row = await works.raw.fetchrow("SELECT * FROM credit_grant")
    assert (row["spent_nanos"], row["lapsed_nanos"]) == (10 * NANOS_PER_TOKEN, 90 * NANOS_PER_TOKEN)
    assert row["ended_at"] is not None


async def test_a_void_grant_pays_no_more(works: Works) -> None:
    """Grant 100 is voided when 50 are used: the balance is nothing, and the rest has lapsed."""
    (grant,) = await works.customer("c", nanos=[100 * NANOS_PER_TOKEN])
    await works.consume("c", 50)
    async with works.db.transaction() as tx:
        assert await void(tx, tenant_id="t", grant_id=grant, now=system_now())
    async with works.db.transaction() as tx:
        assert not await void(tx, tenant_id="t", grant_id=grant, now=system_now())
    await works.project()
    assert (await works.consume("c", 1))[0] == "insufficient_balance"
    await works.flush()
    row = await works.raw.fetchrow("SELECT * FROM credit_grant")
    assert (row["spent_nanos"], row["lapsed_nanos"]) == (50 * NANOS_PER_TOKEN, 50 * NANOS_PER_TOKEN)
    assert (await reconcile(works.db, works.stream)).findings == ()


async def test_a_void_grant_is_not_brought_back_by_a_rebuild(works: Works) -> None:
    """Its rest stands in the wallet until it lapses, and nobody can spend it."""
    (grant,) = await works.customer("c", nanos=[100 * NANOS_PER_TOKEN])
    async with works.db.transaction() as tx:
        await void(tx, tenant_id="t", grant_id=grant, now=system_now())
    await works.valkey.flushall()
    await works.build()
    assert (await works.consume("c", 1))[0] == "insufficient_balance"
    await works.project()
    await works.flush()
    assert await works.raw.fetchval("SELECT lapsed_nanos FROM credit_grant") == 100 * NANOS_PER_TOKEN
