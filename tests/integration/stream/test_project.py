"""What changed in Postgres reaches Redis, however often it is told."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from billing_core.adapters.projection import GrantFacts, Refused, apply_grant, lapse_grant, project_snapshot
from billing_core.contract.keys import (
    INVALIDATION_CHANNEL,
    KeyRecord,
    Role,
    api_key_name,
    customer_keys,
    epoch_key,
    meters_key,
    shard_of_customer,
)
from billing_core.contract.snapshot import Entitlement, FeatureKind, Snapshot, Status
from billing_core.store.outbox import OutboxKind, push, push_snapshots, take
from billing_core.values.clock import system_now
from billing_core.wallets.grant import LapseReason
from tests.integration.stream.conftest import LONG_AGO, NANOS_PER_TOKEN, Works


def facts(customer_id: str, grant_id: str) -> GrantFacts:
    return GrantFacts(
        tenant_id="t",
        customer_id=customer_id,
        grant_id=grant_id,
        currency="USD",
        amount_nanos=10,
        priority=0,
        effective_ms=0,
        expires_ms=0,
        is_paid=True,
        created_ms=0,
    )


async def test_a_grant_counts_from_the_very_next_decision(works: Works) -> None:
    """And is noted as applied."""
    await works.customer("c")
    assert (await works.consume("c", 1))[0] == "insufficient_balance"
    grant = await works.grant("c", NANOS_PER_TOKEN)
    await works.project()
    assert (await works.consume("c", 1))[0] == "allowed"
    assert await works.raw.fetchval("SELECT applied_at FROM credit_grant WHERE grant_id = $1", grant)
    assert await works.count("outbox") == 0


async def test_a_grant_that_is_told_twice_is_there_once(works: Works) -> None:
    """A relay that died between Redis and its commit tells all of it again."""
    (grant,) = await works.customer("c", nanos=[10_000])
    await works.consume("c", 1)
    await works.raw.execute("UPDATE credit_grant SET applied_at = NULL")
    for _ in range(2):
        await works.raw.execute(
            "INSERT INTO outbox (kind, tenant_id, customer_id, subject) VALUES ('grant', 't', 'c', $1)", grant
        )
        await works.project()
    assert (await works.wallet("c"))[f"r:{grant}"] == 10_000 - NANOS_PER_TOKEN


async def test_a_redis_that_forgot_the_library_gets_it_back_and_acts_keep_their_order(works: Works) -> None:
    """Nothing of what was sent has run, so all of it is sent again, from the first."""
    await works.customer("c")
    await works.valkey.function_flush()
    acts = [
        lapse_grant(facts("c", "g"), reason=LapseReason.VOID, event_id="e1"),
        apply_grant(facts("c", "g")),
        lapse_grant(facts("c", "g"), reason=LapseReason.VOID, event_id="e2"),
    ]
    assert await works.redis.run(acts) == [0, 1, 10]


async def test_a_redis_that_takes_no_library_now_gets_it_with_a_later_try(works: Works) -> None:
    """It is full: what is told waits, as for a server that is away."""
    await works.valkey.function_flush()
    act = apply_grant(facts("c", "g"))
    await works.valkey.config_set("maxmemory", 1)
    try:
        (outcome,) = await works.redis.run([act])
    finally:
        await works.valkey.config_set("maxmemory", 0)
    assert outcome == Refused(words="UNAVAILABLE server")
    assert await works.redis.run([act]) == [1]


async def test_a_relay_that_dies_before_its_commit_leaves_the_rows(works: Works) -> None:
    """They are told again, and the snapshot that was told first never stands in the way of the second."""
    await works.customer("c", nanos=[10_000])
    await works.dirty("c")
    with pytest.raises(ZeroDivisionError):
        await _tell_and_die(works)
    version = int(await works.valkey.hget(customer_keys("t", "c").snapshot, "v"))
    await works.raw.execute("UPDATE customer SET operator_suspended_at = now()")
    assert await works.project() == 1
    assert int(await works.valkey.hget(customer_keys("t", "c").snapshot, "v")) > version
    assert (await works.consume("c", 1))[0] == "suspended"


async def _tell_and_die(works: Works) -> None:
    async with works.db.transaction() as tx:
        rows = await take(tx, most=10)
        assert len(rows) == 1
        await works.relay._tell(tx, rows, now=system_now())
        raise ZeroDivisionError


async def test_a_key_and_an_operators_token_are_told_and_forgotten(works: Works) -> None:
    """Every gateway hears the digest."""
    await works.customer("c")
    await works.raw.execute(
        "INSERT INTO api_key VALUES ('d1', 'key_1', 't', 'c', '', 'ab12', '{team,job}', $1, NULL)", LONG_AGO
    )
    await works.raw.execute(
        "INSERT INTO operator_token (digest, token_id, tenant_id, label, hint, created_at)"
        " VALUES ('d2', 'tok_1', 't', '', 'cd34', $1)",
        LONG_AGO,
    )
    listener = works.valkey.pubsub()
    await listener.subscribe(INVALIDATION_CHANNEL)
    await listener.get_message(timeout=5)
    async with works.db.transaction() as tx:
        for digest in ("d1", "d2"):
            await push(tx, OutboxKind.KEY, tenant_id="t", subject=digest)
    await works.project()
    caller = msgspec.msgpack.decode(await works.valkey.get(api_key_name("d1")), type=KeyRecord)
    assert caller == KeyRecord(tenant_id="t", role=Role.CALLER, customer_id="c", hint="ab12", path=("team", "job"))
    operator = msgspec.msgpack.decode(await works.valkey.get(api_key_name("d2")), type=KeyRecord)
    assert operator == KeyRecord(tenant_id="t", role=Role.OPERATOR, hint="cd34")
    assert {(await listener.get_message(timeout=5))["data"] for _ in range(2)} == {b"d1", b"d2"}
    await works.raw.execute("UPDATE api_key SET revoked_at = now()")
    async with works.db.transaction() as tx:
        await push(tx, OutboxKind.KEY, tenant_id="t", subject="d1")
    await works.project()
    assert await works.valkey.get(api_key_name("d1")) is None
    assert (await listener.get_message(timeout=5))["data"] == b"d1"
    await listener.aclose()


async def test_gateways_hear_of_a_new_snapshot_where_they_may_decide_by_themselves(works: Works) -> None:
    """Nobody is told of others."""
    entitlement = Entitlement(kind=FeatureKind.METERED, enabled=True)
    sliced = msgspec.structs.replace(entitlement, slice_units=5)
    await works.customer("c")
    listener = works.valkey.pubsub()
    await listener.subscribe(INVALIDATION_CHANNEL)
    await listener.get_message(timeout=5)
    acts = [
        project_snapshot("t", customer, snapshot=Snapshot(
            version=99, status=Status.SUSPENDED, clock_offset_ms=0, features={"calls": told}
        ))
        for customer, told in (("b", entitlement), ("c", sliced))
    ]  # fmt: skip
    assert await works.redis.run(acts) == [1, 1]
    assert (await listener.get_message(timeout=5))["data"] == b"slices:t:c"
    await listener.aclose()


async def test_meters_are_told_as_the_fields_that_an_event_must_have(works: Works) -> None:
    """The strictest scale of all meters of a field; a unique count takes text too; a count asks for nothing."""
    rows = [
        ("a", "llm", "sum", "cost", 6),
        ("b", "llm", "max", "cost", 2),
        ("c", "llm", "unique", "user", 0),
        ("d", "llm", "unique", "cost", 0),
        ("e", "ping", "count", "", 0),
    ]
    for code, event, aggregation, field, scale in rows:
        await works.raw.execute(
            "INSERT INTO meter VALUES ('t', $1, $2, $3, $4, $5, '{region}', $6)",
            *(code, event, aggregation, field, scale, LONG_AGO),
        )
    async with works.db.transaction() as tx:
        await push(tx, OutboxKind.METERS, tenant_id="t")
    await works.project()
    told = msgspec.msgpack.decode(await works.valkey.get(meters_key("t")))
    assert told == {"llm": {"cost": 2, "user": -1}, "ping": {}}


async def test_what_belongs_to_a_shard_that_is_not_built_waits_and_stops_nobody(works: Works) -> None:
    """The other customer's grant is told in the same round."""
    await works.customer("c")
    await works.customer("d")
    await works.valkey.delete(epoch_key(shard_of_customer("t", "c")))
    await works.grant("c", 5)
    await works.grant("d", 5)
    assert await works.project() == 1
    assert await works.count("outbox") == 1
    assert works.relay_tally.refused == {"UNAVAILABLE epoch": 1}
    await works.valkey.set(epoch_key(shard_of_customer("t", "c")), 1)
    await works.raw.execute("UPDATE outbox SET retry_at = now()")
    assert await works.project() == 1


