"""Discounts and percentages on a line: whole minor units in, whole minor units out.

Percentages come first, each of what the one before left, then fixed amounts, and never more than the line. The
order in which they were taken is kept, because the invoice shows it. Each discount is rounded half away from zero
at the currency's minor unit when it is taken, and a tax is rounded apart from the sub-total it is of.

Worked example: 10 % and 25 % of 100.00 are 10.00 and 22.50, in all 32.50.
"""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction

import msgspec

from billing_core.errors import InvalidInput
from billing_core.values.money import round_half_away


class DiscountOrder(StrEnum):
    """Percentages before fixed amounts (the house's order), or in the order they were given."""

    PERCENT_FIRST = "percent_first"
    AS_GIVEN = "as_given"


class Coupon(msgspec.Struct, frozen=True, kw_only=True):
    """Either a percentage or a fixed amount off a line."""

    code: str
    percent: Fraction | None = None
    fixed_minor: int | None = None

    def __post_init__(self) -> None:
        if (self.percent is None) == (self.fixed_minor is None):
            raise InvalidInput("a coupon is a percentage or a fixed amount", field="coupon")
        if self.percent is not None and not 0 <= self.percent <= 100:
            raise InvalidInput("must be from 0 to 100", field="coupon.percent")
        if self.fixed_minor is not None and self.fixed_minor < 0:
            raise InvalidInput("must not be negative", field="coupon.fixed_minor")


class Discount(msgspec.Struct, frozen=True, kw_only=True):
    """What one coupon took off, in the order taken."""

    code: str
    off_minor: int


def discounts_of(
    amount_minor: int, coupons: tuple[Coupon, ...], *, order: DiscountOrder = DiscountOrder.PERCENT_FIRST
) -> tuple[Discount, ...]:
    """What the coupons take off a line, each capped at what the others left.

    Raises: InvalidInput for a negative line.
    """
    if amount_minor < 0:
        raise InvalidInput("a negative line has no discount", field="amount_minor")
    left, taken = amount_minor, list[Discount]()
    ordered = coupons if order is DiscountOrder.AS_GIVEN else sorted(coupons, key=lambda one: one.percent is None)
    for coupon in ordered:
        wanted = coupon.fixed_minor or 0 if coupon.percent is None else percent_minor(left, coupon.percent)
        off = min(left, wanted)
        taken.append(Discount(code=coupon.code, off_minor=off))
        left -= off
    return tuple(taken)


def percent_minor(amount_minor: int, percent: Fraction) -> int:
    """A percentage of an amount, rounded once: a discount, or a tax on a sub-total."""
    return round_half_away(amount_minor * percent / 100)
