"""Graduated prices with answers known from other systems.

Z0 is the convention that the first flat amount is due at quantity zero: our option `first_flat_always_due`. Where a
convention is not ours, the case's test says what we do instead.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import pytest

from billing_core.catalog.catalog import catalog_of
from billing_core.catalog.document import Aggregation, CatalogDocument, Meter, Model, Plan, Price, PriceTier
from billing_core.catalog.rate import RateTable, rates_of
from billing_core.errors import InvalidInput
from billing_core.pricing.charge import charge_between, charge_of, mirrored

Rows = tuple[tuple[str, str, str], ...]


class Case(NamedTuple):
    """Rows are (upto or "", unit amount, flat amount)."""

    rows: Rows
    quantity: str
    says: str
    amount: str
    z0: bool = False


def price(rows: Rows, **words: object) -> Price:
    tiers = tuple(PriceTier(upto=upto or None, unit_amount=unit, flat_amount=flat) for upto, unit, flat in rows)
    return Price(code="p", meter="m", model=Model.GRADUATED, tiers=tiers, **words)


def table(rows: Rows, **words: object) -> RateTable:
    return rates_of(price(rows, **words))


def units(nanos: Fraction) -> Fraction:
    return Fraction(nanos, 10**9)


THREE = (("10", "10", "2"), ("20", "5", "3"), ("", "5", "3"))
SMALL = (("0.01", "0", "0"), ("10", "10", "2"), ("", "5", "3"))
DECIMAL = (("0.1", "10", "0"), ("1", "5", "0"), ("", "2", "0"))
SPLIT = (("5", "0", "100"), ("10", "0", "50"), ("15", "5", "0"), ("", "1", "0"))
FLATS = (("5", "0", "100"), ("10", "0", "50"), ("15", "10", "0"), ("", "5", "0"))
SLAB = (("10", "50", "0"), ("20", "40", "0"), ("", "30", "0"))
FREE = (("5", "0", "0"), ("10", "2", "0"), ("", "3", "0"))
SLAB_FLATS = (("5", "0", "1"), ("10", "1", "2"), ("", "2", "0"))
ONES = (("1", "10", "0"), ("2", "20", "0"), ("", "30", "0"))
CALLS = (("100", "0.10", "0"), ("500", "0.05", "0"), ("", "0.02", "0"))
THOUSANDS = (("1000", "0.01", "0"), ("10000", "0.008", "0"), ("", "0.005", "0"))
SEATS = (("10", "10.00", "0"), ("50", "8.00", "0"), ("", "6.00", "0"))
FIVE_FREE = (("5", "0", "0"), ("", "10.00", "0"))
BLOCKS = (("10", "1.5", "0"), ("110", "1", "0"), ("", "0.5", "0"))
FOO = (("10", "1", "0"), ("60", "10", "0"), ("", "100", "0"))
BAR = (("100", "2", "0"), ("600", "20", "0"), ("", "200", "0"))

CASES = {
    "GR-01": Case(THREE, "0", "2", "2", z0=True),
    "GR-03": Case(THREE, "10", "102", "102", z0=True),
    "GR-05": Case(THREE, "12", "115", "115", z0=True),
    "GR-07": Case(SMALL, "0", "0", "0", z0=True),
    "GR-09": Case(DECIMAL, "0.5", "3.0 (=1.0+2.0)", "3"),
    "GR-15": Case(FLATS, "3", "100", "100", z0=True),
    "GR-17": Case(FLATS, "5.001", "150", "150", z0=True),
    "GR-19": Case(FLATS, "12", "170", "170", z0=True),
    "GR-23": Case(SLAB, "25", "1050", "1050"),
    "GR-25": Case(FREE, "5", "0", "0"),
    "GR-27": Case(FREE, "10", "10", "10"),
    "GR-29": Case(FREE, "15", "25", "25"),
    "GR-31": Case(SLAB_FLATS, "7", "5", "5"),
    "GR-33": Case(ONES, "0", "0", "0"),
    "GR-35": Case(ONES, "2", "30", "30"),
    "GR-37": Case(ONES, "2.5", "45", "45"),
    "GR-39": Case(CALLS, "50", "5", "5"),
    "GR-41": Case(CALLS, "250", "17.5", "17.5"),
    "GR-43": Case(CALLS, "1000", "40", "40"),
    "GR-47": Case(THOUSANDS, "15000", "107", "107"),
    "GR-49": Case(SEATS, "5", "5000c", "50"),
    "GR-51": Case(SEATS, "10", "10000c", "100"),
    "GR-53": Case(SEATS, "100", "72000c", "720"),
    "GR-55": Case(FIVE_FREE, "3", "0c", "0"),
    "GR-57": Case(FIVE_FREE, "8", "3000c", "30"),
    "GR-61": Case(BLOCKS, "111", "15+100+0.5 = 115.5", "115.5"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_whole_period_is_priced_as_published(name: str, agrees: Callable[[str, str], bool]) -> None:
    """Each tier's units at its rate, its flat amount once entered."""
    case = CASES[name]
    charge = charge_of(table(case.rows, first_flat_always_due=case.z0), Fraction(case.quantity))
    assert units(charge.amount_nanos) == Fraction(case.amount)
    assert sum(part.amount_nanos for part in charge.parts) == charge.amount_nanos
    assert agrees(name, case.says)


