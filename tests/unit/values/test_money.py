"""Money is rounded once, half away from zero, at the currency's own exponent."""

from __future__ import annotations

from fractions import Fraction

import pytest

from billing_core.errors import InvalidInput
from billing_core.values.money import (
    minor_exponent,
    nanos_of,
    round_half_away,
    show_minor,
    show_nanos,
    split_largest_remainder,
    to_minor,
    to_nanos,
)


@pytest.mark.parametrize(("currency", "exponent"), [("USD", 2), ("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)])
def test_a_currency_has_its_iso_exponent(currency: str, exponent: int) -> None:
    """Two digits for most, none for yen, three for dinars, four for a unit of account."""
    assert minor_exponent(currency) == exponent
    assert to_nanos(1, currency) == 10 ** (9 - exponent)
    assert to_minor(to_nanos(123, currency), currency) == 123


@pytest.mark.parametrize("currency", ["", "usd", "USX", "US", "DOLLAR", "../"])
def test_an_unknown_currency_is_refused(currency: str) -> None:
    """By the name of the field."""
    with pytest.raises(InvalidInput, match="ISO 4217") as caught:
        minor_exponent(currency)
    assert caught.value.field == "currency"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("0.5", 1),
        ("-0.5", -1),
        ("1.5", 2),
        ("2.5", 3),
        ("-2.5", -3),
        ("2.4999", 2),
        ("1/3", 0),
        ("-2/3", -1),
    ],
)
def test_half_goes_away_from_zero(value: str, expected: int) -> None:
    """In both directions, exactly at the half and not before it."""
    assert round_half_away(Fraction(value)) == expected


@pytest.mark.parametrize(
    ("nanos", "currency", "minor"),
    [
        (55_904_675_000, "USD", 5_590),
        (5_000_000, "USD", 1),
        (4_999_999, "USD", 0),
        (Fraction(29_999_999_999, 2), "JPY", 15),
        (500_000, "KWD", 1),
        (-5_000_000, "USD", -1),
    ],
)
def test_nanos_cross_to_minor_units_once(nanos: Fraction | int, currency: str, minor: int) -> None:
    """The worked example of the module, and the halves."""
    assert to_minor(nanos, currency) == minor


@pytest.mark.parametrize(
    ("text", "nanos"), [("0.0083", 8_300_000), ("-1", -(10**9)), ("0.00000000001", Fraction(1, 100))]
)
def test_decimal_text_is_read_exactly(text: str, nanos: Fraction | int) -> None:
    """No binary fraction ever stands between the words and the number."""
    assert nanos_of(text, field="amount") == nanos


@pytest.mark.parametrize("text", ["", "free", "NaN", "Infinity", "1e40", "1,5"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """By the name of the field."""
    with pytest.raises(InvalidInput) as caught:
        nanos_of(text, field="unit_amount")
    assert caught.value.field == "unit_amount"


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(1234, "USD", "12.34 USD"), (-5, "JPY", "-5 JPY"), (5, "USD", "0.05 USD"), (-5, "KWD", "-0.005 KWD")],
)
def test_minor_units_are_shown_at_their_exponent(minor: int, currency: str, text: str) -> None:
    """With a leading zero, the sign in front."""
    assert show_minor(minor, currency) == text


@pytest.mark.parametrize(
    ("nanos", "currency", "text"),
    [
        (935_000, "USD", "0.000935 USD"),
        (2_500_000_000, "USD", "2.50 USD"),
        (-1, "USD", "-0.000000001 USD"),
        (5_000_000_000, "JPY", "5 JPY"),
    ],
)
def test_nanos_are_shown_with_every_digit_that_counts(nanos: int, currency: str, text: str) -> None:
    """And at least those of the minor unit."""
    assert show_nanos(nanos, currency) == text


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (100, [1, 1, 1], [34, 33, 33]),
        (5, [0, 1], [0, 5]),
        (0, [3, 4], [0, 0]),
        (-100, [1, 1, 1], [-33, -33, -34]),
        (10, [1, 2, 4], [1, 3, 6]),
    ],
)
def test_a_split_adds_up_to_the_whole(total: int, weights: list[int], parts: list[int]) -> None:
    """The largest remainders first, ties to the earlier part."""
    found = split_largest_remainder(total, weights)
    assert sum(found) == total
    assert sorted(found) == sorted(parts)


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1, 5]])
def test_weights_that_are_none_are_refused(weights: list[int]) -> None:
    """Empty, all zero, or negative."""
    with pytest.raises(ValueError, match=r"weights|empty"):
        split_largest_remainder(10, weights)
