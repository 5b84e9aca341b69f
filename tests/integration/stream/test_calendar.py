"""Calendars attacked on their whole way: told by the snapshot, counted by the script, billed from the rows.

Each case names its edges in UTC, as a calendar on the wall has them. The tenant's clock is put just before the
edge, and decisions are made until both of the milliseconds beside it were hit: the last before it belongs to the
old window, the edge itself to the new one, for the limit, for the price, and for the period of the bill.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from billing_core.catalog.document import Aggregation, Meter
from billing_core.contract.keys import customer_keys
from billing_core.contract.snapshot import (
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Snapshot,
    Status,
    Tariff,
    Tier,
    Window,
    WindowKind,
    snapshot_fields,
)
from billing_core.entitlements.window import window_of
from billing_core.metering.reading import Span
from billing_core.store.meter import read
from billing_core.values.clock import from_ms, system_now, to_ms
from billing_core.values.ids import new_id
from billing_core.values.period import Interval
from billing_core.values.text import LAST_INSTANT
from lua.loader import SCRIPTS
from tests.integration.stream.conftest import Works

SMALL, BIG = 1, 1_000
"""Nanos a unit: the first three of a window, and those behind them."""

CASES = {
    # zone, interval, anchor, then three edges that follow each other
    "day of 23 hours": (
        ("Europe/Berlin", Interval.DAY, "2026-01-01T00:00"),
        ("2027-03-26T23:00", "2027-03-27T23:00", "2027-03-28T22:00"),
    ),
    "day after 23 hours": (
        ("Europe/Berlin", Interval.DAY, "2026-01-01T00:00"),
        ("2027-03-27T23:00", "2027-03-28T22:00", "2027-03-29T22:00"),
    ),
    "day of 25 hours": (
        ("America/New_York", Interval.DAY, "2026-01-01T00:00"),
        ("2027-11-07T04:00", "2027-11-08T05:00", "2027-11-09T05:00"),
    ),
    "day of 24 and a half hours": (
        ("Australia/Lord_Howe", Interval.DAY, "2026-01-01T00:00"),
        ("2027-04-03T13:00", "2027-04-04T13:30", "2027-04-05T13:30"),
    ),
    "week with an hour less": (
        ("Europe/Berlin", Interval.WEEK, "2026-01-05T00:00"),
        ("2027-03-21T23:00", "2027-03-28T22:00", "2027-04-04T22:00"),
    ),
    "month across the change": (
        ("Europe/Berlin", Interval.MONTH, "2026-01-31T00:00"),
        ("2027-09-29T22:00", "2027-10-30T22:00", "2027-11-29T23:00"),
    ),
    "the 31st in February": (
        ("UTC", Interval.MONTH, "2026-01-31T08:30"),
        ("2027-01-31T08:30", "2027-02-28T08:30", "2027-03-31T08:30"),
    ),
    "the 31st in a leap year": (
        ("UTC", Interval.MONTH, "2026-01-31T08:30"),
        ("2028-01-31T08:30", "2028-02-29T08:30", "2028-03-31T08:30"),
    ),
    "leap day by the year": (
        ("UTC", Interval.YEAR, "2024-02-29T00:00"),
        ("2027-02-28T00:00", "2028-02-29T00:00", "2029-02-28T00:00"),
    ),
    "leap day by the month": (
        ("UTC", Interval.MONTH, "2024-02-29T00:00"),
        ("2028-02-29T00:00", "2028-03-29T00:00", "2028-04-29T00:00"),
    ),
}


def told(window: Window, *, offset_ms: int, version: int, units: int = 10**9) -> Snapshot:
    """One feature with a limit and a price in that window."""
    tiers = (Tier(upto=3, nanos_per_batch=SMALL), Tier(upto=0, nanos_per_batch=BIG))
    is_span = window.kind is not WindowKind.ROLLING
    tariff = Tariff(price_id="p", currency="USD", package_units=1, batch=1, tiers=tiers, window=window)
    feature = Entitlement(
        kind=FeatureKind.METERED,
        enabled=True,
        guard=Guard(limits=(Limit(counter="calls@w", units=units, ceiling=units, window=window),)),
        tariffs=(tariff,) if is_span else (),
    )
    return Snapshot(version=version, status=Status.ACTIVE, clock_offset_ms=offset_ms, features={"calls": feature})


class Clock:
    """The tenant's clock, put to an instant by what the customer is told."""

    def __init__(self, works: Works, window: Window, *, units: int = 10**9) -> None:
        self.works = works
        self.window = window
        self.units = units
        self.version = 10**6

    async def put(self, instant_ms: int) -> None:
        """Have the script's next instants be this one and those behind it."""
        self.version += 1
        now_ms = to_ms(await self.works.stream.now())
        one = told(self.window, offset_ms=instant_ms - now_ms, version=self.version, units=self.units)
        keys = customer_keys("t", "c")
        words = (one.version, one.status.value, one.clock_offset_ms, *snapshot_fields(one))
        assert await self.works.valkey.fcall(SCRIPTS["project"].function, 2, keys.epoch, keys.snapshot, *words) == 1


