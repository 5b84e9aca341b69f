"""Packages, unit conversion and plain per-unit prices with answers known from other systems."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from billing_core.catalog.document import Model, PackageRounding, Price, PriceTier
from billing_core.catalog.rate import rates_of
from billing_core.pricing.charge import Charge, charge_between, charge_of, still_due_minor
from billing_core.pricing.stairstep import Step, stairstep_nanos

Agrees = Callable[[str, str], bool]


def package(amount: str, size: int, **words: object) -> Price:
    return Price(code="p", meter="m", model=Model.PACKAGE, unit_amount=amount, package_units=size, **words)


def per_unit(amount: str, **words: object) -> Price:
    return Price(code="p", meter="m", model=Model.PER_UNIT, unit_amount=amount, **words)


def tiered(model: Model, *rows: tuple[str, str], **words: object) -> Price:
    tiers = tuple(PriceTier(upto=upto or None, unit_amount=unit) for upto, unit in rows)
    return Price(code="p", meter="m", model=model, tiers=tiers, **words)


def units(charge: Charge) -> Fraction:
    return Fraction(charge.amount_nanos, 10**9)


DOWN = PackageRounding.DOWN
CASES: dict[str, tuple[Price, list[int], str, list[str]]] = {
    "PK-01": (package("100", 10), [121], "1300", ["1300"]),
    "PK-03": (package("100", 10, free_units=200), [121], "0", ["0"]),
    "PK-11": (package("1", 100), [2], "1", ["1"]),
    "PK-13": (package("1", 100), [150], "2", ["2"]),
    "PK-15": (package("1", 100), [0], "0", ["0"]),
    "PK-17": (package("1", 100), [101], "2", ["2"]),
    "PK-19": (package("1", 100, package_rounding=DOWN), [50, 250], "0 / 2", ["0", "2"]),
    "PK-21": (package("1", 10), [20], "2", ["2"]),
    "PK-23": (per_unit("0.1"), [3], "0.3 exactly", ["0.3"]),
    "PK-25": (per_unit("0.001"), [100], "0.10", ["0.10"]),
    "PK-27": (per_unit("10", package_units=1000), [1400], "2 units -> 20", ["20"]),
    "PK-29": (
        tiered(Model.GRADUATED, ("5", "1"), ("", "0.5"), package_units=1000),
        [7400],
        "8 units -> 5+1.5 = 6.5",
        ["6.5"],
    ),
    "PK-31": (tiered(Model.VOLUME, ("", "1.00"), package_units=1000), [4500], "5 packages -> 5", ["5"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_whole_period_is_priced_as_published(name: str, agrees: Agrees) -> None:
    """Free units come off, then begun packages are rounded, then tiers are looked at."""
    price, quantities, says, amounts = CASES[name]
    assert [units(charge_of(rates_of(price), quantity)) for quantity in quantities] == [
        Fraction(a) for a in amounts
    ]
    assert agrees(name, says)


@pytest.mark.parametrize(("name", "after", "says", "amount"), [("PK-05", 0, "0", 0), ("PK-07", 5, "15", 15)])
def test_a_first_line_pays_for_the_packages_it_begins(
    name: str, after: int, says: str, amount: int, agrees: Agrees
) -> None:
    """15 per package of 10, in a period that is billed by several lines."""
    line = charge_between(rates_of(package("15", 10)), before=None, after=after, closing=False)
    assert units(line) == amount
    assert agrees(name, says)


def test_a_package_that_is_split_over_lines_is_paid_once() -> None:
    """Five units begin it, three more stay in it, three more begin the next."""
    table = rates_of(package("15", 10))
    totals: list[tuple[int | None, int]] = [(None, 5), (5, 8), (8, 11)]
    lines = [charge_between(table, before=before, after=after, closing=after == 11) for before, after in totals]
    assert [units(line) for line in lines] == [15, 0, 15]


def test_pk_09_a_minimum_waits_for_the_last_line(agrees: Agrees) -> None:
    """Without usage the last line pays 100, a line before it nothing."""
    table = rates_of(package("15", 10, minimum_amount="100"))
    assert units(charge_between(table, before=None, after=0, closing=True)) == 100
    assert units(charge_between(table, before=None, after=0, closing=False)) == 0
    assert agrees("PK-09", "100 (mid-period line: 0)")


def test_pk_33_what_was_billed_comes_off_the_total(agrees: Agrees) -> None:
    """199 units are two blocks, and one is billed."""
    total = charge_of(rates_of(package("1", 100)), 199)
    assert still_due_minor(total.amount_nanos, billed_minor=100, currency="USD") == 100
    assert agrees("PK-33", "2-1 = 1")


def test_pk_35_the_total_is_rounded_before_what_was_billed_comes_off(agrees: Agrees) -> None:
    """3.685 is 3.69, and that much is billed."""
    total = charge_of(rates_of(per_unit("0.067")), 55)
    assert units(total) == Fraction("3.685")
    assert still_due_minor(total.amount_nanos, billed_minor=369, currency="USD") == 0
    assert agrees("PK-35", "no new item (compare at currency scale)")


@pytest.mark.parametrize(("name", "u1"), [("PK-37", 100), ("PK-39", 101)])
def test_a_capacity_costs_the_step_of_its_worst_dimension(name: str, u1: int, agrees: Agrees) -> None:
    """1,001 of u2 need the second step, whatever u1 is."""
    steps = [
        Step(amount_nanos=Fraction(10), upto={"u1": Fraction(100), "u2": Fraction(1000)}),
        Step(amount_nanos=Fraction(20), upto={"u1": Fraction(200), "u2": Fraction(2000)}),
        Step(amount_nanos=Fraction(30)),
    ]
    assert stairstep_nanos(steps, {"u1": Fraction(u1), "u2": Fraction(1001)}) == 20
    assert agrees(name, "20")


def test_pk_41_a_flat_amount_adds_and_a_maximum_bounds(agrees: Agrees) -> None:
    """1 a unit: with 10 flat, five units are 15; with a maximum of 3 and no flat, 3."""
    assert units(charge_of(rates_of(per_unit("1", flat_amount="10")), 5)) == 15
    assert units(charge_of(rates_of(per_unit("1", maximum_amount="3")), 5)) == 3
    assert agrees("PK-41", "15 / 3")


def test_every_published_package_case_is_here(published_ids: Callable[[str], set[str]]) -> None:
    """No case of the family is left out."""
    apart = {"PK-05", "PK-07", "PK-09", "PK-33", "PK-35", "PK-37", "PK-39", "PK-41"}
    assert published_ids("PK") <= set(CASES) | apart
