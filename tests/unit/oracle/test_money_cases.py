"""Rounding, discounts, taxes and aggregations with answers known from other systems."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from billing_core.catalog.document import Model, Price, PriceTier
from billing_core.catalog.rate import rates_of
from billing_core.metering.rounding import QuantityRounding, round_quantity
from billing_core.metering.sample import Sample, weighted_sum
from billing_core.pricing.charge import charge_of
from billing_core.pricing.discount import Coupon, DiscountOrder, discounts_of, percent_minor
from billing_core.values.money import nanos_of, to_minor
from billing_core.values.period import Period

Agrees = Callable[[str, str], bool]
AS_GIVEN, PERCENT_FIRST = DiscountOrder.AS_GIVEN, DiscountOrder.PERCENT_FIRST
NEAREST, UP, DOWN = QuantityRounding.NEAREST, QuantityRounding.UP, QuantityRounding.DOWN


@pytest.mark.parametrize(("name", "amount", "says"), [("RO-01", "10.275", "10.28"), ("RO-03", "100.556", "100.56")])
def test_money_is_rounded_half_away_from_zero(name: str, amount: str, says: str, agrees: Agrees) -> None:
    """At two digits for dollars, euros and pounds alike."""
    for currency in ("USD", "EUR", "GBP"):
        assert to_minor(nanos_of(amount, field="amount"), currency) == Fraction(says) * 100
    assert agrees(name, says)


def percent(value: str) -> Coupon:
    return Coupon(code=f"{value} %", percent=Fraction(value))


def fixed(minor: int) -> Coupon:
    return Coupon(code=f"{minor} off", fixed_minor=minor)


@pytest.mark.parametrize(
    ("name", "amount", "coupons", "order", "off", "says"),
    [
        ("DC-01", 100, (fixed(10), percent("20")), AS_GIVEN, 28, "coupons 28c, left 72c"),
        ("DC-03", 100, (percent("15"), percent("20")), PERCENT_FIRST, 32, "coupons 32c, left 68c"),
        ("DC-05", 10_000, (percent("10"), percent("25")), PERCENT_FIRST, 3_250, "discount 3250c"),
        ("DC-07", 10_000, (fixed(8_000), fixed(5_000)), PERCENT_FIRST, 10_000, "discount 10000c"),
        ("DC-09", 1_000, (percent("15.5"),), PERCENT_FIRST, 155, "1.55"),
        ("DC-11", 1_000, (percent("33.333"),), PERCENT_FIRST, 333, "333"),
    ],
)
def test_coupons_take_off_what_was_published(
    name: str, amount: int, coupons: tuple[Coupon, ...], order: DiscountOrder, off: int, says: str, agrees: Agrees
) -> None:
    """In the stated order, each of what is left, never more than the line."""
    assert sum(one.off_minor for one in discounts_of(amount, coupons, order=order)) == off
    assert agrees(name, says)


def test_dc_01_in_our_order_the_percentage_comes_first() -> None:
    """Not our convention: we take 20 % of 100 and then 10, which leaves 70 instead of 72."""
    taken = discounts_of(100, (fixed(10), percent("20")))
    assert [(one.code, one.off_minor) for one in taken] == [("20 %", 20), ("10 off", 10)]


@pytest.mark.parametrize(
    ("name", "sub_total", "rate", "tax", "total", "says"),
    [
        ("DC-13", Fraction(20_000 * 29, 30), "25", 4_833, 24_166, "sub-total 19333c, tax 4833c, total 24166c"),
        ("DC-15", Fraction(2_999 * 6, 7), "23.33", 600, 3_171, "sub-total 2571c, tax 600c, total 3171c"),
        ("DC-17", Fraction(1_429), "24", 343, 1_772, "17.72; wallet left 82.28"),
    ],
)
def test_sub_total_and_tax_are_rounded_apart(
    name: str, sub_total: Fraction, rate: str, tax: int, total: int, says: str, agrees: Agrees
) -> None:
    """Then they are added, so an invoice adds up as it is printed."""
    rounded = to_minor(sub_total * 10**7, "EUR")
    assert percent_minor(rounded, Fraction(rate)) == tax
    assert rounded + tax == total
    assert agrees(name, says)


AUGUST = Period(start_at=datetime(2023, 8, 1, tzinfo=UTC), end_at=datetime(2023, 9, 1, tzinfo=UTC))


def moves(*changes: tuple[str, int]) -> list[Sample]:
    """Changes of a level on the first day, as ("01:30", +1)."""
    return [
        Sample(
            at=AUGUST.start_at + timedelta(hours=int(time[:2]), minutes=int(time[3:])),
            number=Decimal(change),
            order=n,
        )
        for n, (time, change) in enumerate(changes)
    ]


DAY = moves(("00:00", 2), ("01:00", 3), ("01:30", 1), ("02:00", -4), ("04:00", -2), ("05:00", 10), ("05:30", -10))


@pytest.mark.parametrize(
    ("name", "samples", "rounded", "says"),
    [
        ("AG-01", DAY, "0.02218", "0.02218 (5 dp)"),
        ("AG-03", moves(("00:00", 3), ("00:00", 3)), "6", "6"),
        ("AG-05", moves(("01:00", 3)), "2.99597", "2.99597 (5 dp)"),
    ],
)
def test_a_weighted_sum_is_the_average_over_the_period(
    name: str, samples: list[Sample], rounded: str, says: str, agrees: Agrees
) -> None:
    """Seconds of 744 hours."""
    assert round_quantity(weighted_sum(samples, AUGUST), NEAREST, digits=5) == Fraction(rounded)
    assert agrees(name, says)


@pytest.mark.parametrize(
    ("name", "rounding", "digits", "says"),
    [
        ("AG-07", NEAREST, 2, "123.46"),
        ("AG-09", NEAREST, -2, "100"),
        ("AG-11", UP, 0, "124"),
        ("AG-13", DOWN, 2, "123.45"),
        ("AG-15", DOWN, -2, "100"),
    ],
)
def test_quantities_are_rounded_as_published(
    name: str, rounding: QuantityRounding, digits: int, says: str, agrees: Agrees
) -> None:
    """123.456, to digits before and behind the point."""
    assert round_quantity(Fraction("123.456"), rounding, digits=digits) == Fraction(says)
    assert agrees(name, says)


def tiers(*rows: tuple[str, str]) -> tuple[PriceTier, ...]:
    return tuple(PriceTier(upto=upto or None, unit_amount=unit) for upto, unit in rows)


@pytest.mark.parametrize(
    ("name", "words", "buckets", "amount", "says"),
    [
        (
            "AG-17",
            {"model": Model.PACKAGE, "unit_amount": "1", "package_units": 10},
            [9, 10],
            "2",
            "2 (one pack per bucket)",
        ),
        (
            "AG-19",
            {"model": Model.VOLUME, "tiers": tiers(("10", "0.10"), ("", "0.05"))},
            [9, 15],
            "1.65",
            "1.65 (0.9 + 0.75)",
        ),
        ("AG-21", {"model": Model.PER_UNIT, "unit_amount": "0.10"}, [0, 5, 0], "0.50", "0.50"),
        ("AG-23", {"model": Model.GRADUATED, "tiers": tiers(("10", "1"), ("", "2"))}, [3, 12], "17", "17 = 3 + 14"),
    ],
)
def test_each_bucket_or_group_is_priced_on_its_own(
    name: str, words: dict[str, object], buckets: list[int], amount: str, says: str, agrees: Agrees
) -> None:
    """Each has its own tiers and packages; then the amounts add up."""
    table = rates_of(Price(code="p", meter="m", **words))
    total = sum((charge_of(table, bucket).amount_nanos for bucket in buckets), Fraction(0))
    assert total / 10**9 == Fraction(amount)
    assert agrees(name, says)
