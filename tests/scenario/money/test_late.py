"""What comes late keeps its period and is billed on the next invoice; a bill can be made again from its events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_core.errors import NotFound, Unprocessable
from billing_core.flows.billing.replay import events_of_line, replay
from billing_core.invoices.replay import Replay
from billing_core.store.meter import Place

if TYPE_CHECKING:
    from billing_core.invoices.invoice import Invoice
    from billing_core.invoices.line import Line
    from tests.scenario.money.conftest import World

NANO = 10**9
FEBRUARY_END = datetime(2026, 2, 28, 9, tzinfo=UTC)
MARCH_END = datetime(2026, 3, 31, 9, tzinfo=UTC)
APRIL_END = datetime(2026, 4, 30, 9, tzinfo=UTC)


async def close_at(world: World, at: datetime) -> Invoice:
    world.now = at
    assert await world.close() == 1
    return (await world.invoices())[-1]


def shape(line: Line) -> tuple[str, str, int, str]:
    return line.kind.value, line.service_start_at.strftime("%m-%d"), line.amount_minor, line.quantity


async def again(world: World, invoice: Invoice) -> Replay:
    async with world.db.transaction() as tx:
        return await replay(tx, tenant_id="acme", invoice_id=invoice.invoice_id)


async def test_lc_01_and_lc_03_late_units_are_billed_to_their_own_period(world: World) -> None:
    """Unit price 10. February 5 billed, two more came late; March has 3: +20 of February, +30 of March, not 50."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    await world.use("ada", "call", 5)
    february = await close_at(world, FEBRUARY_END)
    await world.use("ada", "call", 2, at=FEBRUARY_END - timedelta(days=3))
    await world.use("ada", "call", 3, at=FEBRUARY_END + timedelta(days=1))
    march = await close_at(world, MARCH_END)
    assert [shape(line) for line in await world.lines(february)] == [
        ("usage", "01-31", 5000, "5"),
        ("fee", "02-28", 3100, "1"),
    ]
    assert [shape(line) for line in await world.lines(march)] == [
        ("usage", "02-28", 3000, "3"),
        ("fee", "03-31", 3100, "1"),
        ("correction", "01-31", 2000, "2"),
    ]
    april = await close_at(world, APRIL_END)
    assert [shape(line) for line in await world.lines(april)] == [("fee", "04-30", 3100, "1")]
    booked = await world.fetch(
        "SELECT kind, booked_at::date::text, nanos"
        " FROM ledger_transfer JOIN ledger_entry USING (tenant_id, transfer_id)"
        " WHERE account = 'revenue_usage' ORDER BY booked_at, kind"
    )
    assert booked == [
        ("usage_billed", "2026-02-28", -50 * NANO),
        ("usage_billed", "2026-03-31", -30 * NANO),
        ("usage_corrected", "2026-03-31", -20 * NANO),
    ]
    for invoice in (february, march, april):
        assert (await again(world, invoice)).differences == ()


async def test_what_comes_late_twice_is_corrected_twice(world: World) -> None:
    """Each correction bills only what the one before had not."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    await world.use("ada", "call", 1)
    await close_at(world, FEBRUARY_END)
    await world.use("ada", "call", 2, at=FEBRUARY_END - timedelta(days=1))
    await close_at(world, MARCH_END)
    await world.use("ada", "call", 4, at=FEBRUARY_END - timedelta(days=2))
    april = await close_at(world, APRIL_END)
    (_, correction) = await world.lines(april)
    assert shape(correction) == ("correction", "01-31", 4000, "4")
    assert correction.earlier is not None
    assert (correction.earlier.quantity, correction.earlier.amount_minor) == ("3", 3000)
    assert (await again(world, april)).is_same


async def test_a_cheaper_tier_gives_back_what_the_invoice_has_room_for(world: World) -> None:
    """Volume: 5 units cost 50.00, 6 cost 6.00. 44.00 are owed back: March has 10.00, April 20.00, May the rest."""
    await world.customer("ada")
    await world.subscribe("ada", "volume")
    await world.use("ada", "call", 5)
    await close_at(world, FEBRUARY_END)
    await world.use("ada", "call", 1, at=FEBRUARY_END - timedelta(days=1))
    await world.use("ada", "call", 1, at=FEBRUARY_END)
    march = await close_at(world, MARCH_END)
    await world.use("ada", "call", 2, at=MARCH_END)
    april = await close_at(world, APRIL_END)
    await world.use("ada", "call", 5, at=APRIL_END)
    may = await close_at(world, datetime(2026, 5, 31, 9, tzinfo=UTC))
    june = await close_at(world, datetime(2026, 6, 30, 9, tzinfo=UTC))
    found = [[shape(line) for line in await world.lines(invoice)] for invoice in (march, april, may, june)]
    assert found == [
        [("usage", "02-28", 1000, "1"), ("correction", "01-31", -1000, "1")],
        [("usage", "03-31", 2000, "2"), ("correction", "01-31", -2000, "0")],
        [("usage", "04-30", 5000, "5"), ("correction", "01-31", -1400, "0")],
        [],
    ]
    assert [invoice.total_minor for invoice in (march, april, may)] == [0, 0, 3600]
    for invoice in (march, april, may):
        assert (await again(world, invoice)).differences == ()


async def test_a_late_unit_of_a_voided_bill_is_all_that_is_billed(world: World) -> None:
    """The operator gave up the bill, not what comes after."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    await world.use("ada", "call", 5)
    await world.void(await close_at(world, FEBRUARY_END))
    await world.use("ada", "call", 1, at=FEBRUARY_END - timedelta(days=1))
    march = await close_at(world, MARCH_END)
    assert [shape(line) for line in await world.lines(march)][1] == ("correction", "01-31", 1000, "1")


