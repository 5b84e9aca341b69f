"""Parts as they are kept on an invoice line: exact numbers as text that reads back to the same number.

A number whose expansion ends is written as a decimal, `2500` or `0.5`; any other as a quotient, `1/3`. Replaying
a bill compares these texts, so one number has one spelling.
"""

from __future__ import annotations

from fractions import Fraction

import msgspec

from billing_core.pricing.charge import Charge, PartKind
from billing_core.values.money import Exact


class PartRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of a line. Units: quantities in packages, money in nanos, all as exact text; tiers count from 0."""

    kind: PartKind = PartKind.TIER
    tier_index: int = 0
    quantity: str = "0"
    unit_nanos: str = "0"
    flat_nanos: str = "0"
    capped_nanos: str = "0"
    amount_nanos: str


def part_records(charge: Charge) -> tuple[PartRecord, ...]:
    """The charge's parts as they are kept."""
    return tuple(
        PartRecord(
            kind=part.kind,
            tier_index=part.tier_index,
            quantity=exact_text(part.quantity),
            unit_nanos=exact_text(part.unit_nanos),
            flat_nanos=exact_text(part.flat_nanos),
            capped_nanos=exact_text(part.capped_nanos),
            amount_nanos=exact_text(part.amount_nanos),
        )
        for part in charge.parts
    )


def exact_text(value: Exact) -> str:
    """The number's one spelling: a plain decimal where that ends, else `numerator/denominator`."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def exact_of(text: str) -> Fraction:
    """The number that `exact_text` wrote.

    Raises: ValueError where it did not.
    """
    return Fraction(text)