async def test_a_snapshot_is_told_again_before_its_future_ends(works: Works) -> None:
    """At half of it; after that the next instant is noted."""
    await works.customer("c")
    stale_at = await works.raw.fetchval("SELECT snapshot_stale_at FROM customer")
    assert stale_at is not None
    assert await works.relay.push_stale(now=stale_at - timedelta(seconds=1), most=10) == 0
    assert await works.relay.push_stale(now=stale_at, most=10) == 1
    assert await works.relay.push_stale(now=stale_at, most=10) == 0
    assert await works.project() == 1
    assert await works.raw.fetchval("SELECT snapshot_stale_at FROM customer") is not None


async def test_a_top_up_does_not_wait_for_a_new_catalog_to_reach_everybody(works: Works) -> None:
    """What was pushed for one customer is told before what was pushed for all."""
    for number in range(5):
        await works.customer(f"c{number}")
    async with works.db.transaction() as tx:
        assert await push_snapshots(tx, tenant_id="t") == 5
    await works.grant("c3", NANOS_PER_TOKEN)
    assert await works.relay.project(now=system_now(), most=1) == 1
    assert (await works.consume("c3", 1))[0] == "allowed"
    assert await works.project() == 5


async def test_a_subscription_that_starts_later_entitles_to_nothing_until_then(works: Works) -> None:
    """Its start is when the snapshot goes stale."""
    start_at = system_now() + timedelta(days=3)
    await works.customer("c", nanos=[10**6])
    await works.raw.execute("UPDATE subscription SET started_at = $1, anchor_at = $1", start_at)
    await works.dirty("c")
    await works.project()
    assert (await works.consume("c", 1))[0] == "not_entitled"
    assert await works.raw.fetchval("SELECT snapshot_stale_at FROM customer") == start_at
    await works.advance(timedelta(days=4))
    assert (await works.consume("c", 1))[0] == "allowed"
