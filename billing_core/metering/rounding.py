"""Rounding of metered quantities, where a contract asks for it: never of money.

`digits` may be negative: -2 rounds to whole hundreds. Half goes away from zero, as everywhere in the house.

Worked example: 123.456 is 123.46 rounded to 2 digits, 100 rounded to -2, and 124 up to a whole number.
"""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction

from billing_core.values.money import round_half_away


class QuantityRounding(StrEnum):
    """Which neighbour is taken."""

    NEAREST = "nearest"
    UP = "up"
    DOWN = "down"


def round_quantity(quantity: Fraction, rounding: QuantityRounding, *, digits: int = 0) -> Fraction:
    """The quantity to so many digits after the point."""
    step = Fraction(1, 10**digits) if digits >= 0 else Fraction(10**-digits)
    steps = quantity / step
    if rounding is QuantityRounding.NEAREST:
        return round_half_away(steps) * step
    if rounding is QuantityRounding.UP:
        return -(-steps.numerator // steps.denominator) * step
    return steps.numerator // steps.denominator * step
