"""The proof that nothing is lost, and that it finds what is: one nano, anywhere, and says where."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from billing_core.adapters.usage_stream import Capture, UsageStream
from billing_core.contract.keys import customer_keys, epoch_key, shard_of_customer, stream_key
from billing_core.flows.reconcile import PARKED_LAW, WALLET_LAW, Finding, reconcile
from billing_core.values.clock import system_now
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works


async def a_lived_in_wallet(works: Works) -> str:
    """Spent and flushed, spent and not flushed, held, remaining, and one grant not yet applied; the first grant."""
    (grant,) = await works.customer("c", nanos=[10**9])
    await works.consume("c", 100)
    await works.flush()
    await works.consume("c", 30)
    await works.hold("c", 7)
    await works.grant("c", 5_000)
    return grant


async def test_each_part_is_counted_where_it_is(works: Works) -> None:
    """And the sum of the parts is what was granted."""
    await a_lived_in_wallet(works)
    report = await reconcile(works.db, works.stream)
    assert report.grants == 2
    assert report.granted_nanos == 10**9 + 5_000
    assert report.spent_nanos == 100 * NANOS_PER_TOKEN
    assert report.unflushed_nanos == 30 * NANOS_PER_TOKEN
    assert report.held_nanos == 7 * NANOS_PER_TOKEN
    assert report.remaining_nanos == 10**9 - 137 * NANOS_PER_TOKEN
    assert report.pending_nanos == 5_000
    assert report.difference_nanos == 0
    assert report.findings == ()


async def test_a_nano_stolen_from_a_wallet_is_found(works: Works) -> None:
    """In what remains and in what is held; and one that was put in."""
    grant = await a_lived_in_wallet(works)
    wallet = customer_keys("t", "c").wallet
    for field, nanos, difference in [("r", -1, 1), ("h", -1, 2), ("r", 5, -3)]:
        await works.valkey.hincrby(wallet, f"{field}:{grant}", nanos)
        report = await reconcile(works.db, works.stream)
        assert report.difference_nanos == difference
        assert report.findings == (
            Finding(
                law=WALLET_LAW,
                tenant_id="t",
                customer_id="c",
                grant_id=grant,
                currency="USD",
                difference_nanos=difference,
            ),
        )


async def test_a_grant_that_vanished_or_was_made_up_in_redis_is_found(works: Works) -> None:
    """What Postgres knows to be applied must be there; what it never granted must not."""
    grant = await a_lived_in_wallet(works)
    wallet = customer_keys("t", "c").wallet
    await works.valkey.hset(wallet, "r:gra_forged", 77)
    await works.valkey.hdel(wallet, f"r:{grant}", f"h:{grant}")
    report = await reconcile(works.db, works.stream)
    found = {finding.grant_id: finding.difference_nanos for finding in report.findings}
    assert found == {grant: 10**9 - 130 * NANOS_PER_TOKEN, "gra_forged": -77}


@pytest.mark.parametrize(
    ("tamper", "law"),
    [
        ("UPDATE movement SET nanos = nanos - 1", "movements_add_up_to_the_grant"),
        ("DELETE FROM movement", "movements_add_up_to_the_grant"),
        ("UPDATE credit_grant SET spent_nanos = spent_nanos + 1 WHERE spent_nanos > 0", WALLET_LAW),
        ("UPDATE usage_event SET charged_nanos = charged_nanos + 1", "charges_are_movements_of_the_same_entry"),
        ("DELETE FROM usage_event", "charges_are_movements_of_the_same_entry"),
        ("UPDATE movement SET customer_id = 'd'", "movements_are_of_their_customers_grant"),
        ("UPDATE shard SET watermark_ms = 0, watermark_seq = 0", "nothing_is_written_from_beyond_the_watermark"),
        (
            (
                "INSERT INTO usage_event"
                ' SELECT (jsonb_populate_record(e, \'{"event_at": "2031-01-01T00:00:00Z"}\')).* FROM usage_event e'
            ),
            "a_place_in_a_stream_is_written_once",
        ),
    ],
)
async def test_a_book_that_was_changed_by_hand_is_found(works: Works, tamper: str, law: str) -> None:
    """The law that it breaks is named."""
    await a_lived_in_wallet(works)
    await works.raw.execute("ALTER TABLE movement DISABLE TRIGGER ALL")
    await works.raw.execute(tamper)
    report = await reconcile(works.db, works.stream)
    assert law in {finding.law for finding in report.findings}
    assert {finding.tenant_id for finding in report.findings} == {"t"}


async def test_a_parked_entry_is_told_until_somebody_has_looked(works: Works) -> None:
    """With the nanos that are missing because of it."""
    (grant,) = await works.customer("c", nanos=[10**9])
    await works.consume("c", 4)
    stream = stream_key(shard_of_customer("t", "c"))
    ((stream_id, fields),) = await works.valkey.xrange(stream)
    await works.valkey.delete(stream)
    fields[fields.index(b"k") + 1] = b"tomorrow"
    await works.valkey.execute_command("XADD", stream, stream_id, *fields)
    await works.flush()
    report = await reconcile(works.db, works.stream, tenant_id="t")
    assert report.parked_entries == 1
    assert report.difference_nanos == 4 * NANOS_PER_TOKEN
    assert {finding.law for finding in report.findings} == {PARKED_LAW, WALLET_LAW}
    assert {finding.grant_id for finding in report.findings if finding.law == WALLET_LAW} == {grant}


async def test_a_tenant_is_told_of_its_own_only(works: Works) -> None:
    """Another tenant's loss is none of its business."""
    grant = await a_lived_in_wallet(works)
    await works.valkey.hincrby(customer_keys("t", "c").wallet, f"r:{grant}", -1)
    other = await reconcile(works.db, works.stream, tenant_id="u")
    assert (other.grants, other.findings) == (0, ())
    assert len((await reconcile(works.db, works.stream, tenant_id="t")).findings) == 1


