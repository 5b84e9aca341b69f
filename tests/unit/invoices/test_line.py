"""Lines: one rounding each, groups priced on their own, prepaid parts that never exceed the line, corrections
that fit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.catalog.catalog import PlanTerms, PlanVersion
from billing_core.catalog.document import Model, Pay, Plan, Price, PriceTier
from billing_core.invoices.correction import Billed, differences_of, fitted
from billing_core.invoices.invoice import Totals
from billing_core.invoices.line import Line, LineKind, Rated, fee_line, period_lines
from billing_core.invoices.replay import compared, corrected_again, line_bytes
from billing_core.metering.reading import MeterReading
from billing_core.values.period import Period

MARCH = Period(start_at=datetime(2026, 3, 1, tzinfo=UTC), end_at=datetime(2026, 4, 1, tzinfo=UTC))
CUT, LATER = datetime(2026, 4, 1, 1, tzinfo=UTC), datetime(2026, 5, 1, 1, tzinfo=UTC)


def rated(*prices: Price, cut: datetime = CUT, service: Period = MARCH) -> Rated:
    terms = PlanTerms(plan=Plan(code="p", currency="USD", prices=prices))
    return Rated(version=PlanVersion(version=3, terms=terms), service=service, full=MARCH, recorded_until=cut)


def price(**more: Any) -> Price:
    words: dict[str, Any] = {"code": "calls", "meter": "calls", "model": Model.PER_UNIT, "unit_amount": "0.10"}
    return Price(**(words | more))


def reading(quantity: str, *, charged: int = 0, **group: str) -> MeterReading:
    return MeterReading(
        customer_id="c",
        start_at=MARCH.start_at,
        group_key=group,
        quantity=Decimal(quantity),
        event_count=2,
        unreadable_count=1,
        event_digest="77",
        charged_nanos=charged,
        uncollected_nanos=0,
    )


def lines(prices: tuple[Price, ...], *found: MeterReading) -> list[Line]:
    return period_lines(rated(*prices), {"calls": list(found)})


def test_a_line_keeps_all_that_is_needed_to_make_it_again() -> None:
    """Version, period, cut, count, digest and parts."""
    (line,) = lines((price(name="Calls"),), reading("12.50"))
    assert (line.description, line.quantity, line.amount_minor) == ("Calls", "12.5", 125)
    assert (line.plan_version, line.service, line.recorded_until) == (3, MARCH, CUT)
    assert (line.event_count, line.unreadable_count, line.event_digest) == (2, 1, "77")
    assert [part.amount_nanos for part in line.parts] == ["1250000000"]


def test_groups_are_lines_of_their_own_and_priced_on_their_own() -> None:
    """AG-23: tiers begin anew in each group, in the order of the groups' keys."""
    tiers = (PriceTier(upto=10, unit_amount="1"), PriceTier(unit_amount="2"))
    found = lines(
        (price(model=Model.GRADUATED, unit_amount="", tiers=tiers),),
        reading("12", region="us"),
        reading("3", region="eu"),
    )
    assert [(line.group_key["region"], line.amount_minor) for line in found] == [("eu", 300), ("us", 1400)]


def test_nothing_is_no_line_unless_something_is_due() -> None:
    """A minimum and a first flat amount are due without any event; zero units that happened are shown."""
    assert lines((price(),)) == []
    assert [line.amount_minor for line in lines((price(minimum_amount="5.00"),))] == [500]
    assert [line.amount_minor for line in lines((price(free_units=100),), reading("7"))] == [0]


def test_a_rate_per_hours_of_the_period_reads_the_full_one_although_the_customer_came_late() -> None:
    """15.00 a host-month: two hours of a part of March are two hours of 744."""
    part = Period(start_at=datetime(2026, 3, 20, tzinfo=UTC), end_at=MARCH.end_at)
    host = msgspec.convert(
        {"code": "h", "meter": "calls", "model": "per_unit", "unit_amount": "15.00", "per": "hours_of_period"},
        Price,
    )
    (line,) = period_lines(rated(host, service=part), {"calls": [reading("2")]})
    assert line.amount_minor == round(1500 * 2 / 744)


@pytest.mark.parametrize(
    ("units", "charged", "prepaid"),
    [
        ("50", 5_000_000_000, 500),
        ("50", 4_004_999_999, 400),
        ("50", 4_005_000_000, 401),
        ("50", 0, 0),
        ("50", 9_000_000_000, 500),
    ],
)
def test_what_came_out_of_the_wallet_is_never_more_than_the_line(units: str, charged: int, prepaid: int) -> None:
    """What the gate could not collect, or never saw, is due."""
    (line,) = lines((price(pay=Pay.PREPAID, feature="f"),), reading(units, charged=charged))
    assert (line.amount_minor, line.prepaid_minor, line.due_minor) == (500, prepaid, 500 - prepaid)


