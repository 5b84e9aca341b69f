"""Aggregations of values: what makes them differ, and what they say of nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from billing_core.catalog.document import Aggregation
from billing_core.metering.rounding import QuantityRounding, round_quantity
from billing_core.metering.sample import Sample, aggregate, weighted_sum
from billing_core.values.period import Period

START = datetime(2026, 3, 1, tzinfo=UTC)
PERIOD = Period(start_at=START, end_at=START + timedelta(hours=10))


def sample(hour: int, number: str, text: str = "", order: int = 0) -> Sample:
    return Sample(at=START + timedelta(hours=hour), number=Decimal(number), text=text, order=order)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (Aggregation.COUNT, "4"),
        (Aggregation.SUM, "8.5"),
        (Aggregation.MAX, "4"),
        (Aggregation.UNIQUE, "2"),
        (Aggregation.LATEST, "2.5"),
    ],
)
def test_each_aggregation_sees_the_same_events_its_own_way(aggregation: Aggregation, expected: str) -> None:
    """Two events at the last instant: the one that came last counts as the latest, whatever their order here."""
    samples = [
        sample(3, "2.5", "a", order=9),
        sample(1, "4", "b"),
        sample(3, "1", "a", order=8),
        sample(2, "1", "b"),
    ]
    assert aggregate(aggregation, samples) == Decimal(expected)


@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_no_events_are_zero(aggregation: Aggregation) -> None:
    """By every aggregation."""
    assert aggregate(aggregation, []) == 0


def test_a_weighted_sum_carries_the_level_from_before_the_period() -> None:
    """Two hosts from before, one more for the second half, and an event at the end that no longer counts."""
    samples = [sample(5, "1"), sample(10, "100"), sample(-1, "100")]
    assert weighted_sum(samples, PERIOD, carried=Decimal(2)) == Fraction("2.5")


@pytest.mark.parametrize(
    ("quantity", "rounding", "digits", "expected"),
    [
        ("2.5", QuantityRounding.NEAREST, 0, "3"),
        ("-2.5", QuantityRounding.NEAREST, 0, "-3"),
        ("-2.5", QuantityRounding.UP, 0, "-2"),
        ("-2.5", QuantityRounding.DOWN, 0, "-3"),
        ("149", QuantityRounding.UP, -2, "200"),
        ("1.001", QuantityRounding.UP, 2, "1.01"),
    ],
)
def test_quantities_are_rounded_to_digits(
    quantity: str, rounding: QuantityRounding, digits: int, expected: str
) -> None:
    """Half away from zero; up and down are towards the larger and the smaller number."""
    assert round_quantity(Fraction(quantity), rounding, digits=digits) == Fraction(expected)
