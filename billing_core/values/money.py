"""Money: integers of a stated scale, and the one place where it is rounded.

Inside, money is integer nanos: 1e-9 of a currency's major unit. A price is an exact rational. On an invoice line,
a total and a payment it is integer minor units at the ISO 4217 exponent (cents for USD, none for JPY, three
digits for KWD). `to_minor` is the only crossing; it rounds half away from zero.

A wallet may also be in a unit of the tenant's own, such as AIC for credits: a code of 2 to 16 capital letters and
digits that ISO 4217 does not know. Its amounts are nanos like money's, but it has no minor unit and is never due.

Worked example: 374 tokens at 2.50 USD a million are 374 * 2_500_000_000 / 1_000_000 = 935_000 nanos;
22_361_870 tokens are 55_904_675_000 nanos, which an invoice line shows as 5_590 cents.

Source: ISO 4217 exponents through Babel's CLDR tables.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache, lru_cache
from typing import TypeAlias

from babel.core import get_global
from babel.numbers import get_currency_precision

from billing_core.errors import InvalidInput

NANOS_PER_UNIT = 1_000_000_000
Exact: TypeAlias = int | Fraction
"""A number without error: an int where it is whole, which costs a tenth in sums and products; mind that `/` of two
ints is a float."""

MAX_EXACT = 2**53 - 1
"""The largest integer that Lua's doubles carry exactly; no amount or quantity near Redis is larger."""

_AMOUNTS_KEPT = 4_096
_UNIT = re.compile(r"[A-Z][A-Z0-9]{1,15}\Z")


def is_currency(code: str) -> bool:
    """Whether ISO 4217 knows the code."""
    return code in get_global("all_currencies")


def is_unit(code: str) -> bool:
    """Whether the code may name a credit unit: it looks like one and is no currency's."""
    return bool(_UNIT.match(code)) and not is_currency(code)


@cache
def minor_exponent(currency: str) -> int:
    """Digits after the point of a currency's minor unit: USD 2, JPY 0, KWD 3.

    Raises: InvalidInput for a code that ISO 4217 does not know.
    """
    if not is_currency(currency):
        raise InvalidInput(f"{currency!r} is not an ISO 4217 currency code", field="currency")
    return get_currency_precision(currency)


def round_half_away(value: Fraction) -> int:
    """The nearest integer; exactly half goes away from zero. 2.5 -> 3, -2.5 -> -3."""
    return _rounded(value.numerator, value.denominator)


def _rounded(numerator: int, denominator: int) -> int:
    """A quotient by a number above zero, rounded half away from zero; it need not be in lowest terms."""
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return magnitude if numerator >= 0 else -magnitude


def whole(value: Fraction) -> Exact:
    """The same number, as an int where it is whole."""
    return value.numerator if value.denominator == 1 else value


def to_minor(nanos: Exact, currency: str) -> int:
    """Nanos (exact, perhaps fractional) to minor units: the one rounding of a line."""
    return _rounded(nanos.numerator * 10 ** minor_exponent(currency), nanos.denominator * NANOS_PER_UNIT)


def to_nanos(minor: int, currency: str) -> int:
    """Minor units to nanos, exactly."""
    return minor * NANOS_PER_UNIT // 10 ** minor_exponent(currency)


@lru_cache(maxsize=_AMOUNTS_KEPT)
def nanos_of(text: str, *, field: str) -> Fraction:
    """A decimal amount of major units ("0.0083") as exact nanos.

    Raises: InvalidInput where the text is no plain decimal number.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise InvalidInput(f"{text!r} is not a decimal number", field=field) from None
    if not value.is_finite() or value.adjusted() > 30:
        raise InvalidInput(f"{text!r} is not a finite amount below 1e30", field=field)
    return Fraction(value) * NANOS_PER_UNIT


def show_minor(minor: int, currency: str) -> str:
    """Minor units for people: `12.34 USD`, `-5 JPY`."""
    exponent = minor_exponent(currency)
    sign, digits = ("-" if minor < 0 else ""), str(abs(minor)).rjust(exponent + 1, "0")
    whole, part = (digits[:-exponent], "." + digits[-exponent:]) if exponent else (digits, "")
    return f"{sign}{whole}{part} {currency}"


def show_nanos(nanos: int, currency: str) -> str:
    """Nanos for people: every digit that is not a trailing zero, and at least the minor unit's if there is one."""
    sign, (whole, part) = ("-" if nanos < 0 else ""), divmod(abs(nanos), NANOS_PER_UNIT)
    exponent = 0 if is_unit(currency) else minor_exponent(currency)
    digits = f"{part:09d}"
    digits = digits[:exponent] + digits[exponent:].rstrip("0")
    return f"{sign}{whole}{'.' + digits if digits else ''} {currency}"


def split_largest_remainder(total: int, weights: list[int]) -> list[int]:
    """Split an integer by weights so that the parts add up to it, the largest remainders first.

    Ties go to the earlier part. Example: 100 by [1, 1, 1] -> [34, 33, 33].

    Raises: ValueError where the weights are empty, negative or all zero.
    """
    mass = sum(weights)
    if mass <= 0 or min(weights) < 0:
        raise ValueError("weights must be non-negative and not all zero")
    floors = [total * weight // mass for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % mass), i))
    for index in order[: total - sum(floors)]:
        floors[index] += 1
    return floors
