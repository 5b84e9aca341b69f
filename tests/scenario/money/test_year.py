"""A year of bills: month ends, time zones, activation, cancellation, drafts and voids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from billing_core.errors import Conflict, InvalidInput, NotFound
from billing_core.invoices.invoice import InvoiceState
from billing_core.invoices.line import LineKind

if TYPE_CHECKING:
    from tests.scenario.money.conftest import World

NANO = 10**9
EDGES = (
    *("2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30", "2026-07-31"),
    *("2026-08-31", "2026-09-30", "2026-10-31", "2026-11-30", "2026-12-31", "2027-01-31"),
)


async def test_a_year_of_month_ends_from_31_january(world: World) -> None:
    """Thirteen invoices, each with the fee of the period that begins; day 31 returns after short months."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    for month, edge in enumerate(EDGES):
        await world.use("ada", "call", month)
        world.now = datetime.fromisoformat(f"{edge}T09:00Z") - timedelta(seconds=1)
        assert await world.close() == 0
        world.advance(seconds=1)
        assert await world.close() == 1
    found = await world.invoices("ada")
    assert [invoice.number for invoice in found] == [f"INV-{n:06d}" for n in range(1, 14)]
    assert tuple(invoice.period_end_at.strftime("%Y-%m-%d") for invoice in found[1:]) == EDGES
    assert [invoice.total_minor for invoice in found] == [3100, *(3100 + 1000 * n for n in range(12))]
    assert all(invoice.period_end_at.hour == 9 for invoice in found)
    assert await world.close() == 0


async def test_an_activation_bills_the_part_of_the_month_that_is_left(world: World) -> None:
    """Calendar months in Berlin: from 10 March 09:00Z 21 days and 13 hours are left of 30 days and 23 hours."""
    world.now = datetime(2026, 3, 10, 9, tzinfo=UTC)
    await world.customer("ada")
    await world.subscribe("ada", "calendar")
    (invoice,) = await world.invoices("ada")
    (line,) = await world.lines(invoice)
    seconds, full = 21 * 86_400 + 13 * 3600, 30 * 86_400 + 23 * 3600
    assert line.amount_minor == round(3100 * seconds / full) == 2157
    assert (line.service_start_at, line.service_end_at) == (world.now, datetime(2026, 3, 31, 22, tzinfo=UTC))
    assert (invoice.state, invoice.due_minor, invoice.number) == (InvoiceState.FINALIZED, 2157, "INV-000001")
    assert invoice.due_at == world.now + timedelta(days=30)
    assert await world.books() == {"accounts_receivable": 2157 * 10**7, "deferred_revenue": -2157 * 10**7}
    await world.use("ada", "host", hours="2", region="eu", at=world.now + timedelta(days=1))
    await world.use("ada", "host", hours="743", region="us", at=world.now + timedelta(days=2))
    world.now = datetime(2026, 3, 31, 22, tzinfo=UTC)
    assert await world.close() == 1
    lines = await world.lines((await world.invoices("ada"))[1])
    assert [(one.kind, one.group_key, one.quantity, one.amount_minor) for one in lines] == [
        (LineKind.USAGE, {"region": "eu"}, "2", 4),
        (LineKind.USAGE, {"region": "us"}, "743", 1500),
        (LineKind.FEE, {}, "1", 3100),
    ]


async def test_what_is_canceled_ends_with_its_period_and_can_begin_anew(world: World) -> None:
    """The last invoice has usage and no fee; a new start within the old life is refused."""
    await world.customer("ada")
    subscription = await world.subscribe("ada", "team")
    with pytest.raises(Conflict, match="on plan 'team' already"):
        await world.subscribe("ada", "volume")
    await world.cancel(subscription)
    assert (await world.cancel(subscription)).cancel_at_end
    await world.use("ada", "call", 2)
    world.now = datetime(2026, 3, 5, tzinfo=UTC)
    assert await world.close() == 1
    last = (await world.invoices("ada"))[-1]
    assert [line.kind for line in await world.lines(last)] == [LineKind.USAGE]
    with pytest.raises(Conflict, match="is ended cannot cancel at end"):
        await world.cancel(subscription)
    ended = datetime(2026, 2, 28, 9, tzinfo=UTC)
    with pytest.raises(InvalidInput, match="periods never overlap"):
        await world.subscribe("ada", "team", start_at=ended - timedelta(seconds=1))
    with pytest.raises(InvalidInput, match="a clock in the past"):
        await world.subscribe("ada", "team", start_at=datetime(2025, 1, 1, tzinfo=UTC))
    with pytest.raises(NotFound, match="no plan 'gold'"):
        await world.subscribe("ada", "gold")
    with pytest.raises(NotFound, match="no customer 'eve'"):
        await world.subscribe("eve", "team")
    await world.subscribe("ada", "team", start_at=ended)
    outbox = await world.fetch(
        "SELECT kind, customer_id FROM outbox WHERE kind = 'snapshot' AND customer_id = 'ada'"
    )
    assert len(outbox) == 5  # enrolled, activated, canceled, ended, activated again
    await world.check()