async def test_an_annual_period_is_corrected_a_year_later(world: World) -> None:
    """The reach of lateness is counted from the period that closes."""
    catalog: dict[str, Any] = {
        "meters": [{"code": "calls", "event": "call", "aggregation": "sum", "field": "quantity"}],
        "plans": [
            {
                "code": "yearly",
                "currency": "JPY",
                "interval": "year",
                "anchor": "subscription",
                "prices": [{"code": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "10"}],
            }
        ],
    }
    await world.publish(catalog)
    await world.customer("ada")
    await world.subscribe("ada", "yearly")
    await close_at(world, datetime(2027, 1, 31, 9, tzinfo=UTC))
    await world.use("ada", "call", 7, at=datetime(2026, 12, 1, tzinfo=UTC))
    second = await close_at(world, datetime(2028, 1, 31, 9, tzinfo=UTC))
    assert [shape(line) for line in await world.lines(second)] == [("correction", "01-31", 70, "7")]


async def test_a_replay_says_what_was_changed_behind_its_back(world: World) -> None:
    """An event changed, an event gone, a plan version rewritten: each shows, field by field."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    await world.use("ada", "call", 5)
    await world.use("ada", "call", 2)
    february = await close_at(world, FEBRUARY_END)
    assert await again(world, february) == Replay(
        invoice_id=february.invoice_id, is_same=True, lines=2, differences=()
    )
    await world.execute("UPDATE usage_event SET quantity = 3 WHERE quantity = 2")
    changed = await again(world, february)
    assert not changed.is_same
    assert {one.field for one in changed.differences} == {"quantity", "amount_minor", "parts", "event_digest"}
    amount = next(one for one in changed.differences if one.field == "amount_minor")
    assert (amount.line_no, amount.billed, amount.replayed) == (1, "7000", "8000")
    await world.execute("DELETE FROM usage_event")
    gone = await again(world, february)
    assert [(one.field, one.replayed) for one in gone.differences] == [("line", "null")]
    await world.execute(
        "UPDATE plan_version SET document = jsonb_set(document, '{plan,fee_amount}', '\"99.00\"')"
        " WHERE code = 'team'"
    )
    assert {(one.line_no, one.field) for one in (await again(world, february)).differences} == {
        (1, "line"),
        (2, "amount_minor"),
        (2, "parts"),
    }


async def test_a_line_leads_to_its_events_page_by_page_and_no_further_than_its_cut(world: World) -> None:
    """Events recorded later are not behind the line, though they are of its period."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    for n in range(5):
        await world.use("ada", "call", n, at=world.now + timedelta(hours=5 - n))
    february = await close_at(world, FEBRUARY_END)
    await world.use("ada", "call", 9, at=FEBRUARY_END - timedelta(days=1))
    seen: list[int] = []
    after = Place()
    async with world.db.transaction() as tx:
        while page := await events_of_line(
            tx, tenant_id="acme", invoice_id=february.invoice_id, line_no=1, after=after, count=2
        ):
            seen += [int(event.quantity) for event in page]
            last = page[-1]
            after = Place(
                event_at=last.event_at,
                shard=last.shard,
                stream_ms=last.stream_ms,
                stream_seq=last.stream_seq,
                part=last.part,
            )
        assert seen == [4, 3, 2, 1, 0]
        with pytest.raises(Unprocessable, match="no events"):
            await events_of_line(
                tx, tenant_id="acme", invoice_id=february.invoice_id, line_no=2, after=Place(), count=2
            )
        with pytest.raises(NotFound, match="no line 3"):
            await events_of_line(
                tx, tenant_id="acme", invoice_id=february.invoice_id, line_no=3, after=Place(), count=2
            )