async def test_a_shard_that_is_not_built_is_counted_and_no_loss(works: Works) -> None:
    """Its wallets are about to be made from Postgres."""
    await a_lived_in_wallet(works)
    await works.valkey.delete(epoch_key(shard_of_customer("t", "c")), customer_keys("t", "c").wallet)
    report = await reconcile(works.db, works.stream)
    assert report.unbuilt_shards == 1
    assert report.difference_nanos == 0


async def test_it_is_zero_at_every_moment_while_all_goes_on_at_once(works: Works) -> None:
    """Decisions, holds, settles, top-ups, lapses, relays and two flushers, and eight looks in the middle of it."""
    names = [f"c{number}" for number in range(12)]
    for name in names:
        await works.customer(name, nanos=[10**7, 10**10])
    stop = asyncio.Event()
    chance = random.Random(7)

    async def decide() -> None:
        while not stop.is_set():
            name = chance.choice(names)
            await works.consume(name, chance.randrange(50))
            if chance.random() < 0.3:
                await works.settle(name, await works.hold(name, 5), chance.randrange(12))

    async def top_up() -> None:
        while not stop.is_set():
            grant = await works.grant(chance.choice(names), chance.randrange(1, 10**7))
            if chance.random() < 0.3:
                await works.raw.execute("UPDATE credit_grant SET voided_at = now() WHERE grant_id = $1", grant)
                await works.raw.execute(
                    "INSERT INTO outbox (kind, tenant_id, subject) VALUES ('lapse', 't', $1)", grant
                )

    async def relay() -> None:
        while not stop.is_set():
            await works.relay.project(now=system_now(), most=20)

    async with works.flusher("a", interval_ms=1), works.flusher("b", interval_ms=1), asyncio.TaskGroup() as group:
        for work in (decide, decide, top_up, relay):
            group.create_task(work())
        for _ in range(8):
            report = await reconcile(works.db, works.stream)
            assert report.findings == ()
            assert report.difference_nanos == 0
        stop.set()
    await works.project()
    await works.flush()
    report = await reconcile(works.db, works.stream)
    assert (report.findings, report.unflushed_nanos, report.pending_nanos) == ((), 0, 0)
    assert report.spent_nanos > 0
    assert report.lapsed_nanos > 0


class Hurried(UsageStream):
    """A stream in which, right after each capture, more happens and reaches Postgres before anybody reads on."""

    def __init__(self, works: Works) -> None:
        super().__init__(works.valkey)
        self._works = works

    async def capture(self, shard: int, owners: Sequence[tuple[str, str]]) -> Capture:
        captured = await super().capture(shard, owners)
        await self._works.consume("c", 3)
        await self._works.raw.execute("UPDATE credit_grant SET voided_at = now() WHERE amount_nanos = 777")
        await self._works.raw.execute(
            "INSERT INTO outbox (kind, tenant_id, subject)"
            " SELECT 'lapse', 't', grant_id FROM credit_grant WHERE amount_nanos = 777"
        )
        await self._works.project()
        await self._works.flush()
        return captured


async def test_what_reaches_postgres_between_the_two_looks_is_taken_off_again(works: Works) -> None:
    """Spent and lapsed are told as they were at the capture."""
    await works.customer("c", nanos=[10**9, 777])
    await works.consume("c", 4)
    report = await reconcile(works.db, Hurried(works))
    assert (report.findings, report.difference_nanos) == ((), 0)
    assert (report.spent_nanos, report.unflushed_nanos) == (4 * NANOS_PER_TOKEN, 0)
    assert report.lapsed_nanos == 0
    assert report.remaining_nanos == 10**9 + 777 - 4 * NANOS_PER_TOKEN