async def test_a_catalog_that_changes_leaves_a_subscription_on_its_version(world: World) -> None:
    """A renewal keeps the terms of the start."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    await world.execute(
        "INSERT INTO plan_version SELECT tenant_id, code, 2, 'other',"
        " jsonb_set(document, '{plan,fee_amount}', '\"99.00\"'), created_at"
        " FROM plan_version WHERE code = 'team'"
    )
    world.now = datetime(2026, 2, 28, 9, tzinfo=UTC)
    await world.close()
    assert [invoice.total_minor for invoice in await world.invoices("ada")] == [3100, 3100]
    await world.customer("bob")
    await world.subscribe("bob", "team")
    assert [invoice.total_minor for invoice in await world.invoices("bob")] == [9900]


async def test_a_bill_of_nothing_is_paid_at_once_and_a_free_plan_has_no_activation_invoice(world: World) -> None:
    """No payment is asked for where nothing is due."""
    await world.customer("ada")
    await world.subscribe("ada", "volume")
    assert await world.invoices("ada") == []
    world.now = datetime(2026, 2, 28, 9, tzinfo=UTC)
    assert await world.close() == 1
    (invoice,) = await world.invoices("ada")
    assert (invoice.state, invoice.number, invoice.total_minor) == (InvoiceState.PAID, "INV-000001", 0)
    assert invoice.paid_at == world.now
    assert await world.fetch("SELECT 1 FROM payment") == []
    assert await world.books() == {}


async def test_a_draft_has_no_number_and_no_books_until_it_is_finalized(world: World) -> None:
    """Finalizing twice is finalizing once; numbers follow the order of finalizing."""
    await world.customer("ada")
    await world.subscribe("ada", "team", finalize=False)
    (draft,) = await world.invoices("ada")
    assert (draft.state, draft.number) == (InvoiceState.DRAFT, None)
    assert await world.books() == {}
    await world.customer("bob")
    await world.subscribe("bob", "team")
    final = await world.finalize(draft)
    assert (final.state, final.number, final.due_minor) == (InvoiceState.FINALIZED, "INV-000002", 3100)
    assert await world.finalize(draft) == (await world.invoices("ada"))[0] == final
    assert await world.books() == {"accounts_receivable": 62 * NANO, "deferred_revenue": -62 * NANO}
    await world.check()


async def test_a_void_books_everything_back_and_keeps_its_number(world: World) -> None:
    """The next invoice takes the next number; a void twice is a void once; a paid invoice is not voided."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    (invoice,) = await world.invoices("ada")
    voided = await world.void(invoice)
    assert (voided.state, voided.number) == (InvoiceState.VOID, "INV-000001")
    assert (await world.void(invoice)).state is InvoiceState.VOID
    assert await world.books() == {}
    assert await world.fetch("SELECT state FROM payment") == [("canceled",)]
    assert await world.fetch("SELECT state FROM revenue_schedule") == [("void",)]
    with pytest.raises(Conflict, match="is void cannot be finalized"):
        await world.finalize(invoice)
    await world.use("ada", "call", 1)
    world.now = datetime(2026, 2, 28, 9, tzinfo=UTC)
    await world.close()
    second = (await world.invoices("ada"))[1]
    assert (second.number, second.total_minor) == ("INV-000002", 4100)
    await world.check()


async def test_a_void_draft_never_gets_a_number(world: World) -> None:
    """It was in no books, so nothing is booked back."""
    await world.customer("ada")
    await world.subscribe("ada", "team", finalize=False)
    (draft,) = await world.invoices("ada")
    assert (await world.void(draft)).number is None
    assert await world.fetch("SELECT count(*) FROM ledger_transfer") == [(0,)]
    await world.check()


async def test_a_period_is_not_closed_before_its_usage_is_flushed(world: World) -> None:
    """One lane that lags behind the end of the period holds the close; drained to the end exactly, it does not."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    end_at = datetime(2026, 2, 28, 9, tzinfo=UTC)
    world.now = end_at + timedelta(minutes=1)
    await world.execute("UPDATE flush_lane SET drained_at = $1 WHERE lane = 3", end_at - timedelta(milliseconds=1))
    assert await world.close() == 0
    await world.execute("UPDATE flush_lane SET drained_at = $1 WHERE lane = 3", end_at)
    assert await world.close() == 1
    await world.execute("UPDATE flush_lane SET drained_at = '-infinity'")
    world.now += timedelta(days=60)
    assert await world.close() == 0


async def test_months_that_were_slept_through_are_closed_one_after_another(world: World) -> None:
    """A worker that comes back after half a year bills each month by itself."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    for month in (2, 3, 5):
        await world.use("ada", "call", month, at=datetime(2026, month, 15, tzinfo=UTC))
    world.now = datetime(2026, 7, 1, tzinfo=UTC)
    assert await world.close() == 5
    assert [invoice.total_minor for invoice in await world.invoices("ada")] == [3100, 5100, 6100, 3100, 8100, 3100]


async def test_a_sandbox_lives_by_its_own_clock(world: World) -> None:
    """An offset of two months closes two periods, with instants of that clock on the bill."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    offset_ms = 60 * 86_400_000
    await world.execute("UPDATE tenant SET sandbox = true, clock_offset_ms = $1", offset_ms)
    assert await world.close() == 2
    last = (await world.invoices("ada"))[-1]
    assert last.period_end_at == datetime(2026, 3, 31, 9, tzinfo=UTC)
    assert last.finalized_at == world.now + timedelta(days=60)
