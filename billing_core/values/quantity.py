"""Quantities: exact decimals in billing, integers near Redis.

A JSON number reaches the house as `Decimal` or int, never as a float. Each meter states a scale (digits after the
point, 0 unless told); a quantity with more digits than the scale is refused instead of rounded.
"""

from __future__ import annotations

from decimal import Decimal

from billing_core.errors import InvalidInput
from billing_core.values.money import MAX_EXACT


def units_of(value: object, *, field: str) -> int:
    """A whole, non-negative number of units below 2^53.

    Raises: InvalidInput naming the field and the rule: whole number, not negative, below 2^53.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput("must be a whole number", field=field)
    if value < 0:
        raise InvalidInput("must not be negative", field=field)
    if value > MAX_EXACT:
        raise InvalidInput("must be below 2^53", field=field)
    return value


def quantity_of(value: Decimal | int, *, scale: int, field: str) -> Decimal:
    """A non-negative decimal with at most `scale` digits after the point, below 2^53.

    Raises: InvalidInput naming the field and the rule.
    """
    quantity = Decimal(value)
    if not quantity.is_finite() or quantity < 0:
        raise InvalidInput("must be a number that is not negative", field=field)
    if quantity > MAX_EXACT:
        raise InvalidInput("must be below 2^53", field=field)
    if digits_after_point(quantity) > scale:
        rule = "must be a whole number" if scale == 0 else f"must have at most {scale} digits after the point"
        raise InvalidInput(rule, field=field)
    return quantity


def digits_after_point(quantity: Decimal) -> int:
    """How many digits a finite decimal really has after its point: 1.50 has one, 2E3 none.

    Counted on the digits themselves: `Decimal.normalize` would first round to the context's 28.
    """
    _, digits, exponent = quantity.as_tuple()
    if not isinstance(exponent, int) or not quantity:
        return 0
    trailing = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return max(0, -exponent - trailing)