@pytest.mark.parametrize(
    ("name", "says", "foo", "bar", "amount"), [("GR-63", "203", 5, 99, 203), ("GR-65", "2230", 75, 101, 2230)]
)
def test_two_units_are_two_prices(
    name: str, says: str, foo: int, bar: int, amount: int, agrees: Callable[[str, str], bool]
) -> None:
    """Blocks of 10, 50 and 75 mean bounds of 10, 60 and more; the two units' prices add up."""
    total = charge_of(table(FOO), foo).amount_nanos + charge_of(table(BAR), bar).amount_nanos
    assert units(total) == amount
    assert agrees(name, says)


def test_gr_11_a_later_line_pays_the_difference(agrees: Callable[[str, str], bool]) -> None:
    """12 units are billed; the ten that follow touch two tiers."""
    line = charge_between(table(SPLIT), before=12, after=22, closing=True)
    assert [units(part.amount_nanos) for part in line.parts] == [15, 7]
    assert units(line.amount_nanos) == 22
    assert agrees("GR-11", "15+7 = 22 for this line")


def test_gr_13_a_maximum_takes_off_the_last_tiers_first(agrees: Callable[[str, str], bool]) -> None:
    """160 of at most 170 are billed: the line pays 10 of its 22."""
    capped = table(SPLIT, maximum_amount="170")
    assert units(charge_of(capped, 12).amount_nanos) == 160
    line = charge_between(capped, before=12, after=22, closing=True)
    assert [(units(part.amount_nanos), units(part.capped_nanos)) for part in line.parts] == [(10, 5), (0, 7)]
    assert agrees("GR-13", "line pays 10 in total: 15 less 5, 7 less 7")


def test_gr_21_a_range_of_quantities_is_half_open(agrees: Callable[[str, str], bool]) -> None:
    """Above 12, up to and including 20."""
    line = charge_between(table(FLATS), before=12, after=20, closing=True)
    assert [(part.tier_index, part.quantity) for part in line.parts] == [(2, 3), (3, 5)]
    assert agrees("GR-21", "3 units in tier 3, 5 units in tier 4")


def test_gr_45_a_negative_quantity_is_never_priced(agrees: Callable[[str, str], bool]) -> None:
    """Not our convention: we refuse it. The mirror image of the positive charge is the published answer."""
    with pytest.raises(InvalidInput, match="negative"):
        charge_of(table(CALLS), -1000)
    assert units(mirrored(charge_of(table(CALLS), 1000)).amount_nanos) == -40
    assert agrees("GR-45", "-40")


def test_gr_59_a_closed_table_is_refused(agrees: Callable[[str, str], bool]) -> None:
    """Not our convention: units above the last bound would be given away, so the catalog is refused."""
    plan = Plan(code="a", currency="USD", prices=(price((("10", "5.00", "0"),)),))
    meter = Meter(code="m", event="e", aggregation=Aggregation.COUNT)
    with pytest.raises(InvalidInput, match="last tier must be open") as caught:
        catalog_of(CatalogDocument(meters=(meter,), plans=(plan,)))
    assert caught.value.field == "plans[0].prices[0].tiers"
    assert agrees("GR-59", "5000c: units past the last bound are NOT charged")


def test_every_published_graduated_case_is_here(published_ids: Callable[[str], set[str]]) -> None:
    """No case of the family is left out."""
    apart = {"GR-11", "GR-13", "GR-21", "GR-45", "GR-59", "GR-63", "GR-65"}
    assert published_ids("GR") <= set(CASES) | apart
