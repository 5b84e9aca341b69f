"""Charges beyond the published cases: boundaries, refusals, and what goes on a line."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from billing_core.catalog.document import Model, PackageRounding, Price
from billing_core.catalog.rate import Method, RateTable, RateTier, rates_of
from billing_core.contract.snapshot import Tariff, Tier, Window, WindowKind
from billing_core.errors import InvalidInput, InvariantBroken
from billing_core.pricing.charge import PartKind, charge_between, charge_of
from billing_core.pricing.cumulative import cumulative_nanos, debit_nanos, hold_nanos
from billing_core.pricing.record import exact_text, part_records
from billing_core.pricing.stairstep import Step, stairstep_nanos

F = Fraction
TWO = (
    RateTier(upto=F(10), unit_nanos=F(5), flat_nanos=F(100)),
    RateTier(upto=None, unit_nanos=F(2), flat_nanos=F(7)),
)


@pytest.mark.parametrize(
    ("quantity", "graduated", "volume"),
    [
        (0, 0, 0),
        (1, 105, 105),
        (10, 150, 150),
        (F("10.000001"), F("157.000002"), F("27.000002")),
        (11, 159, 29),
    ],
)
def test_the_upper_bound_belongs_to_its_tier(quantity: Fraction, graduated: Fraction, volume: Fraction) -> None:
    """Ten units are in the first tier, anything above enters the second."""
    assert charge_of(RateTable(tiers=TWO), quantity).amount_nanos == graduated
    assert charge_of(RateTable(tiers=TWO, method=Method.VOLUME), quantity).amount_nanos == volume


def test_a_flat_price_is_due_once_something_was_used() -> None:
    """Or always, where it says so."""
    flat = Price(code="p", meter="m", model=Model.FLAT, flat_amount="5")
    always = Price(code="p", meter="m", model=Model.FLAT, flat_amount="5", first_flat_always_due=True)
    assert [charge_of(rates_of(flat), quantity).amount_nanos for quantity in (0, 1, 999)] == [
        0,
        5 * 10**9,
        5 * 10**9,
    ]
    assert charge_of(rates_of(always), 0).amount_nanos == 5 * 10**9


@pytest.mark.parametrize(
    ("rounding", "quantity", "packages"),
    [
        (PackageRounding.UP, F("0.5"), 1),
        (PackageRounding.UP, 10, 1),
        (PackageRounding.UP, F("10.001"), 2),
        (PackageRounding.DOWN, F("9.999"), 0),
        (PackageRounding.DOWN, 10, 1),
        (PackageRounding.NONE, 15, F("1.5")),
    ],
)
def test_a_begun_package_counts_as_the_price_says(
    rounding: PackageRounding, quantity: Fraction, packages: Fraction
) -> None:
    """A whole one, nothing, or its exact share."""
    table = RateTable(tiers=TWO, package_units=10, package_rounding=rounding)
    assert charge_of(table, quantity).packages == packages


def test_a_decimal_quantity_of_a_per_unit_price_is_not_rounded() -> None:
    """Only packages are rounded, and a per-unit price has none."""
    price = Price(code="p", meter="m", model=Model.PER_UNIT, unit_amount="0.10")
    assert charge_of(rates_of(price), Decimal("1234.5678")).amount_nanos == 123_456_780_000


@pytest.mark.parametrize("quantity", [-1, Decimal("-0.001")])
def test_a_negative_quantity_is_refused(quantity: Decimal | int) -> None:
    """Also as the total before or after a line."""
    table = RateTable(tiers=TWO)
    for attempt in (
        lambda: charge_of(table, quantity),
        lambda: charge_between(table, before=quantity, after=5, closing=True),
        lambda: charge_between(table, before=None, after=quantity, closing=True),
    ):
        with pytest.raises(InvalidInput, match="negative"):
            attempt()


def test_a_total_that_shrinks_is_refused() -> None:
    """A correction prices the corrected total and bills the difference."""
    with pytest.raises(InvalidInput, match="never shrinks"):
        charge_between(RateTable(tiers=TWO), before=5, after=4, closing=True)


def test_a_flat_amount_is_on_the_line_that_enters_its_tier() -> None:
    """And on no other line."""
    lines = [
        charge_between(RateTable(tiers=TWO), before=before, after=after, closing=False)
        for before, after in ((None, 0), (0, 4), (4, 10), (10, 10), (10, 12))
    ]
    assert [[part.flat_nanos for part in line.parts] for line in lines] == [[], [100], [0], [], [7]]


def test_a_first_flat_that_is_always_due_is_on_the_first_line() -> None:
    """Even where nothing was used; the next line does not pay it again."""
    table = RateTable(tiers=TWO, first_flat_always_due=True)
    lines = [
        charge_between(table, before=before, after=after, closing=False) for before, after in ((None, 0), (0, 4))
    ]
    assert [line.amount_nanos for line in lines] == [100, 20]


def test_parts_are_kept_as_exact_text() -> None:
    """A third of a nano stays a third; what is zero is left out of the JSON."""
    thirds = RateTable(tiers=(RateTier(upto=None, unit_nanos=F(1, 3)),), minimum_nanos=F(2))
    records = part_records(charge_of(thirds, 4))
    assert [(one.kind, one.quantity, one.unit_nanos, one.amount_nanos) for one in records] == [
        (PartKind.TIER, "4", "1/3", "4/3"),
        (PartKind.MINIMUM, "0", "0", "2/3"),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (F(0), "0"),
        (F(5), "5"),
        (F("-0.05"), "-0.05"),
        (F(1, 8), "0.125"),
        (F(-7, 3), "-7/3"),
        (F(1, 10**9), "0.000000001"),
    ],
)
def test_a_number_has_one_spelling(value: Fraction, text: str) -> None:
    """A decimal where it ends, else a quotient."""
    assert exact_text(value) == text


TARIFF = Tariff(
    price_id="p",
    currency="USD",
    package_units=10,
    batch=3,
    tiers=(Tier(upto=2, nanos_per_batch=1, flat_nanos=5), Tier(upto=0, nanos_per_batch=2)),
    window=Window(kind=WindowKind.LIFETIME),
)


@pytest.mark.parametrize(
    ("units", "nanos"), [(0, 0), (1, F(16, 3)), (10, F(16, 3)), (11, F(17, 3)), (21, F(19, 3))]
)
def test_the_cumulative_price_counts_begun_packages(units: int, nanos: Fraction) -> None:
    """Five flat, a third of a nano for each of two packages, two thirds for each after them."""
    assert cumulative_nanos(TARIFF, units) == nanos


def test_a_debit_takes_whole_nanos_and_a_hold_never_less() -> None:
    """5 1/3 nanos: 5 are taken; the third waits for the debit that completes it."""
    assert debit_nanos(TARIFF, used_units=0, units=1) == 5
    assert hold_nanos(TARIFF, used_units=0, units=1) == 6
    assert [debit_nanos(TARIFF, used_units=used, units=10) for used in (0, 10, 20, 30)] == [5, 0, 1, 1]


def test_a_tariff_outside_its_laws_breaks_an_invariant() -> None:
    """Negative units, or a last tier that is closed, are never asked for."""
    closed = Tariff(
        price_id="p",
        currency="USD",
        package_units=1,
        batch=1,
        tiers=(Tier(upto=5, nanos_per_batch=1),),
        window=TARIFF.window,
    )
    for tariff, units in ((TARIFF, -1), (closed, 6)):
        with pytest.raises(InvariantBroken):
            cumulative_nanos(tariff, units)


def test_a_stairstep_without_an_open_step_is_refused() -> None:
    """Peaks above the last bound would have no price."""
    with pytest.raises(InvalidInput, match="last step must be open"):
        stairstep_nanos([Step(amount_nanos=F(1), upto={"u": F(1)})], {"u": F(0)})
