"""Volume prices with answers known from other systems: all units at the rate of the tier that the total reaches."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import pytest

from billing_core.catalog.catalog import catalog_of
from billing_core.catalog.document import Aggregation, CatalogDocument, Meter, Model, Plan, Price, PriceTier
from billing_core.catalog.rate import RateTable, rates_of
from billing_core.errors import InvalidInput
from billing_core.pricing.charge import PartKind, charge_between, charge_of, mirrored

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
    return Price(code="p", meter="m", model=Model.VOLUME, tiers=tiers, **words)


def table(rows: Rows, **words: object) -> RateTable:
    return rates_of(price(rows, **words))


def units(nanos: Fraction) -> Fraction:
    return Fraction(nanos, 10**9)


FLAT = (("100", "2", "10"), ("200", "1", "0"), ("", "0.5", "50"))
V2 = (("5", "0", "100"), ("10", "0", "150"), ("15", "10", "0"), ("", "5", "0"))
CALLS = (("100", "0.10", "0"), ("500", "0.05", "0"), ("", "0.02", "0"))
PACKS = (("100", "1", "0"), ("", "0.5", "0"))
SEATS = (("10", "10.00", "0"), ("50", "8.00", "0"), ("", "6.00", "0"))
SIZED = (("1000", "0.01", "0"), ("101000", "0.001", "0"), ("", "0.0005", "0"))
BLOCKS = (("10", "1.5", "0"), ("110", "1", "0"), ("", "0.5", "0"))
FOO = (("10", "1", "0"), ("60", "10", "0"), ("", "100", "0"))
BAR = (("100", "2", "0"), ("600", "20", "0"), ("", "200", "0"))

CASES = {
    "VO-01": Case(FLAT, "0", "10", "10", z0=True),
    "VO-03": Case(FLAT, "100", "210", "210", z0=True),
    "VO-05": Case(FLAT, "101", "101", "101", z0=True),
    "VO-07": Case(FLAT, "210", "155", "155", z0=True),
    "VO-11": Case(V2, "3", "100", "100", z0=True),
    "VO-13": Case(V2, "14", "140", "140", z0=True),
    "VO-15": Case(V2, "16", "80", "80", z0=True),
    "VO-23": Case(CALLS, "50", "5", "5"),
    "VO-25": Case(CALLS, "101", "5.05", "5.05"),
    "VO-27": Case(CALLS, "500", "25", "25"),
    "VO-35": Case(SEATS, "1", "1000c", "10"),
    "VO-37": Case(SEATS, "11", "8800c", "88"),
    "VO-39": Case(SEATS, "51", "30600c", "306"),
    "VO-43": Case(SIZED, "101000", "101", "101"),
    "VO-45": Case(SIZED, "300000", "150", "150"),
    "VO-47": Case(BLOCKS, "111", "55.5", "55.5"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_whole_period_is_priced_as_published(name: str, agrees: Callable[[str, str], bool]) -> None:
    """One tier, chosen by the total, prices all units; sizes of blocks add up to bounds."""
    case = CASES[name]
    charge = charge_of(table(case.rows, first_flat_always_due=case.z0), Fraction(case.quantity))
    assert units(charge.amount_nanos) == Fraction(case.amount)
    assert agrees(name, case.says)


@pytest.mark.parametrize(
    ("name", "says", "quantity", "amount"), [("VO-31", "75", 150_000, 75), ("VO-33", "2 (2 packs)", 1500, 2)]
)
def test_packages_are_rounded_before_the_tier_is_chosen(
    name: str, says: str, quantity: int, amount: int, agrees: Callable[[str, str], bool]
) -> None:
    """Per 1,000, up to 100 packages at 1, above at 0.5."""
    assert units(charge_of(table(PACKS, package_units=1000), quantity).amount_nanos) == amount
    assert agrees(name, says)


def test_vo_09_a_prorated_quantity_keeps_the_tier_of_the_full_one(agrees: Callable[[str, str], bool]) -> None:
    """198.6 prorated units of 300."""
    charge = charge_of(table(FLAT), Fraction("198.6"), tier_quantity=300)
    assert units(charge.amount_nanos) == Fraction("149.3")
    assert agrees("VO-09", "149.3")


def test_vo_17_a_volume_price_has_no_line_before_the_last(agrees: Callable[[str, str], bool]) -> None:
    """Later units change what earlier ones cost, so the closing line charges all of them."""
    middle = charge_between(table(V2), before=None, after=10, closing=False)
    assert (middle.parts, middle.amount_nanos) == ((), 0)
    last = charge_between(table(V2), before=10, after=14, closing=True)
    assert units(last.amount_nanos) == 140
    assert agrees("VO-17", "no lines at all")


@pytest.mark.parametrize("quantity", [0, 5])
def test_vo_19_a_minimum_is_topped_up_by_a_part_of_its_own(
    quantity: int, agrees: Callable[[str, str], bool]
) -> None:
    """100 by the tier and 50 to the minimum of 150."""
    charge = charge_of(table(V2, minimum_amount="150", first_flat_always_due=True), quantity)
    assert [(part.kind, units(part.amount_nanos)) for part in charge.parts] == [
        (PartKind.TIER, 100),
        (PartKind.MINIMUM, 50),
    ]
    assert agrees("VO-19", "100+50 / 100+50")


def test_vo_21_a_maximum_bounds_the_price(agrees: Callable[[str, str], bool]) -> None:
    """Exactly at the maximum nothing is taken off."""
    charge = charge_of(table(V2, maximum_amount="100", first_flat_always_due=True), 5)
    assert units(charge.amount_nanos) == 100
    assert agrees("VO-21", "100")


def test_vo_29_a_negative_quantity_is_never_priced(agrees: Callable[[str, str], bool]) -> None:
    """Not our convention: we refuse it. The mirror image of the positive charge is the published answer."""
    with pytest.raises(InvalidInput, match="negative"):
        charge_of(table(CALLS), -250)
    assert units(mirrored(charge_of(table(CALLS), 250)).amount_nanos) == Fraction("-12.5")
    assert agrees("VO-29", "-12.5")


def test_vo_41_a_closed_table_is_refused(agrees: Callable[[str, str], bool]) -> None:
    """The source stops at the first unit above the last bound; we stop at the catalog."""
    plan = Plan(code="a", currency="USD", prices=(price((("10", "5.00", "0"),)),))
    meter = Meter(code="m", event="e", aggregation=Aggregation.COUNT)
    with pytest.raises(InvalidInput, match="last tier must be open"):
        catalog_of(CatalogDocument(meters=(meter,), plans=(plan,)))
    assert agrees("VO-41", "error")


def test_vo_49_two_units_are_two_prices(agrees: Callable[[str, str], bool]) -> None:
    """76 of FOO and 101 of BAR, each at its top tier."""
    total = charge_of(table(FOO), 76).amount_nanos + charge_of(table(BAR), 101).amount_nanos
    assert units(total) == 9620
    assert agrees("VO-49", "9620")


def test_every_published_volume_case_is_here(published_ids: Callable[[str], set[str]]) -> None:
    """No case of the family is left out."""
    apart = {"VO-09", "VO-17", "VO-19", "VO-21", "VO-29", "VO-31", "VO-33", "VO-41", "VO-49"}
    assert published_ids("VO") <= set(CASES) | apart
