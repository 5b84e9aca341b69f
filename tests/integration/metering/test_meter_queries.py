"""The meter queries on a real Postgres say what the pure aggregations say."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing_core.catalog.document import Aggregation
from billing_core.metering.reading import MeteredEvent, MeterReading
from billing_core.metering.sample import Sample, aggregate
from billing_core.store.database import Database, Transaction
from billing_core.store.query import Q

START = datetime(2026, 3, 1, tzinfo=UTC)
END = datetime(2026, 4, 1, tzinfo=UTC)
CLOSE = datetime(2026, 4, 1, 0, 5, tzinfo=UTC)
COLUMNS = (
    *("shard", "stream_ms", "stream_seq", "part", "tenant_id", "customer_id", "event_id", "name", "source"),
    *("event_at", "decided_at", "recorded_at", "quantity", "properties", "charged_nanos", "uncollected_nanos"),
)


@pytest.fixture
async def tx(postgres_url: str) -> AsyncIterator[Transaction]:
    database = await Database.connect(postgres_url, size=1)
    try:
        async with database.transaction() as transaction:
            yield transaction
    finally:
        await database.close()


def event(
    n: int,
    at: datetime,
    *,
    customer: str = "ada",
    quantity: str = "1",
    recorded_at: datetime = END,
    nanos: tuple[int, int] = (0, 0),
    **properties: str,
) -> tuple[object, ...]:
    """A row of usage_event; `n` is its place in the stream."""
    place = (n % 7, 1000 + n, 0, 0)
    return (
        *place,
        *(
            "acme",
            customer,
            f"evt_{n}",
            "call",
            "client",
            at,
            at,
            recorded_at,
            Decimal(quantity),
            properties,
            *nanos,
        ),
    )


async def read(
    tx: Transaction,
    aggregation: str,
    *,
    field: str = "size",
    scale: int = 0,
    groups: tuple[str, ...] = (),
    who: str = "ada",
) -> list[MeterReading]:
    spans = ([who], [START], [END])
    head = ("acme", "call", *spans, CLOSE)
    if aggregation == "unique":
        return await tx.many(Q["meter_unique"], MeterReading, *head, field, list(groups))
    if aggregation == "latest":
        return await tx.many(Q["meter_latest"], MeterReading, *head, field, scale, list(groups))
    tally = (*head, aggregation, field, scale, list(groups), [], START, END)
    together = await tx.many(Q["meter_tally"], MeterReading, *tally, True)
    assert together == await tx.many(Q["meter_tally"], MeterReading, *tally, False)  # both ways of the query
    return together


@pytest.mark.parametrize("aggregation", list(Aggregation))
async def test_sql_and_values_agree_on_every_aggregation(tx: Transaction, aggregation: Aggregation) -> None:
    """Two hundred random events of one customer: the query's quantity is the pure function's."""
    chance = random.Random(7)
    rows, samples = [], []
    for n in range(200):
        at, size = START + timedelta(seconds=chance.randrange(500)), chance.randrange(30)
        rows.append(event(n, at, size=str(size)))
        samples.append(Sample(at=at, number=Decimal(size), text=str(size), order=n))
    chance.shuffle(rows)
    await tx.copy("usage_event", COLUMNS, records=rows)
    (reading,) = await read(tx, aggregation)
    assert reading.quantity == aggregate(aggregation, samples)
    assert (reading.event_count, reading.unreadable_count) == (200, 0)


async def test_the_digest_is_the_sum_of_the_events_own_digests(tx: Transaction) -> None:
    """The first 60 bits of md5 over tenant, event, part and value, added up in any order."""
    await tx.copy("usage_event", COLUMNS, records=[event(1, START, size="5"), event(2, START, size="7.50")])
    (reading,) = await read(tx, "sum", scale=2)
    words = ("acme:evt_1:0:5", "acme:evt_2:0:7.5")
    expected = sum(int(hashlib.md5(word.encode()).hexdigest()[:15], 16) for word in words)
    assert reading.event_digest == str(expected)
    assert reading.quantity == Decimal("12.5")


async def test_a_period_is_half_open_and_bounded_by_what_was_recorded(tx: Transaction) -> None:
    """The first instant counts, the end does not, and neither does what was recorded after the close."""
    await tx.copy(
        "usage_event",
        COLUMNS,
        records=[
            event(1, START, size="1"),
            event(2, END - timedelta(microseconds=1), size="2"),
            event(3, END, size="4"),
            event(4, START - timedelta(microseconds=1), size="8"),
            event(5, START, size="16", recorded_at=CLOSE + timedelta(seconds=1)),
            event(6, START, size="32", customer="bob"),
        ],
    )
    (reading,) = await read(tx, "sum")
    assert reading.quantity == 3


async def test_values_that_the_meter_cannot_read_are_counted_apart(tx: Transaction) -> None:
    """Words, negatives, exponents, absent fields and too many digits neither count nor break the close."""
    values = ("3", "3.0", "x", "-1", "1e3", "0.5", "NaN", "9999999999999999")
    await tx.copy("usage_event", COLUMNS, records=[event(n, START, size=value) for n, value in enumerate(values)])
    await tx.copy("usage_event", COLUMNS, records=[event(99, START)])
    (whole,) = await read(tx, "sum")
    assert (whole.quantity, whole.event_count, whole.unreadable_count) == (6, 2, 7)
    (decimal,) = await read(tx, "sum", scale=1)
    assert (decimal.quantity, decimal.event_count, decimal.unreadable_count) == (Decimal("6.5"), 3, 6)
    (count,) = await read(tx, "count", field="")
    assert (count.quantity, count.unreadable_count) == (9, 0)


async def test_groups_are_told_apart_and_add_up(tx: Transaction) -> None:
    """A reading per combination of the properties; an event without one is in the group of the empty word."""
    rows = [event(n, START, size="1", region="eu" if n % 3 else "us") for n in range(9)]
    await tx.copy("usage_event", COLUMNS, records=[*rows, event(10, START, size="5")])
    readings = await read(tx, "sum", groups=("region",))
    assert {reading.group_key["region"]: reading.quantity for reading in readings} == {"": 5, "eu": 6, "us": 3}
    (whole,) = await read(tx, "sum")
    assert whole.quantity == sum(reading.quantity for reading in readings)


async def test_many_customers_are_read_in_one_pass_each_in_its_own_period(tx: Transaction) -> None:
    """The close asks for all at once; customers without events have no row."""
    half = START + timedelta(days=15)
    rows = [event(n, START + timedelta(days=n), customer="ada" if n % 2 else "bob") for n in range(30)]
    await tx.copy("usage_event", COLUMNS, records=rows)
    spans = (["ada", "bob", "cyd"], [START, half, START], [END, END, END])
    head = ("acme", "call", *spans, CLOSE)
    readings = await tx.many(Q["meter_tally"], MeterReading, *head, "count", "", 0, [], [], START, END, False)
    assert {(one.customer_id, one.start_at): one.quantity for one in readings} == {
        ("ada", START): 15,
        ("bob", half): 7,
    }


async def test_the_gate_quantity_and_its_money_are_summed(tx: Transaction) -> None:
    """The field `quantity` is the event's own; what was charged and not collected comes along."""
    rows = [event(n, START, quantity="374", nanos=(935_000, 10)) for n in range(3)]
    await tx.copy("usage_event", COLUMNS, records=rows)
    (reading,) = await read(tx, "sum", field="quantity")
    assert (reading.quantity, reading.charged_nanos, reading.uncollected_nanos) == (1122, 2_805_000, 30)


async def test_a_line_drills_down_to_its_events_page_by_page(tx: Transaction) -> None:
    """The pages together are the events of the reading, each once, in the order of time."""
    rows = [
        event(n, START + timedelta(seconds=n // 3), size="1", region="eu" if n % 2 else "us") for n in range(25)
    ]
    await tx.copy("usage_event", COLUMNS, records=rows)
    place: tuple[object, ...] = (datetime.min.replace(tzinfo=UTC), 0, 0, 0, 0)
    found: list[MeteredEvent] = []
    head = ("acme", "ada", "call", START, END, CLOSE, {"region": "eu"})
    while page := await tx.many(Q["metered_event_page"], MeteredEvent, *head, *place, 5, [], ""):
        found += page
        last = page[-1]
        place = (last.event_at, last.shard, last.stream_ms, last.stream_seq, last.part)
    assert [one.event_at for one in found] == sorted(one.event_at for one in found)
    assert {one.event_id for one in found} == {f"evt_{n}" for n in range(1, 25, 2)}
    assert len(found) == 12