def test_an_arrears_line_is_due_whatever_the_gate_charged() -> None:
    """Charges belong to prepaid prices."""
    (line,) = lines((price(),), reading("50", charged=10**9))
    assert (line.prepaid_minor, line.due_minor) == (0, 500)


@given(units=st.integers(0, 10**9), per=st.integers(1, 10**6), cents=st.integers(1, 10**4))
def test_a_wallet_that_paid_every_debit_leaves_nothing_due(units: int, per: int, cents: int) -> None:
    """The gate charges floor(A(u)) in all; that it is less by part of a nano never shows on the bill."""
    exact = Fraction(units * cents * 10**7, per)
    words = price(pay=Pay.PREPAID, feature="f", unit_amount=f"{cents / 100:.2f}", per=per)
    (line,) = lines((words,), reading(str(units), charged=exact.numerator // exact.denominator))
    assert line.due_minor == 0


def test_a_fee_is_its_share_rounded_once_and_absent_where_it_is_nothing() -> None:
    """A third of 10.00 is 3.33, and the part says a third."""
    version = PlanVersion(version=1, terms=PlanTerms(plan=Plan(code="p", currency="USD", fee_amount="10.00")))
    line = fee_line(version, MARCH, share=Fraction(1, 3))
    assert line is not None
    assert (line.amount_minor, line.parts[0].quantity) == (333, "1/3")
    free = PlanVersion(version=1, terms=PlanTerms(plan=Plan(code="p", currency="USD")))
    assert fee_line(free, MARCH, share=Fraction(1)) is None


def billed(amount: int, *, prepaid: int = 0, quantity: str = "5", **group: str) -> Billed:
    return Billed(
        price_code="calls",
        meter_code="calls",
        group_key=group,
        quantity=Decimal(quantity),
        amount_minor=amount,
        prepaid_minor=prepaid,
        event_count=1,
    )


def test_a_correction_bills_the_difference_and_says_what_was_before() -> None:
    """Only where money differs; a group that is new is billed whole, one that is gone is given back."""
    again = lines((price(),), reading("70", region="eu"), reading("5", region="us"))
    before = [billed(500, region="eu"), billed(50, region="us"), billed(30)]
    found = differences_of(again, before, cut=CUT)
    assert [(line.kind, line.group_key, line.amount_minor) for line in found] == [
        (LineKind.CORRECTION, {"region": "eu"}, 200),
        (LineKind.CORRECTION, {}, -30),
    ]
    assert found[0].earlier is not None
    assert (found[0].quantity, found[0].earlier.quantity, found[0].earlier.recorded_until) == ("65", "5", CUT)


@pytest.mark.parametrize(
    ("total", "due", "credit", "given", "complete"),
    [
        (1000, 1000, -400, [-400], True),
        (1000, 1000, -1000, [-1000], True),
        (1000, 1000, -1001, [-1000], False),
        (1000, 300, -400, [-300], False),
        (1000, 0, -400, [], False),
        (0, 0, -1, [], False),
        (0, 0, 50, [50], True),
    ],
)
def test_credit_goes_as_far_as_the_invoice_has_room(
    total: int, due: int, credit: int, given: list[int], *, complete: bool
) -> None:
    """Never below zero; what had no room keeps the period open for the next invoice."""
    again = lines((price(),), reading("100"))
    found = differences_of(again, [billed(1000 - credit)], cut=CUT)
    fit = fitted(found, other=Totals(total_minor=total, prepaid_minor=total - due))
    assert [line.amount_minor for line in fit.lines] == given
    assert fit.is_complete is complete


def test_charges_make_room_for_credit() -> None:
    """On an invoice of nothing, +2.00 and -1.50 come out as both."""
    again = lines((price(),), reading("70", region="eu"), reading("5", region="us"))
    found = differences_of(again, [billed(500, region="eu"), billed(200, region="us")], cut=CUT)
    fit = fitted(reversed(found), other=Totals(total_minor=0, prepaid_minor=0))
    assert [line.amount_minor for line in fit.lines] == [200, -150]


def test_a_replay_compares_bytes_and_names_fields() -> None:
    """The same line is the same bytes; a credit that was cut is compared whole."""
    (line,) = lines((price(),), reading("50"))
    assert compared(1, line, again=msgspec.json.decode(line_bytes(line), type=Line)) == []
    other = msgspec.structs.replace(line, amount_minor=501, event_digest="78")
    assert [(one.field, one.replayed) for one in compared(1, line, again=other)] == [
        ("amount_minor", "501"),
        ("event_digest", '"78"'),
    ]
    assert [one.field for one in compared(1, line, again=None)] == ["line"]
    (credit,) = differences_of([line], [billed(900)], cut=CUT)
    (cut_short,) = fitted([credit], other=Totals(total_minor=100, prepaid_minor=0)).lines
    assert (cut_short.amount_minor, corrected_again(cut_short, [line])) == (-100, credit)
    assert compared(2, cut_short, again=credit) == []