def wall(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def around(works: Works, clock: Clock, edge_ms: int) -> list[list[Any]]:
    """Consumes of one unit on both sides of the edge, in one crossing that hits both milliseconds beside it."""
    for _ in range(200):
        await works.valkey.flushall()
        await works.build()
        await clock.put(edge_ms - 4)
        await works.valkey.fcall(
            SCRIPTS["grant"].function, 4, *_wallet_keys(), "USD", "gra_1", 10**12, 0, 0, 0, 0, 0, "", "body"
        )
        await clock.put(edge_ms - 4)
        replies: list[list[Any]] = []
        while not replies or replies[-1][5] <= edge_ms + 1:
            replies.append(await works.consume("c", 1, feature="calls"))
        if {edge_ms - 1, edge_ms} <= {reply[5] for reply in replies}:
            return replies
    raise AssertionError("this machine's clock never shows both milliseconds")


def _wallet_keys() -> tuple[str, str, str, str]:
    keys = customer_keys("t", "c")
    return keys.epoch, keys.snapshot, keys.wallet, keys.stream


@pytest.mark.parametrize("case", CASES)
async def test_an_instant_belongs_to_the_window_that_it_starts(works: Works, case: str) -> None:
    """The same for the limit, for the price's tiers, and for the quantities of the two periods."""
    (zone, interval, anchor), instants = CASES[case]
    before_at, edge_at, after_at = map(wall, instants)
    anchor_at = datetime.fromisoformat(anchor).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    window = window_of(anchor_at, interval, zone=ZoneInfo(zone), now=edge_at - timedelta(seconds=1))
    edge_ms = to_ms(edge_at)
    if window.kind is WindowKind.EDGES:
        place = window.edges_ms.index(edge_ms)
        assert window.edges_ms[place - 1 : place + 2] == (to_ms(before_at), edge_ms, to_ms(after_at))
    replies = await around(works, Clock(works, window), edge_ms)
    old = [reply for reply in replies if reply[5] < edge_ms]
    new = [reply for reply in replies if reply[5] >= edge_ms]
    for part, reset_at in ((old, edge_at), (new, after_at)):
        assert [10**9 - reply[14] for reply in part] == list(range(1, len(part) + 1)), "counted from one"
        assert {reply[15] for reply in part} == {to_ms(reset_at)}
        prices = [SMALL] * min(3, len(part)) + [BIG] * (len(part) - 3)
        assert [reply[16] for reply in part] == prices, "priced from the first tier"
    await works.raw.execute(
        "INSERT INTO customer (tenant_id, customer_id, name, shard, created_at) VALUES ('t', 'c', '', 0, now())"
    )
    await works.raw.execute(
        "INSERT INTO credit_grant (tenant_id, grant_id, customer_id, currency, kind, amount_nanos, effective_at,"
        " created_at) VALUES ('t', 'gra_1', 'c', 'USD', 'promotional', 1000000000000, now(), now())"
    )
    works.shards.add(int(_wallet_keys()[0][2:6]))
    await works.flush()
    meter = Meter(code="calls", event="calls", aggregation=Aggregation.SUM, field="quantity")
    spans = [
        Span(customer_id="c", start_at=before_at, end_at=edge_at),
        Span(customer_id="c", start_at=edge_at, end_at=after_at),
    ]
    async with works.db.transaction() as tx:
        readings = await read(tx, "t", meter=meter, spans=spans, recorded_until=LAST_INSTANT)
    billed = {reading.start_at: int(reading.quantity) for reading in readings}
    assert billed == {before_at: len(old), edge_at: len(new)}


@pytest.mark.parametrize("day", ["2027-03-27T20:00", "2027-10-30T20:00", "2028-02-28T23:59"])
async def test_the_time_just_gone_by_knows_no_calendar(works: Works, day: str) -> None:
    """Units count for a day's length, to the millisecond that their bucket leaves, whatever clocks on walls do."""
    every_ms = 86_400_000
    size_ms, used_ms = every_ms // 60, to_ms(wall(day)) + 7
    clock = Clock(works, Window(kind=WindowKind.ROLLING, every_ms=every_ms), units=5)
    await works.customer("c")
    await clock.put(used_ms)
    reply = await works.consume("c", 5, feature="calls")
    assert reply[0] == "allowed"
    leaves_ms = (reply[5] // size_ms + 1) * size_ms + every_ms
    seen: dict[int, bytes] = {}
    while not {leaves_ms - 1, leaves_ms} <= seen.keys():
        await clock.put(leaves_ms - 3)
        at_ms = 0
        while at_ms <= leaves_ms:
            peeked = await peek(works, 1)
            at_ms = peeked[5]
            seen[at_ms] = peeked[0]
    for at_ms, reason in seen.items():
        assert reason == ("limit_reached" if at_ms < leaves_ms else "allowed")


async def peek(works: Works, units: int) -> list[Any]:
    keys = customer_keys("t", "c")
    names = (
        keys.epoch,
        keys.snapshot,
        keys.counters,
        keys.wallet,
        keys.stream,
        keys.holds,
        keys.shard_holds,
        "none",
    )
    return msgspec.msgpack.decode(
        await works.valkey.fcall(SCRIPTS["peek"].function, 8, *names, "", 1, "calls", units)
    )


async def test_gateways_whose_clocks_differ_by_minutes_are_told_one_time(works: Works) -> None:
    """Ids are made by the gateways' clocks, instants and windows by the server's: its order is the order of all."""
    window = Window(kind=WindowKind.STEPS, every_ms=60_000)
    clock = Clock(works, window, units=10**9)
    await works.customer("c")
    await clock.put(to_ms(wall("2027-05-05T05:05")))
    await works.grant("c", 10**9)
    await works.project()
    began_ms = (await peek(works, 0))[5]
    replies: list[list[Any]] = []
    for number in range(30):
        skew = timedelta(minutes=(-7, 0, 9)[number % 3])
        key = new_id("dec", now=system_now() + skew)
        replies.append(await works.consume("c", 1, key=key, feature="calls"))
    ended_ms = (await peek(works, 0))[5]
    await works.flush()
    rows = await works.raw.fetch("SELECT event_at FROM usage_event ORDER BY stream_ms, stream_seq")
    instants = [to_ms(row["event_at"]) for row in rows]
    assert instants == sorted(instants) == [reply[5] for reply in replies]
    assert began_ms <= instants[0] <= instants[-1] <= ended_ms


async def test_a_clock_that_steps_back_over_an_edge_opens_no_window_twice(works: Works) -> None:
    """Five units a minute stay five, though the server's clock is put back by seconds just behind the edge."""
    edge_ms = to_ms(wall("2027-05-05T05:05"))
    clock = Clock(works, Window(kind=WindowKind.STEPS, every_ms=60_000), units=5)
    await works.customer("c", nanos=[10**9])
    allowed = 0
    for step_ms in (-20_000, 500, -2_000, 1_000, -400, 3_000):
        await clock.put(edge_ms + step_ms)
        reasons = [(await works.consume("c", 1, feature="calls"))[0] for _ in range(7)]
        allowed += reasons.count("allowed")
    assert allowed == 2 * 5
    await clock.put(edge_ms + 60_000)
    assert (await works.consume("c", 1, feature="calls"))[0] == "allowed", "and time goes on"


def test_the_layout_of_replies_is_the_one_that_is_read_here() -> None:
    """Instant, remaining, reset and price stand where these tests look for them."""
    names = [*SCRIPTS["consume"].reply_names]
    assert (names[5], names[14], names[15], names[16]) == (
        "at_ms",
        "remaining_units",
        "reset_at_ms",
        "charge_nanos",
    )
    assert msgspec.json.encode(from_ms(0)) == b'"1970-01-01T00:00:00Z"'
